"""The files of one run: checkpoints, the best weights, `run.json`, and the weights of the end."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from nexus.core.config import AgentConfig
from nexus.core.errors import RunError
from nexus.core.state import State, arrays_of, part
from nexus.parts import Parts
from nexus.training.best import BestWeights
from nexus.training.checkpoint import Checkpoint
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.course import Course
from nexus.training.divergence import require_finite_state
from nexus.training.evaluation import Evaluation
from nexus.training.files import LogMarks, read_json, remove, write_json
from nexus.training.run_folder import (
    AGENT_FILE,
    EVALUATION_FILE,
    FORMAT,
    RUN_FILE,
    save_weights,
    versions,
    weights_of,
)

__all__ = ["RunFiles", "version_changes"]

SETTINGS = frozenset(field.name for field in fields(AgentConfig))  # of an agent: a config has them, too


class RunFiles:
    """Writes what a run leaves.

    Args:
        folder: of the run.
        parts: of the run.
        preset: the name that its settings came from.
    """

    def __init__(self, folder: Path, parts: Parts, preset: str | None) -> None:
        self.folder = folder
        self.parts = parts
        self.preset = preset
        self.checkpoints = Checkpoints(folder, parts.config.keep_checkpoints)
        self.best = BestWeights(folder)

    def about(self) -> dict[str, Any]:
        """What was trained, and with which settings: the part of `run.json` that every checkpoint has, too."""
        parts = self.parts
        return {
            "env": parts.name,
            "env_is_id": isinstance(parts.spec.source, str),
            "algorithm": parts.config.algorithm,
            "preset": self.preset,
            "config": parts.config.to_mapping(),
            "agent": {name: value for name, value in parts.agent.config.items() if name not in SETTINGS},
        }

    def has_checkpoint(self) -> bool:
        """True if there is a checkpoint of this very step, or nothing yet that one could keep."""
        steps = self.parts.counters.steps
        return steps == 0 or steps in self.checkpoints.kept

    def write_checkpoint(self, state: State, logs: LogMarks, periodic: bool) -> None:
        """Write all that the run needs to go on from here; never what has diverged.

        Raises:
            DivergenceError: the agent holds what is not finite.
            RunError: the disk is full or can't be written to.
        """
        steps = self.parts.counters.steps
        require_finite_state(part(state, "agent"), steps)
        about = {"run": self.about(), "periodic": periodic}
        self.checkpoints.write(steps, state, self.parts.series(), logs, about)
        self.best.keep_for(self.checkpoints.kept)

    def go_back_to(self, checkpoint: Checkpoint | None) -> None:
        """Forget what was written after the checkpoint that the run goes on from."""
        self.checkpoints.go_on_from(checkpoint)
        self.best.go_back_to(0 if checkpoint is None else checkpoint.steps)

    def offer_best(self, steps: int, evaluation: Evaluation) -> None:
        """Keep the weights as they are, if none before them scored better."""
        self.best.offer(steps, evaluation, arrays_of(weights_of(self.parts.agent.networks)))

    def save(self, status: str, course: Course, evaluation: Evaluation | None = None) -> None:
        """Write weights and `run.json`."""
        if status != "running":  # at the start `run.json` comes first: without it the weights mean nothing
            self.save_weights(evaluation)
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
                "versions": versions(),
            },
        )
        if status == "running" and not (self.folder / AGENT_FILE).exists():
            self.save_weights(evaluation)  # of a run that goes on, those of its last end stay until its next

    def save_weights(self, evaluation: Evaluation | None) -> None:
        """Write all networks, unless they have diverged, and how good they are if that is known.

        An evaluation of other weights goes first: should this be killed, weights without a score are left and never
        weights beside the score of others.
        """
        networks, steps = self.parts.agent.networks, self.parts.counters.steps
        if not all(value.isfinite().all() for value in weights_of(networks).values()):
            return
        path = self.folder / EVALUATION_FILE
        if evaluation is not None or evaluated_at(path) != steps:
            remove(path)
        save_weights(self.folder, networks)
        if evaluation is not None:
            write_json(path, {"steps": steps, **evaluation.to_mapping()})


def evaluated_at(path: Path) -> int | None:
    """Return the step of the weights that an `evaluation.json` is of; None if it does not say, or there is none."""
    try:
        steps = read_json(path).get("steps")
    except RunError:
        return None
    return steps if isinstance(steps, int) else None


def version_changes(then: Mapping[str, Any]) -> list[str]:
    """Say which versions are others than those of a checkpoint."""
    now = versions()
    changed = [f"{name} {then[name]} is now {now[name]}" for name in now if then.get(name, now[name]) != now[name]]
    return [f"{', '.join(changed)}: the numbers may differ from those of an unbroken run"] if changed else []
