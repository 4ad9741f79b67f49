"""`nexus resume RUN`."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from nexus.cli.here import look_here
from nexus.cli.parsing import parse
from nexus.core.names import TrackerName

__all__ = ["run"]


@dataclass(frozen=True)
class ResumeCommand:
    """Continue a stopped or killed run exactly where it was, or train a finished one further."""

    run: Annotated[str, tyro.conf.Positional]
    """A run's folder."""
    total_steps: int | None = None
    """Train to this step instead of the planned one."""
    on_divergence: Literal["stop", "rollback"] | None = None
    """What to do on divergence, if different from the run's setting."""
    device: str | None = None
    """cpu, cuda, cuda:1 or mps; none for the training device. On another kind of device the last bits differ."""
    track: TrackerName | None = None
    """Also send the logged numbers to a tracker, continuing the original tracked run if there was one."""
    listener: str | None = None
    """Your own nexus.Listener, as module:Class; it gets back its state from the checkpoint."""


def run(arguments: list[str]) -> int:
    """Continue the run; return 0, 130 after Ctrl-C, or 143 after SIGTERM."""
    command = parse(ResumeCommand, arguments, "nexus resume")
    look_here(None, command.run, None)
    if command.listener is not None:
        look_here(command.listener)
    from nexus.api import resume
    from nexus.cli.own_listeners import with_own
    from nexus.cli.progress import TrainView
    from nexus.core.errors import result_of

    with TrainView() as view:
        listener = with_own(view, command.track, command.listener)
        try:
            result = resume(
                command.run,
                total_steps=command.total_steps,
                on_divergence=command.on_divergence,
                device=command.device,
                listener=listener,
            )
        except KeyboardInterrupt as stop:
            result = result_of(stop)
            if result is None:  # a second signal arrived before everything was saved
                raise
    view.finish(result)
    return result.exit_code
