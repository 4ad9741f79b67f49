"""Studies: which runs they have, and that neither processes nor kills change a bit of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import nexus
from nexus.cli.main import main
from nexus.cli.study_view import study_lines
from nexus.core.errors import ConfigError, RunError, result_of
from nexus.studies.crew import StudyProgress, StudyRun, StudyView
from nexus.studies.plan import plan_of, planned_runs, run_name, seeds_from
from nexus.studies.processes import Ended, LocalProcess, RunJob, RunProcess
from nexus.studies.studying import StudyResult, asked_of, carried_out
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.files import read_json
from nexus.training.run_folder import locked
from tests.chaos import differences

ENV = "CartPole-v1"
SHORT: dict[str, Any] = {
    "total_steps": 600,
    "learning_starts": 40,
    "hidden_dim": 8,
    "batch_size": 16,
    "num_envs": 1,
    "epsilon_steps": 200,
    "log_every": "100 steps",
    "checkpoint_every": "100 steps",
    "eval_every": None,
    "eval_episodes": 2,
    "target_return": None,
}
LONG = SHORT | {"total_steps": 3_000}  # long enough to be met in the middle
FLAGS = [f"--{name.replace('_', '-')}={'none' if value is None else value}" for name, value in SHORT.items()]
N_STEP = {"n_step": [1, 3]}


class Pooled:
    """A process that is kept for the next test, since importing torch takes seconds."""

    def __init__(self, pool: list[LocalProcess]) -> None:
        self.pool = pool
        self.process = next((kept for kept in pool if kept.is_usable), None) or LocalProcess()
        pool[:] = [kept for kept in pool if kept is not self.process]
        self.stopped = False

    @property
    def steps(self) -> int:
        return self.process.steps

    @property
    def is_usable(self) -> bool:
        return self.process.is_usable

    def begin(self, job: RunJob) -> None:
        self.process.begin(job)

    def poll(self) -> Ended | None:
        return self.process.poll()

    def stop(self) -> None:
        self.stopped = True
        self.process.stop()

    def end(self, at_once: bool) -> None:
        if at_once or self.stopped or not self.is_usable:
            self.process.end(at_once)
        else:
            self.pool.append(self.process)


class PooledPlace:
    def __init__(self) -> None:
        self.pool: list[LocalProcess] = []
        self.started: list[RunProcess] = []

    def process(self) -> RunProcess:
        self.started.append(Pooled(self.pool))
        return self.started[-1]


class At(StudyView):
    """Does something once, when a run in progress has taken some steps."""

    def __init__(self, steps: int, then: Callable[[], None]) -> None:
        self.steps = steps
        self.then: Callable[[], None] | None = then
        self.begun: list[str] = []

    def on_run(self, run: StudyRun, progress: StudyProgress) -> None:
        if run.state == "running":
            self.begun.append(run.name)

    def on_tick(self, progress: StudyProgress) -> None:
        if self.then is not None and any(run.steps >= self.steps for run in progress.those("running")):
            then, self.then = self.then, None
            then()


@pytest.fixture(scope="module")
def pool() -> Iterator[PooledPlace]:
    place = PooledPlace()
    yield place
    for process in place.pool:
        process.end(at_once=True)


@pytest.fixture
def place(pool: PooledPlace, monkeypatch: pytest.MonkeyPatch) -> PooledPlace:
    monkeypatch.setattr("nexus.studies.studying.ThisMachine", lambda: pool)
    pool.started.clear()
    return pool


def studied(
    folder: Path,
    vary: Mapping[str, Any] = N_STEP,
    seeds: Any = (0, 1),
    *,
    jobs: int = 1,
    view: StudyView | None = None,
    retry_failed: bool = False,
    settings: Mapping[str, Any] = SHORT,
) -> StudyResult:
    asked = asked_of(ENV, seeds, vary, folder, "plain", settings)
    return carried_out(asked, folder, jobs, retry_failed, StudyView() if view is None else view)


def by_hand(folder: Path, settings: Mapping[str, Any] = SHORT, **more: Any) -> Path:
    return nexus.train(ENV, preset="plain", run_dir=folder, verbose=False, **{**settings, **more}).run_dir


def status(folder: Path) -> str:
    return str(read_json(folder / "run.json")["status"])


# Which runs.


def test_a_study_has_every_combination_on_every_seed_settings_first() -> None:
    plan = plan_of(ENV, 2, {"algorithm": ["dqn", "rainbow"], "n_step": [1, 5]}, SHORT)
    runs = planned_runs(plan)
    assert [run.name for run in runs] == [
        "algorithm=dqn-n_step=1-seed=0",
        "algorithm=dqn-n_step=5-seed=0",
        "algorithm=rainbow-n_step=1-seed=0",
        "algorithm=rainbow-n_step=5-seed=0",
        "algorithm=dqn-n_step=1-seed=1",
        "algorithm=dqn-n_step=5-seed=1",
        "algorithm=rainbow-n_step=1-seed=1",
        "algorithm=rainbow-n_step=5-seed=1",
    ]
    assert [(run.config.algorithm, run.config.n_step, run.config.seed) for run in runs[2:6]] == [
        ("rainbow", 1, 0),
        ("rainbow", 5, 0),
        ("dqn", 1, 1),
        ("dqn", 5, 1),
    ]
    assert (runs[0].config.prioritized, runs[2].config.prioritized) == (False, True)  # the algorithm's own settings
    assert {run.config.hidden_dim for run in runs} == {8}
    assert [run.name for run in planned_runs(plan_of(ENV, [7], None, SHORT))] == ["seed=7"]


def test_values_are_kept_as_the_runs_have_them() -> None:
    plan = plan_of(ENV, 1, {"lr": [1, 0.5], "update_every": ["8 steps", None], "double": [True]}, {"n_step": 3.0})
    assert plan.vary == {"learning_rate": (1.0, 0.5), "update_every": ("8 steps", None), "double": (True,)}
    assert plan.settings == {"n_step": 3}
    assert json.dumps(plan.settings["n_step"]) == "3"


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        (3, (0, 1, 2)),
        ("3", (0, 1, 2)),
        ("300-303", (300, 301, 302, 303)),
        ("5,1,8-9", (5, 1, 8, 9)),
        ("7-7", (7,)),
        ([4, 2], (4, 2)),
        (range(2, 4), (2, 3)),
    ],
)
def test_seeds_are_a_number_or_the_seeds(given: Any, seeds: tuple[int, ...]) -> None:
    assert seeds_from(given) == seeds


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (
            {"learning_rate": 0.0005, "double": True, "update_every": None},
            "learning_rate=0.0005-double=true-update_every=none",
        ),
        ({"target_update_every": "500 updates"}, "target_update_every=500_updates"),
        ({"torso": "my_nets:Torso"}, "torso=my_nets_Torso+"),
        ({"torso": "../../etc"}, "torso=.._.._etc+"),
        ({"algorithm": "a" * 200}, f"algorithm={'a' * 24}+"),
    ],
)
def test_names_of_folders_are_readable_and_safe(values: dict[str, Any], name: str) -> None:
    found = run_name(values, 3)
    assert found.startswith(name)
    assert found.endswith("-seed=3")
    assert "/" not in found
    assert len(found) < 80
    if name.endswith("+"):
        changed = {key: f"{value}x" for key, value in values.items()}
        assert run_name(changed, 3) != found  # though the readable part may be the same
    else:
        assert found == f"{name}-seed=3"


# What happens to them.


@pytest.fixture(scope="module")
def whole(pool: PooledPlace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four runs, one at a time."""
    folder = tmp_path_factory.mktemp("study") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nexus.studies.studying.ThisMachine", lambda: pool)
        result = studied(folder)
    assert [run.state for run in result.runs] == ["finished"] * 4
    assert result.exit_code == 0
    return folder


NAMES = ["n_step=1-seed=0", "n_step=3-seed=0", "n_step=1-seed=1", "n_step=3-seed=1"]


def test_its_runs_are_those_of_nexus_train(whole: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in whole.iterdir() if path.name != ".lock") == sorted([*NAMES, "study.json"])
    alone = by_hand(tmp_path / "run", n_step=3, seed=1)
    assert differences(whole / "n_step=3-seed=1", alone) == []
    assert differences(whole / "n_step=3-seed=0", alone) != []
    about, hand = (read_json(folder / "run.json") for folder in (whole / "n_step=3-seed=1", alone))
    assert {key: about[key] for key in ("env", "preset", "config", "weights")} == {
        key: hand[key] for key in ("env", "preset", "config", "weights")
    }


def test_study_json_says_what_was_asked(whole: Path) -> None:
    said = read_json(whole / "study.json")
    assert said["format"] == 1
    assert (said["env"], said["preset"], said["seeds"]) == (ENV, "plain", [0, 1])
    assert (said["vary"], said["settings"]) == (N_STEP, SHORT)
    assert said["versions"]["nexus"] == nexus.__version__


def test_the_number_of_jobs_changes_no_bit(whole: Path, place: PooledPlace, tmp_path: Path) -> None:
    result = studied(tmp_path / "two", jobs=2)
    assert len(place.started) == 2
    assert [run.state for run in result.runs] == ["finished"] * 4
    assert [name for name in NAMES if differences(whole / name, tmp_path / "two" / name)] == []


def test_more_seeds_and_values_are_added_and_finished_runs_stay(
    whole: Path, place: PooledPlace, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    first = At(10**9, lambda: None)
    studied(folder, {"n_step": [3]}, [1], view=first)
    before = (folder / "n_step=3-seed=1" / "run.json").stat().st_mtime_ns
    more = At(10**9, lambda: None)
    studied(folder, {"n_step": [1]}, [0, 1], view=more)
    assert first.begun == ["n_step=3-seed=1"]
    assert more.begun == ["n_step=1-seed=1", "n_step=3-seed=0", "n_step=1-seed=0"]
    assert (folder / "n_step=3-seed=1" / "run.json").stat().st_mtime_ns == before
    assert read_json(folder / "study.json")["seeds"] == [1, 0]
    assert [name for name in NAMES if differences(whole / name, folder / name)] == []
    nothing = At(10**9, lambda: None)
    assert [run.state for run in studied(folder, {"n_step": [1]}, None, view=nothing).runs] == ["finished"] * 4
    assert nothing.begun == []


def test_a_killed_study_goes_on_bit_for_bit(place: PooledPlace, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    flags = [f"--{name.replace('_', '-')}={'none' if value is None else value}" for name, value in LONG.items()]
    words = ["study", ENV, "--preset=plain", "--vary=n_step=1,3", "--seeds=4-4", "--jobs=1", f"--folder={folder}"]
    study = subprocess.Popen([sys.executable, "-m", "nexus", *words, *flags], stdout=subprocess.DEVNULL)
    checkpoints = folder / "n_step=1-seed=4" / "checkpoints"
    deadline = time.monotonic() + 300
    while not Checkpoints(checkpoints.parent, keep=1).present():  # a whole one
        assert study.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    study.kill()
    assert study.wait() == -signal.SIGKILL
    assert not (folder / "n_step=3-seed=4").exists()
    (checkpoints.parent / "mark").touch()  # gone if the run starts over
    again = At(10**9, lambda: None)
    result = studied(folder, seeds=[4], view=again, settings=LONG)
    assert again.begun == ["n_step=1-seed=4", "n_step=3-seed=4"]
    assert [run.state for run in result.runs] == ["finished", "finished"]
    assert result.runs[0].steps_before > 0
    assert (checkpoints.parent / "mark").exists()
    for n_step in (1, 3):
        alone = by_hand(tmp_path / f"{n_step}", LONG, n_step=n_step, seed=4)
        assert differences(folder / f"n_step={n_step}-seed=4", alone) == []


def test_a_killed_process_is_replaced_and_its_run_resumed(place: PooledPlace, tmp_path: Path) -> None:
    def kill() -> None:
        process = place.started[-1]
        assert isinstance(process, Pooled)
        (tmp_path / "study" / "n_step=3-seed=4" / "mark").touch()
        os.killpg(process.process.popen.pid, signal.SIGKILL)

    view = At(500, kill)
    result = studied(tmp_path / "study", {"n_step": [3]}, [4], view=view, settings=LONG)
    assert view.then is None
    assert view.begun == ["n_step=3-seed=4"] * 2
    assert (tmp_path / "study" / "n_step=3-seed=4" / "mark").exists()
    assert [run.state for run in result.runs] == ["finished"]
    alone = by_hand(tmp_path / "run", LONG, n_step=3, seed=4)
    assert differences(tmp_path / "study" / "n_step=3-seed=4", alone) == []


def test_ctrl_c_saves_the_runs_and_says_how_to_go_on(
    place: PooledPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = LONG | {"epsilon_steps": 3_000}  # with a notice, which is no error
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        view = At(500, lambda: signal.raise_signal(signal.SIGINT))
        stopped = studied(tmp_path / "study", seeds=[4], jobs=2, view=view, settings=noted)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.stopped_by is signal.SIGINT
    assert stopped.exit_code == 130
    assert {run.state for run in stopped.runs} <= {"begun", "left"}
    assert [status(run.folder) for run in stopped.runs if run.state == "begun"] != []
    for run in stopped.runs:
        assert not run.folder.exists() or status(run.folder) == "interrupted"
    assert main(["study", "--folder", str(tmp_path / "study")]) == 0
    assert "resumed from step" in capsys.readouterr().out
    for n_step in (1, 3):
        alone = by_hand(tmp_path / f"{n_step}", noted, n_step=n_step, seed=4)
        assert differences(tmp_path / "study" / f"n_step={n_step}-seed=4", alone) == []


def test_from_python_ctrl_c_raises_with_the_result(place: PooledPlace, tmp_path: Path, monkeypatch: Any) -> None:
    def stopped(*_: Any) -> StudyResult:
        return StudyResult(tmp_path, [], signal.SIGINT)

    monkeypatch.setattr("nexus.studies.studying.carried_out", stopped)
    with pytest.raises(KeyboardInterrupt, match=f"study --folder {tmp_path} goes on") as stop:
        nexus.study(ENV, seeds=1, folder=tmp_path / "study", verbose=False)
    assert isinstance(result_of(stop.value), StudyResult)


def test_a_run_that_fails_stops_no_other_and_is_tried_again_only_on_request(
    whole: Path, place: PooledPlace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    words = ["study", ENV, "--preset=plain", "--vary=reward_clip=1,1e38", "--vary=learning_rate=1e37,0.001"]
    words += ["--seeds=1", "--jobs=1", f"--folder={folder}", *FLAGS]
    failing, good = "reward_clip=1.0-learning_rate=1e+37-seed=0", "reward_clip=1.0-learning_rate=0.001-seed=0"
    assert main(words) == 1
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith(f"Failed: {failing}: "))
    assert ": diverged at step " in line
    assert status(folder / failing) == "diverged"
    assert status(folder / good) == "finished"
    assert "--retry-failed" in said.splitlines()[-1]
    began = len(place.started)
    assert main(words) == 1
    assert len(place.started) == began
    assert line in capsys.readouterr().out
    assert main([*words, "--retry-failed"]) == 1
    assert len(place.started) == began + 1
    assert line in capsys.readouterr().out


def test_it_ends_with_the_comparison_and_where_to_read_more(
    whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["study", "--folder", str(whole)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Study in {whole}: 4 runs, 4 finished\n")
    assert "CartPole-v1: evaluation of the final weights" in said
    assert "n_step=3" in said
    assert "nothing can be\n  concluded" in said
    more, page = said.splitlines()[-2:]
    assert more.endswith(f"compare {whole}")
    assert page.endswith(f"report {whole}")
    comparison = nexus.compare(whole)
    assert {label: len(runs) for label, runs in comparison.envs[0].groups.items()} == {"n_step=1": 2, "n_step=3": 2}
    text = nexus.report(whole, tmp_path / "page.html").read_text("utf-8")
    assert all(name in text for name in NAMES)
    assert "Performance profile" in text


# What is refused.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "name an environment first, as in: nexus study CartPole-v1"),
        ("--folder nowhere", "nowhere has no study: name an environment"),
        ("NoSuch-v0", "no environment 'NoSuch-v0'"),
        ("CartPole-v1 --seeds 0", "seeds = 0: needs 1 to"),
        ("CartPole-v1 --seeds 3-1", "seeds = '3-1': needs their number, as in 10, or the seeds"),
        ("CartPole-v1 --seeds 1,2,1", "seeds: 1 is there twice"),
        ("CartPole-v1 --seed 3", "seed: a study has several; give them as seeds, as in --seeds 10"),
        ("CartPole-v1 --vary seed=1,2", "seed: a study has several"),
        ("CartPole-v1 --vary n_steps=1,3", "unknown setting 'n_steps'; did you mean n_step"),
        ("CartPole-v1 --vary n_step=1,0", "n_step = 0: needs at least 1"),
        ("CartPole-v1 --vary n_step=1,1.0", "vary: n_step has 1 twice"),
        ("CartPole-v1 --vary n_step", "vary = 'n_step': needs a setting and its values, as in n_step=1,3,5"),
        ("CartPole-v1 --vary n_step=1 --vary n_step=2", "vary: n_step is there twice: give all values at once"),
        ("CartPole-v1 --vary wrappers=[1", "vary: wrappers = [1 is not a JSON list"),
        ("CartPole-v1 --n-step 3 --vary n_step=1", "n_step is varied and given as well: give it once"),
        (
            "CartPole-v1 --vary algorithm=dqn,pqn --vary n_step=3",
            "algorithm=pqn, n_step=3: n_step = 3: needs 1 with pqn",
        ),
        ("CartPole-v1 --vary torso=mlp,nature_cnn", "torso = 'nature_cnn': needs images of 36 x 36 or more, got (4,)"),
        ("CartPole-v1 --jobs 0", "jobs = 0: needs at least 1"),
        ("CartPole-v1 --study nothing.json", "can't read nothing.json"),
        ("--study odd.json", "odd.json has an entry 'n_step': a study has env, preset, settings, vary, seeds"),
        ("--study list.json", "list.json has vary = [1]: needs an object with a list for each setting"),
        ("--study new.json", "new.json has format 2, this nexus reads up to 1: update nexus"),
        ("CartPole-v1 --folder full", "full is not empty and has no study: name a new folder with --folder"),
        ("CartPole-v1 --folder odd.json", "odd.json is a file: a study needs a folder"),
        ("CartPole-v1 --retry-fail", "unknown option --retry-fail; did you mean --retry-failed"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "odd.json": '{"env": "CartPole-v1", "n_step": 3}',
        "list.json": '{"env": "CartPole-v1", "vary": [1]}',
        "new.json": '{"env": "CartPole-v1", "format": 2}',
        "full/notes.txt": "mine",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    assert main(["study", *words.split()]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("nexus: error: ")
    assert error.count("\n") == 1
    assert said in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"env": "Acrobot-v1"}, "has a study of CartPole-v1, not of Acrobot-v1: name another folder with --folder"),
        ({"preset": "general"}, "has a study with preset plain, not general"),
        ({"settings": SHORT | {"batch_size": 32}}, "has a study with batch_size = 16, not 32"),
        ({"settings": SHORT | {"gamma": 0.9}}, "has a study with gamma = as the preset has it, not 0.9"),
        ({"vary": {}}, "has a study that varies n_step, not no setting"),
        ({"vary": {"double": [True]}}, "has a study that varies n_step, not double"),
    ],
)
def test_what_contradicts_the_study_is_refused(more: dict[str, Any], said: str, whole: Path) -> None:
    before = (whole / "study.json").read_bytes()
    given = {"env": ENV, "preset": "plain", "settings": SHORT, "vary": N_STEP} | more
    asked = asked_of(given["env"], None, given["vary"], whole, given["preset"], given["settings"])
    with pytest.raises(ConfigError) as refusal:
        carried_out(asked, whole, 1, False, StudyView())
    assert said in str(refusal.value)
    assert (whole / "study.json").read_bytes() == before


def test_two_studies_in_one_folder_are_refused(whole: Path) -> None:
    with locked(whole), pytest.raises(RunError, match=f"another process is writing to {whole}"):
        studied(whole)


def test_a_run_that_is_not_the_studys_is_refused(tmp_path: Path, place: PooledPlace) -> None:
    folder = tmp_path / "study"
    studied(folder, {"n_step": [1]}, [0])
    (folder / "n_step=1-seed=0").rename(folder / "n_step=3-seed=0")
    with pytest.raises(RunError, match=r"n_step=3-seed=0 has another run than the study's: its n_step is 1, not 3"):
        studied(folder, {"n_step": [3]}, [0])


def test_functions_and_parts_of_the_program_are_refused() -> None:
    with pytest.raises(ConfigError, match="env: a study needs an id or a module:Id, which its processes can make"):
        nexus.study(lambda: None, seeds=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="vary: n_step = 3: needs a list of values"):
        nexus.study(ENV, vary={"n_step": 3})  # type: ignore[dict-item]


def test_a_file_can_ask_and_flags_override_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: PooledPlace
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"env": ENV, "preset": "plain", "settings": SHORT, "vary": {"n_step": [1, 3]}, "seeds": "5-6"}
    (tmp_path / "mine.json").write_text(json.dumps(asked))
    assert main(["study", "--study", "mine.json", "--vary", "n_step=2", "--seeds", "5-5"]) == 0
    assert [path.name for path in (tmp_path / "studies" / "CartPole-v1-n_step").glob("n_*")] == ["n_step=2-seed=5"]


# What is shown.


def test_the_table_says_what_is_done_running_and_left(tmp_path: Path) -> None:
    plan = plan_of(ENV, 4, {"n_step": [3]}, SHORT)
    runs = [StudyRun(planned, tmp_path, "left") for planned in planned_runs(plan)]
    runs[0].state, runs[0].steps, runs[0].begun_at = "finished", 600, 1.0
    runs[1].state, runs[1].steps, runs[1].begun_at = "running", 300, 10.0
    runs[1].steps_before = 100
    runs[2].state, runs[2].error = "failed", "it broke"
    progress = StudyProgress(runs, 20.0)
    # 600 + 200 steps in 20 s are 40 a second; 300 and 600 are left.
    assert progress.seconds_left == 900 / 40
    first, second = (line.plain for line in study_lines(progress, 120, now=20.0, ascii_only=True))
    # (1 + 0.5 + 1 + 0) / 4 of 24 characters
    assert first == f"{'#' * 15}{'-' * 9}  1 of 4 done  1 failed  1 running  1 left  0:00:22 to go"
    assert second == f"{'#' * 12}{'-' * 12}  300/600  20 steps/s  0:00:15  n_step=3, seed 1"
    assert [line.cell_len <= 40 for line in study_lines(progress, 40, now=20.0)] == [True, True]
    assert StudyProgress(runs[3:], 5.0).seconds_left is None
