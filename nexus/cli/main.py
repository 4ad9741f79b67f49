"""`nexus VERB ...`: find the verb, run it, and turn errors a user can fix into one line and exit code 2."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module

from nexus.cli.encoding import printable
from nexus.cli.here import path_kept

__all__ = ["main"]

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)  # the disk is full or gone
INTERRUPTED, TERMINATED = 130, 143  # the exit codes of shells for Ctrl-C and SIGTERM

VERBS = {
    "train": ("nexus.cli.train", "train an agent:        nexus train CartPole-v1"),
    "study": ("nexus.cli.study", "seeds and settings:    nexus study CartPole-v1 --vary n_step=1,3"),
    "check": ("nexus.cli.check", "check an environment:  nexus check my_envs:MyEnv-v0"),
    "plan": ("nexus.cli.plan", "estimate a run:        nexus plan CartPole-v1"),
    "resume": ("nexus.cli.resume", "continue a run:        nexus resume runs/NAME"),
    "doctor": ("nexus.cli.doctor", "diagnose a run:        nexus doctor runs/NAME"),
    "describe": ("nexus.cli.describe", "describe a run:        nexus describe runs/NAME"),
    "replay": ("nexus.cli.replay", "look into its replay:  nexus replay runs/NAME"),
    "verify": ("nexus.cli.verify", "check a run's files:   nexus verify runs/NAME"),
    "evaluate": ("nexus.cli.evaluate", "score a run:           nexus evaluate runs/NAME"),
    "watch": ("nexus.cli.watch", "watch a run play:      nexus watch runs/NAME --video out.mp4"),
    "compare": ("nexus.cli.compare", "compare many runs:     nexus compare runs/*"),
    "report": ("nexus.cli.report", "a page about runs:     nexus report runs/* --out report.html"),
    "dashboard": ("nexus.cli.dashboard", "runs in a browser:     nexus dashboard runs"),
    "plot": ("nexus.cli.plot", "draw learning curves:  nexus plot runs/*"),
    "pitfalls": ("nexus.cli.pitfalls", "see a pitfall of DQN:  nexus pitfalls overestimation"),
    "algorithms": ("nexus.cli.algorithms", "list the algorithms:   nexus algorithms"),
}

USAGE = "usage: nexus VERB ...\n\n" + "\n".join(f"  {verb:<10} {text}" for verb, (_, text) in VERBS.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0; 1 if `check` found a fault, `doctor` raised an alarm or a run of a `study` failed; 2 for errors a user can fix; 3
    if training diverged; 130 for Ctrl-C; 143 for SIGTERM.
    """
    try:
        with printable(), path_kept():
            code = answer(list(sys.argv[1:] if argv is None else argv))
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        sys.stderr.close()  # the reader has closed the pipe, as in `nexus --help | head`; Python would complain at exit
        return 0
    except OSError as error:
        if error.filename is not None or error.errno not in UNWRITABLE:
            raise
        discard_output()
        print(f"nexus: error: can't write the output: {error.strerror}", file=sys.stderr)
        return 2


def discard_output() -> None:
    """Discard unwritten output, about which Python would complain at exit."""
    with suppress(OSError, ValueError):  # an output that is not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def answer(arguments: list[str]) -> int:
    """Print the help or the version, or run a verb."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(f"{USAGE}\n\n`nexus VERB --help` lists its options.")
        return 0
    if arguments[0] in ("-V", "--version"):
        from nexus import __version__

        print(f"nexus {__version__}")
        return 0
    from nexus.core.errors import NexusError, Terminated  # imports torch, which would delay the help

    try:
        return verb_of(arguments[0])(arguments[1:])
    except NexusError as error:
        print(f"nexus: error: {error}", file=sys.stderr)
        return error.exit_code
    except Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        return INTERRUPTED


def verb_of(name: str) -> Callable[[list[str]], int]:
    """Import the module of one verb only."""
    from nexus.core.errors import NexusError, nearest

    if name not in VERBS:
        raise NexusError(f"no command {name!r}: there are {', '.join(VERBS)}{nearest(name, VERBS)}")
    run: Callable[[list[str]], int] = import_module(VERBS[name][0]).run
    return run
