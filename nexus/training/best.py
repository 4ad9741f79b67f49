"""The weights with the best evaluation, exactly as they were evaluated."""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nexus.core.errors import RunError
from nexus.core.state import value_from
from nexus.core.types import Array
from nexus.training.evaluation import Evaluation
from nexus.training.files import (
    Mark,
    file_in,
    mark_of,
    read_json,
    read_tensors,
    remove,
    wants_disk,
    write_json,
    write_tensors,
)
from nexus.training.same_run import require_same_run

__all__ = ["BEST", "BestWeights", "Scored"]

BEST = "best"  # folder name
NAME = re.compile(r"(\d{1,16})\.json", re.ASCII)


@dataclass(frozen=True)
class Scored:
    """Weights that were evaluated."""

    steps: int
    score: float  # mean return


class BestWeights:
    """Keeps the weights with the best score of one run.

    Until the next checkpoint an older best is kept along with a newer one, so that a run rolled back to a checkpoint
    still has the best weights up to that step.

    Args:
        run: the run's folder.
        about: the run's settings, as in `run.json`; weights written with other settings are ignored.
    """

    def __init__(self, run: Path, about: Mapping[str, Any]) -> None:
        self.run = run
        self.about = {name: about.get(name) for name in ("config", "agent")}

    def present(self) -> list[Scored]:
        """Return the undamaged weights, best first, the newer first in a tie."""
        found = []
        for steps in self.stored():
            with suppress(RunError):  # half written, damaged, or from another run
                found.append(Scored(steps, self._about(steps)[0].mean))
        return sorted(found, key=lambda scored: (scored.score, scored.steps), reverse=True)

    def stored(self) -> list[int]:
        """Return the steps of the stored weights, damaged or not."""
        names = [NAME.fullmatch(path.name) for path in (self.run / BEST).glob("*.json")]
        return sorted(int(name[1]) for name in names if name is not None)

    def offer(self, steps: int, evaluation: Evaluation, weights: Mapping[str, Array]) -> None:
        """Keep the weights of this step, unless older ones are better.

        Raises:
            RunError: the disk is full or can't be written to.
        """
        best = next(iter(self.present()), None)
        if best is not None and best.score > evaluation.mean:
            return
        with wants_disk(self.run / BEST):
            (self.run / BEST).mkdir(exist_ok=True)
        mark = write_tensors(self.run / BEST / f"{steps}.safetensors", weights)
        write_json(
            self.run / BEST / f"{steps}.json",
            {"steps": steps, "run": self.about, "evaluation": evaluation.to_mapping(), "weights": asdict(mark)},
        )

    def keep_for(self, checkpoints: Iterable[int]) -> None:
        """Remove weights that are not the best now or at one of these checkpoints."""
        present = self.present()
        needed = {next((scored.steps for scored in present if scored.steps <= steps), None) for steps in checkpoints}
        needed |= {scored.steps for scored in present[:1]}
        self._remove_unless(lambda steps: steps in needed)

    def go_back_to(self, steps: int) -> None:
        """Remove weights scored after this step, since those steps are discarded."""
        self._remove_unless(lambda scored: scored <= steps)

    def read(self, steps: int, limit: int) -> dict[str, Array]:
        """Return the weights of a step; `limit` is their largest valid size in bytes.

        Raises:
            RunError: a file is missing, damaged or from another run.
        """
        _, mark = self._about(steps)
        return read_tensors(file_in(self.run, f"{BEST}/{steps}.safetensors"), limit, mark)

    def evaluation(self, steps: int) -> Evaluation:
        """Return the evaluation in which the weights of a step scored.

        Raises:
            RunError: its file is missing or damaged.
        """
        return self._about(steps)[0]

    def check(self, steps: int) -> None:
        """Raise `RunError` unless both files of a step are undamaged."""
        _, mark = self._about(steps)
        self.read(steps, mark.bytes)

    def _about(self, steps: int) -> tuple[Evaluation, Mark]:
        name = f"{BEST}/{steps}.json"
        about = read_json(file_in(self.run, name))
        require_same_run(self.about, value_from({"run": {}, **about}, "run", dict), name)
        return Evaluation.from_mapping(about.get("evaluation")), mark_of(about.get("weights"), f"{steps}.safetensors")

    def _remove_unless(self, kept: Callable[[int], bool]) -> None:
        for path in sorted((self.run / BEST).glob("*")):
            match = re.match(r"\d{1,16}(?=\.)", path.name)
            if match is not None and not kept(int(match[0])):
                remove(path)
