"""A run's folder: what is in it, writing it and reading it back. No pickle: safetensors and JSON only.

run.json           environment, config, preset, versions, how far it came
agent.safetensors  the weights of both networks
metrics.jsonl      one line of scalars per `log_every`
episodes.csv       one line per finished training episode
evaluation.json    the final evaluation with its protocol and every return
tensorboard/       the scalars of metrics.jsonl for TensorBoard
"""

import json
import os
import platform
import re
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from nexus.core.errors import RunError

__all__ = [
    "AGENT_FILE",
    "FORMAT",
    "RUN_FILE",
    "load_weights",
    "new_run_folder",
    "read_run",
    "save_weights",
    "versions",
    "write_json",
]

AGENT_FILE, RUN_FILE = "agent.safetensors", "run.json"
FORMAT = 1
PACKAGES = ("nexus", "torch", "numpy", "gymnasium", "safetensors")


def new_run_folder(env: str, seed: int, folder: str | os.PathLike[str] | None = None) -> Path:
    """Create an empty folder for a run and prove that it can be written to.

    Args:
        env: named in the folder's own name.
        seed: likewise.
        folder: where, instead of `runs/ENV-SEED-TIME`; must be new or empty.

    Raises:
        RunError: it holds something already, or can't be written to.
    """
    if folder is None:
        safe = re.sub(r"[^A-Za-z0-9.-]+", "_", env)
        stem = f"{safe}-seed{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
        path = Path("runs", stem)
        for copy in range(2, 1000):
            if not path.exists():
                break
            path = Path("runs", f"{stem}-{copy}")
    else:
        path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise RunError(f"run folder {path} is not empty: name a new one, or leave --run-dir out")
        probe = path / ".probe"
        probe.write_bytes(bytes(1 << 20))  # a disk that is full says so here and not after the training
        probe.unlink()
    except OSError as error:
        raise RunError(f"can't write a run to {path}: {error.strerror or error}") from None
    return path


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON by way of a second file, so that a crash leaves the old one whole."""
    try:
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise RunError(f"can't write {path}: {error.strerror or error}") from None


def read_run(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `run.json` says.

    Raises:
        RunError: the folder is missing, is no run, or was written by a newer format.
    """
    path = Path(folder) / RUN_FILE
    if not Path(folder).is_dir():
        raise RunError(f"no run at {folder}: there is no such folder{known_runs(Path(folder))}")
    if not path.is_file():
        raise RunError(f"{folder} is no run folder: it has no {RUN_FILE}{known_runs(Path(folder))}")
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"can't read {path}: {error}") from None
    if not isinstance(run, dict) or not isinstance(run.get("format"), int):
        raise RunError(f"{path} is not written by nexus: it has no format number")
    if run["format"] > FORMAT:
        raise RunError(f"{path} has format {run['format']}, this nexus reads up to {FORMAT}: update nexus")
    return run


def known_runs(folder: Path) -> str:
    """Name the newest runs near a wrong path, newest first."""
    places = [place for place in (folder, folder.parent, Path("runs")) if place.is_dir()]
    found = {run.parent for place in places for run in place.glob(f"*/{RUN_FILE}")}
    newest = sorted(found, key=lambda run: run.stat().st_mtime, reverse=True)[:3]
    return f"; newest runs: {', '.join(map(str, newest))}" if newest else ""


def save_weights(folder: Path, networks: Mapping[str, nn.Module]) -> None:
    """Write the parameters of some networks to `agent.safetensors`, each under its name."""
    tensors = {
        f"{name}.{key}": value.detach().cpu().clone()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    try:
        draft = folder / (AGENT_FILE + ".tmp")
        safetensors.torch.save_file(tensors, draft)
        draft.replace(folder / AGENT_FILE)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"can't write {folder / AGENT_FILE}: {error}") from None


def load_weights(folder: Path, networks: Mapping[str, nn.Module]) -> None:
    """Fill networks from `agent.safetensors`.

    Raises:
        RunError: the file is missing or damaged, or its names and shapes are not those of the networks.
    """
    path = folder / AGENT_FILE
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"can't read {path}: {error}") from None
    wanted = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    if wanted.keys() != tensors.keys():
        odd = sorted(wanted.keys() ^ tensors.keys())
        raise RunError(f"{path} does not fit the network of {RUN_FILE}: {', '.join(odd[:3])} only on one side")
    for name, value in tensors.items():
        if value.shape != wanted[name].shape:
            raise RunError(
                f"{path}: {name} has shape {tuple(value.shape)}, the network needs {tuple(wanted[name].shape)}"
            )
        with torch.no_grad():
            wanted[name].copy_(value)


def versions() -> dict[str, str]:
    """Return the versions of what a run depends on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
