"""Agent steps per second on Pong with acting and learning in turns, and at the same time (`--actor-sync-every`).

    pip install -e ".[atari]" -c constraints.txt
    python -m benchmarks.concurrent

The presets `fast` (PQN) and `nature` with 8 games, each in turn with and without, in separate processes. The clock
runs from the end of the first epochs on, over whole epochs.
"""

import argparse
import json
from typing import Any

from benchmarks.atari_speed import EPSILON, GAMES, Clock, trained
from benchmarks.page import table_section
from benchmarks.record import fresh_process, median, record

EPOCH = 1024  # steps
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {  # preset, epochs on the clock, settings
    "fast": ("fast", 30, {}),
    f"nature, {GAMES} games": (
        "nature",
        4,
        {"num_envs": GAMES, "learning_starts": EPOCH, "epsilon": EPSILON, "epsilon_min": EPSILON},
    ),
}
WAYS: dict[str, str | None] = {"in turns": None, "at the same time": f"{EPOCH} steps"}


def measured(case: str, way: str) -> dict[str, float]:
    """Run one way in a separate process."""
    figures: dict[str, float] = fresh_process("benchmarks.concurrent", "--case", case, "--way", way)
    print(case, way, figures, flush=True)
    return figures


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "concurrent",
        "Acting and learning at the same time",
        '`nexus train pong --preset ...` in turns (sequentially), and with `--actor-sync-every "{epoch} steps"`; '
        "{rounds} alternating rounds of fresh processes, timed over whole epochs once learning has started.",
        ["preset", "acting and learning", "steps/s", "ratio", "processor ms a step", "each round"],
    )


def main() -> None:
    """Measure both ways in turn, round by round, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", choices=CASES, help="measure once in this process and print the figures")
    parser.add_argument("--way", choices=WAYS)
    options = parser.parse_args()
    if options.case is not None:
        preset, epochs, settings = CASES[options.case]
        clock = Clock(epochs * EPOCH, first=3 * EPOCH)
        trained(clock, preset, actor_sync_every=WAYS[options.way], **settings)
        print(json.dumps(clock.figures))
        return
    rows = []
    for case in CASES:
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for number in range(options.rounds):
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                found[way].append(measured(case, way))
        rates = {way: [figures["steps_per_second"] for figures in all_of] for way, all_of in found.items()}
        base = rates["in turns"]
        for way, figures in found.items():
            rows.append(
                {
                    "preset": case,
                    "way": way,
                    "steps_per_second": round(median(rates[way])),
                    "ratio": round(median([one / other for one, other in zip(rates[way], base, strict=True)]), 2),
                    "processor_ms_per_step": round(median([row["processor_ms_per_step"] for row in figures]), 2),
                    "one_by_one": " ".join(f"{rate:.0f}" for rate in rates[way]),
                }
            )
    record("concurrent", rows, rounds=options.rounds, epoch=EPOCH)


if __name__ == "__main__":
    main()
