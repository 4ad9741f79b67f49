"""A study on the console: in a terminal a table in place, elsewhere a line for each run that begins or ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from nexus.cli.encoding import printable
from nexus.cli.live_table import fitting
from nexus.cli.progress import is_live
from nexus.cli.standing import clock
from nexus.studies.crew import StudyProgress, StudyRun, StudyView
from nexus.studies.plan import setting_label

__all__ = ["ConsoleStudyView", "ended_line", "study_lines", "study_view"]

REDRAW = 0.5  # seconds between two drawings
STUDY_BAR = 24  # characters
MOST_SHOWN = 16  # runs in progress


@contextmanager
def study_view(verbose: bool | None = True) -> Iterator[StudyView]:
    """Yield what shows a study: nothing if `verbose` is false, or if it is None and there is no terminal."""
    console = Console(highlight=False, force_jupyter=False)
    if not (console.is_terminal if verbose is None else verbose):
        yield StudyView()
        return
    with printable():
        view = ConsoleStudyView(console)
        try:
            yield view
        finally:
            view.live.stop()


class ConsoleStudyView(StudyView):
    """Shows a study on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.is_live = is_live(console)
        self.lines: list[Text] = []
        self.live = Live(get_renderable=lambda: Group(*self.lines), console=console, auto_refresh=False, transient=True)
        self.drawn_at = 0.0

    def on_begin(self, progress: StudyProgress, folder: Path, jobs: int) -> None:
        """Print what there is to do."""
        self.say(begin_line(progress, folder, jobs))
        if self.is_live:
            self.live.start()

    def on_run(self, run: StudyRun, progress: StudyProgress) -> None:
        """Print a line for each run that has ended, and without a terminal for each that begins."""
        if run.state == "running" and not self.is_live:
            self.say(f"{run.name}: {f'resumed from step {run.steps:,}' if run.steps else 'begun'}")
        elif run.state != "running":
            self.say(ended_line(run, progress))

    def on_tick(self, progress: StudyProgress) -> None:
        """Draw the table twice a second."""
        now = perf_counter()
        if self.is_live and now - self.drawn_at >= REDRAW:
            self.drawn_at = now
            self.lines = study_lines(progress, self.console.width, now, self.console.options.ascii_only)
            self.live.refresh()

    def on_stop(self) -> None:
        """Say that the runs are being saved."""
        self.say("Stopping: saving the runs in progress; once more stops at once.")

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self.console.print(text, soft_wrap=True, markup=False)


def begin_line(progress: StudyProgress, folder: Path, jobs: int) -> str:
    """Return what there is to do."""
    counts = [f"{len(progress.those(state))} {state}" for state in ("finished", "failed") if progress.those(state)]
    to_do = progress.those("left", "begun")
    begun = len(progress.those("begun"))
    counts += [f"{len(to_do)} to do{f', {begun} of them begun' if begun else ''}"] if to_do else []
    at_once = f", {jobs} at a time" if to_do else ""
    return f"Study in {folder}: {len(progress.runs)} runs, {', '.join(counts)}{at_once}"


def ended_line(run: StudyRun, progress: StudyProgress) -> str:
    """Return how a run ended."""
    done = f"[{len(progress.those('finished', 'failed'))} of {len(progress.runs)}]"
    if run.state == "failed":
        return f"{done} {run.name}: failed: {run.error}"
    if run.state == "finished":
        early = f" of {run.total:,}, stopped early" if run.steps < run.total else ""
        return f"{done} {run.name}: finished, {run.steps:,} steps{early}"
    return f"{done} {run.name}: stopped at step {run.steps:,}"


def study_lines(progress: StudyProgress, width: int, now: float, ascii_only: bool = False) -> list[Text]:
    """Return the table: a line on the whole study, and one for each run in progress, none wider than `width`.

    Args:
        progress: how the study stands.
        width: columns of the terminal.
        now: the time, by `time.perf_counter`.
        ascii_only: whether its encoding has only ASCII.
    """
    running = progress.those("running")
    failed = len(progress.those("failed"))
    said = [
        f"{len(progress.those('finished'))} of {len(progress.runs)} done",
        *([f"{failed} failed"] if failed else []),
        f"{len(running)} running",
        f"{len(progress.those('left', 'begun'))} left",
        f"{clock(progress.seconds_left)} to go",
    ]
    share = sum(done_share(run) for run in progress.runs) / max(1, len(progress.runs))
    lines = [Text(fitting([bar(share, ascii_only), *said], width, "  ") or said[0], style="bold")]
    for run in running[:MOST_SHOWN]:
        label = ", ".join(filter(None, [setting_label(run.planned.values), f"seed {run.planned.seed}"]))
        per_second = run.steps_per_second(now)
        pace = [f"{run.steps:,}/{run.total:,}", f"{per_second:,.0f} steps/s"]
        left = clock((run.total - run.steps) / per_second if per_second else None)
        lines.append(Text(fitting([bar(done_share(run), ascii_only), *pace, left, label], width, "  ") or label))
    if len(running) > MOST_SHOWN:
        lines.append(Text(f"and {len(running) - MOST_SHOWN} more running"))
    for line in lines:
        line.no_wrap = True
        line.truncate(max(width, 1), overflow="ellipsis")
    return lines


def done_share(run: StudyRun) -> float:
    """Return the share of a run that is done, from 0 to 1."""
    return 1.0 if run.state in ("finished", "failed") else min(1.0, run.steps / run.total)


def bar(share: float, ascii_only: bool) -> str:
    """Return a bar for a share from 0 to 1."""
    full = round(share * STUDY_BAR)
    done, rest = "#-" if ascii_only else "━╌"
    return done * full + rest * (STUDY_BAR - full)
