"""What a person sees while training: in 80 columns, with numbers of any size, and nothing that is out of date."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import nexus
from nexus.cli import progress
from nexus.cli.progress import TrainView, fitting, somebody_looks_on, watching
from nexus.core.figures import figures
from nexus.core.period import Period
from nexus.core.state import State
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
    "eval_episodes": 2,
    "eval_every": None,
    "target_return": None,
}


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


class Drawn(TrainView):
    """Keeps what its bar looked like after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[str] = []

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        super().on_step(progress, episodes)
        self.look()

    def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
        super().on_evaluation_step(steps, ended, episodes)
        self.look()

    def look(self) -> None:
        table = self.bar.make_tasks_table(self.bar.tasks)
        self.looks += ["".join(part.text for part in line) for line in self.console.render_lines(table, pad=False)]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to be a terminal of 80 columns, and refresh at each step."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(progress, "REFRESH", 0)


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
    assert max(map(len, view.looks)) <= 80
    assert f" {view.shown_steps}/{total_steps:,} " in view.looks[-1]
    assert ":" in view.looks[-1].split(f"/{total_steps:,} ")[1][:8]  # time left
    assert "return " in view.looks[-1]
    assert "…" not in "".join(view.looks)


def tracker(*returns: float) -> EpisodeTracker:
    episodes = EpisodeTracker(1)
    episodes.returns.extend(returns)
    return episodes


def test_a_return_is_no_older_than_it_is_said_to_be() -> None:
    view = TrainView()
    view.total, view.ended_at = 1000, 300
    assert view.last_return(400, tracker()) == "return -"
    assert view.last_return(400, tracker(0.004)) == "return 0.00400"
    assert view.last_return(500, tracker(7.0)) == "return 7.00"
    assert view.last_return(501, tracker(7.0)) == "return 7.00 (201 steps ago)"


def test_the_age_counts_from_the_last_episode_that_ended(terminal: None, tmp_path: Path) -> None:
    class Seen(Drawn):
        def __init__(self) -> None:
            super().__init__()
            self.ends: list[tuple[int, int]] = []

        def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
            super().on_step(progress, episodes)
            if progress.counters.episodes > progress.before.episodes:
                self.ends.append((progress.counters.steps, self.ended_at))

    with Seen() as view:
        nexus.train("CartPole-v1", run_dir=tmp_path / "run", listener=view, **TINY)
    assert len(view.ends) > 3
    assert all(steps == ended_at for steps, ended_at in view.ends)
    played = [look for look in view.looks if "evaluating" not in look]
    assert "return -" in played[0]
    assert "return -" not in played[-1]
    assert "evaluating: 0 of 2 episodes" in "".join(view.looks)


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
    with monkeypatch.context() as terminal:
        terminal.setenv("FORCE_COLOR", "1")
        assert somebody_looks_on()
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert somebody_looks_on()
    with watching(Listener(), None) as (listener, _):
        assert type(listener) is Listener


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
