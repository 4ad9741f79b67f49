"""Write docs/doctor.md: what the doctor does, and every check with its formula, threshold, source and blind spots.

python -m benchmarks.doctor_page
"""

from pathlib import Path

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

How much it finds is being measured: `python -m benchmarks.faults` puts 37 kinds of fault into runs and trains sound
ones beside them. Until that table is here, most thresholds are first choices: take a warning as a question.

## The checks

In the order of causes. Policy churn (`doctor/churn`), the rank of the features and a rising loss are logged and
never alarmed on: healthy runs have all three.

*This part is written by `python -m benchmarks.doctor_page`.*
"""


def page() -> str:
    """Return the text of the page."""
    parts = [INTRODUCTION.format(checks=len(ALL_CHECKS))]
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
