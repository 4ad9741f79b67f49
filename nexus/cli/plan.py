"""`nexus plan ENV`."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from nexus.cli.train import TrainCommand, read_as
from nexus.planning.forecast import Forecast

__all__ = ["run"]


@dataclass(frozen=True)
class PlanCommand(TrainCommand):
    """Estimate the memory, disk and time that a training needs, and the score to expect.

    Takes the flags of `nexus train`, and trains for a few seconds in a temporary folder.
    """

    probe_seconds: float = 10.0
    """Duration of the probe in seconds."""


def run(arguments: list[str]) -> int:
    """Probe and print the table."""
    command = read_as(PlanCommand, arguments, "nexus plan")
    from nexus.planning import plan

    console = Console(highlight=False)
    with console.status(f"probing for {command.probe_seconds:g} s"):
        forecast = plan(
            command.env,
            preset=command.preset,
            config=command.config,
            run_dir=command.run_dir,
            probe_seconds=command.probe_seconds,
        )
    console.print(table(forecast))
    for note in forecast.notes:
        console.print(f"Note: {note}", soft_wrap=True, markup=False)
    return 0


def table(forecast: Forecast) -> Table:
    """Return the forecast as a table, with units."""
    from nexus.cli.progress import algorithm_line, environment, two_columns

    config = forecast.config
    rows = {"environment": environment(forecast.env, config)}
    if forecast.rules is not None:
        rows["protocol"] = str(forecast.rules)
    rows |= {
        "algorithm": f"{algorithm_line(config)}, {forecast.parameters:,} parameters",
        "settings": f"preset {forecast.preset}" if forecast.preset else "as given",
        "training": f"{config.total_steps:,} steps (decisions, all environments together)",
        "memory": memory_line(forecast),
        "disk": disk_line(forecast),
        "time": f"{duration(forecast.time.total)} ({duration(forecast.time.low)} to {duration(forecast.time.high)})",
        "of which": ", ".join(f"{share:.0%} {name}" for name, share in forecast.time.shares.items() if share >= 0.005),
        "speed": speed_line(forecast),
        "score": str(forecast.expected),
    }
    return two_columns(rows)


def memory_line(forecast: Forecast) -> str:
    """Return text on the memory of replay and process, and the memory available."""
    memory = forecast.memory
    filled = "" if memory.filled == memory.replay else f" ({size(memory.filled)} after this many steps)"
    name = "rollout" if forecast.config.has_rollouts else "replay"
    return f"{name} {size(memory.replay)} when full{filled}, process {size(memory.base)}, {size(memory.free)} free"


def disk_line(forecast: Forecast) -> str:
    """Return text on the disk space of checkpoints and logs, and the space available."""
    disk = forecast.disk
    kept = f"at most {size(disk.checkpoints)} for {disk.kept} checkpoint(s)"
    return f"{kept}, logs and weights {size(disk.logs)}, {size(disk.free)} free"


def speed_line(forecast: Forecast) -> str:
    """Return text on steps per second, and frames per second if a step has several."""
    frames = f", {forecast.frames_per_second:,.0f} frames/s" if forecast.config.frame_skip > 1 else ""
    return f"{forecast.time.steps_per_second:,.0f} steps/s during training{frames}"


def size(count: int | None) -> str:
    """Return bytes in a readable unit."""
    if count is None:
        return "unknown"
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def duration(seconds: float) -> str:
    """Return seconds in a readable unit."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
