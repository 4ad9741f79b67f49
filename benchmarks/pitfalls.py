"""What each pitfall shows on ten seeds, and its picture.

    pip install matplotlib
    python -m benchmarks.pitfalls
    python -m benchmarks.pitfalls overestimation wrong-loss

Writes `docs/images/pitfalls/NAME.png` and, unless some are named, a record.
`docs/pitfalls.md` quotes the record, and a test compares the two.
"""

import argparse
import resource
from pathlib import Path
from typing import Any

from benchmarks.record import record
from nexus.pitfalls import PITFALLS, demonstrate, save_picture

PICTURES = Path(__file__).parent.parent / "docs" / "images" / "pitfalls"
DOTS_PER_INCH = 90


def main() -> None:
    """Train, draw and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="pitfalls; none for all")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in options.names or PITFALLS:
        rows.append(measured(name, options.seeds, options.processes))
        print(name, *rows[-1]["sentences"], f"{rows[-1]['cpu_seconds']} s", sep="\n  ", flush=True)
    if not options.names:
        record("pitfalls", rows, seeds=list(range(options.seeds)))


def measured(name: str, seeds: int, processes: int) -> dict[str, Any]:
    """Return the row of one pitfall, and draw it."""
    before = cpu_seconds()
    evidence = demonstrate(name, seeds, processes=processes)
    spent = round(cpu_seconds() - before, 1)
    save_picture(evidence, PICTURES / f"{name}.png", DOTS_PER_INCH)
    values = evidence.to_mapping()
    for side in ("broken", "cured"):
        values[side] = {key: rounded(value) for key, value in values[side].items() if key != "curves"}
    values["difference"] = {key: rounded(value) for key, value in values["difference"].items()}
    kept = ("name", "measure", "better", "broken", "cured", "reference", "difference", "includes_zero", "sentences")
    return {**{key: values[key] for key in kept}, "steps": values["steps"][-1], "cpu_seconds": spent}


def rounded(value: Any) -> Any:
    """Round numbers, and those in a list."""
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value


def cpu_seconds() -> float:
    """Return the processor time of this process and of those that it started and that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    main()
