"""A run in a notebook: one display that updates itself, and stays in the saved notebook as it was at the end."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from markupsafe import Markup

from nexus.checking.first_steps import FirstSteps
from nexus.cli.live_table import MOST_FINDINGS, learning, plain_line, said_of_return
from nexus.cli.progress import MOST_SHARE, evaluating, plan_rows
from nexus.cli.standing import Gauge, ReturnCurve, Standing, clock
from nexus.core.errors import RunError
from nexus.core.figures import figures
from nexus.listener import Listener, Plan, TrainResult
from nexus.training.curves import read_episodes
from nexus.training.edited import read_run_or_copy
from nexus.training.evaluation import Evaluation
from nexus.training.logs import EpisodeTracker
from nexus.training.loop import Progress

__all__ = ["NotebookView", "kernel_display", "result_html"]

SECONDS_BETWEEN_UPDATES = 1.0  # each sends a few kilobytes to the browser
SVG_WIDTH, HEIGHT, SVG_MARGIN = 480, 120, 8  # of the picture, in pixels
MOST_NOTES, MOST_EVALUATIONS = 20, 5  # shown; of more the last ones

Display = Callable[..., Any]


def kernel_display() -> Display | None:
    """Return IPython's function that displays an object, in a notebook's kernel; None anywhere else.

    It imports nothing if IPython is not loaded: in a kernel it is.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if not any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__):
        return None
    display: Display = import_module("IPython.display").display
    return display


@dataclass(frozen=True)
class Shown:
    """What a display shows: HTML, and a text for where there is none."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


class NotebookView(Listener):
    """Shows a run in a notebook. Use as a context manager.

    Args:
        display: IPython's function.
    """

    def __init__(self, display: Display) -> None:
        self.display = display
        self.handle: Any = None  # of the display; None before the first
        self.plan: Plan | None = None
        self.last: tuple[Progress, EpisodeTracker] | None = None
        self.facts: dict[str, str] = {"status": "starting"}
        self.evaluations: list[tuple[int, Evaluation]] = []
        self.notes: list[str] = []
        self.first_steps = FirstSteps(self.on_notice)
        self.shown_at, self.cost = time.perf_counter(), 0.0  # of the last update, seconds that it took

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.plan is None and self.notes:  # of a run that did not start
            self.show()

    def on_start(self, plan: Plan) -> None:
        """Show the plan."""
        self.plan, self.gauge = plan, Gauge(plan)
        self.facts["status"] = "running"
        self.show()
        self.first_steps.on_start(plan)

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Update the display once a second."""
        self.first_steps.on_step(progress, episodes)
        self.gauge.follow(progress, episodes)
        self.last = progress, episodes
        if self.is_due():
            self.facts.pop("evaluating", None)
            self.show()

    def on_scalars(self, steps: int, values: Mapping[str, float]) -> None:
        """Keep what the doctor measured."""
        self.gauge.note(values)

    def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
        """Show how far a long evaluation is."""
        if self.is_due():
            self.facts["evaluating"] = evaluating(steps, ended, episodes).partition(": ")[2]
            self.show()

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        """Show the evaluation."""
        self.facts.pop("evaluating", None)
        self.evaluations.append((steps, evaluation))
        self.show()

    def on_notice(self, text: str) -> None:
        """Show the notice with the next update."""
        self.notes.append(text)

    def on_end(self, status: str) -> None:
        """Show the last numbers."""
        self.facts.pop("evaluating", None)
        self.facts["status"] = status
        self.show()

    def finish(self, result: TrainResult) -> None:
        """Show how the run ended and where its files are."""
        self.facts |= facts_of_result(result)
        self.show()

    def is_due(self) -> bool:
        """True once a second, or less often if updates are slow."""
        return time.perf_counter() - self.shown_at >= max(SECONDS_BETWEEN_UPDATES, self.cost / MOST_SHARE)

    def show(self) -> None:
        """Make the display, or update it."""
        self.shown_at = time.perf_counter()
        standing = None if self.last is None else self.gauge.standing(*self.last)
        html = run_html(self.plan, standing, self.facts, self.evaluations, self.notes)
        text = f"{self.facts['status']}" if standing is None else f"{self.facts['status']}: {plain_line(standing)}"
        shown = Shown(html, text)
        if self.handle is None:
            self.handle = self.display(shown, display_id=True)
        else:
            self.handle.update(shown)
        self.cost = time.perf_counter() - self.shown_at


def run_html(
    plan: Plan | None,
    standing: Standing | None,
    facts: Mapping[str, str],
    evaluations: Sequence[tuple[int, Evaluation]],
    notes: Sequence[str],
) -> Markup:
    """Return a run in progress as HTML.

    Args:
        plan: the run's plan; None before it has one.
        standing: how it stands; None before the first step.
        facts: names and texts.
        evaluations: those so far, each with its step.
        notes: the run's notices.
    """
    rows = list(facts.items())
    picture = Markup()
    if standing is not None:
        rows += [("steps", f"{standing.steps:,} of {standing.total:,}, {standing.per_second:,.0f} per second")]
        if facts["status"] == "running":
            rows += [("time left", clock(standing.seconds_left))]
        rows += [("return", f"{said_of_return(standing)} (mean of the last training episodes)")]
        if standing.predicted is not None and standing.realised is not None:
            predicted, realised = figures(standing.predicted, standing.realised)
            rows += [("Q(s₀)", f"{predicted} predicted, {realised} realised (discounted, from first states)")]
        rows += [("learning", "  ".join(learning(standing)))]
        scores = [(step, evaluation.mean) for step, evaluation in evaluations]
        picture = picture_of_returns(standing.return_steps, standing.returns, scores)
    rows += [(f"evaluation, step {step:,}", str(score)) for step, score in evaluations[-MOST_EVALUATIONS:]]
    findings = [] if standing is None else standing.findings
    rows += [(symptom.severity, f"{symptom.check}: {symptom.text}") for symptom in findings[:MOST_FINDINGS]]
    if len(findings) > MOST_FINDINGS:
        rows += [("", f"{len(findings) - MOST_FINDINGS} more of the doctor's findings")]
    rows += [("note", text) for text in notes[-MOST_NOTES:]]
    settings = Markup()
    if plan is not None:
        body = html_table(plan_rows(plan).items())
        settings = Markup("<details><summary>settings</summary>{}</details>").format(body)
    title = "nexus" if plan is None else plan.env
    return Markup("<div><strong>{}</strong>{}{}{}</div>").format(title, picture, html_table(rows), settings)


def result_html(result: TrainResult) -> Markup:
    """Return a finished run as HTML: its curve as far as it can be read, its score and where its files are."""
    curve = ReturnCurve()
    episodes = read_episodes(result.run_dir, lambda error: None)
    for step, value in zip(episodes["step"], episodes["return"], strict=True):
        curve.add(int(step), float(value))
    title: object = result.run_dir.name
    with suppress(RunError):
        title = read_run_or_copy(result.run_dir, lambda text: None).get("env", title)
    score = [] if result.evaluation is None else [(result.counters.steps, result.evaluation.mean)]
    picture, rows = picture_of_returns(curve.steps, curve.means, score), html_table(facts_of_result(result).items())
    return Markup("<div><strong>{}</strong>{}{}</div>").format(str(title), picture, rows)


def facts_of_result(result: TrainResult) -> dict[str, str]:
    """Return how a run ended, by name."""
    counters = result.counters
    status = "interrupted" if result.interrupted else "finished"
    facts = {
        "status": f"{status} after {counters.steps:,} steps, {counters.episodes:,} episodes, {counters.updates:,} "
        f"updates, {result.seconds:.1f} s"
    }
    if result.stop_reason is not None:
        facts["stopped"] = result.stop_reason
    if result.evaluation is not None:
        facts |= {"score": str(result.evaluation), "protocol": str(result.evaluation.protocol)}
    return {**facts, "folder": str(result.run_dir)}


def html_table(rows: Iterable[tuple[str, str]]) -> Markup:
    """Return names and texts as a table."""
    cell = '<td style="text-align:left;white-space:pre-wrap">{}</td>'
    line = Markup('<tr><th scope="row" style="text-align:left">{}</th>' + cell + "</tr>")
    return Markup("<table>{}</table>").format(Markup().join(line.format(name, text) for name, text in rows))


def picture_of_returns(steps: Sequence[int], means: Sequence[float], scores: Sequence[tuple[int, float]]) -> Markup:
    """Return the returns over steps as a picture; nothing for less than two points.

    Args:
        steps: `[K]`, of the curve.
        means: `[K]`, its values.
        scores: steps and means of evaluations.
    """
    if len(steps) < 2:
        return Markup()
    values = [*means, *(score for _, score in scores)]
    lowest, highest, end = min(values), max(values), max([*steps, *(step for step, _ in scores)])
    at_lowest, at_highest = figures(lowest, highest)

    def place(step: float, value: float) -> tuple[str, str]:
        height = (value - lowest) / (highest - lowest) if highest > lowest else 0.5
        x, y = SVG_WIDTH * step / max(end, 1), HEIGHT * (1 - height)
        return f"{SVG_MARGIN + x:.1f}", f"{SVG_MARGIN + y:.1f}"

    points = " ".join(",".join(place(step, mean)) for step, mean in zip(steps, means, strict=True))
    circle = Markup('<circle cx="{}" cy="{}" r="3" fill="none" stroke="#d97706" stroke-width="2"/>')
    circles = Markup().join(circle.format(*place(step, score)) for step, score in scores)
    said = f"returns over {end:,} steps, from {at_lowest} to {at_highest}"
    line = "training episodes, which explore (line)" + (" and evaluations (circles)" if scores else "")
    size = Markup('width="{0}" height="{1}" viewBox="0 0 {0} {1}"').format(
        SVG_WIDTH + 2 * SVG_MARGIN, HEIGHT + 2 * SVG_MARGIN
    )
    return Markup(
        '<div><svg {} role="img" aria-label="{}" style="display:block;max-width:100%">'
        '<polyline points="{}" fill="none" stroke="#3b82f6" stroke-width="1.5"/>{}</svg><small>{}: {}</small></div>'
    ).format(size, said, points, circles, said, line)
