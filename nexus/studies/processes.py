"""Where runs run: a `RunPlace` starts them. Here it is this machine, with a process for each run in progress.

A process gets its runs through its standard input, a line of JSON each, and answers with lines on its standard
output. The end of its input, which is also what it sees if this process is killed, means to save the run and stop.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any, Protocol

__all__ = ["FORKS", "STOPPED", "Ended", "LocalProcess", "RunJob", "RunPlace", "RunProcess", "ThisMachine"]

FORKS = sys.platform == "linux"  # a run is then a fork of a process that has imported everything already
STOPPED = 130  # exit code of a run that was stopped and saved
THREADS = 1  # of torch in each process, so that the bits of a run don't depend on how many run at once
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LONGEST_ERROR = 2_000  # characters of an error
LINGER = 2.0  # seconds to wait for the last words of a process that has ended


@dataclass(frozen=True)
class RunJob:
    """A run to train, or to resume if its folder has it already.

    Args:
        env: an id.
        preset: the name of the preset of its settings.
        config: all its settings, as in `run.json`.
        run_dir: its folder.
    """

    env: str
    preset: str | None
    config: Mapping[str, Any]
    run_dir: str


@dataclass(frozen=True)
class Ended:
    """How the work on a run ended: an exit code, negative for a signal, and the error if it has one."""

    code: int
    error: str | None = None


class RunProcess(Protocol):
    """A process that works on one run after another."""

    @property
    def steps(self) -> int:
        """Steps of the present run."""

    def begin(self, job: RunJob) -> None:
        """Begin a run."""

    def poll(self) -> Ended | None:
        """Return how the present run ended, None while it runs."""

    @property
    def is_usable(self) -> bool:
        """True if it can begin another run."""

    def stop(self) -> None:
        """Ask for the run to be saved and stopped, and for no other."""

    def end(self, at_once: bool) -> None:
        """Wait for the end of the process, or end it at once."""


class RunPlace(Protocol):
    """Where runs run."""

    def process(self) -> RunProcess:
        """Start a process for runs."""


class ThisMachine:
    """Runs on this machine."""

    def process(self) -> "LocalProcess":
        """Start a process for runs."""
        return LocalProcess()


class LocalProcess:
    """A process on this machine that works on one run after another."""

    def __init__(self) -> None:
        self.steps = 0
        self.answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.error: str | None = None  # of the present run
        self.stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self.read_to = 0  # bytes of stderr that belong to earlier runs
        # In a session of its own: Ctrl-C in a terminal goes to this process alone, which then stops the others.
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "nexus.studies.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env=environment_of_process(),
            start_new_session=os.name == "posix",
        )
        self.reader = Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        """Take in the answers of the process until it ends."""
        assert self.popen.stdout is not None
        with suppress(ValueError):  # closed meanwhile
            for line in self.popen.stdout:
                with suppress(ValueError):
                    answer = json.loads(line)
                    if isinstance(answer, dict):
                        self.answers.put(answer)

    def begin(self, job: RunJob) -> None:
        """Begin a run."""
        self.steps, self.error = 0, None
        self.read_to = self.stderr.seek(0, os.SEEK_END)
        assert self.popen.stdin is not None
        with suppress(OSError):  # it has just ended, which `poll` says
            self.popen.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
            self.popen.stdin.flush()

    def poll(self) -> Ended | None:
        """Return how the present run ended, None while it runs."""
        code = self.popen.poll()
        if code is not None:
            self.reader.join(LINGER)
        with suppress(Empty):
            while True:
                answer = self.answers.get_nowait()
                self.steps = answer.get("steps", self.steps)
                self.error = answer.get("error", self.error)
                if "ended" in answer:
                    return Ended(answer["ended"], self.error or self.last_words(answer["ended"]))
        return None if code is None else Ended(code, self.error or self.last_words(code))

    @property
    def is_usable(self) -> bool:
        """True if it can begin another run."""
        return FORKS and self.popen.poll() is None

    def stop(self) -> None:
        """Ask for the run to be saved and stopped, and for no other."""
        assert self.popen.stdin is not None
        with suppress(OSError):
            self.popen.stdin.close()

    def end(self, at_once: bool) -> None:
        """Wait for the end of the process, or end it at once."""
        self.stop()
        if at_once:
            with suppress(OSError):
                if os.name == "posix":
                    os.killpg(self.popen.pid, signal.SIGKILL)
                self.popen.kill()
        self.popen.wait()
        self.reader.join(LINGER)
        assert self.popen.stdout is not None
        if not self.reader.is_alive():  # else a fork outlives the process for a moment, and closing would wait for it
            self.popen.stdout.close()
        self.stderr.close()

    def last_words(self, code: int) -> str | None:
        """Return the last line that a failed run wrote to stderr, None if it did not fail or wrote nothing."""
        if code <= 0 or code == STOPPED:
            return None
        self.stderr.seek(self.read_to)
        lines = self.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:LONGEST_ERROR] if lines else None


def environment_of_process() -> dict[str, str]:
    """Return the environment variables of a process: it finds the same modules as this one, and uses one thread."""
    path = os.pathsep.join(dict.fromkeys(entry or str(Path.cwd()) for entry in sys.path))
    return {**os.environ, "PYTHONPATH": path, **dict.fromkeys(THREAD_VARIABLES, str(THREADS))}
