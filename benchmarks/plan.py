"""How accurately `nexus plan` predicts the time: plan a run, then train it, each in a fresh process.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.plan

The settings are the presets', except that CartPole never stops early and all runs are short. `nexus plan` and
`nexus train` are timed within their process, without imports, which a plan does not count.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.page import load, provenance, table
from benchmarks.record import fresh_process, median, record

CASES: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"total_steps": 20_000, "target_return": None},
    "LunarLander-v3": {"total_steps": 20_000},
    "pong": {"total_steps": 100_000},
}


def planned(env: str, seconds: float) -> dict[str, float]:
    """Return the planned time in seconds."""
    from nexus.planning import plan

    found = plan(env, probe_seconds=seconds, **CASES[env]).time
    return {"predicted": found.total, "low": found.low, "high": found.high}


def trained(env: str) -> dict[str, float]:
    """Return the training time in seconds."""
    from nexus.api import Listener, train

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train(env, run_dir=Path(folder, "run"), listener=Listener(), **CASES[env])
        return {"actual": time.perf_counter() - started}


def in_process(what: str, env: str, seconds: float) -> dict[str, float]:
    """Plan or train in a separate process."""
    arguments = ("--only", what, "--env", env, "--probe-seconds", seconds)
    found: dict[str, float] = fresh_process("benchmarks.plan", *arguments)
    return found


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    found = load("plan")
    if found is None:
        return ""
    rows = []
    for env, ratio in found["median_ratio"].items():
        own = [row for row in found["rows"] if row["env"] == env]
        within = sum(row["low"] <= row["actual"] <= row["high"] for row in own)
        rows.append(
            [
                env,
                f"{own[0]['steps']:,}",
                f"{median([row['predicted'] for row in own]):.1f}",
                f"{median([row['actual'] for row in own]):.1f}",
                ratio,
                " ".join(f"{row['ratio']:.2f}" for row in own),
                f"{within} of {len(own)}",
            ]
        )
    head = ["environment", "steps", "predicted, s", "actual, s", "median ratio", "each round", "within the range"]
    return "\n\n".join(
        [
            "## How accurately `nexus plan` predicts the time",
            f"A plan with a probe of {found['probe_seconds']:g} s, then the run, in fresh processes, alternating, "
            f"{found['rounds']} rounds; medians. A ratio above 1 means a run faster than predicted. The range is "
            "that of the probe's slices, so it does not include later load on the machine. Evaluations are planned "
            "with the longest episodes that the rules allow; Pong's games after so few steps are far shorter.",
            table(head, rows),
            provenance(found),
        ]
    )


def main() -> None:
    """Plan and train in turn, and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--probe-seconds", type=float, default=10.0)
    parser.add_argument("--only", choices=("plan", "train"), help="do this once in this process and print its seconds")
    parser.add_argument("--env", choices=CASES, default="CartPole-v1", help="with --only")
    options = parser.parse_args()
    if options.only:
        found = planned(options.env, options.probe_seconds) if options.only == "plan" else trained(options.env)
        print(json.dumps(found))
        return
    rows = []
    for _ in range(options.rounds):
        for env, settings in CASES.items():
            row = {what: in_process(what, env, options.probe_seconds) for what in ("plan", "train")}
            seconds = {name: round(value, 2) for found in row.values() for name, value in found.items()}
            ratio = seconds["predicted"] / seconds["actual"]
            rows.append({"env": env, "steps": settings["total_steps"], **seconds, "ratio": round(ratio, 2)})
            print(rows[-1], flush=True)
    ratios = {env: round(median([row["ratio"] for row in rows if row["env"] == env]), 2) for env in CASES}
    record("plan", rows, probe_seconds=options.probe_seconds, rounds=options.rounds, median_ratio=ratios)


if __name__ == "__main__":
    main()
