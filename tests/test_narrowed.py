"""Runs of the time when a one-hot state had eight bytes a number: the same states have one byte a number now.

`runs_of_wide_states` was made by that version: FrozenLake-v1, stopped after step 206.
"""

import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.numpy

import nexus
from nexus.core.errors import RunError
from nexus.runner import Run
from nexus.training.config import TrainConfig
from nexus.training.files import read_json, write_json, write_tensors
from nexus.training.narrowed import narrowed
from nexus.training.verify import verify
from tests.chaos import SETTINGS, Silent, differences, interrupt, interrupted

OLD = Path(__file__).parent / "runs_of_wide_states"
QUICK: dict[str, Any] = SETTINGS | {"total_steps": 300, "eval_every": "140 steps", "checkpoint_every": "120 steps"}


@pytest.mark.parametrize("name", ["rows", "pqn"])
def test_an_older_run_goes_on(name: str, tmp_path: Path) -> None:
    run = Path(shutil.copytree(OLD / name, tmp_path / "run"))
    assert verify(run).checkpoints == (206,)
    result = nexus.resume(run, listener=Silent())
    assert (result.counters.steps, result.counters.episodes) == (300, 20)
    saved = safetensors.numpy.load_file(run / "checkpoints" / "300" / "state.safetensors")
    assert {value.dtype for key, value in saved.items() if key.endswith("states")} == {np.dtype(np.int8)}


def test_its_replay_holds_the_rows_that_were_stored(tmp_path: Path) -> None:
    run = Path(shutil.copytree(OLD / "rows", tmp_path / "run"))
    config = TrainConfig.from_mapping({**read_json(run / "run.json")["config"], "channels": "auto"})
    with Run("FrozenLake-v1", None, config, run, Silent(), begun=True) as again:
        rows = again.parts.replay.series((16,), np.int8, 4)[0]
        found = rows.get(rows.first, rows.last)
    (chunk,) = (run / "replay").iterdir()
    stored = safetensors.numpy.load_file(chunk)
    assert (rows.first, rows.last) == (162, 202)
    for name, values in stored.items():
        assert np.array_equal(found[name], values), name
    assert [values["states"].dtype.name for values in (stored, found)] == ["int64", "int8"]
    assert stored["states"].sum(1).tolist() == [1] * 40


def test_frames_are_refused_in_one_line_that_says_what_still_works(tmp_path: Path) -> None:
    run = Path(shutil.copytree(OLD / "frames", tmp_path / "run"))
    says = "its frames have eight bytes per number, as older versions stored them, so it can't be resumed; it can "
    with pytest.raises(RunError, match=f"checkpoint 206: {says}still be loaded, evaluated and watched$"):
        nexus.resume(run, listener=Silent())
    assert nexus.evaluate(nexus.load_agent(run), episodes=2).episodes == 2


def widen(run: Path) -> int:
    """Let the states in a run's checkpoints have eight bytes a number; return the bytes of the largest chunk."""
    marks, largest = {}, 0
    for path in (run / "replay").glob("*"):
        mark = write_tensors(path, widened(path))
        marks[int(path.name[:12])] = vars(mark)
        largest = max(largest, mark.bytes)
    for path in (run / "checkpoints").glob("*/state.json"):
        values = read_json(path)
        arrays = path.with_name("state.safetensors")
        values["arrays"] = vars(write_tensors(arrays, widened(arrays)))
        values["replay"] = [{**entry, **marks[entry["first"]]} for entry in values["replay"]]
        write_json(path, values)
    return largest


def widened(path: Path) -> dict[str, Any]:
    arrays = safetensors.numpy.load_file(path)
    return {name: value.astype(np.int64) if value.dtype == np.int8 else value for name, value in arrays.items()}


@pytest.mark.parametrize(
    "settings",
    [
        {"n_step": 3, "prioritized": True},
        {"frame_stack": 2},
        {"algorithm": "pqn", "trace_decay": 0.5, "replay_capacity": 32, "update_every": "32 steps"},
    ],
    ids=["rows", "stacks", "pqn"],
)
def test_it_comes_to_the_same_bits(settings: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig.from_mapping(QUICK | settings)
    nexus.train("FrozenLake-v1", config=config, run_dir=tmp_path / "whole", listener=Silent())
    stop = Silent(200, interrupt)
    run = tmp_path / "run"
    interrupted(lambda: nexus.train("FrozenLake-v1", config=config, run_dir=run, listener=stop))
    widen(run)
    nexus.resume(run, listener=Silent())
    assert differences(tmp_path / "whole", run) == []


class Walk(gym.Env[Any, Any]):
    """Right or left among 500 places: a row takes 8 kB for both states, eight times as much as now."""

    observation_space = gym.spaces.Discrete(500)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(100, 400))
        return self.place, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.place += 2 * int(action) - 1
        return self.place, float(action), self.place % 10 == 0, False, {}


def test_chunks_may_be_as_large_as_they_were(tmp_path: Path) -> None:
    config = TrainConfig.from_mapping(QUICK | {"total_steps": 500, "replay_capacity": 400, "checkpoint_every": None})
    run = tmp_path / "run"
    interrupted(lambda: nexus.train(Walk, config=config, run_dir=run, listener=Silent(400, interrupt)))
    assert widen(run) > 3 << 20
    assert nexus.resume(run, env=Walk, listener=Silent()).counters.steps == 500


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ({"states": np.array([[0, 2]])}, np.int8),  # no one-hot vector
        ({"states": np.array([[0, 1]])}, np.int64),  # of a space of int64
        ({"states": np.array([0, 1])}, np.int8),  # numbers of frames
        ({"actions": np.array([[0, 1]])}, np.int8),
        ({"states": np.array([[0.0, 1.0]])}, np.int8),
    ],
)
def test_what_is_no_older_state_stays_as_it_is(values: dict[str, Any], dtype: Any) -> None:
    found = narrowed(values, (2,), dtype)
    assert found.keys() == values.keys()
    assert all(found[name] is value for name, value in values.items())


class Switches(gym.Env[Any, Any]):
    """Zeros and ones that its space gives eight bytes each, now as then."""

    observation_space = gym.spaces.Box(0, 1, (2,), np.int64)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.integers(2, size=2), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.np_random.integers(2, size=2), float(action), self.steps == 6, False, {}


@pytest.mark.parametrize("store", ["raw", "compressed"])
def test_frames_of_eight_bytes_go_on_where_the_space_has_them(store: str, tmp_path: Path) -> None:
    settings = QUICK | {"frame_stack": 2, "replay_store": store, "num_envs": 2}
    config = TrainConfig.from_mapping(settings)
    whole, run = tmp_path / "whole", tmp_path / "run"
    nexus.train(Switches, config=config, run_dir=whole, listener=Silent())
    interrupted(lambda: nexus.train(Switches, config=config, run_dir=run, listener=Silent(150, interrupt)))
    nexus.resume(run, env=Switches, listener=Silent())
    assert differences(whole, run, Switches) == []
