"""`nexus algorithms`."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from nexus.cli.parsing import parse

__all__ = ["run"]


@dataclass(frozen=True)
class AlgorithmsCommand:
    """List the algorithms: what each changes, its paper and its source file."""


def run(arguments: list[str]) -> int:
    """Print the table."""
    parse(AlgorithmsCommand, arguments, "nexus algorithms")
    from nexus.models.rl.dqn.rainbow import ALGORITHMS
    from nexus.training.config import APART, NOT_WITH_PQN

    table = Table(box=None, padding=(0, 1), show_header=False)
    refused: dict[tuple[str, str], list[str]] = {}
    for name, algorithm in ALGORITHMS.items():
        table.add_row(f"[bold]{name}", algorithm.changes)
        if algorithm.settings:
            table.add_row("", ", ".join(f"{key}={value}" for key, value in algorithm.settings.items()))
        table.add_row("", f"{algorithm.paper}, {algorithm.file}")
        for refusal in algorithm.refuses.items():
            refused.setdefault(refusal, []).append(name)
    console = Console(highlight=False)
    console.print(table)
    console.print("Combinations that make no sense:")
    for (setting, reason), names in refused.items():
        console.print(f"  {setting} with {', '.join(names)}: {reason}", soft_wrap=True)
    for setting, reason in NOT_WITH_PQN.items():
        console.print(f"  {setting} with pqn: {reason}", soft_wrap=True)
    for (setting, other), reason in APART.items():
        console.print(f"  {setting} with {other}: {reason}", soft_wrap=True)
    console.print("Combine them with flags, as in: nexus train CartPole-v1 --algo c51 --double --dueling")
    return 0
