"""The files of one run: checkpoints, the best weights, `run.json`, and the final weights."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from nexus.core.config import AgentConfig
from nexus.core.errors import RunError
from nexus.core.state import State, part
from nexus.parts import Parts
from nexus.training.best import BestWeights
from nexus.training.checkpoint import Checkpoint
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.course import Course
from nexus.training.divergence import require_finite_state
from nexus.training.evaluation import Evaluation
from nexus.training.files import LogMarks, Mark, read_json, remove, write_json
from nexus.training.run_folder import (
    AGENT_FILE,
    EVALUATION_FILE,
    FORMAT,
    RUN_FILE,
    save_weights,
    versions,
    weights_of,
    with_statistics,
)
from nexus.training.same_run import mark_of_weights

__all__ = ["RunFiles", "version_changes"]

SETTINGS = frozenset(field.name for field in fields(AgentConfig))  # an agent's settings, which a config also has


class RunFiles:
    """Writes the files of a run.

    Args:
        folder: the run's folder.
        parts: the run's parts.
        preset: the name of the preset of its settings.
        lineage: where its weights started, as `Origin.lineage` says; None for fresh ones.
    """

    def __init__(
        self, folder: Path, parts: Parts, preset: str | None, lineage: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self.lineage = lineage
        self.parts = parts
        self.preset = preset
        self.checkpoints = Checkpoints(folder, parts.config.keep_checkpoints)
        self.best = BestWeights(folder, self.about())
        self.weights = weights_said(folder / RUN_FILE)

    def about(self) -> dict[str, Any]:
        """Return the environment and the settings: the part of `run.json` that every checkpoint repeats."""
        parts = self.parts
        return {
            "env": parts.name,
            "env_is_id": isinstance(parts.spec.source, str),
            "algorithm": parts.config.algorithm,
            "preset": self.preset,
            "config": parts.config.to_mapping(),
            "agent": {name: value for name, value in parts.agent.config.items() if name not in SETTINGS},
            **({} if self.lineage is None else {"from": self.lineage}),
        }

    def has_checkpoint(self) -> bool:
        """True if this exact step has a checkpoint, or there is nothing to save yet.

        The weights that a run starts with are worth saving: the run that they are from can be deleted.
        """
        steps = self.parts.counters.steps
        return steps in self.checkpoints.kept or (steps == 0 and self.lineage is None)

    def write_checkpoint(self, state: State, logs: LogMarks, periodic: bool) -> None:
        """Write everything the run needs to continue from here; never a diverged agent.

        Raises:
            DivergenceError: the agent contains values that are not finite.
            RunError: the disk is full or can't be written to.
        """
        steps = self.parts.counters.steps
        require_finite_state(part(state, "agent"), steps)
        about = {"run": self.about(), "periodic": periodic}
        self.checkpoints.write(steps, state, self.parts.series(), logs, about)
        self.best.keep_for(self.checkpoints.kept)

    def go_back_to(self, checkpoint: Checkpoint | None) -> None:
        """Discard everything written after the checkpoint the run resumes from."""
        self.checkpoints.go_on_from(checkpoint)
        self.best.go_back_to(0 if checkpoint is None else checkpoint.steps)

    def offer_best(self, steps: int, evaluation: Evaluation) -> None:
        """Keep the current weights, unless earlier ones scored better."""
        self.best.offer(steps, evaluation, with_statistics(self.parts.agent.networks, self.parts.statistics()))

    def save(self, status: str, course: Course, evaluation: Evaluation | None = None) -> None:
        """Write weights and `run.json`."""
        if status != "running":  # at the start `run.json` comes first: without it the weights are meaningless
            self.save_weights(evaluation)
        self.write_about(status, course)
        if status == "running" and not (self.folder / AGENT_FILE).exists():
            self.save_weights(evaluation)  # a resumed run keeps its last final weights until it ends again
            self.write_about(status, course)

    def write_about(self, status: str, course: Course) -> None:
        """Write `run.json`."""
        write_json(
            self.folder / RUN_FILE,
            {
                "format": FORMAT,
                **self.about(),
                "status": status,
                "progress": asdict(self.parts.counters),
                "seconds": round(course.seconds, 3),
                "rollbacks": course.rollbacks,
                "divergence": course.divergence,
                "weights": None if self.weights is None else asdict(self.weights),
                "versions": versions(),
            },
        )

    def save_weights(self, evaluation: Evaluation | None) -> None:
        """Write all networks unless they have diverged, and their evaluation if known.

        Any evaluation of other weights is removed first: a kill can leave weights without a score, but never
        weights with another's score.
        """
        networks, steps = self.parts.agent.networks, self.parts.counters.steps
        if not all(value.isfinite().all() for value in weights_of(networks).values()):
            return
        path = self.folder / EVALUATION_FILE
        if evaluation is not None or evaluated_at(path) != steps:
            remove(path)
        self.weights = save_weights(self.folder, with_statistics(networks, self.parts.statistics()))
        if evaluation is not None:
            write_json(path, {"steps": steps, "weights": asdict(self.weights), **evaluation.to_mapping()})


def evaluated_at(path: Path) -> int | None:
    """Return the step of the weights evaluated in an `evaluation.json`, or None if unknown."""
    try:
        steps = read_json(path).get("steps")
    except RunError:
        return None
    return steps if isinstance(steps, int) else None


def weights_said(path: Path) -> Mark | None:
    """Return the entry about the weights in a `run.json`; None if there is none."""
    try:
        return mark_of_weights(read_json(path))
    except RunError:
        return None


def version_changes(then: Mapping[str, Any]) -> list[str]:
    """Return a notice if versions differ from those of a checkpoint, else nothing."""
    now = versions()
    changed = [f"{name} {then[name]} is now {now[name]}" for name in now if then.get(name, now[name]) != now[name]]
    return [f"{', '.join(changed)}: the numbers may differ from those of an uninterrupted run"] if changed else []
