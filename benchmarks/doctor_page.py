"""Write docs/doctor.md: what the doctor does, and every check with its formula, threshold, source and blind spots.

python -m benchmarks.doctor_page
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults import FAULTS, LENGTHS, SOUND
from benchmarks.record import RESULTS
from nexus.doctor.diagnosis import ALL_CHECKS, CAUSES_FIRST

PAGE = Path(__file__).parent.parent / "docs" / "doctor.md"
INTRODUCTION = """# The doctor

A run that does not learn should say why. Every training is examined about thirty times: the doctor looks at the
Q-values of the same 256 states, at random and at the newest rows of the replay, at the last update and at the
returns. It puts the numbers to {checks} checks and says each alarm once, with its evidence, the likely cause and a
cure. Before the first step it says what the settings alone show.

Afterwards, for a run that is finished, still going, killed or diverged:

```bash
nexus train CartPole-v1 --learning-rate 0.05
nexus doctor runs/NAME
```

The first line is the most likely cause of the others: a wrong target explains bad values, not the other way round.
The exit code is 0 if all is well, 1 if there is a warning, and 2 for a folder that can't be read. `--json` prints
the same for programs. In Python:

```python
import nexus

result = nexus.train("CartPole-v1", learning_rate=0.05, total_steps=5_000)
diagnosis = nexus.diagnose(result)
if diagnosis.root is not None:
    print(diagnosis.root.check, diagnosis.root.cure, diagnosis.root.evidence)
```

A finding is a **note** (may be intended), a **warning**, or **critical** (the run can't learn like this). A check
that has too little to go by says so and stays silent. The run's folder has the latest state in `findings.json`; the
measured numbers are in `metrics.jsonl` and TensorBoard under `doctor/`. Training gives the same bits with `--doctor
off`.

To add a check, add a function from a `Chart` of logged numbers to a `Symptom`, and a `Check` that describes it, to
the file of its area in `nexus/doctor/`, and its name to `CAUSES_FIRST`.

{measured}
## The checks

In the order of causes. Policy churn (`doctor/churn`), the rank of the features and a rising loss are logged and
never alarmed on: healthy runs have all three.

*This part is written by `python -m benchmarks.doctor_page`.*
"""

MEASURED = """## How much it finds

`python -m benchmarks.faults` puts {kinds} kinds of fault into runs of CartPole (30,000 steps) and Acrobot (40,000), by
settings, wrappers, or replaced parts, and trains sound runs for comparison; `python -m benchmarks.diagnoses` asks the
doctor. Thresholds were chosen on seeds from 1000 on; this is seeds 0 to 4. A fault is *found* if there was a warning
about its area during the run or at its end, *named* if that is the first cause at the end. A sound run counts as
alarmed if there ever was a warning.

- **{found} of {faults} faulty runs found ({found_share:.0%}), {named} named first ({named_share:.0%}).**
- **{alarmed} of {sound_runs} sound runs alarmed ({alarmed_share:.0%})**, {alarmed_at_the_end} of them at the end. Good
  settings are no promise: {alarmed_after_a_loss} of these runs had lost half of their best gain,
  so {false_alarms} alarms were false ({false_share:.0%}).
- {collapsed} of all these runs collapsed: they lost half of the best return gained. In {said_before} a warning came
  before the loss ({before_share:.0%}), {median_lead:,.0f} steps earlier in the median; many of these are about
  the settings.
- **Cost: {cost}** of the processor time, by a clock
  around the doctor's calls; in brackets the difference between runs with and without it, in turn. Medians of ten pairs
  (`python -m benchmarks.doctor_cost`). A run of 30,000 steps is examined every 1,000, and costs 2.9% on CartPole
  (one run).

Three checks were mended after they had been wrong on these seeds: the fixed length of episodes was judged by another
stretch of the run, the rows of a tiny replay counted more than once, and two evaluations passed for three. The share
of dormant units was then chosen again, on seed 1000.

| fault | seen in | found, CartPole + Acrobot | named | first cause |
|---|---|---|---|---|
{fault_table}

What is missed, and why:

{missed}

| sound runs | scores | warnings |
|---|---|---|
{sound_table}

`{command}` on runs of benchmarks.faults, {processor}, commit {commit}.
"""
MISSED: Mapping[str, str] = {
    "plain_steps": "gradient descent in the place of Adam learns both worlds here, slowly; loss and targets are "
    "right, so only the returns suffer, and 250 to 500 is within what sound seeds reach. Not visible from outside.",
    "relu_output": "CartPole's values are positive, so a ReLU behind them changes nothing once it learns; on Acrobot, "
    "whose values are negative, it is found each time.",
    "noise_gone": "on Acrobot σ = 0 at the start is learned back within 4,000 steps, and the runs score as sound ones "
    "do; on CartPole it stays near 0 and is found.",
}


def measured() -> str:
    """Return the section on the fault zoo and the cost."""
    zoo, cost = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("faults", "doctor_cost")
    )
    rows, totals = zoo["rows"], zoo["summary"]
    shares, inside = cost["medians"]["share"], cost["medians"]["inside"]
    costs = [f"{inside[env]:.1%} on {env} ({shares[env]:+.1%})" for env in inside]
    return MEASURED.format(
        kinds=len(FAULTS),
        **{name: value for name, value in totals.items() if name != "sound"},
        sound_runs=totals["sound"],
        found_share=totals["found"] / totals["faults"],
        named_share=totals["named"] / totals["faults"],
        alarmed_share=totals["alarmed"] / totals["sound"],
        false_alarms=totals["alarmed"] - totals["alarmed_after_a_loss"],
        false_share=(totals["alarmed"] - totals["alarmed_after_a_loss"]) / totals["sound"],
        before_share=totals["said_before"] / totals["collapsed"],
        cost=" and ".join(costs),
        fault_table="\n".join(fault_lines(rows)),
        sound_table="\n".join(sound_lines(rows)),
        missed="\n".join(f"- `{name}`: {reason}" for name, reason in MISSED.items()),
        command=zoo["command"],
        commit=zoo["commit"],
        processor=zoo["machine"],
    )


def fault_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line of a table for each fault."""
    for name, fault in FAULTS.items():
        own = [row for row in rows if row["name"] == name]
        counts = [f"{sum(row['found'] for row in own if row['env'] == env)}" for env in LENGTHS]
        roots = Counter(row["root"] or "none" for row in own)
        causes = ", ".join(f"{root} {count}" for root, count in roots.most_common())
        named = sum(row["named"] for row in own)
        yield f"| `{name}` | {fault.seen} | {' + '.join(counts)} of {len(own)} | {named} | {causes} |"


def sound_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line of a table for each kind of sound run."""
    for name in SOUND:
        own = [row for row in rows if row["name"] == name]
        scores = ", ".join(f"{row['score']:.0f}" if abs(row["score"]) >= 2 else f"{row['score']:.2f}" for row in own)
        alarms = Counter(check for row in own for check in row["said"])
        said = ", ".join(f"{check} {count}" for check, count in alarms.most_common()) or "none"
        yield f"| {name} | {scores} | {said} |"


def page() -> str:
    """Return the text of the page."""
    parts = [INTRODUCTION.format(checks=len(ALL_CHECKS), measured=measured())]
    for name in CAUSES_FIRST:
        check = ALL_CHECKS[name]
        rows = {
            "computed": check.formula,
            "alarm": check.threshold,
            "why": check.source,
            "blind to": check.blind,
            "try": check.cure,
        }
        parts.append("\n".join([f"### {name}", "", *(f"- {title}: {text}" for title, text in rows.items())]) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
