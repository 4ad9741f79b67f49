"""`nexus report RUN...`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from nexus.cli.here import look_here
from nexus.cli.parsing import parse

__all__ = ["ReportCommand", "run"]


@dataclass(frozen=True)
class ReportCommand:
    """Write a page about runs: scores, the doctor's findings, curves to zoom into, settings, and the command to repeat
    each; of a single run also a film of one greedy episode. It is one HTML file that opens without a network. Reads
    the runs' folders alone, so it works on runs in progress, and on those that were killed or diverged.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")] = ()
    """Folders of runs, or folders of such folders, as of a study."""
    out: str = "report.html"
    """The file to write. A report that is there already is overwritten."""
    force: bool = False
    """Also overwrite a file that is not a report."""
    film: bool = True
    """Play one greedy episode for the page of a single run, in the run's environment."""
    film_seed: int = 0
    """Seed of that episode."""


def run(arguments: list[str]) -> int:
    """Write the page and print its path."""
    command = parse(ReportCommand, arguments, "nexus report")
    if command.film and len(command.runs) == 1:
        look_here(None, command.runs[0], None)
    from nexus.reporting.writing import report

    notes: list[str] = []
    path = report(
        command.runs,
        command.out,
        force=command.force,
        film=command.film,
        film_seed=command.film_seed,
        notice=notes.append,
    )
    for line in notes:
        print(f"Note: {line}")
    print(f"Report: {path}")
    return 0
