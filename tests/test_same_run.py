"""Files that are whole and belong elsewhere: of another moment of a run, or of another run."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from nexus.api import load_agent, resume, train
from nexus.core.errors import RunError
from nexus.training import curves
from nexus.training.best import BestWeights
from nexus.training.config import TrainConfig
from nexus.training.files import read_json, write_json
from nexus.training.same_run import require_same_run
from nexus.training.verify import verify
from tests.chaos import SETTINGS, Silent, interrupt, interrupted

TINY: dict[str, Any] = SETTINGS | {"total_steps": 300, "hidden_dim": 8, "eval_every": "100 steps"}


def trained(folder: Path, **settings: Any) -> Path:
    config = TrainConfig.from_mapping(TINY | settings)
    train("CartPole-v1", config=config, run_dir=folder, listener=Silent())
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("ours") / "run")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the same shapes, episodes and seed."""
    return trained(tmp_path_factory.mktemp("theirs") / "run", learning_rate=0.002)


@pytest.fixture
def copy(ours: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ours, tmp_path / "run"))


def without(path: Path, name: str) -> None:
    """Leave out what an older version did not write."""
    write_json(path, {key: value for key, value in read_json(path).items() if key != name})


def put_best_at_the_end(run: Path) -> None:
    oldest = min((run / "best").glob("*.safetensors"), key=lambda path: int(path.stem))
    assert oldest.read_bytes() != (run / "agent.safetensors").read_bytes()
    shutil.copy(oldest, run / "agent.safetensors")


def test_weights_of_the_end_that_are_the_best_ones_are_refused(copy: Path) -> None:
    load_agent(copy)
    put_best_at_the_end(copy)
    says = f"{copy}/agent.safetensors is not the file that was written there: its checksum differs"
    with pytest.raises(RunError, match=says):
        load_agent(copy)
    assert says in verify(copy).damage


def test_weights_of_another_run_are_refused(copy: Path, theirs: Path) -> None:
    shutil.copy(theirs / "agent.safetensors", copy)
    with pytest.raises(RunError, match="is not the file that was written there"):
        load_agent(copy)
    load_agent(copy, checkpoint="latest")  # which is its own


def test_runs_that_say_nothing_of_their_weights_are_read(copy: Path) -> None:
    for path in (copy / "run.json", copy / "evaluation.json"):
        assert "weights" in read_json(path)
        without(path, "weights")
    for path in (copy / "best").glob("*.json"):
        assert "run" in read_json(path)
        without(path, "run")
    assert verify(copy).whole
    load_agent(copy)
    load_agent(copy, checkpoint="best")
    put_best_at_the_end(copy)
    load_agent(copy)  # nothing there says otherwise
    result = resume(copy, total_steps=400, listener=Silent())
    assert read_json(copy / "run.json")["weights"]["bytes"] == (copy / "agent.safetensors").stat().st_size
    assert result.evaluation is not None
    assert verify(copy).whole


def test_a_score_of_other_weights_is_not_taken_for_theirs(copy: Path, theirs: Path) -> None:
    for other in (theirs / "evaluation.json", min((copy / "best").glob("*.json"))):
        shutil.copy(other, copy / "evaluation.json")
        says = f"{copy}/evaluation.json scores other weights than those in this run's agent.safetensors"
        assert says in verify(copy).damage
        with pytest.raises(RunError, match=says):
            curves.read_runs([str(copy)])


def test_best_weights_of_another_run_are_not_loaded(copy: Path, theirs: Path) -> None:
    shutil.rmtree(copy / "best")
    shutil.copytree(theirs / "best", copy / "best")
    steps = BestWeights(theirs, read_json(theirs / "run.json")).present()[0].steps
    says = f"best/{steps}.json is from another run: its learning_rate is 0.002, run.json has 0.001"
    assert says in verify(copy).damage
    assert BestWeights(copy, read_json(copy / "run.json")).present() == []
    with pytest.raises(RunError, match="no best weights"):
        load_agent(copy, checkpoint="best")


@pytest.mark.parametrize("which", ["newest", "all"])
def test_a_checkpoint_of_another_run_is_not_gone_on_from(which: str, copy: Path, theirs: Path) -> None:
    newest = max(int(path.name) for path in (copy / "checkpoints").iterdir())
    older = max(int(path.name) for path in (copy / "checkpoints").iterdir() if path.name != str(newest))
    for name in [str(newest)] if which == "newest" else [path.name for path in (copy / "checkpoints").iterdir()]:
        shutil.rmtree(copy / "checkpoints" / name)
        shutil.copytree(theirs / "checkpoints" / name, copy / "checkpoints" / name)
    for path in (theirs / "replay").iterdir() if which == "all" else ():
        shutil.copy(path, copy / "replay")
    says = "is from another run: its learning_rate is 0.002, run.json has 0.001"
    assert f"checkpoint {newest}: it {says}" in verify(copy).damage
    with pytest.raises(RunError, match=f"checkpoint {newest} {says}"):
        load_agent(copy, checkpoint=newest)
    listener = Silent()
    if which == "newest":
        assert resume(copy, total_steps=400, listener=listener).counters.steps == 400
        assert f"checkpoint {newest}: it {says}; resuming from step {older}" in listener.notices
    else:
        with pytest.raises(RunError, match=f"nothing to resume from: checkpoint {newest}: it {says}"):
            resume(copy, total_steps=400, listener=listener)


def test_what_resume_may_change_does_not_make_it_another_run(tmp_path: Path) -> None:
    config = TrainConfig.from_mapping(TINY | {"target_return": 1_000.0})
    run = tmp_path / "run"
    interrupted(lambda: train("CartPole-v1", config=config, run_dir=run, listener=Silent(150, interrupt)))
    further: dict[str, Any] = {"total_steps": 500, "on_divergence": "rollback", "device": "cpu"}
    interrupted(lambda: resume(run, listener=Silent(180, interrupt), **further))
    assert load_agent(run, checkpoint="best") is not None
    assert verify(run).whole
    assert resume(run, listener=Silent()).counters.steps == 500


def test_a_run_that_was_killed_as_it_ended_is_read_as_its_checkpoint(copy: Path, theirs: Path) -> None:
    """The weights of the end come first, then what says which they are."""
    about = read_json(copy / "run.json")
    write_json(copy / "run.json", {**about, "status": "running", "weights": read_json(theirs / "run.json")["weights"]})
    assert verify(copy).whole
    kept = {name: value.tolist() for name, value in load_agent(copy).state_dict().items()}
    assert kept == {name: value.tolist() for name, value in load_agent(copy, checkpoint="latest").state_dict().items()}
    assert curves.read_runs([str(copy)])[0].finished is False


def test_weights_are_named_before_the_first_step(tmp_path: Path) -> None:
    said: list[dict[str, Any]] = []

    def look() -> None:
        said.append(read_json(tmp_path / "run" / "run.json"))
        load_agent(tmp_path / "run")
        interrupt()

    config = TrainConfig.from_mapping(TINY | {"checkpoint_every": None})
    interrupted(lambda: train("CartPole-v1", config=config, run_dir=tmp_path / "run", listener=Silent(100, look)))
    assert said[0]["status"] == "running"
    assert said[0]["weights"]["sha256"] != read_json(tmp_path / "run" / "run.json")["weights"]["sha256"]


def test_a_setting_that_another_version_does_not_name_says_nothing() -> None:
    ours = {"config": {"seed": 1, "channels": "first", "gamma": 0.5}, "agent": {"state_dim": [4], "action_dim": 2}}
    agreeing: list[dict[str, Any]] = [{}, {"config": {}}, {"config": {"seed": 1.0}}, {"config": None}]
    for theirs in (*agreeing, {"config": {"of_the_future": 3}}):
        require_same_run(ours, theirs, "it")
    for theirs, said in (
        ({"config": {"of_the_future": 3, "seed": 2}}, "its seed is 2, run.json has 1"),
        ({"agent": {"state_dim": [5]}}, r"its state_dim is \[5\], run.json has \[4\]"),
    ):
        with pytest.raises(RunError, match=f"^it is from another run: {said}$"):
            require_same_run(ours, theirs, "it")
