"""`nexus pitfalls [NAME]`."""

import json
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from nexus.cli.parsing import parse
from nexus.cli.plot import FORMATS
from nexus.core.errors import ConfigError, RunError
from nexus.core.installation import not_installed
from nexus.pitfalls import PITFALLS, Evidence, demonstrate, save_picture
from nexus.pitfalls.catalogue import pitfall_named
from nexus.pitfalls.running import usable_cores

__all__ = ["run"]


@dataclass(frozen=True)
class PitfallsCommand:
    """List the common pitfalls of deep Q-learning or, given the name of one, show it: train an agent that has it and
    one that is cured on several seeds, draw both, and report the difference with its 95 % bootstrap interval.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
    """Which pitfall; none lists them."""
    seeds: int = 10
    """Number of seeds, from 0 on."""
    steps: int | None = None
    """Steps of each training; none for those of the pitfall."""
    out: str | None = None
    """The image to write, a .png, .pdf or .svg file; none for NAME.png."""
    processes: int | None = None
    """Trainings at the same time; none for one per core."""
    json: bool = False
    """Print the result as JSON."""


def run(arguments: list[str]) -> int:
    """List the pitfalls, or show one."""
    command = parse(PitfallsCommand, arguments, "nexus pitfalls")
    if command.name is None:
        print_list(command.json)
        return 0
    name = pitfall_named(command.name).name
    path = picture_path(command.out or f"{name}.png")
    evidence = trained(name, command)
    drawn = find_spec("matplotlib") is not None
    if drawn:
        save_picture(evidence, path)
    if command.json:
        print(json.dumps({**evidence.to_mapping(), "picture": str(path) if drawn else None}))
    else:
        print_evidence(evidence, path if drawn else None)
    return 0


def picture_path(out: str) -> Path:
    """Return the path of the picture, or raise an error before minutes of training."""
    path = Path(out)
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"out = {out!r}: needs a file name that ends in {', '.join(FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise RunError(f"can't write {path}: there is no folder {path.parent}")
    return path


def trained(name: str, command: PitfallsCommand) -> Evidence:
    """Train both arms, with a line on the progress."""
    processes = usable_cores() if command.processes is None else command.processes
    with Console(stderr=True).status(f"training {2 * command.seeds} agents") as status:
        return demonstrate(
            name,
            command.seeds,
            steps=command.steps,
            processes=processes,
            on_done=lambda done, of: status.update(f"trained {done} of {of} agents"),
        )


def print_list(as_json: bool) -> None:
    """Print the pitfalls, a line each."""
    if as_json:
        fields = ("name", "problem", "cure", "paper")
        print(json.dumps([{field: getattr(pitfall, field) for field in fields} for pitfall in PITFALLS.values()]))
        return
    widest = max(map(len, PITFALLS))
    for pitfall in PITFALLS.values():
        print(f"{pitfall.name:<{widest}}  {pitfall.problem}")


def print_evidence(evidence: Evidence, path: Path | None) -> None:
    """Print the pitfall, what was seen, and where the picture is."""
    pitfall = evidence.pitfall
    print(f"{pitfall.problem}\nCure: {pitfall.cure}\nShown on {pitfall.world}.\n")
    print(*evidence.sentences, sep="\n")
    if path is None:
        print(f"Note: no picture: {not_installed('matplotlib', 'plot')}", file=sys.stderr)
    else:
        print(f"Picture: {path}")
