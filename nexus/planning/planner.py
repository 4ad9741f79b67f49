"""Planning a run: check that it fits, probe it for a few seconds, and combine the results."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nexus.api import folder_of, process_for, setting_notices
from nexus.core.checked import convert
from nexus.core.errors import ConfigError, DivergenceError, RunError
from nexus.data.memory import available_memory
from nexus.envs.factory import EnvSource
from nexus.listener import Listener
from nexus.planning.expected import expectation
from nexus.planning.forecast import Forecast, Measured, Memory, disk_of, require_disk, time_of
from nexus.planning.probe import longest_episode, measure, probed
from nexus.resolver import whole_or_resolved
from nexus.runner import Run
from nexus.training.config import TrainConfig
from nexus.training.replays import saved_bytes
from nexus.training.run_folder import require_empty
from nexus.training.signals import sigterm_stops

__all__ = ["free_disk", "plan"]


def plan(
    env: EnvSource,
    *,
    preset: str | None = None,
    config: TrainConfig | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    probe_seconds: float = 10.0,
    **settings: Any,
) -> Forecast:
    """Estimate the resources that `nexus.train` with the same arguments needs, and the score to expect.

    Memory and disk are computed; the time comes from a short run on this machine, in a temporary folder that is deleted
    afterwards; scores come from committed results with the same settings, environment and protocol.

    Args:
        env: a Gymnasium id, a `module:Id`, or a function that makes an environment.
        preset: named settings; None for those tuned for `env`, if any, else `general`.
        config: all settings at once, instead of `preset` and `settings`.
        run_dir: the folder of the run; nothing is written there.
        probe_seconds: duration of the probe, excluding start-up.
        settings: any field of `TrainConfig`.

    Raises:
        ConfigError: the environment or a setting can't be used, or there is not enough memory or disk space.
        RunError: the folder is not empty, or can't be written to.
        EnvError: the environment failed.
        DivergenceError: training diverged within the probe.
    """
    resolved = whole_or_resolved(env, preset, config, settings)
    config = resolved.config
    probe_seconds = convert("probe_seconds", probe_seconds, float)
    if probe_seconds <= 0:
        raise ConfigError(f"probe_seconds = {probe_seconds:g}: needs a number of seconds above 0")
    folder = Path("runs") if run_dir is None else folder_of(run_dir, "run_dir")
    require_usable(folder)
    started, free = time.perf_counter(), available_memory()
    with (
        TemporaryDirectory(prefix="nexus-plan-") as place,
        sigterm_stops(),
        Run(env, resolved.preset, probed(config), Path(place, "run"), Listener()) as run,
        process_for(run.parts.agent, config.threads),
    ):
        network = sum(value.nbytes for value in run.parts.agent.q_network.state_dict().values())
        row = run.plan.replay_bytes / config.kept_transitions
        shape, device = run.parts.agent.state_shape, run.parts.agent.device
        saved = saved_bytes(config, shape, run.parts.state_dtype, device) / config.kept_transitions
        require_disk(config, disk_of(config, network, saved, free_disk(folder)), network, saved)
        measured = measured_in(run, probe_seconds, started)
        disk = disk_of(config, network, saved, free_disk(folder), measured.episode_length)
        limit = longest_episode(run.parts.spec, config.eval_max_steps, run.parts.one_alone)
        replay = run.plan.replay_bytes
        memory = Memory(replay, int(min(config.total_steps * row, replay)), measured.base, free)
        return Forecast(
            run.plan.env,
            run.parts.spec.rules,
            resolved.preset,
            config,
            run.parts.agent.q_network.num_parameters,
            memory,
            disk,
            time_of(config, measured, limit),
            expectation(env, config),
            (
                *resolved.notes,
                *setting_notices(replace(run.plan, config=config)),
                *notes(config, measured, memory, limit),
            ),
        )


def measured_in(run: Run, seconds: float, started: float) -> Measured:
    """Return the probe's measurements; if it diverges, the batch is deleted with its folder."""
    try:
        return measure(run, seconds, started)
    except DivergenceError as fault:
        raise DivergenceError(f"in the probe: {str(fault).partition(';')[0]}") from None


def busy() -> bool:
    """True if the load of the last minute exceeded the number of processors; False if unknown."""
    try:
        return os.getloadavg()[0] > (os.cpu_count() or 1) + 0.5
    except (OSError, AttributeError):
        return False


def require_usable(folder: Path) -> None:
    """Raise `RunError` unless a run could be created in this folder; creates nothing."""
    there = nearest_folder(folder)
    if not there.is_dir():
        raise RunError(f"can't write a run to {folder}: {there} is not a folder")
    if not os.access(there, os.W_OK):
        raise RunError(f"can't write a run to {folder}: {there} can't be written to")
    if folder.is_dir() and folder != Path("runs"):
        require_empty(folder)


def free_disk(folder: Path) -> int | None:
    """Return the free bytes where a folder is or would be, or None if unknown."""
    try:
        return shutil.disk_usage(nearest_folder(folder)).free
    except OSError:
        return None


def nearest_folder(folder: Path) -> Path:
    """Return the path, or the nearest of its parents that exists."""
    absolute = folder.absolute()
    return next(path for path in (absolute, *absolute.parents) if path.exists())


def notes(config: TrainConfig, measured: Measured, memory: Memory, limit: int | None) -> tuple[str, ...]:
    """Return notes on what the numbers leave out."""
    said = []
    if not memory.fits:
        said.append(f"replay and process together need more memory than is free: lower {config.capacity_setting}")
    if not any(part.updates for part in measured.slices):
        said.append("the probe saw no update, so the time does not include learning: raise probe_seconds")
    if config.actor_sync_every is not None:
        said.append("learning runs concurrently with acting and emulating, and is included in their time")
    if busy():
        said.append("other processes keep this machine busy: a run that has it to itself takes less time")
    if config.target_return is not None:
        said.append(f"the run ends sooner if an evaluation reaches {config.target_return:g}")
    if limit is None:
        said.append("the environment has no time limit: evaluations are counted with episodes as long as in the probe")
    return tuple(said)
