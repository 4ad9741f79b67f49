"""`nexus verify RUN`."""

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from nexus.cli.parsing import parse
from nexus.core.installation import nexus_command

__all__ = ["run"]


@dataclass(frozen=True)
class VerifyCommand:
    """Check every file of a run against its checksum, and report what can be resumed."""

    run: Annotated[str, tyro.conf.Positional]
    """A run's folder."""


def run(arguments: list[str]) -> int:
    """Check and print; return 0 if every file is undamaged, else 2."""
    command = parse(VerifyCommand, arguments, "nexus verify")
    from nexus.training.verify import verify

    verdict = verify(command.run)
    for line in verdict.damage:
        print(f"nexus: damaged: {line}", file=sys.stderr)
    print(f"{verdict.files} files are intact, {len(verdict.damage)} problem(s)")
    if verdict.checkpoints:
        others = "".join(f", {steps}" for steps in verdict.checkpoints[1:])
        print(
            f"{nexus_command('resume', command.run)} continues from step {verdict.checkpoints[0]}"
            + (f" (also intact: {others[2:]})" if others else "")
        )
    else:
        print("no intact checkpoint")
    return 0 if verdict.whole else 2
