"""A run with a replay of frames that was stopped or killed, and resumed, is the run that never was."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexus.api import load_agent, resume, train
from nexus.core.errors import RunError
from nexus.core.state import State
from nexus.core.types import Array
from nexus.data.frames import Frames
from nexus.data.replay import Replay
from nexus.runner import Run
from nexus.training import checkpoint_writer
from nexus.training.checkpoint import Checkpoint, Chunk
from nexus.training.config import TrainConfig
from nexus.training.verify import verify
from tests.chaos import FRAMES, Silent, differences, interrupt, interrupted

QUICK: dict[str, Any] = FRAMES | {"total_steps": 400, "eval_every": "90 steps", "checkpoint_every": "60 steps"}


def trained(folder: Path, listener: Silent | None = None, **settings: Any) -> Any:
    values = QUICK | settings
    config = TrainConfig.from_mapping({name: value for name, value in values.items() if name != "env"})
    return train(values["env"], config=config, run_dir=folder, listener=listener or Silent())


def broken(folder: Path, at_step: int, **settings: Any) -> None:
    interrupted(lambda: trained(folder, Silent(at_step, interrupt), **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"replay_store": "raw"},
        {"replay_store": "device"},
        {"replay_store": "device", "prioritized": False},
        {"replay_store": "auto", "prioritized": False},
        {"replay_store": "raw", "prioritized": False, "n_step": 1, "num_envs": 1, "frame_stack": 2},
        {
            "num_envs": 5,
            "n_step": 7,
            "replay_capacity": 60,
            "frame_stack": 5,
            "checkpoint_every": "35 steps",
            "total_steps": 800,
        },
        {"algorithm": "iqn", "checkpoint_every": "130 steps", "keep_checkpoints": 1},
    ],
    ids=str,
)
def test_frames_go_on_bit_for_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    trained(tmp_path / "whole", **settings)
    for at_step in (310, 130):
        broken(tmp_path / f"broken{at_step}", at_step, **settings)
        assert verify(tmp_path / f"broken{at_step}").whole
        result = resume(tmp_path / f"broken{at_step}", listener=Silent())
        assert result.counters.updates > 20
        assert differences(tmp_path / "whole", tmp_path / f"broken{at_step}") == []
    files = [path.name for path in (tmp_path / "whole" / "replay").iterdir()]
    assert any(name.startswith("frames-") for name in files)
    if settings.get("replay_capacity") == 60:
        assert not any(name.startswith("frames-000000000000") for name in files)  # released with their chunk


def test_a_run_of_frames_can_be_broken_many_times_go_further_and_be_loaded(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"prioritized": False}  # whose β would know of the end
    trained(tmp_path / "whole", total_steps=460, **settings)
    broken(tmp_path / "broken", 30, **settings)  # before any checkpoint was due
    for at_step in (61, 62, 119, 250, 251, 399):
        stop = Silent(at_step, interrupt)
        interrupted(partial(resume, tmp_path / "broken", listener=stop))
    resume(tmp_path / "broken", listener=Silent())
    resume(tmp_path / "broken", total_steps=460, listener=Silent())
    assert differences(tmp_path / "whole", tmp_path / "broken") == []
    mine, other = (load_agent(tmp_path / name, checkpoint="latest") for name in ("whole", "broken"))
    assert all((mine.state_dict()[name] == value).all() for name, value in other.state_dict().items())


def test_what_is_large_is_split_into_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_writer, "CHUNK_BYTES", 4_000)
    trained(tmp_path / "whole")
    assert len(list((tmp_path / "whole" / "replay").glob("frames-*"))) > 5
    broken(tmp_path / "broken", 310)
    resume(tmp_path / "broken", listener=Silent())
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


@pytest.mark.parametrize("store", ["compressed", "device"])
def test_a_rollback_takes_the_frames_back_too(store: str, tmp_path: Path) -> None:
    values = {**QUICK, "replay_store": store}
    config = TrainConfig.from_mapping({name: value for name, value in values.items() if name != "env"})
    with Run(QUICK["env"], None, config, tmp_path / "run", Silent(200, interrupt)) as run:
        run.run()
        assert isinstance(run.parts.replay, Replay)
        assert isinstance(run.parts.replay.storage, Frames)
        added = run.parts.replay.added
        shutil.rmtree(max((tmp_path / "run" / "checkpoints").iterdir(), key=lambda path: int(path.name)))
        run.newest_whole()  # into the replay that is filled already
        assert run.parts.replay.added < added
        with Run(
            QUICK["env"], None, config, shutil.copytree(tmp_path / "run", tmp_path / "other"), Silent(), True
        ) as again:
            one, two = contents(run), contents(again)
            assert all(np.array_equal(one[name], two[name]) for name in one | two)
            mine, other = run.parts.replay.sample(64), again.parts.replay.sample(64)
            assert all((mine[name] == other[name]).all() for name in mine)


def contents(run: Run) -> dict[str, Array]:
    return {
        f"{series.name}.{name}": values
        for series in run.parts.series()
        for name, values in series.get(series.first, series.last).items()
    }


# Each part of the state is needed.

COLUMNS: dict[str, Callable[[Array], Array]] = {
    "ages": np.zeros_like,
    "previous": lambda previous: np.full_like(previous, -1),
    "frames": np.zeros_like,
    "packed": lambda packed: packed[::-1],
    "sizes": np.ones_like,
}


def shows(tmp_path: Path, patch: Callable[[], None], **settings: Any) -> None:
    trained(tmp_path / "whole", **settings)
    broken(tmp_path / "broken", settings.get("total_steps", 400) - 90, **settings)
    shutil.copytree(tmp_path / "broken", tmp_path / "right")
    resume(tmp_path / "right", listener=Silent())
    assert differences(tmp_path / "whole", tmp_path / "right") == []
    patch()
    try:
        resume(tmp_path / "broken", listener=Silent())
    except RunError:
        return  # noticed even earlier
    assert differences(tmp_path / "whole", tmp_path / "broken") != []


@pytest.mark.parametrize("name", ["replay.frames.opened", "replay.frames.released"])
def test_leaving_a_count_of_frames_out_shows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Checkpoint.read_state

    def forget(checkpoint: Checkpoint, limit: int) -> State:
        state = read(checkpoint, limit)
        assert state[name] > 0
        return state | {name: 0}

    shows(tmp_path, lambda: monkeypatch.setattr(Checkpoint, "read_state", forget), replay_capacity=60, total_steps=800)


@pytest.mark.parametrize("name", COLUMNS)
def test_leaving_a_column_of_frames_out_shows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Checkpoint.read_chunk

    def forget(checkpoint: Checkpoint, chunk: Chunk, limit: int) -> dict[str, Array]:
        columns = read(checkpoint, chunk, limit)
        return columns | ({name: COLUMNS[name](columns[name])} if chunk.series == "frames" else {})

    store = "raw" if name == "frames" else "compressed"
    shows(tmp_path, lambda: monkeypatch.setattr(Checkpoint, "read_chunk", forget), replay_store=store)
