"""This checkout against another, in turn: short training runs and the updates of every algorithm.

    git worktree add ../before COMMIT
    python -m benchmarks.against ../before

Each figure is the other checkout's seconds divided by this one's, so 1 means as fast and 1.1 means 10 % faster; medians
of the rounds. Runs count processor time, in one thread, without start-up. Needs the `atari` extra.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import commit, machine, median

RUNS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"total_steps": 30_000},
    "LunarLander-v3": {"total_steps": 20_000},
    "ALE/Pong-v5": {"preset": "fast", "total_steps": 20_000},
}
UPDATES = 200
HERE = Path(__file__).resolve().parent.parent


def work() -> None:
    """Run the requests on standard input, one JSON line each, and answer with the seconds; runs in either checkout."""
    import torch

    import nexus
    from benchmarks.variants import updates_of

    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr
    learners: dict[str, Any] = {}
    for line in sys.stdin:
        kind, name = json.loads(line)
        if kind == "update" and name not in learners:
            learners[name] = updates_of(name)
            learners[name](UPDATES)  # warm-up
        started = time.process_time()
        if kind == "update":
            learners[name](UPDATES)
        else:
            with tempfile.TemporaryDirectory() as folder:
                settings = {"threads": 1, "eval_episodes": 1, "target_return": None, **RUNS[name]}
                nexus.train(name, run_dir=Path(folder) / "run", seed=7, verbose=False, **settings)
        print(time.process_time() - started, file=answers, flush=True)


def worker(checkout: Path) -> subprocess.Popen[str]:
    """Start a process that runs the code of a checkout; only this file is always from this one."""
    lines = f"import runpy, sys; sys.path.insert(0, {str(checkout)!r}); sys.argv[1:] = ['--work']; "
    lines += f"runpy.run_path({str(Path(__file__).resolve())!r}, run_name='__main__')"
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", lines],
        cwd=checkout,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: subprocess.Popen[str], kind: str, name: str) -> float:
    """Return the seconds that a worker needs for a request."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps([kind, name]), file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        sys.exit(f"{kind} {name} failed; its error is above")
    return float(answer)


def main() -> None:
    """Time both in turn and print a ratio per line: medians, with the range of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", nargs="?", type=Path, help="a checkout of the commit to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="how often each run is measured; updates ten times more")
    parser.add_argument("--only", nargs="*", help="these runs and algorithms instead of all")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        return work()
    if given.other is None:
        parser.error("name the checkout to compare with")
    from nexus.models.rl.dqn.rainbow import ALGORITHMS

    ours, theirs = worker(HERE), worker(given.other.resolve())
    print(f"{commit()} against {given.other}; {machine()}")
    print(f"{'':16} {'seconds before':>14} {'now':>8} {'ratio':>7}   ratios from .. to")
    for kind, name in [("run", name) for name in RUNS] + [("update", name) for name in ALGORITHMS]:
        if given.only and name not in given.only:
            continue
        pairs = []
        for turn in range(given.rounds * (10 if kind == "update" else 1)):
            # Which of the two goes first alternates too.
            order = [ours, theirs] if turn % 2 else [theirs, ours]
            seconds = {id(process): ask(process, kind, name) for process in order}
            pairs.append((seconds[id(theirs)], seconds[id(ours)]))
        ratios = sorted(before / now for before, now in pairs)
        before, now = (median(column) for column in zip(*pairs, strict=True))
        spread = f"{ratios[0]:.3f} .. {ratios[-1]:.3f}"
        print(f"{name:16} {before:14.3f} {now:8.3f} {median(ratios):7.3f}   {spread}", flush=True)
    for process in (ours, theirs):
        process.communicate()


if __name__ == "__main__":
    main()
