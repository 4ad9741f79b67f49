"""Checking every file of a run against its checksum, and finding the checkpoints that can be resumed."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nexus.core.errors import RunError
from nexus.training.best import BEST, BestWeights
from nexus.training.checkpoint import log_damage, read_checkpoint
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.divergence import BATCH_FILE
from nexus.training.files import file_in, read_json, read_tensors
from nexus.training.run_folder import AGENT_FILE, EVALUATION_FILE, FINDINGS_FILE, read_run, require_no_links_out
from nexus.training.same_run import has_final_weights, mark_of_weights, require_same_run, require_score_of_weights

__all__ = ["Verdict", "verify"]


@dataclass(frozen=True)
class Verdict:
    """The result of checking a run's files."""

    damage: tuple[str, ...]  # one line per problem
    checkpoints: tuple[int, ...]  # steps of the undamaged ones, newest first
    files: int  # number of undamaged files

    @property
    def whole(self) -> bool:
        """True if nothing is wrong."""
        return not self.damage


def verify(run: str | os.PathLike[str]) -> Verdict:
    """Check every file of a run; changes nothing.

    Raises:
        RunError: there is no run, or its `run.json` can't be read.
    """
    folder = Path(run)
    about = read_run(folder)
    must_carry = about["format"] > 1
    damage: list[str] = []
    whole: set[str] = {"run.json"}

    def check(name: str, read: Callable[[], object]) -> bool:
        try:
            read()
        except RunError as error:
            damage.append(str(error))
            return False
        whole.add(name)
        return True

    def read_weights() -> None:
        path = file_in(folder, AGENT_FILE)
        mark = mark_of_weights(about) if has_final_weights(about, folder) else None
        read_tensors(path, path.stat().st_size, mark, must_carry=must_carry)

    def read_evaluation() -> None:
        path = file_in(folder, EVALUATION_FILE)
        require_score_of_weights(about, read_json(path, must_carry=must_carry), path)

    check(".", lambda: require_no_links_out(folder))
    check(AGENT_FILE, read_weights)
    if (folder / EVALUATION_FILE).exists():
        check(EVALUATION_FILE, read_evaluation)
    if (folder / FINDINGS_FILE).exists():
        check(FINDINGS_FILE, lambda: read_json(file_in(folder, FINDINGS_FILE), must_carry=True))
    if (folder / BATCH_FILE).exists():
        check(BATCH_FILE, lambda: read_tensors(file_in(folder, BATCH_FILE), (folder / BATCH_FILE).stat().st_size))
    usable, best = [], BestWeights(folder, about)
    for steps in Checkpoints(folder, keep=1).present():
        try:
            checkpoint = read_checkpoint(folder, steps)
            require_same_run(about, checkpoint.about, "it")
            checkpoint.check()
        except RunError as error:
            damage.append(f"checkpoint {steps}: {error}")
            continue
        usable.append(steps)
        whole |= {f"checkpoints/{steps}/state.json", checkpoint.arrays_name}
        whole |= {chunk.name for chunk in checkpoint.chunks}
        logs = log_damage(folder, checkpoint.logs)
        damage += [text for text in logs if text not in damage]
        whole |= set() if logs else set(checkpoint.logs.files)
    for scored in best.stored():
        check(f"{BEST}/{scored}.json", partial(best.check, scored))
    return Verdict(tuple(damage), tuple(usable), len(whole - {"."}))
