"""`nexus doctor RUN`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from nexus.cli.parsing import parse
from nexus.core.installation import nexus_command
from nexus.doctor.diagnosis import Diagnosis
from nexus.doctor.symptom import Symptom

__all__ = ["run"]

STYLES_OF_SEVERITIES = {"note": "yellow", "warning": "bold yellow", "critical": "bold red"}


@dataclass(frozen=True)
class DoctorCommand:
    """Say what kept a run from learning: the most likely cause first, then what follows from it. Reads the run's logs
    alone, so it works on runs in progress, and on those that were killed or diverged. Exit code 0 if healthy, 1 with
    a warning, 2 for bad input.
    """

    run: Annotated[str, tyro.conf.Positional]
    """A run's folder."""
    json: bool = False
    """Print the diagnosis as JSON."""


def run(arguments: list[str]) -> int:
    """Diagnose and print; return 1 if anything is more than a note, else 0."""
    command = parse(DoctorCommand, arguments, "nexus doctor")
    from nexus.doctor.afterwards import diagnose

    found = diagnose(command.run)
    if command.json:
        print(json.dumps(found.to_mapping()))
    else:
        show(found, command.run)
    return 1 if found.alarms else 0


def show(found: Diagnosis, run: str) -> None:
    """Print a diagnosis."""
    console = Console(highlight=False)
    root = found.root
    if root is None:
        console.print(f"Nothing keeps this run from learning, as of step {found.step:,}.")
    else:
        for line in lines_of(root, found.step):
            console.print(line, soft_wrap=True, style=STYLES_OF_SEVERITIES[root.severity])
        for symptom in found.alarms[1:]:
            console.print(f"  and so, probably: {symptom.check}: {symptom.text}", soft_wrap=True, markup=False)
    for symptom in found.symptoms:
        if not symptom.alarms:
            console.print(f"{symptom}", soft_wrap=True, markup=False, style=STYLES_OF_SEVERITIES["note"])
    if found.past:
        earlier = ", ".join(f"{name} (step {step:,})" for name, step in found.past.items())
        console.print(f"earlier alarms, over now: {earlier}", soft_wrap=True, markup=False)
    console.print(f"fine: {', '.join(found.fine) or 'nothing'}", soft_wrap=True)
    if found.unjudged:
        console.print(f"not judged: {', '.join(found.unjudged)}", soft_wrap=True)
    if root is not None:
        console.print(f"With all numbers: {nexus_command('doctor', run, '--json')}", soft_wrap=True, markup=False)


def lines_of(symptom: Symptom, step: int) -> Iterator[str]:
    """Yield the text of the root cause, as of a step."""
    since = "" if symptom.step == step else f" (since step {symptom.step:,})"
    yield f"{symptom.severity}: {symptom.check}: {symptom.text}{since}"
    yield f"  fine would be: {symptom.threshold}"
    yield f"  likely cause:  {symptom.cause}"
    yield f"  cure:          {symptom.cure}"
