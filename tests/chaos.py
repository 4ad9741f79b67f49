"""Training processes that are killed, and what two runs must have in common to be the same."""

import json
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import nexus.api as api
from nexus.core.errors import result_of
from nexus.data.frames import Frames
from nexus.envs.factory import EnvSource
from nexus.runner import Run
from nexus.training.config import TrainConfig
from nexus.training.loop import Progress
from tests.probes import MatchReward

SETTINGS: dict[str, Any] = {
    "total_steps": 600,
    "num_envs": 2,
    "learning_starts": 40,
    "hidden_dim": 16,
    "batch_size": 16,
    "replay_capacity": 250,  # so that old chunks fall out
    "update_every": "4 steps",
    "target_update_every": "20 updates",
    "epsilon_steps": 200,
    "log_every": "30 steps",
    "eval_every": "150 steps",
    "eval_episodes": 3,
    "checkpoint_every": "100 steps",
}

FRAMES: dict[str, Any] = SETTINGS | {
    "env": "tests.probes:Flicker-v0",
    "frame_stack": 3,
    "num_envs": 3,
    "n_step": 3,
    "prioritized": True,
    "replay_store": "compressed",
    "hidden_dim": 8,
}

FILE_EVENTS = ("open", "os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir")

context = multiprocessing.get_context("forkserver")  # imports once, then forks: a process costs milliseconds
context.set_forkserver_preload(["nexus.api", "tests.chaos", "tensorboard.summary", "torch._dynamo"])


class Silent(api.Listener):
    """Says nothing, and at a step does something to the process."""

    def __init__(self, at_step: int | None = None, then: Callable[[], None] | None = None) -> None:
        self.at_step = at_step
        self.then = then
        self.notices: list[str] = []

    def on_step(self, progress: Progress, episodes: Any) -> None:
        if self.then is not None and self.at_step is not None and progress.counters.steps >= self.at_step:
            self.then()

    def on_notice(self, text: str) -> None:
        self.notices.append(text)


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupted(train: Callable[[], Any]) -> api.TrainResult:
    """What a training leaves that is interrupted."""
    with pytest.raises(KeyboardInterrupt) as stop:
        train()
    result = result_of(stop.value)
    assert isinstance(result, api.TrainResult)
    return result


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_or_resume(folder: Path, settings: dict[str, Any], listener: api.Listener) -> None:
    env: Any = settings.get("env", "CartPole-v1")
    rest = {name: value for name, value in settings.items() if name != "env"}
    if (folder / "agent.safetensors").exists():  # else it was killed as it began
        api.resume(folder, env=None if isinstance(env, str) else env, listener=listener)
    else:
        api.train(env, config=TrainConfig.from_mapping(rest), run_dir=folder, listener=listener)


def count_file_events(folder: Path, act: Callable[[int], None]) -> None:
    """Call `act(n)` before the n-th thing that this process does to a file of a run."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        # Of other events nothing is touched: a module that is being imported may be among their arguments.
        paths = [value for value in arguments if isinstance(value, str | Path)] if event in FILE_EVENTS else []
        if any(str(folder) in str(path) for path in paths):
            seen += 1
            act(seen)

    sys.addaudithook(hook)


def child(folder: Path, settings: dict[str, Any], kill: tuple[str, int] | None) -> None:
    """A training process: to its end, or killed at a step, at a file operation, or with half a file written."""
    at_step = None
    if kill is not None:
        where, number = kill
        if where == "step":
            at_step = number
        elif where == "file":
            count_file_events(folder, lambda seen: die() if seen == number else None)
        else:  # as if the power failed: of the file that is just made durable only a half is there
            fsync, count = os.fsync, 0

            def torn(handle: Any) -> None:
                nonlocal count
                count += 1
                if count == number:
                    if os.path.isfile(f"/proc/self/fd/{handle}"):
                        os.truncate(handle, os.fstat(handle).st_size // 2)
                    die()
                fsync(handle)

            vars(os)["fsync"] = torn
    train_or_resume(folder, settings, Silent(at_step, die))


def run_child(folder: Path, settings: dict[str, Any], kill: tuple[str, int] | None = None) -> int:
    """Run a training process and return its exit code, -9 if it was killed."""
    process: ForkServerProcess = context.Process(target=child, args=(folder, settings, kill))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def fingerprint(run: Path, env: EnvSource) -> dict[str, Any]:
    """Everything of a run that must not depend on whether it was interrupted, as comparable values."""
    found: dict[str, Any] = {name: (run / name).read_bytes() for name in ("agent.safetensors", "evaluation.json")}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{name: value for name, value in line.items() if name != "time/fps"} for line in lines]
    found["episodes"] = [row.rsplit(",", 1)[0] for row in (run / "episodes.csv").read_text().splitlines()]
    found["progress"] = json.loads((run / "run.json").read_text())["progress"]
    return found | saved(run, env) | {"board": board(run)}


FRAME_NUMBERS = ("replay.frames.", "under_way.accumulator.states", "under_way.next_states")


def saved(run: Path, env: EnvSource) -> dict[str, Any]:
    """What the newest checkpoint of a run brings back: its state, and what its replay draws.

    How a replay of frames numbers them depends on the checkpoints that were written, and is not compared.
    """
    about = json.loads((run / "run.json").read_text())
    source = about["env"] if about["env_is_id"] else env
    with Run(source, about["preset"], TrainConfig.from_mapping(about["config"]), run, Silent(), begun=True) as again:
        state = again.get_state() | {"seconds": 0.0}
        batch = again.parts.replay.sample(1_000) if len(again.parts.replay) else {}
    storage = getattr(again.parts.replay, "storage", None)  # a rollout has none
    numbered = FRAME_NUMBERS if isinstance(storage, Frames) else ()
    values = {name: value for name, value in state.items() if not name.startswith(numbered)}
    values |= {f"batch.{name}": value.numpy() for name, value in batch.items()}
    return {name: value.tobytes() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def order_of(path: Path) -> list[int]:
    """Second, process and number within it: TensorBoard itself sorts by name, where 10 comes before 9."""
    return [int(digits) for digits in re.findall(r"\d+", path.name)]


def board(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, by tag."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((run / "tensorboard").iterdir(), key=order_of):
        events = EventAccumulator(str(path), {"tensors": 0})
        events.Reload()
        for tag in events.Tags()["tensors"]:
            found.setdefault(tag, []).extend((e.step, float(e.tensor_proto.float_val[0])) for e in events.Tensors(tag))
    return {tag: values for tag, values in found.items() if tag != "time/fps"}


def match_reward() -> MatchReward:
    """An environment given as a function."""
    return MatchReward()


def differences(one: Path, other: Path, env: EnvSource = match_reward) -> list[str]:
    """Names of what two runs do not have in common; `env` is what they were trained on if that is a function."""
    left, right = fingerprint(one, env), fingerprint(other, env)
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
