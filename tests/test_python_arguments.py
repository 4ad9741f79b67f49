"""What programs hand to the functions of the package: NumPy's numbers, results, and things that are none of these."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nexus
from nexus.core.errors import ConfigError, RunError
from nexus.listener import TrainResult

TINY: dict[str, Any] = {
    "total_steps": np.int64(300),
    "num_envs": np.int32(2),
    "learning_starts": 64,
    "epsilon_steps": 100.0,
    "hidden_dim": np.uint8(8),
    "checkpoint_every": "100 steps",
    "eval_every": None,
    "target_return": None,
    "eval_episodes": 2,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return nexus.train("CartPole-v1", run_dir=tmp_path_factory.mktemp("trained") / "run", **TINY)


def steps_of(run: Path) -> list[int]:
    return sorted(int(path.name) for path in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("kind", [int, np.int64, np.int32, float, np.float64, str, np.str_])
def test_a_checkpoint_may_be_named_by_any_number(kind: Any, trained: TrainResult) -> None:
    first = steps_of(trained.run_dir)[0]
    agent = nexus.load_agent(trained.run_dir, checkpoint=kind(first))
    assert agent.action_dim == 2
    score = nexus.evaluate(trained.run_dir, episodes=np.int64(2), seed=np.int64(3), checkpoint=kind(first))  # type: ignore[arg-type]
    assert score == nexus.evaluate(agent, episodes=2, seed=3)


@pytest.mark.parametrize("which", [5, np.int64(5), 1.5, True, [1], "nan", float("nan")])
def test_another_is_refused_with_those_that_there_are(which: Any, trained: TrainResult) -> None:
    present = steps_of(trained.run_dir)[::-1]
    with pytest.raises(RunError) as refused:
        nexus.load_agent(trained.run_dir, checkpoint=which)
    assert str(refused.value).endswith(f"has no checkpoint {str(which)!r}: needs best, latest or one of {present}")


def test_a_result_stands_for_its_run(trained: TrainResult) -> None:
    assert nexus.load_agent(trained).action_dim == 2
    assert nexus.evaluate(trained, episodes=2) == nexus.evaluate(trained.run_dir, episodes=2)
    with pytest.raises(ConfigError, match="is finished: to train further"):
        nexus.resume(trained)


@pytest.mark.parametrize("wrong", [5, None, 1.5, ["run"]])
def test_what_is_no_folder_is_said(wrong: Any) -> None:
    for act in (nexus.load_agent, nexus.evaluate, nexus.resume):
        with pytest.raises(ConfigError) as refused:
            act(wrong)
        assert str(refused.value) == f"run = {wrong!r}: needs the path of a folder"
    for begin in (nexus.train, nexus.plan):
        if wrong is not None:
            with pytest.raises(ConfigError, match=r"run_dir = .*: needs the path of a folder"):
                begin("CartPole-v1", run_dir=wrong)


def test_settings_that_are_no_config_and_presets_that_are_no_names() -> None:
    for begin in (nexus.train, nexus.plan):
        with pytest.raises(
            ConfigError, match="config is a dict: needs a TrainConfig; pass single settings as keywords"
        ):
            begin("CartPole-v1", config={"gamma": 0.9})  # type: ignore[arg-type]
        with pytest.raises(
            ConfigError, match="preset = 5: needs one of general, plain, seed, nature, fast, paper, tuned, or none"
        ):
            begin("CartPole-v1", preset=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", ["1", None, float("nan"), 0, -1.0, True])
def test_a_probe_takes_seconds(seconds: Any) -> None:
    with pytest.raises(ConfigError, match=r"^probe_seconds = "):
        nexus.plan("CartPole-v1", probe_seconds=seconds)


def test_a_plan_takes_numbers_of_numpy() -> None:
    plan = nexus.plan("CartPole-v1", probe_seconds=np.float64(0.1), seed=np.int64(3), total_steps=np.float64(3e4))
    assert (plan.config.seed, plan.config.total_steps) == (3, 30_000)
