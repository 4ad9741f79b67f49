"""What the doctor says of both arms of each pitfall, on the seeds of docs/pitfalls.md.

    python -m benchmarks.pitfall_diagnoses

The deadly triad is a linear toy without a run for the doctor to look at.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import record
from nexus.doctor.diagnosis import Diagnosis
from nexus.doctor.doctor import Doctor
from nexus.listener import LiveRun, Plan
from nexus.parts import Parts
from nexus.pitfalls import PITFALLS
from nexus.pitfalls.arms import DQNArm
from nexus.training.config import TrainConfig
from nexus.training.logs import EpisodeTracker
from nexus.training.loop import train

NAME = "pitfall_diagnoses"
SEEDS = range(10)


def diagnosed(arm: DQNArm, seed: int, steps: int) -> Diagnosis:
    """Train an arm under the doctor's eyes and return what it says at the end."""
    config = TrainConfig.from_mapping({**arm.settings, "seed": seed, "total_steps": steps})
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        parts = Parts(arm.env, config, stack)
        if arm.patch is not None:
            arm.patch(parts)
        agent, counters = parts.agent, parts.counters
        doctor, episodes = Doctor(), EpisodeTracker(config.num_envs)
        live = LiveRun(agent, parts.replay, counters, unsaid)
        doctor.on_start(Plan(str(arm.env), None, config, agent, 0, Path(folder), live=live))
        for progress in train(parts.stream, agent.policy, agent.learner, parts.learned_from, config, counters):
            episodes.add(progress)
            doctor.on_step(progress, episodes)
        doctor.on_end("finished")
    assert doctor.diagnosis is not None
    return doctor.diagnosis


def sentence(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return what the page says of a pitfall."""
    own = {row["arm"]: row for row in rows if row["name"] == name}
    if not own:
        return "**The doctor** has no run to look at: this is not a DQN."
    said = {side: sum(row["roots"].values()) for side, row in own.items()}
    roots = ", ".join(f"`{root}` {count}" for root, count in sorted(own["broken"]["roots"].items(), key=most_first))
    causes = f"; first cause: {roots}" if roots else ""
    of = len(SEEDS)
    return (
        f"**The doctor** warned in {said['broken']} of {of} broken runs and {said['cured']} of {of} cured ones{causes}."
    )


def most_first(counted: tuple[str, int]) -> tuple[int, str]:
    """Order names by count, then alphabetically."""
    return -counted[1], counted[0]


def unsaid(text: str) -> None:
    """Leave a notice to the record."""


def main() -> None:
    """Train, print and record."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name, pitfall in PITFALLS.items():
        for side, arm in (("broken", pitfall.broken), ("cured", pitfall.cured)):
            if not isinstance(arm, DQNArm):
                continue
            found = [diagnosed(arm, seed, pitfall.steps) for seed in SEEDS]
            roots = Counter(diagnosis.root.check for diagnosis in found if diagnosis.root is not None)
            alarms = Counter(symptom.check for diagnosis in found for symptom in diagnosis.alarms)
            rows.append({"name": name, "arm": side, "roots": dict(roots), "alarms": dict(alarms)})
            print(rows[-1], flush=True)
            record(NAME, rows, seeds=list(SEEDS))
    print(*(sentence(rows, name) for name in PITFALLS), sep="\n")


if __name__ == "__main__":
    main()
