"""`nexus algorithms`."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from nexus.cli.parsing import parse

__all__ = ["run"]


@dataclass(frozen=True)
class AlgorithmsCommand:
    """List the algorithms: what each changes, where it is from and where it is."""


def run(arguments: list[str]) -> int:
    """Print the table."""
    parse(AlgorithmsCommand, arguments, "nexus algorithms")
    from nexus.models.rl.dqn.rainbow import ALGORITHMS

    table = Table("name", "what it changes", "settings", "refuses", "paper", "file", box=None, padding=(0, 1))
    for name, algorithm in ALGORITHMS.items():
        settings = " ".join(f"{key}={value}" for key, value in algorithm.settings.items())
        refuses = "; ".join(f"{key}: {reason}" for key, reason in algorithm.refuses.items())
        table.add_row(name, algorithm.changes, settings, refuses, algorithm.paper, algorithm.file)
    console = Console(highlight=False)
    console.print(table)
    console.print("Combine by flags, as in: nexus train CartPole-v1 --algo c51 --double --dueling")
    return 0
