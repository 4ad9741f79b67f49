"""What the doctor says of the fault zoo's runs: the record behind the tables of docs/doctor.md.

    python -m benchmarks.diagnoses RUNS                      prints and records
    python -m benchmarks.diagnoses RUNS --seeds 1000 --dry   only prints

A fault counts as found if a warning or worse was about its area, during the run or at its end, and as named if that is
the most likely cause at the end. A sound run counts as alarmed if there ever was a warning. Each is put to the checks
of now, at the steps at which the doctor of the run looked, so thresholds can be changed without training again; that
this says what the doctor said during the run is a test's business.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.faults import BASE, FAULTS, LENGTHS, ROW_FILE, SOUND
from benchmarks.record import record
from nexus.api import config_of
from nexus.doctor.afterwards import chart_of, diagnose
from nexus.doctor.chart import Chart
from nexus.doctor.diagnosis import first_alarms
from nexus.training.run_folder import read_run

__all__ = ["collapse", "row_of", "summary"]

NAME = "faults"
GOOD = 8.0  # standard errors above random play from which on a run has been good


def row_of(folder: Path) -> dict[str, Any]:
    """Return what was said of a run, FOLDER/NAME/ENV/SEED, and when."""
    name, env, seed = folder.parts[-3].replace("_", " "), folder.parts[-2], int(folder.parts[-1])
    name = name if name in SOUND else folder.parts[-3]
    about = read_run(folder)
    chart = chart_of(folder, config_of(about, folder))
    said = first_alarms(chart)
    end = diagnose(folder)
    row = json.loads((folder / ROW_FILE).read_text())
    told = {
        "name": name,
        "env": env,
        "seed": seed,
        "score": row["score"],
        "root": None if end.root is None else end.root.check,
        "alarms": [symptom.check for symptom in end.alarms],
        "said": said,
        "collapse": collapse(chart),
        "s": row["s"],
    }
    if row["error"] is not None:
        told["error"] = row["error"]
    if name in FAULTS:
        area = FAULTS[name].checks
        told["found"] = any(check in area for check in (*told["alarms"], *said))
        told["named"] = told["root"] in area
    return told


def collapse(chart: Chart) -> int | None:
    """Return the step at which the last episodes had lost half of the best gain over random play; None without."""
    random, error = chart.last("doctor/random_return"), chart.last("doctor/random_error")
    best = random
    for step, now, spread in zip(
        chart.steps("doctor/recent_return"),
        chart.series("doctor/recent_return"),
        chart.series("doctor/recent_error"),
        strict=True,
    ):
        best = max(best, now)
        if best - random > GOOD * (error**2 + spread**2) ** 0.5 and now < best - 0.5 * (best - random):
            return int(step)
    return None


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the counts over faults, sound runs, and runs that collapsed."""
    faults = [row for row in rows if row["name"] in FAULTS]
    sound = [row for row in rows if row["name"] in SOUND]
    fallen = [row for row in rows if row["collapse"] is not None]
    leads = [
        row["collapse"] - first for row in fallen if (first := min(row["said"].values(), default=None)) is not None
    ]
    return {
        "faults": len(faults),
        "found": sum(row["found"] for row in faults),
        "named": sum(row["named"] for row in faults),
        "sound": len(sound),
        "alarmed": sum(bool(row["said"]) for row in sound),
        "alarmed_after_a_loss": sum(bool(row["said"]) and row["collapse"] is not None for row in sound),
        "alarmed_at_the_end": sum(bool(row["alarms"]) for row in sound),
        "collapsed": len(fallen),
        "said_before": sum(lead > 0 for lead in leads),
        "median_lead": median(leads) if leads else None,
    }


def runs_in(folder: Path, seeds: Iterable[int]) -> Iterator[Path]:
    """Yield the finished runs of some seeds, by name."""
    for path in sorted(folder.glob(f"*/*/*/{ROW_FILE}")):
        if int(path.parent.name) in seeds:
            yield path.parent


def main() -> None:
    """Diagnose, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="that benchmarks.faults filled")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--dry", action="store_true", help="print, and record nothing")
    words = parser.parse_args()
    rows = [row_of(folder) for folder in runs_in(words.folder, words.seeds)]
    for row in rows:
        print(json.dumps(row))
    totals = summary(rows)
    print(json.dumps(totals))
    if not words.dry:
        record(
            NAME,
            rows,
            command="python -m benchmarks.diagnoses RUNS",
            settings=dict(BASE),
            lengths=LENGTHS,
            summary=totals,
        )


if __name__ == "__main__":
    main()
