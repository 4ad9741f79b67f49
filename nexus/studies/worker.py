"""`python -m nexus.studies.worker`: trains the runs that it is told, and resumes those that have begun.

On Linux each run is a fork of this process, which has imported everything but used nothing of it; elsewhere this
process trains one run and ends. `processes.py` is its other end.
"""

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import IO, Any

from filelock import FileLock, Timeout

from nexus import api
from nexus.core.errors import NexusError
from nexus.listener import Listener, Plan
from nexus.studies.processes import FORKS, STOPPED, RunJob
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.config import TrainConfig
from nexus.training.logs import EpisodeTracker
from nexus.training.loop import Progress
from nexus.training.run_folder import AGENT_FILE, LOCK_FILE, read_run

__all__ = ["main_of_worker"]

SECONDS_BETWEEN_STEPS = 0.5  # between two answers with the steps
PATIENCE = 120.0  # seconds for the process of a study that was killed to save the run and end


class StepReporter(Listener):
    """Answers with the steps of a run, twice a second."""

    def __init__(self, answer: Callable[..., None]) -> None:
        self.answer = answer
        self.answered_at = 0.0

    def on_start(self, plan: Plan) -> None:
        """Answer with the first step."""
        self.answer(steps=plan.first_step)

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Answer with the steps, if the last answer is old enough."""
        now = time.perf_counter()
        if now - self.answered_at >= SECONDS_BETWEEN_STEPS:
            self.answered_at = now
            self.answer(steps=progress.counters.steps)

    def on_notice(self, text: str) -> None:
        """Keep it with the other output; `nexus doctor` finds most of them again."""
        sys.stderr.write(f"Note: {text}\n")


def main_of_worker() -> None:
    """Train what comes in on stdin, a line each; answer on stdout, which the environments' code can't write to."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    preload()
    while True:
        line = read_one_line(0)
        if not line:
            return
        job = RunJob(**json.loads(line))
        if not FORKS:
            code = work(job, answers)
            answer_with(answers, ended=code)
            return
        child = os.fork()
        if not child:
            code = work(job, answers)
            with suppress(OSError):
                answers.flush()
                sys.stderr.flush()
            os._exit(code)  # without the ends of the process that it is a copy of
        _, status = os.waitpid(child, 0)
        answer_with(answers, ended=os.waitstatus_to_exitcode(status))


def preload() -> None:
    """Import what training imports late, once for all runs."""
    import tensorboard.summary  # noqa: F401
    import torch._dynamo  # noqa: F401


def read_one_line(handle: int) -> bytes:
    """Read a line without reading ahead: what follows is for the next reader."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(handle, 1)
        if not byte:
            return b""
        line += byte
    return bytes(line)


def work(job: RunJob, answers: IO[str]) -> int:
    """Train or resume a run; return its exit code."""
    # A shell that starts a study in the background has them ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    answer: Callable[..., None] = partial(answer_with, answers)
    try:
        Thread(target=stop_with_input, daemon=True).start()
        train_or_resume_run(job, StepReporter(answer))
    except KeyboardInterrupt:
        return STOPPED
    except NexusError as error:
        answer(error=str(error))
        return error.exit_code
    except BaseException:  # of the environment's code, or a bug
        traceback.print_exc()
        return 1
    return 0


def stop_with_input() -> None:
    """Wait for the end of the input, then ask the run to stop, as Ctrl-C does."""
    with suppress(OSError):
        os.read(0, 1)
    signal.raise_signal(signal.SIGINT)


def train_or_resume_run(job: RunJob, listener: Listener) -> None:
    """Train a run, or continue it exactly where it was; one that can't continue starts over."""
    folder = Path(job.run_dir)
    wait_for_others(folder)
    if can_continue(folder):
        api.resume(folder, listener=listener)
        return
    if (folder / AGENT_FILE).exists():
        shutil.rmtree(folder)
    config = TrainConfig.from_mapping(job.config)
    api.train(job.env, preset=job.preset, config=config, run_dir=folder, listener=listener)


def can_continue(folder: Path) -> bool:
    """True if a run has begun and has a checkpoint, or has learned nothing that could be lost."""
    if not (folder / AGENT_FILE).exists():
        return False
    return read_run(folder).get("status") == "running" or bool(Checkpoints(folder, keep=1).present())


def wait_for_others(folder: Path) -> None:
    """Wait while the process of a study that was killed saves this run."""
    if folder.is_dir() and not (folder / LOCK_FILE).is_symlink():
        with suppress(Timeout), FileLock(folder / LOCK_FILE, timeout=PATIENCE):
            pass


def answer_with(answers: IO[str], **values: Any) -> None:
    """Write an answer; without anybody to read it there is nothing to say."""
    with suppress(OSError):
        answers.write(json.dumps(values) + "\n")
        answers.flush()


if __name__ == "__main__":
    main_of_worker()
