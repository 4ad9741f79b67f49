"""Shared code of the sections of docs/results.md: a record, its table, the line below it, its plot.

A section is a function that returns Markdown, or an empty string if its record does not exist. It is defined in the
module that makes the record; the sections of `benchmarks.learning` and their plots are in
`benchmarks.learning_sections`. `benchmarks.report` imports all of these modules and puts the sections in order, so a
package that only the measurement needs is imported where it is used.
"""

import json
from typing import TYPE_CHECKING, Any

from benchmarks.record import RESULTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # an extra, which only plots need

__all__ = ["SEED_SCORES", "load", "provenance", "save", "table", "table_section"]

SEED_SCORES = {  # random, human and DQN, from the table in the specification that this project started from
    "ALE/Pong-v5": (-20.7, 14.6, 18.9),
    "ALE/Breakout-v5": (1.7, 30.5, 401.2),
    "ALE/SpaceInvaders-v5": (148.0, 1652.0, 1976.0),
    "ALE/Qbert-v5": (163.9, 13455.0, 10596.0),
    "ALE/Seaquest-v5": (68.4, 42055.0, 5286.0),
}


def load(name: str) -> dict[str, Any] | None:
    """Return the record docs/results/NAME.json, or None if it does not exist."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def provenance(found: dict[str, Any]) -> str:
    """Return the line below each table: command, date, commit, machine and versions."""
    packages = {**found["versions"], **found.get("others", {})}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    return f"`{found['command']}` · {found['date']} · commit {found['commit']} · {found['machine']} · {versions}"


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def table_section(name: str, title: str, text: str, head: list[str]) -> str:
    """Return the section of a record whose rows form its table; title and text can refer to the record's fields."""
    found = load(name)
    if found is None:
        return ""
    cells = [list(row.values()) for row in found["rows"]]
    return "\n\n".join([f"## {title.format(**found)}", text.format(**found), table(head, cells), provenance(found)])


def save(figure: "Figure", name: str) -> None:
    """Write docs/images/NAME.png, with open axes and a grid."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    figure.tight_layout()
    folder = RESULTS.parent / "images"
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / f"{name}.png")
