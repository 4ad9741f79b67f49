"""A run's folder: its contents, writing it and reading it back. No pickle: safetensors and JSON only.

run.json           environment, config, preset, versions, progress
agent.safetensors  the weights of all networks
metrics.jsonl      one line of scalars per `log_every`
episodes.csv       one line per finished training episode
actions.jsonl      likewise, its seed and its actions, with `keep_episodes`
evaluation.json    the final evaluation with its protocol and every return
findings.json      what the doctor found
tensorboard/       the scalars of metrics.jsonl for TensorBoard
best/              the weights with the best evaluation
checkpoints/       what `nexus resume` needs, a folder each
replay/            the replay of the checkpoints, in chunks

`docs/runs.md` has the whole format.
"""

import math
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from nexus.core.errors import RunError
from nexus.core.installation import DISTRIBUTION
from nexus.core.state import array_from, arrays_of, below, part
from nexus.core.types import Array
from nexus.envs.statistics import Statistics, require_statistics
from nexus.training.files import Mark, file_in, read_json, read_tensors, write_tensors

__all__ = [
    "ACTIONS_FILE",
    "AGENT_FILE",
    "EPISODES_FILE",
    "EVALUATION_FILE",
    "FINDINGS_FILE",
    "FORMAT",
    "METRICS_FILE",
    "RUN_FILE",
    "fill_networks",
    "fill_with_statistics",
    "load_weights",
    "locked",
    "most_bytes",
    "new_run_folder",
    "read_run",
    "require_empty",
    "require_format",
    "require_no_links_out",
    "save_weights",
    "versions",
    "weights_of",
    "with_statistics",
]

AGENT_FILE, RUN_FILE = "agent.safetensors", "run.json"
METRICS_FILE, EPISODES_FILE, EVALUATION_FILE = "metrics.jsonl", "episodes.csv", "evaluation.json"
ACTIONS_FILE = "actions.jsonl"
FINDINGS_FILE = "findings.json"
STATISTICS_ENTRY = "statistics"  # stored with the networks in files with weights
STATISTICS_BYTES = 64  # per number of a state: two moments of eight bytes, times several layers
LOCK_FILE, PROBE_FILE = ".lock", ".probe"
# The format of run.json and checkpoints. Since 2 every file has a checksum, since 3 episodes continue across
# checkpoints, since 4 `agent` has only what is not in `config`, and some settings are renamed (`core/names.py`).
FORMAT = 4
PACKAGES = {"nexus": DISTRIBUTION, **{name: name for name in ("torch", "numpy", "gymnasium", "ale-py", "safetensors")}}


def new_run_folder(env: str, seed: int, folder: str | os.PathLike[str] | None = None) -> Path:
    """Create an empty folder for a run and verify that it can be written to.

    Args:
        env: part of the folder's name.
        seed: likewise.
        folder: path instead of `runs/ENV-SEED-TIME`; must be new or empty.

    Raises:
        RunError: it is not empty, or can't be written to.
    """
    try:
        path = made_below_runs(env, seed) if folder is None else Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        require_empty(path)
        probe = path / PROBE_FILE
        probe.write_bytes(bytes(1 << 20))  # a full disk fails here, not after the training
        probe.unlink()
    except OSError as error:
        where = error.filename if folder is None else folder
        raise RunError(f"can't write a run to {where}: {error.strerror or error}") from None
    return path


def made_below_runs(env: str, seed: int) -> Path:
    """Make a folder `runs/ENV-SEED-TIME`, unique even among runs that begin in the same second."""
    safe = re.sub(r"[^A-Za-z0-9.-]+", "_", env)
    stem = f"{safe}-seed{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    Path("runs").mkdir(exist_ok=True)
    for number in range(1, 100_000):
        path = Path("runs", stem if number == 1 else f"{stem}-{number}")
        with suppress(FileExistsError):
            path.mkdir()
            return path
    raise RunError(f"runs/ has 99,999 folders {stem}: name another with --run-dir")


def require_empty(folder: Path) -> None:
    """Raise `RunError` unless a folder is empty, or contains only what a run killed at its start left."""
    names = {entry.name for entry in folder.iterdir()}
    if names - {LOCK_FILE, PROBE_FILE, RUN_FILE, f"{RUN_FILE}.tmp", f"{AGENT_FILE}.tmp"}:
        raise RunError(f"run folder {folder} is not empty: name a new one, or omit --run-dir")
    if RUN_FILE in names and read_run(folder).get("status") != "running":
        raise RunError(f"run folder {folder} has a {RUN_FILE}: name a new one, or omit --run-dir")


def read_run(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the contents of `run.json`.

    Raises:
        RunError: the folder is missing, is not a run, or has a newer format.
    """
    path = Path(folder) / RUN_FILE
    if not Path(folder).is_dir():
        raise RunError(f"no run at {folder}: there is no such folder{known_runs(Path(folder))}")
    if not path.is_file():
        raise RunError(f"{folder} is not a run folder: it has no {RUN_FILE}{known_runs(Path(folder))}")
    run = read_json(file_in(Path(folder), RUN_FILE), must_carry=False)
    require_format(run, path)
    return run


def require_format(values: Mapping[str, Any], path: Path) -> None:
    """Raise `RunError` unless this nexus reads the format of a JSON file; from format 2 on it needs a checksum."""
    found = values.get("format")
    if not isinstance(found, int):
        raise RunError(f"{path} was not written by nexus: it has no format number")
    if found > FORMAT:
        raise RunError(f"{path} has format {found}, this nexus reads up to {FORMAT}: update nexus")
    if found > 1 and "sha256" not in values:
        raise RunError(f"{path} carries no checksum: it is damaged")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run folder for this process; a crash leaves no lock behind, since the operating system holds it.

    Raises:
        RunError: another process writes there, or the folder can't be written to.
    """
    path = folder / LOCK_FILE
    if path.is_symlink():
        raise RunError(f"{path} is a link: a lock is a plain file")
    lock = FileLock(path, timeout=1)  # seconds: a process that was just killed may take a moment to end
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"another process is writing to {folder}: wait for it, or stop it") from None
    except OSError as error:
        raise RunError(f"can't write to {folder}: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()


def require_no_links_out(folder: Path) -> None:
    """Raise `RunError` if a link in a run folder leads out of it: writes would go elsewhere."""
    home = folder.resolve()
    for place, folders, names in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *names)):
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise RunError(f"{path} leads out of its run folder: it is not touched")


def known_runs(folder: Path) -> str:
    """Return text that lists runs near a wrong path, newest first."""
    places = [place for place in (folder, folder.parent, Path("runs")) if place.is_dir()]
    found = {run.parent for place in places for run in place.glob(f"*/{RUN_FILE}")}
    newest = sorted(found, key=lambda run: run.stat().st_mtime, reverse=True)[:3]
    return f"; newest runs: {', '.join(map(str, newest))}" if newest else ""


def save_weights(folder: Path, arrays: Mapping[str, Array]) -> Mark:
    """Write what `with_statistics` returns to `agent.safetensors`, each array under its name; return its mark."""
    return write_tensors(folder / AGENT_FILE, arrays)


def with_statistics(networks: Mapping[str, nn.Module], statistics: Statistics) -> dict[str, Array]:
    """Return copies of some networks' parameters, and the running statistics that scale their inputs."""
    return {**arrays_of(weights_of(networks)), **below(STATISTICS_ENTRY, statistics)}


def fill_with_statistics(networks: Mapping[str, nn.Module], tensors: Mapping[str, Array], path: Path) -> Statistics:
    """Load `with_statistics`' output into networks, and return the statistics; `path` names the source.

    Raises:
        RunError: names or shapes don't match the networks, or a number is invalid.
    """
    weights = {name: values for name, values in tensors.items() if not name.startswith(f"{STATISTICS_ENTRY}.")}
    fill_networks(networks, weights, path)
    return require_statistics(part(dict(tensors), STATISTICS_ENTRY), str(path))


def most_bytes(networks: Mapping[str, nn.Module], state_shape: tuple[int, ...]) -> int:
    """Return the most bytes that valid weights can take, with running statistics for each number of a state."""
    own = sum(value.nbytes for value in weights_of(networks).values())
    return own + STATISTICS_BYTES * math.prod(state_shape)


def load_weights(
    folder: Path,
    networks: Mapping[str, nn.Module],
    state_shape: tuple[int, ...],
    mark: Mark | None = None,
    *,
    must_carry: bool = True,
) -> Statistics:
    """Fill networks from `agent.safetensors`; return the running statistics stored with them.

    Args:
        folder: the run's folder.
        networks: networks by name.
        state_shape: shape of one state.
        mark: the file's mark in `run.json`, if any.
        must_carry: whether to refuse a file without a checksum, as in format 1.

    Raises:
        RunError: the file is missing, damaged or not the one that was written, its names or shapes don't match
            the networks, or a weight is not finite.
    """
    path = file_in(folder, AGENT_FILE)
    tensors = read_tensors(path, most_bytes(networks, state_shape), mark, must_carry=must_carry)
    return fill_with_statistics(networks, tensors, path)


def fill_networks(networks: Mapping[str, nn.Module], tensors: Mapping[str, Array], path: Path) -> None:
    """Fill networks with arrays named as by `save_weights`; `path` is their source, for errors.

    Raises:
        RunError: the names and shapes don't match the networks, or a weight is not finite.
    """
    wanted = weights_of(networks)
    if wanted.keys() != tensors.keys():
        odd = sorted(wanted.keys() ^ tensors.keys())
        raise RunError(f"{path} does not fit the network of {RUN_FILE}: {', '.join(odd[:3])} in only one of them")
    try:
        checked = {name: array_from(dict(tensors), name, value.cpu().numpy()) for name, value in wanted.items()}
    except RunError as error:
        raise RunError(f"{path}: {error}") from None
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(torch.from_numpy(checked[name]))


def weights_of(networks: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Parameters and saved buffers of networks, by name."""
    return {
        f"{name}.{key}": value.detach()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages a run depends on."""
    return dict(looked_up_versions())


@cache  # a look-up takes 20 ms, and every checkpoint needs them
def looked_up_versions() -> dict[str, str]:
    """Look up the versions of the interpreter and the installed packages."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
