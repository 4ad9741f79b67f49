"""`nexus check ENV`."""

import json
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from nexus.checking.report import Finding, Report
from nexus.cli.train import TrainCommand, read_as

__all__ = ["run"]

STYLES = {"ok": "green", "note": "yellow", "fault": "bold red"}


@dataclass(frozen=True)
class CheckCommand(TrainCommand):
    """Report what nexus sees of an environment, play it at random for a few seconds, and list the problems, each
    with its cure. Takes the flags of `nexus train`. Exit code 0 without a fault, 1 with one, 2 for bad input.
    """

    seconds: float = 7.0
    """Time for the check, without start-up; a call of the environment that takes half of it is abandoned."""
    json: bool = False
    """Print the report as JSON."""


def run(arguments: list[str]) -> int:
    """Check and print; return 0 if there is no fault, else 1."""
    as_json = "--json" in arguments
    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # an environment's own output is not JSON
        report = checked(arguments)
    if as_json:
        print(json.dumps(report.to_mapping()))
    else:
        print_report(report)
    return 1 if report.faults else 0


def checked(arguments: list[str]) -> Report:
    """Parse the command line and check."""
    command = read_as(CheckCommand, arguments, "nexus check")
    from nexus.checking import check

    with Console(stderr=True).status(f"checking {command.env}"):
        return check(command.env, preset=command.preset, config=command.config, seconds=command.seconds)


def print_report(report: Report) -> None:
    """Print the findings, and how many are faults."""
    console = Console(highlight=False)
    for finding in report.findings:
        console.print(line(finding), soft_wrap=True)
    console.print(report.summary, soft_wrap=True, markup=False)


def line(finding: Finding) -> Text:
    """Return a finding with its verdict in colour."""
    text = Text(str(finding))
    text.stylize(STYLES[finding.verdict], 0, len(finding.verdict))
    return text
