"""Write docs/results.md and its plots from the records in docs/results/.

python -m benchmarks.report

It also writes nexus/planning/expected.json, the scores in `nexus plan`.
"""

from collections.abc import Callable

from benchmarks import (
    atari_frames,
    atari_replay,
    atari_speed,
    atari_update,
    averaging,
    checkpoint,
    concurrent,
    deep_sea,
    gpu,
    import_time,
    learning_sections,
    overestimation,
    plan,
    replay,
    safety,
    seeding,
    seeing,
    small_problems,
    sparse_cost,
    sparse_rewards,
    untuned,
    updates,
    variants,
    wall_clock,
)
from benchmarks.expected import write_expected
from benchmarks.record import RESULTS

INTRODUCTION = """# Results

Every figure here comes from a record in [`docs/results/`](results/), written by the command printed below its table.
`python -m benchmarks.report` generates this page from the records. The machines are shared: compare within one
table, and trust ratios before absolute times. Settings were chosen on seeds from 1000 on and are reported on others:
CartPole, LunarLander and the comparisons of algorithms on seeds from 100 on, on which nothing was chosen; Acrobot and
MountainCar on 0 to 4. LunarLander's settings (replay, more updates, Double) were revised after tables of seeds 0 to 4
had shown failures. No score is that of a best checkpoint: each is that of the weights at the named step.

Rerunning a command gives bit-identical rows only at the printed commit and versions, on the same kind of processor:
another one rounds differently, and the run then diverges from the original. Records from before 2026-11-27 were made
when checkpoints still ended episodes and each environment was seeded once; a run today draws different episodes.
For those records the commit is the one that added the record.
"""

SECTIONS: tuple[Callable[[], str], ...] = (
    learning_sections.cartpole,
    wall_clock.section,
    learning_sections.cartpole_seed,
    learning_sections.cartpole_seed_per_step,
    learning_sections.lunarlander,
    learning_sections.acrobot,
    learning_sections.mountaincar,
    untuned.section,
    small_problems.section,
    learning_sections.cartpole_family,
    learning_sections.lunarlander_family,
    learning_sections.minatar_family,
    updates.section,
    variants.section,
    replay.section,
    atari_speed.section,
    concurrent.section,
    atari_update.section,
    atari_frames.section,
    atari_replay.section,
    seeing.section,
    learning_sections.atari,
    gpu.section,
    overestimation.section,
    deep_sea.section,
    sparse_rewards.section,
    sparse_cost.section,
    averaging.section,
    plan.section,
    checkpoint.section,
    seeding.section,
    safety.section,
    import_time.section,
)


def page() -> str:
    """Draw the plots and return the text."""
    sections = [INTRODUCTION.strip(), *(section() for section in SECTIONS)]
    return "\n\n".join(section for section in sections if section) + "\n"


def main() -> None:
    """Write the page."""
    path = RESULTS.parent / "results.md"
    path.write_text(page(), encoding="utf-8")
    print(f"wrote {path}")
    write_expected()


if __name__ == "__main__":
    main()
