"""What a person sees while training: in 80 columns, with numbers of any size, and nothing that is out of date."""

import os
import re
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

import nexus
from nexus.cli import progress
from nexus.cli.live_table import fitting, live_lines, over_steps, plain_line, said_of_return, sparkline
from nexus.cli.progress import TrainView, somebody_looks_on, watching
from nexus.cli.standing import ReturnCurve, Standing, clock
from nexus.core.figures import figures
from nexus.core.period import Period
from nexus.core.state import State
from nexus.doctor.symptom import Symptom, critical, slight, warning
from nexus.listener import Listener, Plan
from nexus.training.evaluation import Evaluation
from nexus.training.logs import EpisodeTracker
from nexus.training.loop import Progress

TINY: dict[str, Any] = {
    "total_steps": 400,
    "num_envs": 2,
    "learning_starts": 64,
    "epsilon_steps": 300,
    "hidden_dim": 16,
    "log_every": "100 steps",
    "eval_episodes": 2,
    "eval_every": None,
    "target_return": None,
}


def named(check: str, symptom: Symptom) -> Symptom:
    return replace(symptom, check=check)


HALFWAY = Standing(
    steps=45_840,
    total=100_000,
    per_second=2060.4,
    seconds_left=26.3,
    return_steps=[5_000, 10_000, 15_000, 20_000, 25_000, 30_000, 35_000, 40_000],
    returns=[10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0],
    mean_return=71.8,
    age=None,
    explores="ε 0.02",
    loss=55.306,
    q_mean=54.3,
    predicted=54.0,
    realised=61.2,
    symptoms=(
        named("batch", slight("the batch is small", "", "")),
        named("target", critical("the targets are off by the reward of a step", "", "")),
        named("fit", warning("the network fits its targets worse than their mean would", "", "")),
        named("range", slight("目標が範囲外です" * 5, "", "")),
        named("horizon", slight("γ is 0.5", "", "")),
    ),
)


@pytest.mark.parametrize(
    ("values", "least", "shown"),
    [
        ((494.26, 12.1), 1, ["494.3", "12.1"]),
        ((0.00412, 0.01), 1, ["0.0041", "0.0100"]),
        ((-0.5,), 1, ["-0.500"]),
        ((12345.6,), 1, ["12,345.6"]),
        ((0.0,), 1, ["0.0"]),
        ((3e-7, 1e-9), 1, ["3.00e-07", "1.00e-09"]),
        ((4.3671,), 3, ["4.367"]),
        ((float("nan"), 0.02), 1, ["nan", "0.0200"]),
        ((float("inf"),), 1, ["inf"]),
    ],
)
def test_numbers_show_three_digits_whatever_their_size(values: tuple[float, ...], least: int, shown: list[str]) -> None:
    assert figures(*values, least=least) == shown


def test_the_first_parts_that_fit_are_shown() -> None:
    assert fitting(["return 1.0", "10 steps/s", "Q 1.0"], 22) == "return 1.0  10 steps/s"
    assert fitting(["return 1.0", "10 steps/s", "Q"], 21) == "return 1.0"
    assert fitting(["return 1.0"], 5) == ""


def test_the_table_at_80_columns() -> None:
    assert [line.plain for line in live_lines(HALFWAY, 80)] == [
        "training ━━━━━━━━━━━───────────── 45,840/100,000  0:00:26  2,060 steps/s",
        "return   ▁▁▁▁▁▂▂▂▂▂▃▃▃▃▃▄▄▄▄▄▅▅▅▅▅▆▆▆▆▆▇▇▇▇▇█████ 71.8  (▁ 10.0  █ 80.0)",
        "Q(s₀)    54.0 predicted, 61.2 realised (discounted, from first states)",
        "learning ε 0.02  loss 55.306  Q 54.3",
        "critical target: the targets are off by the reward of a step",
        "warning  fit: the network fits its targets worse than their mean would",
        "note     batch: the batch is small",
        "         2 more findings",
    ]


def test_the_table_at_40_columns() -> None:
    assert [
        line.plain for line in live_lines(HALFWAY, 40, evaluating="evaluating: 0 of 100 episodes, step 10,123")
    ] == [
        "training ━━━──── 45,840/100,000  0:00:26",
        "return   ▁▂▃▄▅▆▇█ 71.8  (▁ 10.0  █ 80.0)",
        "Q(s₀)    54.0 predicted, 61.2 realised",
        "learning ε 0.02  loss 55.306  Q 54.3",
        "evaluating: 0 of 100 episodes, step 10,…",
        "critical target: the targets are off by…",
        "warning  fit: the network fits its targ…",
        "note     batch: the batch is small",
        "         2 more findings",
    ]


def test_the_table_of_a_run_that_has_just_begun_in_ascii() -> None:
    begun = replace(
        HALFWAY, steps=0, seconds_left=None, per_second=0.0, returns=[], mean_return=None, loss=None, q_mean=None,
        predicted=None, realised=None, symptoms=(),
    )  # fmt: skip
    assert [line.plain for line in live_lines(begun, 80, ascii_only=True)] == [
        "training ------------------------ 0/100,000  -:--:--  0 steps/s",
        "return   -",
        "learning ε 0.02",
    ]
    assert [line.plain for line in live_lines(HALFWAY, 80, ascii_only=True)[:2]] == [
        "training ###########------------- 45,840/100,000  0:00:26  2,060 steps/s",
        "return   .....:::::-----=====+++++*****#####@@@@@ 71.8  (. 10.0  @ 80.0)",
    ]


@pytest.mark.parametrize("width", [0, 1, 5, 12, 20, 33, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    wide = replace(HALFWAY, symptoms=HALFWAY.symptoms[3:], age=10_000)
    for line in live_lines(wide, width, evaluating="evaluating: 0 of 100 episodes, step 7"):
        assert cell_len(line.plain) <= max(width, 1)
        assert "\n" not in line.plain


def test_a_plain_line_names_the_alarms_only() -> None:
    assert plain_line(HALFWAY) == (
        "step    45,840 of 100,000  return 71.8  2,060 steps/s  0:00:26 left  ε 0.02  loss 55.306  Q 54.3  "
        "Q(s₀) 54.0 (realised 61.2)  doctor: target, fit"
    )
    alarms = tuple(named(name, critical("", "", "")) for name in "abcde")
    assert plain_line(replace(HALFWAY, symptoms=alarms)).endswith("  doctor: a, b, c and 2 more")
    fresh = replace(HALFWAY, predicted=None, realised=None, symptoms=(), loss=None, q_mean=None)
    assert plain_line(fresh) == "step    45,840 of 100,000  return 71.8  2,060 steps/s  0:00:26 left  ε 0.02"


@pytest.mark.parametrize(
    ("values", "lowest", "highest", "drawn"),
    [
        ([], 0.0, 0.0, ""),
        ([1.0, 2.0], 1.0, 2.0, "▁█"),
        ([1.0, 2.0], 1.0, 3.0, "▁▅"),
        ([5.0, 5.0, 5.0], 5.0, 5.0, "▅▅▅"),
        ([0.0, 3.9, 4.1, 8.0], 0.0, 8.0, "▁▄▅█"),
        ([-1e-9, 1e9], -1e-9, 1e9, "▁█"),
    ],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest_value(
    values: list[float], lowest: float, highest: float, drawn: str
) -> None:
    assert sparkline(values, lowest, highest) == drawn


def test_a_curve_is_drawn_over_steps_and_not_over_episodes() -> None:
    steps, returns = [10, 20, 30, 40, 100], [1.0, 3.0, 2.0, 6.0, 9.0]
    # Columns of 25 steps: the mean of two, of two, of none (the episode that ends at 100 is under way), of one.
    assert over_steps(steps, returns, 4) == [2.0, 4.0, 9.0, 9.0]
    assert over_steps([30, 30], [1.0, 2.0], 3) == [1.0, 1.0, 1.5]


def test_a_curve_halves_its_points_when_it_is_full() -> None:
    curve = ReturnCurve()
    for episode in range(128):
        curve.add(10 * (episode + 1), float(episode))
    assert curve.per_point == 2
    assert curve.steps == [20 * point for point in range(1, 65)]
    assert curve.means == [2 * point + 0.5 for point in range(64)]
    curve.add(1_300, 7.0)
    assert (curve.steps[-1], curve.means[-1]) == (1_300, 7.0)  # of one episode so far
    curve.add(1_310, 8.0)
    assert (len(curve.steps), curve.steps[-1], curve.means[-1]) == (65, 1_310, 7.5)


def test_a_rollback_drops_what_came_later() -> None:
    curve = ReturnCurve()
    for step, value in [(10, 1.0), (20, 2.0), (30, 3.0), (15, 7.0), (15, 9.0)]:
        curve.add(step, value)
    assert (curve.steps, curve.means) == ([10, 15, 15], [1.0, 7.0, 9.0])


def test_a_resumed_run_begins_with_its_earlier_returns(tmp_path: Path) -> None:
    run = nexus.train("CartPole-v1", run_dir=tmp_path / "run", verbose=False, **TINY)
    with TrainView() as view:
        nexus.resume(run, total_steps=500, listener=view)
    lines = (run.run_dir / "episodes.csv").read_text().splitlines()[1:]
    assert view.gauge.curve.steps == [int(line.split(",")[0]) for line in lines]
    assert view.gauge.curve.means == [float(line.split(",")[2]) for line in lines]
    assert view.gauge.curve.steps[0] < 400 < view.gauge.curve.steps[-1]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "-:--:--"), (0.4, "0:00:00"), (59.6, "0:01:00"), (3_725.0, "1:02:05"), (400_000.0, "111:06:40")],
)
def test_a_duration_is_read_like_a_clock(seconds: float | None, said: str) -> None:
    assert clock(seconds) == said


class Drawn(TrainView):
    """Keeps what its table looked like after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[list[str]] = []

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        super().on_step(progress, episodes)
        self.keep()

    def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
        super().on_evaluation_step(steps, ended, episodes)
        self.keep()

    def keep(self) -> None:
        lines = self.console.render_lines(self.look(), pad=False)
        self.looks.append(["".join(part.text for part in line) for line in lines])


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to be a terminal of 80 columns, and refresh at each step."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(progress, "REFRESH", 0)
    monkeypatch.setattr(progress, "MOST_SHARE", float("inf"))
    monkeypatch.setattr(progress, "is_live", lambda console: True)


def test_slow_drawing_is_done_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("nexus.cli.progress.time.perf_counter", lambda: now)
    view = TrainView()
    for cost, seconds in [
        (0.0, 0.5),
        (0.004, 0.5),
        (0.02, 2.0),
        (1.0, 5.0),
    ]:  # a hundred times the cost, from half a second to five
        view.shown_at, view.cost = now, cost
        now += seconds - 0.01
        assert not view.refresh_due()
        now += 0.02
        assert view.refresh_due()


@pytest.mark.parametrize("total_steps", [400, 50_000_000])
def test_steps_and_time_left_fit_80_columns(total_steps: int, terminal: None, tmp_path: Path) -> None:
    class Short(Drawn):
        def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
            super().on_step(progress, episodes)
            if progress.counters.steps >= 300:
                raise KeyboardInterrupt

    settings = {**TINY, "total_steps": total_steps}
    with Short() as view, suppress(KeyboardInterrupt):  # as whoever pressed Ctrl-C expects
        nexus.train("CartPole-v1", run_dir=tmp_path / "run", listener=view, **settings)
    assert len(view.looks) > 100
    assert max(len(line) for look in view.looks for line in look) <= 80
    bar, returns, *_ = view.looks[-1]
    assert f" {view.shown_steps}/{total_steps:,} " in bar
    assert ":" in bar.split(f"/{total_steps:,} ")[1][:8]  # time left
    assert returns.startswith("return   ")
    assert all("…" not in line for look in view.looks for line in look if "/" in line)


@pytest.mark.parametrize(
    ("mean", "age", "said"),
    [(None, None, "-"), (0.004, None, "0.00400"), (7.0, None, "7.00"), (7.0, 1201, "7.00 (1,201 steps ago)")],
)
def test_an_old_return_is_marked(mean: float | None, age: int | None, said: str) -> None:
    assert said_of_return(replace(HALFWAY, mean_return=mean, age=age)) == said


def test_the_age_counts_from_the_last_episode_that_ended(terminal: None, tmp_path: Path) -> None:
    class Seen(Drawn):
        def __init__(self) -> None:
            super().__init__()
            self.ends: list[tuple[int, int]] = []

        def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
            super().on_step(progress, episodes)
            if progress.counters.episodes > progress.before.episodes:
                self.ends.append((progress.counters.steps, self.gauge.ended_at))

    with Seen() as view:
        nexus.train("CartPole-v1", run_dir=tmp_path / "run", listener=view, **TINY)
    assert len(view.ends) > 3
    assert all(steps == ended_at for steps, ended_at in view.ends)
    played = [look for look in view.looks if not any("evaluating" in line for line in look)]
    assert "return   -" in played[0]
    assert "return   -" not in played[-1]
    assert "evaluating: 0 of 2 episodes, step 1" in {line for look in view.looks for line in look}


def train_for_target(run_dir: Path, eval_every: str) -> None:
    """Train towards a return that CartPole soon gives, and say so as the command does."""
    settings = {**TINY, "eval_every": eval_every, "target_return": 5.0}
    with TrainView() as view:
        nexus.train("CartPole-v1", run_dir=run_dir, listener=view, **settings)


def test_a_target_that_ends_the_run_is_said_with_the_reason_for_two_evaluations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_for_target(tmp_path / "run", "100 steps")
    lines = [line for line in capsys.readouterr().out.splitlines() if "evaluation" in line]
    assert len(lines) == 3
    assert lines[0].startswith("evaluation after 1")
    assert lines[1].startswith("That reaches the target return of 5, which ends the run. Its score is that of a second")
    assert ", on different episodes: " in lines[2]


def test_a_target_that_is_not_reached_before_the_end_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_for_target(tmp_path / "run", "1000 steps")
    assert "target return" not in capsys.readouterr().out


def test_a_target_that_is_reached_with_the_last_step_is_said_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**TINY, "eval_every": "400 steps", "target_return": 5.0}
    with TrainView() as view:
        result = nexus.train("CartPole-v1", run_dir=tmp_path / "run", listener=view, **settings)
        view.finish(result)
    said = capsys.readouterr().out
    assert result.reached_target
    assert said.count("evaluation after 4") == 2
    assert (
        said.count("The target return of 5 was reached. The last score is that of a second evaluation, on different")
        == 1
    )
    assert "which ends the run" not in said


def test_a_program_may_show_how_a_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = nexus.train("CartPole-v1", run_dir=tmp_path / "run", **TINY).run_dir
    told = Counting()
    capsys.readouterr()
    nexus.resume(run, total_steps=420, listener=told)
    assert capsys.readouterr().out == ""
    nexus.resume(run, total_steps=440, listener=told, verbose=True)
    said = capsys.readouterr().out
    assert "Continuing from step 420" in said
    assert f"Run saved in {run}" in said
    assert "Next:" not in said
    assert told.told["start"] == told.told["evaluation"] == 2


def test_a_listener_is_the_same_with_and_without_the_console(tmp_path: Path) -> None:
    class Every(Listener):
        every = Period.parse("100 steps")

        def __init__(self) -> None:
            self.seen: list[int] = []
            self.kept: Any = None

        def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
            self.seen.append(progress.counters.steps)

        def get_state(self) -> State:
            return {"seen": len(self.seen)}

        def set_state(self, state: State) -> None:
            self.kept = state

        def on_notice(self, text: str) -> None:
            """Schedules are stretched."""

    for verbose in (True, False):
        first, second = Every(), Every()
        run = tmp_path / str(verbose)
        nexus.train("CartPole-v1", run_dir=run, listener=first, verbose=verbose, **TINY)
        assert len(first.seen) == 4
        nexus.resume(run, total_steps=500, listener=second, verbose=not verbose)
        assert second.kept == {"seen": 4}
        assert len(second.seen) == 1


class Counting(Listener):
    def __init__(self) -> None:
        self.told: dict[str, int] = {}

    def count(self, what: str) -> None:
        self.told[what] = self.told.get(what, 0) + 1

    def on_start(self, plan: Plan) -> None:
        self.count("start")

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        self.count("step")

    def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
        self.count("evaluation step")

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        self.count("evaluation")

    def on_notice(self, text: str) -> None:
        self.count("notice")


@pytest.mark.parametrize("own", [None, Counting()])
@pytest.mark.parametrize("verbose", [True, False, None])
def test_a_program_may_show_its_runs(
    verbose: bool | None, own: Counting | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with watching(own, verbose) as (listener, finish):
        result = nexus.train("CartPole-v1", run_dir=tmp_path / "run", listener=listener, **TINY)
        listener.on_notice("x") if own is not None else None
        finish(result)
    said = capsys.readouterr().out
    assert bool(said) == bool(verbose)  # here is no terminal
    if verbose:
        assert f"Run saved in {result.run_dir}" in said
        assert "Next:" not in said
        assert "step " in said
    if own is not None:
        assert own.told["start"] == own.told["evaluation"] == own.told["notice"]
        assert own.told["step"] >= 200
        assert own.told["evaluation step"] >= 8


def test_who_looks_on_sees_a_run_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not somebody_looks_on()
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert somebody_looks_on()
    with watching(Listener(), None) as (listener, _):
        assert type(listener) is Listener


CONTROL = "\x1b[2K"  # clears a line


def trained_in_a_terminal(folder: Path, **environment: str) -> str:
    """Return all that the command writes to a terminal of 80 columns."""
    import fcntl
    import pty
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    unset = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    known = {name: value for name, value in os.environ.items() if name not in unset}
    words = ["train", "CartPole-v1", "--total-steps", "4000", "--eval-episodes", "2", "--run-dir", str(folder)]
    command = [sys.executable, "-m", "nexus", *words]
    with subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env={**known, "TERM": "xterm", **environment}
    ) as process:
        os.close(follower)
        written = b""
        with suppress(OSError):  # which is how Linux says that the other end was closed
            while part := os.read(leader, 65536):
                written += part
    os.close(leader)
    assert process.returncode == 0
    return written.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_terminal_draws_the_table_in_place(tmp_path: Path) -> None:
    written = trained_in_a_terminal(tmp_path / "run", NO_COLOR="1")
    assert CONTROL in written
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert re.search(r"\ntraining ━*─+ [\d,]+/4,000  -?\d?:[\d-]{2}:[\d-]{2}  [\d,]+ steps/s\r\n", f"\n{drawn}")
    assert "\nlearning ε " in drawn
    assert "\nstep " not in drawn
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", written)  # no colour


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_terminal_that_can_draw_nothing_gets_lines(tmp_path: Path) -> None:
    written = trained_in_a_terminal(tmp_path / "run", TERM="dumb")
    assert "\x1b" not in written
    steps = [line for line in written.splitlines() if line.startswith("step ")]
    assert len(steps) == 4  # one per log period, 1,000 steps, at most


def test_a_file_gets_one_line_per_log_period_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lines_with(**settings: Any) -> list[str]:
        name = str(len(list(tmp_path.iterdir())))
        with TrainView() as view:
            nexus.train("CartPole-v1", run_dir=tmp_path / name, listener=view, **{**TINY, **settings})
        said = capsys.readouterr().out
        assert "\x1b" not in said
        return [line.split(" of ")[0] for line in said.splitlines() if line.startswith("step ")]

    monkeypatch.setenv("FORCE_COLOR", "1")  # asks for colours, not for a table that is drawn in place
    monkeypatch.setattr(progress, "SILENCE", 3600.0)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert lines_with(log_every="10 steps") == [f"step {step:>9}" for step in range(40, 401, 40)]
    assert lines_with(log_every="150 steps") == [f"step {step:>9}" for step in (150, 300)]
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    assert lines_with(log_every="20 steps") == [f"step {step:>9}" for step in range(20, 401, 20)]


def test_a_long_folder_is_shown_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = tmp_path / "[bold]" / ("x" * 70)
    with TrainView() as view:
        nexus.train("CartPole-v1", run_dir=run, listener=view, **TINY)
    said = capsys.readouterr().out
    assert "…" not in said
    assert str(run) in said.replace("\n", "").replace(" ", "")
