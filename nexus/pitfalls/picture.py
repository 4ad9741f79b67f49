"""The picture of a pitfall: the mean curve of each arm, with its interval as a band."""

from pathlib import Path
from typing import Any

from nexus.core.errors import RunError
from nexus.core.types import Floats
from nexus.pitfalls.evidence import Evidence
from nexus.training.statistics import bootstrap_interval

__all__ = ["save_picture"]

SIZE_IN_INCHES = (7.2, 4.4)
# Okabe & Ito's colour-blind safe palette: https://jfly.uni-koeln.de/color/
BROKEN_COLOUR, CURED_COLOUR = "#D55E00", "#0072B2"


def save_picture(evidence: Evidence, path: Path, dots_per_inch: int = 150) -> None:
    """Draw both arms into a .png, .pdf or .svg file.

    Raises:
        RunError: the file can't be written.
    """
    try:
        drawn(evidence).savefig(path, dpi=dots_per_inch)
    except OSError as error:
        raise RunError(f"can't write {path}: {error.strerror or error}") from None


def drawn(evidence: Evidence) -> Any:
    """Return a matplotlib figure."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a window system

    pitfall = evidence.pitfall
    figure = Figure(figsize=SIZE_IN_INCHES, layout="constrained")
    axes = figure.add_subplot()
    if pitfall.log_scale:
        axes.set_yscale("symlog")  # a value may be 0 or less
    draw_arm(axes, evidence, evidence.broken, pitfall.broken_by, BROKEN_COLOUR)
    draw_arm(axes, evidence, evidence.cured, pitfall.cured_by, CURED_COLOUR)
    if pitfall.reference is not None:
        value, meaning = pitfall.reference
        axes.axhline(value, color="black", linestyle="--", linewidth=1.2, label=meaning)
    axes.set_title(f"{pitfall.name}: {pitfall.world}", loc="left", fontweight="bold")
    axes.set_xlabel("steps")
    axes.set_ylabel(pitfall.measure)
    axes.set_xlim(left=0)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def draw_arm(axes: Any, evidence: Evidence, curves: Floats, label: str, colour: str) -> None:
    """Draw the mean of curves `[R, K]` and, of several seeds, its 95 % interval at each point."""
    count = len(curves)
    said = f"{label} (1 seed)" if count == 1 else f"{label} ({count} seeds, 95 % interval)"
    axes.plot(evidence.steps, curves.mean(0), color=colour, linewidth=1.8, label=said)
    if count > 1:
        axes.fill_between(evidence.steps, *bootstrap_interval(curves), color=colour, alpha=0.18, linewidth=0)
