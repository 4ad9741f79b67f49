"""Write docs/results.md and its pictures from the records in docs/results/.

python -m benchmarks.report

It also writes nexus/planning/expected.json, what `nexus plan` says of scores.
"""

import json
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from benchmarks.expected import write_expected
from benchmarks.learning import ATARI_GAMES
from benchmarks.record import RESULTS, median
from nexus.api import make_config
from nexus.training.config import TrainConfig
from nexus.training.statistics import interquartile_mean

mpl.use("Agg")
import matplotlib.pyplot as plt

INTRODUCTION = """# Results

Every figure here comes from a record in [`docs/results/`](results/), written by the command printed below its table.
`python -m benchmarks.report` generates this page from the records. The machines are shared: compare within one
table, and trust ratios before absolute times. Settings were chosen on seeds from 1000 on and are reported on others:
CartPole, LunarLander and the comparisons of algorithms on seeds from 100 on, which nothing was chosen on; Acrobot and
MountainCar on 0 to 4. LunarLander's settings (replay, more updates, Double) were revised after tables of seeds 0 to 4
had shown failing ones. No score is that of a best checkpoint: each is that of the weights at the named step.

Rerunning a command gives bit-identical rows only at the printed commit and versions, on the same kind of processor:
another one rounds differently, and the run then diverges from the original. Records from before 2026-11-27 were made
when checkpoints still ended episodes and each environment was seeded once; a run of today draws different episodes.
For those records the commit is the one that added the record.
"""


def load(name: str) -> dict[str, Any] | None:
    """Return a record, or None if it was not made yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def provenance(found: dict[str, Any]) -> str:
    """The line below each table."""
    packages = {**found["versions"], **found.get("others", {})}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    return f"`{found['command']}` · {found['date']} · commit {found['commit']} · {found['machine']} · {versions}"


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def at(row: dict[str, Any], steps: int) -> float:
    """The mean of a seed's last evaluation at or before so many steps (and a vector step more)."""
    return float([point[1] for point in row["evaluations"] if point[0] <= steps + 100][-1])


def first_solved(row: dict[str, Any], threshold: float) -> int | None:
    """Steps at the first evaluation that reached a threshold."""
    return next((point[0] for point in row["evaluations"] if point[1] >= threshold), None)


def learning(name: str, title: str, threshold: float, moments: list[int], text: str) -> str:
    """The section of one learning study."""
    found = load(name)
    if found is None:
        return ""
    rows = []
    for row in found["rows"]:
        solved = first_solved(row, threshold)
        rows.append(
            [
                row["seed"],
                "never" if solved is None else f"{solved:,}",
                *(f"{at(row, moment):.1f}" for moment in moments),
                row["seconds"],
            ]
        )
    summary = " ".join(
        f"At {moment:,} steps {sum(at(row, moment) >= threshold for row in found['rows'])} of {len(rows)} seeds "
        f"score at least {threshold:g}."
        for moment in moments
    )
    head = ["seed", f"first evaluation ≥ {threshold:g}, steps", *(f"mean at {m:,}" for m in moments), "seconds"]
    picture(name, found, threshold)
    return "\n\n".join(
        [
            f"## {title}",
            text,
            summary + f" {at_a_time(found['processes'])}; seconds include imports and all evaluations.",
            table(head, rows),
            f"![{title}](images/{name}.png)",
            provenance(found),
        ]
    )


def at_a_time(processes: int) -> str:
    """How many seeds ran in parallel."""
    return f"{processes} seed{'s' if processes > 1 else ''} at a time"


def family(name: str, title: str, threshold: float, text: str, *, curves: bool = False) -> str:
    """The section of a study of several algorithms: scores of the final weights, by algorithm, and perhaps curves."""
    found = load(name)
    if found is None:
        return ""
    rows = []
    for algorithm in dict.fromkeys(row["algorithm"] for row in found["rows"]):
        own = [row for row in found["rows"] if row["algorithm"] == algorithm]
        scores = np.array([row["evaluations"][-1][1] for row in own])
        low, high = interval_of_iqm(scores)
        rows.append(
            [
                algorithm,
                f"{interquartile_mean(scores):.1f}",
                f"{low:.1f} to {high:.1f}",
                f"{(scores >= threshold).sum()} of {len(scores)}",
                " ".join(f"{score:.0f}" for score in scores),
                f"{median([row['seconds'] for row in own]):.0f}",
                f"{median([row['cpu_seconds'] for row in own]):.0f}",
            ]
        )
    if curves:
        family_curves(name, found)
    seeds = sorted({row["seed"] for row in found["rows"]})
    head = ["algorithm", "IQM", "95 % interval", f"≥ {threshold:g}", "seeds one by one", "median s", "median CPU s"]
    return "\n\n".join(
        [
            f"## {title}",
            text + f" Seeds {seeds[0]} to {seeds[-1]}, {found['processes']} at a time. Each score is the mean of 100 "
            "greedy episodes with the final weights; IQM is the interquartile mean over seeds, its interval a "
            "percentile bootstrap over seeds, which says little with only three.",
            table(head, rows),
            *([f"![{title}](images/{name}.png)"] if curves else []),
            provenance(found),
        ]
    )


def family_curves(name: str, found: dict[str, Any]) -> None:
    """Evaluations of every seed, thin, and their mean, by algorithm."""
    figure, axes = plt.subplots(figsize=(7, 3.6), dpi=150)
    algorithms = list(dict.fromkeys(row["algorithm"] for row in found["rows"]))
    for algorithm, color in zip(algorithms, ("#0072B2", "#D55E00", "#009E73"), strict=False):
        points = np.array([row["evaluations"] for row in found["rows"] if row["algorithm"] == algorithm])  # [N, T, 4]
        for seed in points:
            axes.plot(seed[:, 0], seed[:, 1], color=color, alpha=0.3, linewidth=1)
        axes.plot(points[0, :, 0], points[:, :, 1].mean(0), color=color, linewidth=2, label=algorithm)
    axes.set(xlabel="steps (decisions)", ylabel="mean return, 100 greedy episodes")
    axes.legend(frameon=False, loc="lower right")
    save(figure, name)


def interval_of_iqm(scores: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the interquartile mean over seeds."""
    picks = np.random.default_rng(0).integers(len(scores), size=(2_000, len(scores)))
    low, high = np.percentile([interquartile_mean(scores[pick]) for pick in picks], [2.5, 97.5])
    return float(low), float(high)


def picture(name: str, found: dict[str, Any], threshold: float) -> None:
    """Evaluations of every seed, thin, and their mean."""
    figure, axes = plt.subplots(figsize=(7, 3.6), dpi=150)
    length = min(len(row["evaluations"]) for row in found["rows"])
    means = np.array([[point[1] for point in row["evaluations"][:length]] for row in found["rows"]])
    steps = [point[0] for point in found["rows"][0]["evaluations"][:length]]
    for values in means:
        axes.plot(steps, values, color="#0072B2", alpha=0.25, linewidth=1)
    axes.plot(steps, means.mean(axis=0), color="#0072B2", linewidth=2, label=f"mean of {len(means)} seeds")
    axes.axhline(threshold, color="#555555", linewidth=1, linestyle=":", label=f"solved, {threshold:g}")
    axes.set(xlabel="steps (decisions)", ylabel="mean return, 100 greedy episodes", title=f"{found['env']}, DQN")
    axes.legend(frameon=False, loc="lower right")
    save(figure, name)


def save(figure: Any, name: str) -> None:
    """Write a picture, its axes open and gridded, and close it."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    figure.tight_layout()
    folder = RESULTS.parent / "images"
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / f"{name}.png")
    plt.close(figure)


def seed_preset(name: str, title: str, text: str) -> str:
    """The section of the seed's own settings: training episodes, as the seed counts."""
    found = load(name)
    if found is None:
        return ""
    rows, firsts = [], []
    for row in found["rows"]:
        returns = np.array(row["episode_returns"])
        means = np.convolve(returns, np.full(100, 0.01), "valid")
        passed = np.flatnonzero(means > 195)
        first = int(passed[0]) + 100 if len(passed) else None
        firsts.append(float("inf") if first is None else first)
        best = f"{means.max():.0f}" if len(means) else "-"
        last = row["evaluations"][-1]
        rows.append([row["seed"], first or "never", best, len(returns), f"{last[1]:.1f}", row["seconds"]])
    head = ["seed", "episode at which the average > 195", "best average", "episodes", "greedy mean at the end", "s"]
    return "\n\n".join(
        [
            f"## {title}",
            text + " The average is over the last 100 training episodes, exploration included; the seed specification "
            "expects more than 195 after 100 to 200 episodes. "
            f"{sum(first < float('inf') for first in firsts)} of {len(firsts)} seeds reach it within "
            f"{found['rows'][0]['evaluations'][-1][0] // 1000:,}k steps, "
            f"{sum(first <= 200 for first in firsts)} within 200 episodes; median over seeds: {median_of(firsts)}.",
            table(head, rows),
            provenance(found),
        ]
    )


def median_of(firsts: list[float]) -> str:
    """The median episode, or that there is none."""
    median = float(np.median(firsts))
    return f"episode {median:g}" if median < float("inf") else "not reached"


def wall_clock() -> str:
    """The section on seconds to solve."""
    found = load("wall_clock")
    if found is None:
        return ""
    seeds = sorted({row["seed"] for row in found["rows"]})
    by_key = {(row["library"], row["seed"]): row for row in found["rows"]}
    rows = []
    for seed in seeds:
        ours, theirs = by_key["nexus", seed], by_key["sb3", seed]
        rows.append([seed, ours["seconds"], ours["solved_at"], theirs["seconds"], theirs["solved_at"] or "not solved"])
    median = found["median_seconds"]
    rows.append(["median", f"{median['nexus']:.1f}", "", f"{median['sb3']:.1f}", ""])
    head = ["seed", "nexus, s", "steps", "SB3 2.9.2, rl-zoo settings, s", "steps"]
    return "\n\n".join(
        [
            "## Seconds to a solved CartPole-v1",
            "Wall-clock time of the whole process: imports, training, and an evaluation of 100 greedy episodes every "
            "2,500 steps by the same code for both libraries, until one reaches 475 or 100,000 steps are done. The two "
            f"alternate, seed by seed, on the CPU. Ratio of the medians: **{found['ratio']}**.",
            table(head, rows),
            provenance(found),
        ]
    )


def speed(name: str, title: str, text: str, head: list[str]) -> str:
    """The section of a record whose rows are the rows of its table."""
    found = load(name)
    if found is None:
        return ""
    cells = [list(row.values()) for row in found["rows"]]
    return "\n\n".join([f"## {title.format(**found)}", text.format(**found), table(head, cells), provenance(found)])


def update() -> str:
    """The section on an update of the Nature network: its arithmetic, and what makes it faster."""
    found = load("atari_update")
    if found is None:
        return ""
    heads = ["threads", "update, ms", "of which optimizer, ms", "best rate, GFLOP/s", "arithmetic alone, ms"]
    return "\n\n".join(
        [
            "## What an update of the Nature network takes",
            f"`--preset nature`, a batch of 32, sampling excluded, medians of {found['rounds']}. Its "
            f"{found['gflop']} GFLOP count convolutions and matrix products; the best rate is that of multiplying "
            "large square matrices.",
            table(heads, [list(row.values()) for row in found["rows"]]),
            f"Processor time on one thread, medians of {found['processes']} processes each, alternating:",
            table(["images and memory", "update, ms"], [list(row.values()) for row in found["ways"]]),
            provenance(found),
        ]
    )


def plan() -> str:
    """The section on how well a plan tells the time."""
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
    head = ["environment", "steps", "predicted, s", "actual, s", "median ratio", "one by one", "within the range"]
    return "\n\n".join(
        [
            "## How well `nexus plan` tells the time",
            f"A plan with a probe of {found['probe_seconds']:g} s, then the run, in fresh processes, alternating, "
            f"{found['rounds']} rounds; medians. A ratio above 1 is a run that was faster than predicted. The range is "
            "that of the probe's slices, so it does not include later load on the machine. Evaluations are planned "
            "with the longest episodes that the rules allow; Pong's games after so few steps are far shorter.",
            table(head, rows),
            provenance(found),
        ]
    )


SEED_SCORES = {  # random, human and DQN, from the table in the specification that this project started from
    "ALE/Pong-v5": (-20.7, 14.6, 18.9),
    "ALE/Breakout-v5": (1.7, 30.5, 401.2),
    "ALE/SpaceInvaders-v5": (148.0, 1652.0, 1976.0),
    "ALE/Qbert-v5": (163.9, 13455.0, 10596.0),
    "ALE/Seaquest-v5": (68.4, 42055.0, 5286.0),
}


def atari() -> str:
    """The section on the seed's five games with the settings for a CPU."""
    records = [found for game in ATARI_GAMES if (found := load(f"atari_{game.lower()}")) is not None]
    if not records:
        return ""
    rows = []
    for found in records:
        scores = [row["evaluations"][-1][1] for row in found["rows"]]
        steps = found["rows"][0]["evaluations"][-1][0]
        minutes = [row["seconds"] / 60 for row in found["rows"]]
        config = found["configs"]["pqn"]
        rows.append(
            [
                found["env"] + ("" if of_today(found["env"], config) else " *"),
                f"{config['frame_size']} x {config['frame_size']}",
                "in turns" if config.get("actor_sync_every") is None else "at the same time",
                f"{steps:,}",
                f"{4 * steps:,}",
                " ".join(f"{minute:.0f}" for minute in minutes),
                " ".join(f"{score:.1f}" for score in scores),
                *SEED_SCORES[found["env"]],
            ]
        )
    ours = ["game", "pixels", "acting and learning", "steps", "frames", "minutes", "score"]
    head = [*ours, "specification: random", "human", "DQN"]
    older = any(row[0].endswith("*") for row in rows)
    curves("atari", records)
    return "\n\n".join(
        [
            "## Atari with `--preset fast`",
            "`nexus train GAME`, whose preset `fast` is [PQN](pqn.md), protocol `nature`: the score is the mean of 30 "
            "games with the final weights, ε = 0.05, up to 30 no-ops, at most 5 minutes each. Minutes are for the "
            "whole process with its evaluations, with one torch thread each for acting and learning. The sequential "
            "runs went two at a time on two cores (the last of Pong's three had both to itself at the end), all "
            "others alone; other work kept the machine busy. The settings were tuned on Pong, their pixels on "
            "Breakout too, on other seeds; but the step size was halved after Breakout's seed 100 had made little "
            "progress with twice that size, so its row is not free of selection. Space Invaders was suspended for "
            "seven of its minutes."
            + (" A game with * was measured with an older version of the preset." if older else "")
            + " The last three columns are from the seed specification's table, whose DQN had 200,000,000 frames.",
            table(head, rows),
            "![Atari](images/atari.png)",
            *(provenance(found) for found in records),
        ]
    )


def of_today(env: str, config: dict[str, Any]) -> bool:
    """Tell whether a record's settings are those that `nexus train` has for the game now."""
    now = make_config(env, "fast").to_mapping()
    then = TrainConfig.from_mapping(config).to_mapping()  # a setting that there was not yet had its default
    return all(now[name] == then[name] for name in now if name != "seed")


def curves(name: str, records: list[dict[str, Any]]) -> None:
    """Every evaluation of every seed, one panel for each game."""
    figure, panels = plt.subplots(1, len(records), figsize=(3 * len(records), 2.8), dpi=150, squeeze=False)
    for axes, found in zip(panels[0], records, strict=True):
        for row in found["rows"]:
            steps, scores = zip(*((point[0] / 1e6, point[1]) for point in row["evaluations"]), strict=True)
            axes.plot(steps, scores, color="#0072B2", linewidth=1.2)
        axes.set(title=found["env"].removeprefix("ALE/").removesuffix("-v5"), xlabel="million steps (of 4 frames)")
    panels[0][0].set_ylabel("score, 30 games")
    save(figure, name)


def gpu() -> str:
    """The section on what was measured on a GPU: rates, and the seed's games after minutes of training."""
    found = load("gpu")
    if found is None:
        return ""
    units = {"updates_per_second": "updates/s", "steps_per_second": "steps/s"}
    rates = [
        [row["what"], f"{row[name]:,}", unit] for row in found["rows"] for name, unit in units.items() if name in row
    ]
    games = [
        [
            row["what"],
            f"{row['steps']:,}",
            f"{4 * row['steps']:,}",
            row["train_seconds"],
            f"{row['score']:.1f}",
            f"{row['low']:.1f} to {row['high']:.1f}",
            *SEED_SCORES[row["what"]],
        ]
        for row in found["rows"]
        if "score" in row
    ]
    settings = " ".join(f"--{name.replace('_', '-')} {value!r}" for name, value in found["game"].items())
    parts = [
        f"## On a GPU: {found['gpu']}",
        "The learner alone: `--preset nature`, a batch of 32, from a full replay on the GPU. An agent: the whole "
        "preset on Pong, one update every 4 steps, ε = 0.1, once learning has started.",
        table(["what", "rate", "unit"], rates),
    ]
    head = ["game", "steps", "frames", "seconds", "score", "95 % interval", "specification: random", "human", "DQN"]
    if games:
        parts += [
            f"Games: `{settings}`, protocol `nature`, one seed: 30 games with the weights at the named second of "
            "training by the run's clock, evaluations not counted.",
            table(head, games),
        ]
    return "\n\n".join([*parts, provenance(found)])


def overestimation() -> str:
    """The section on the seed's first pitfall."""
    found = load("overestimation")
    if found is None:
        return ""
    rows = [
        [
            row["algorithm"],
            f"{row['true_value']:g}",
            f"{row['mean_over_last_half']:.2f}",
            f"{row['low']:.2f} to {row['high']:.2f}",
        ]
        for row in found["rows"]
    ]
    return "\n\n".join(
        [
            "## Overestimation: DQN against Double DQN",
            "A chain of noisy decisions whose true value is 0: the largest Q at its start, mean over the last half "
            f"of {found['updates']:,} updates, {len(found['seeds'])} seeds.",
            table(["algorithm", "true value", "largest Q", "95 % interval"], rows),
            "![Overestimation](images/overestimation.png)",
            provenance(found),
        ]
    )


def averaging() -> str:
    """The section on acting on averaged weights."""
    found = load("averaging")
    if found is None:
        return ""
    rows = [
        [row["env"], name, row[f"{name}_mean"], row[f"{name}_jump"], row[f"{name}_end"]]
        for row in found["summaries"]
        for name in ("newest", "averaged")
    ]
    return "\n\n".join(
        [
            "## Acting on averaged weights",
            f"`nexus train ENV --averaged-updates {found['updates']}` without an early stop, seeds "
            f"{found['first_seed']} to {found['first_seed'] + found['seeds'] - 1}. At each evaluation the averaged and "
            "the newest weights each play 100 greedy episodes on the same seeds. The mean is over all evaluations and "
            "seeds; the jump is the mean change of the score from one evaluation to the next.",
            table(["environment", "weights", "mean", "jump", "at the end, seed by seed"], rows),
            provenance(found),
        ]
    )


def main() -> None:
    """Write the page."""
    sections = [
        INTRODUCTION.strip(),
        learning(
            "cartpole",
            "CartPole-v1, tuned",
            475,
            [50_000, 100_000],
            "`nexus train CartPole-v1` (DQN with scaled observations, layer norm, 5-step returns and Double's choice "
            "of the next action) without early stopping; each evaluation is 100 greedy episodes.",
        ),
        wall_clock(),
        seed_preset(
            "cartpole_seed",
            "CartPole-v1 with the seed's table (`--preset seed`)",
            "ε is multiplied by 0.995 per episode, so it is still 0.61 after 100 episodes and 0.37 after 200: an "
            "average of 195 that includes this exploration is out of reach by then, whatever the agent has learned.",
        ),
        seed_preset(
            "cartpole_seed_per_step",
            "CartPole-v1 with the seed's pseudocode (`--preset seed --epsilon-schedule per_step`)",
            "The same settings, but ε decays with each step, as in the seed specification's training loop.",
        ),
        learning(
            "lunarlander",
            "LunarLander-v3, tuned",
            200,
            [100_000, 150_000],
            "`nexus train LunarLander-v3` (Double DQN with layer norm and 3-step returns); each evaluation is 100 "
            "greedy episodes.",
        ),
        learning("acrobot", "Acrobot-v1, tuned", -100, [20_000, 40_000], "`nexus train Acrobot-v1`."),
        learning("mountaincar", "MountainCar-v0, tuned", -110, [100_000, 150_000], "`nexus train MountainCar-v0`."),
        family(
            "cartpole_family",
            "Every algorithm on CartPole-v1",
            475,
            "`nexus train CartPole-v1 --algo NAME`, 50,000 steps. CartPole's settings are for DQN and include "
            "Double; here it is off unless the name says so.",
        ),
        family(
            "lunarlander_family",
            "Eight algorithms on LunarLander-v3",
            200,
            "150,000 steps. LunarLander's settings include Double and 3-step returns. In the first five rows each is "
            "on only if the name says so, and dueling is Dueling with Double: they isolate one part at a time. The "
            "last three are what `nexus train LunarLander-v3 --algo NAME` gives: 3-step returns in all, Double in qr-"
            "dqn and rainbow, no noise in beyond ([why](beyond.md)). With one-step returns the reward for landing "
            "propagates too slowly for so few steps. Other work kept the machine busy: processor time says more than "
            "seconds.",
        ),
        family(
            "minatar_family",
            "DQN and Rainbow on MinAtar's Breakout",
            10,
            "10 x 10 pixels in 4 channels, sticky actions, 500,000 steps, an update of 32 every 4 steps. Rainbow is "
            "ahead for the first 100,000 steps and level at the end. Nothing was tuned: both share one learning rate "
            "and one target period; tuning them for Rainbow is the first thing to try.",
            curves=True,
        ),
        speed(
            "updates",
            "Learner updates per second",
            "A 4-128-128-2 network, batch 64, Huber loss, gradient clipping, Adam, sampling included, one thread; "
            "medians of {rounds} rounds of {updates_per_round} updates, alternating.",
            ["learner", "updates/s", "µs an update", "ratio to SB3"],
        ),
        speed(
            "variants",
            "What each algorithm costs",
            "A 4-128-128-2 network, batch 64, eager, one thread, sampling and new priorities included; medians of "
            "{rounds} rounds of {updates_per_round} updates, alternating. The last column is the time of an update "
            "relative to plain DQN. beyond costs over 3 because it is IQN with every other part, and for Munchausen's "
            "policy it evaluates the target network at 32 levels for s and for s', in addition to the drawn levels.",
            ["algorithm", "updates/s", "times DQN"],
        ),
        speed(
            "replay",
            "Prioritized against uniform replay",
            "{capacity:,} transitions, full, batch {batch}, one thread; medians of {rounds} rounds of "
            "{calls_per_round} calls, alternating.",
            ["call", "µs", "µs at best", "ratio to uniform"],
        ),
        speed(
            "atari_speed",
            "Steps per second on Pong",
            "One update of 32 every 4 steps. nexus: the complete `--preset nature`, replay of 1,000,000 "
            "transitions; SB3: its AtariWrapper, CnnPolicy and rl-zoo's settings, replay of 100,000, since a "
            "million would need 56 GB there. ε = {epsilon} for both; each with its default number of threads. "
            "{steps:,} steps after learning began, {rounds} fresh processes each, alternating; processor time is "
            "that of all threads.",
            ["learner", "threads", "steps/s", "ratio to SB3", "processor ms a step", "one by one"],
        ),
        speed(
            "concurrent",
            "Acting and learning at the same time",
            '`nexus train pong --preset ...` in turns (sequentially), and with `--actor-sync-every "{epoch} steps"`; '
            "{rounds} alternating rounds of fresh processes, timed over whole epochs once learning has started.",
            ["preset", "acting and learning", "steps/s", "ratio", "processor ms a step", "one by one"],
        ),
        update(),
        speed(
            "atari_frames",
            "Bytes of a compressed frame",
            "{steps:,} steps of random play in each game, 84 x 84, 7,056 bytes uncompressed; groups of eight "
            "consecutive frames are packed together: by Zstandard as `compressed` does, by Zstandard after an "
            "exclusive or of each frame with the previous one, and by LZ4. Processor time to open a group, medians.",
            ["game", "Zstandard", "and exclusive or", "LZ4", "Zstandard, µs", "and exclusive or, µs", "LZ4, µs"],
        ),
        speed(
            "atari_replay",
            "A replay of {transitions:,} transitions of Breakout",
            "Random play, 20,000 recorded steps fed repeatedly, each store in a separate process. Memory is resident "
            "memory: of the whole process with torch, agent and optimizer, and its growth while the replay was "
            "filled. Times are medians of {batches} batches of 32 and of the Nature update with each, one thread.",
            ["store", "process, MB", "grown by, MB", "replay says, MB", "batch, ms", "update, ms", "batch, % of it"],
        ),
        speed(
            "seeing",
            "What a torso sees",
            "Pong, no reward: a torso and a linear layer learn to read the positions of ball and paddles and the "
            "ball's speed from four frames of random play. Error on held-out play relative to the standard deviation "
            "(1 is a constant prediction) after {updates:,} updates of 32, learning rate 0.00025, medians of {seeds} "
            "seeds from 0 on.",
            ["torso", "pixels", "images", "ball x", "ball y", "own paddle", "opponent", "speed x", "speed y", "CPU s"],
        ),
        atari(),
        gpu(),
        overestimation(),
        averaging(),
        plan(),
        speed(
            "checkpoint",
            "The pause of a checkpoint",
            "{held:,} CartPole transitions in the replay, and everything that training waits for; medians over "
            "{rounds} alternating runs, with {checkpoints} checkpoints each after the first. Likewise {frames:,} "
            "transitions of Breakout, {recorded:,} recorded steps of random play repeated, over {frame_rounds} runs.",
            ["replay", "new transitions", "MB of replay", "ms", "ms at most"],
        ),
        speed(
            "seeding",
            "What a seed costs an Atari game",
            "One of {envs} games is reset while the others wait; medians of {rounds} resets, alternating with steps of "
            "all. The last column is the extra cost of the seed, in steps.",
            ["game", "step, ms", "reset, ms", "with a seed, ms", "steps"],
        ),
        speed(
            "safety",
            "What safety costs",
            "Whole CartPole-v1 runs of {steps:,} steps. On: a checkpoint every 10,000 steps with its checksums, and "
            "a check of every loss, gradient, observation and reward. Off: none of these. {rounds} fresh processes "
            "each; the two of a round alternate every quarter of a second. Ratio within a round: median **{ratio}**, "
            "mean {mean} with a 95 % bootstrap interval of {low} to {high}.",
            ["safety", "steps/s, median", "one by one"],
        ),
        speed(
            "import_time",
            "Start-up",
            "Medians of {rounds} fresh processes each, alternating.",
            ["process", "seconds", "beyond `import torch`"],
        ),
    ]
    page = RESULTS.parent / "results.md"
    page.write_text("\n\n".join(section for section in sections if section) + "\n", encoding="utf-8")
    print(f"wrote {page}")
    write_expected()


if __name__ == "__main__":
    main()
