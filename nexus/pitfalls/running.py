"""Running both arms of a pitfall on several seeds, in this process or in several."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Thread
from typing import Literal, TypeAlias

import numpy as np
import torch

from nexus.core.errors import ConfigError
from nexus.pitfalls.catalogue import pitfall_named
from nexus.pitfalls.evidence import Evidence
from nexus.pitfalls.pitfall import Trace

__all__ = ["demonstrate", "usable_cores"]

FEWEST_STEPS = 1_000  # every arm has begun to learn by then
STEP_LIMIT = 100_000  # the weights of the star double every 200 steps or so, and would overflow

Side: TypeAlias = Literal["broken", "cured"]
BOTH: tuple[Side, Side] = ("broken", "cured")
Job: TypeAlias = tuple[str, Side, int, int]  # pitfall, arm, seed, steps


def demonstrate(
    name: str,
    seeds: int | Sequence[int] = 10,
    *,
    steps: int | None = None,
    processes: int = 1,
    on_done: Callable[[int, int], None] = lambda done, of: None,
) -> Evidence:
    """Train both arms of a pitfall on several seeds.

    Args:
        name: one of `PITFALLS`.
        seeds: their number, from 0 on, or the seeds.
        steps: of each arm; None for those of the pitfall.
        processes: how many arms train at the same time. Above 1, a script needs the usual
            `if __name__ == "__main__":`. The result does not depend on it.
        on_done: called after each arm with how many are done, of how many.

    Raises:
        ConfigError: there is no such pitfall, or a number is out of range.
    """
    pitfall = pitfall_named(name)
    seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    steps = pitfall.steps if steps is None else steps
    if not seeds:
        raise ConfigError("seeds: needs at least 1")
    if steps < FEWEST_STEPS:
        raise ConfigError(f"steps = {steps}: needs at least {FEWEST_STEPS}, or the agents have hardly begun to learn")
    if steps > STEP_LIMIT:
        raise ConfigError(f"steps = {steps}: needs at most {STEP_LIMIT}")
    if processes < 1:
        raise ConfigError(f"processes = {processes}: needs at least 1")
    jobs: list[Job] = [(name, side, seed, steps) for seed in seeds for side in BOTH]
    traces: dict[Job, Trace] = {}
    for job, trace in run_all(jobs, min(processes, len(jobs))):
        traces[job] = trace
        on_done(len(traces), len(jobs))
    broken, cured = (np.stack([traces[name, side, seed, steps].values for seed in seeds]) for side in BOTH)
    return Evidence(pitfall, seeds, traces[jobs[0]].steps, broken, cured)


def run_all(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, Trace]]:
    """Yield each job with its trace, in the order in which they end."""
    if processes == 1:
        yield from ((job, run_job(job)) for job in jobs)
        return
    context = get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    with ProcessPoolExecutor(processes, context, initializer=follow, initargs=(reader,)) as pool:
        futures = {pool.submit(run_job, job): job for job in jobs}
        try:
            yield from ((futures[future], future.result()) for future in as_completed(futures))
        except BaseException:
            writer.close()  # or leaving would wait for the arms that run
            raise
    writer.close()


def run_job(job: Job) -> Trace:
    """Run one arm on one seed."""
    name, side, seed, steps = job
    arm = {"broken": pitfall_named(name).broken, "cured": pitfall_named(name).cured}[side]
    with one_thread():
        return arm(seed, steps)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: its networks here are small, and sums in another order have other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def follow(parent: Connection) -> None:
    """Leave Ctrl-C to the parent, and end this process when the parent closes its end of the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=end_with, args=(parent,), daemon=True).start()


def end_with(parent: Connection) -> None:
    """Wait for the end of the parent, then end this process."""
    with suppress(EOFError, OSError):
        parent.recv()
    os._exit(1)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
