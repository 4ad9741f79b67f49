"""What `import nexus` costs beyond `import torch`, and the time of `nexus --help`; processes in turn.

python -m benchmarks.import_time
"""

import subprocess
import sys
import time

from benchmarks.page import table_section
from benchmarks.record import median, record

ROUNDS = 9
STATEMENTS = {
    "import torch": "import torch",
    "import torch, nexus": "import torch, nexus",
    "import torch, nexus.api (all that training needs)": "import torch, nexus.api",
    "nexus --help": "from nexus.cli.main import main; main(['--help'])",
}


def seconds(statement: str) -> float:
    """Time one fresh process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "import_time",
        "Start-up",
        "Medians of {rounds} fresh processes each, alternating.",
        ["process", "seconds", "beyond `import torch`"],
    )


def main() -> None:
    """Measure each in turn and write the medians."""
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(ROUNDS):
        for name, statement in STATEMENTS.items():
            times[name].append(seconds(statement))
    rows = [
        {
            "statement": name,
            "seconds": round(median(values), 3),
            "beyond_torch": round(
                median([own - torch for own, torch in zip(values, times["import torch"], strict=True)]), 3
            ),
        }
        for name, values in times.items()
    ]
    record("import_time", rows, rounds=ROUNDS)


if __name__ == "__main__":
    main()
