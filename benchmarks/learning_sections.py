"""The sections of the studies in `benchmarks.learning`, with their plots."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.learning import ATARI_GAMES
from benchmarks.page import SEED_SCORES, load, provenance, save, table
from benchmarks.record import median
from nexus.api import make_config
from nexus.planning.expected import differences
from nexus.training.config import TrainConfig
from nexus.training.statistics import interquartile_mean


def cartpole() -> str:
    """CartPole-v1 with the settings of `nexus train`."""
    return learning(
        "cartpole",
        "CartPole-v1, tuned",
        475,
        [50_000, 100_000],
        "`nexus train CartPole-v1` (DQN with scaled observations, layer norm, 5-step returns and Double's choice "
        "of the next action) without early stopping; each evaluation is 100 greedy episodes.",
    )


def cartpole_seed() -> str:
    """The seed's table of settings."""
    return seed_preset(
        "cartpole_seed",
        "CartPole-v1 with the seed's table (`--preset seed`)",
        "ε is multiplied by 0.995 per episode, so it is still 0.61 after 100 episodes and 0.37 after 200: an "
        "average of 195 that includes this exploration is out of reach by then, whatever the agent has learned.",
    )


def cartpole_seed_per_step() -> str:
    """The seed's pseudocode."""
    return seed_preset(
        "cartpole_seed_per_step",
        "CartPole-v1 with the seed's pseudocode (`--preset seed --epsilon-schedule per_step`)",
        "The same settings, but ε decays with each step, as in the seed specification's training loop.",
    )


def lunarlander() -> str:
    """LunarLander-v3 with the settings of `nexus train`."""
    return learning(
        "lunarlander",
        "LunarLander-v3, tuned",
        200,
        [100_000, 150_000],
        "`nexus train LunarLander-v3` (Double DQN with layer norm and 3-step returns); each evaluation is 100 "
        "greedy episodes.",
    )


def acrobot() -> str:
    """Acrobot-v1 with the settings of `nexus train`."""
    return learning("acrobot", "Acrobot-v1, tuned", -100, [20_000, 40_000], "`nexus train Acrobot-v1`.")


def mountaincar() -> str:
    """MountainCar-v0 with the settings of `nexus train`."""
    return learning("mountaincar", "MountainCar-v0, tuned", -110, [100_000, 150_000], "`nexus train MountainCar-v0`.")


def cartpole_family() -> str:
    """Every algorithm on CartPole-v1."""
    return family(
        "cartpole_family",
        "Every algorithm on CartPole-v1",
        475,
        "`nexus train CartPole-v1 --algo NAME`, 50,000 steps. CartPole's settings are for DQN and include "
        "Double; here it is off unless the name says so.",
    )


def lunarlander_family() -> str:
    """Eight algorithms on LunarLander-v3."""
    return family(
        "lunarlander_family",
        "Eight algorithms on LunarLander-v3",
        200,
        "150,000 steps. LunarLander's settings include Double and 3-step returns. In the first five rows each is "
        "on only if the name says so, and dueling is Dueling with Double: they isolate one part at a time. The "
        "last three have the settings of `nexus train LunarLander-v3 --algo NAME`: 3-step returns in all, Double in qr-"
        "dqn and rainbow, no noise in beyond ([why](beyond.md)). With one-step returns the reward for landing "
        "propagates too slowly for so few steps. Other work kept the machine busy: processor time says more than "
        "seconds.",
    )


def minatar_family() -> str:
    """Two algorithms on small images."""
    return family(
        "minatar_family",
        "DQN and Rainbow on MinAtar's Breakout",
        10,
        "10 x 10 pixels in 4 channels, sticky actions, 500,000 steps, an update of 32 every 4 steps. Rainbow is "
        "ahead for the first 100,000 steps and level at the end. Nothing was tuned: both share one learning rate "
        "and one target period; tuning them for Rainbow is the first thing to try.",
        curves=True,
    )


def learning(name: str, title: str, threshold: float, moments: list[int], text: str) -> str:
    """Return the section of a study of one algorithm, seed by seed, and draw its curves."""
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
    draw_study(name, found, threshold)
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


def family(name: str, title: str, threshold: float, text: str, *, curves: bool = False) -> str:
    """Return the section of a study of several algorithms: scores of the final weights; optionally draw the curves."""
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
        draw_family(name, found)
    seeds = sorted({row["seed"] for row in found["rows"]})
    head = ["algorithm", "IQM", "95 % interval", f"≥ {threshold:g}", "each seed", "median s", "median CPU s"]
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


def seed_preset(name: str, title: str, text: str) -> str:
    """Return the section of the seed's own settings: training episodes, as the seed specification counts them."""
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
    """The median episode, or "not reached"ne."""
    middle = median(firsts)
    return f"episode {middle:g}" if middle < float("inf") else "not reached"


def at(row: dict[str, Any], steps: int) -> float:
    """The mean of a seed's last evaluation at or before this many steps (plus a vector step)."""
    return float([point[1] for point in row["evaluations"] if point[0] <= steps + 100][-1])


def first_solved(row: dict[str, Any], threshold: float) -> int | None:
    """Steps at the first evaluation that reached a threshold."""
    return next((point[0] for point in row["evaluations"] if point[1] >= threshold), None)


def at_a_time(processes: int) -> str:
    """How many seeds ran in parallel."""
    return f"{processes} seed{'s' if processes > 1 else ''} at a time"


def interval_of_iqm(scores: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the interquartile mean over seeds."""
    picks = np.random.default_rng(0).integers(len(scores), size=(2_000, len(scores)))
    low, high = np.percentile([interquartile_mean(scores[pick]) for pick in picks], [2.5, 97.5])
    return float(low), float(high)


def atari() -> str:
    """The seed's five games with the settings for a CPU."""
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
    draw_games("atari", records)
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
    """Return whether a record's settings are the current ones of `nexus train` for the game."""
    recorded = TrainConfig.from_mapping(config)  # a setting that did not exist yet had its default
    return not differences(make_config(env, "fast"), recorded)


def draw_study(name: str, found: dict[str, Any], threshold: float) -> None:
    """Draw the evaluations of every seed, thin, and their mean."""
    figure = Figure(figsize=(7, 3.6), dpi=150)
    axes = figure.subplots()
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


def draw_family(name: str, found: dict[str, Any]) -> None:
    """Draw the evaluations of every seed, thin, and their mean, by algorithm."""
    figure = Figure(figsize=(7, 3.6), dpi=150)
    axes = figure.subplots()
    algorithms = list(dict.fromkeys(row["algorithm"] for row in found["rows"]))
    for algorithm, color in zip(algorithms, ("#0072B2", "#D55E00", "#009E73"), strict=False):
        points = np.array([row["evaluations"] for row in found["rows"] if row["algorithm"] == algorithm])  # [N, T, 4]
        for seed in points:
            axes.plot(seed[:, 0], seed[:, 1], color=color, alpha=0.3, linewidth=1)
        axes.plot(points[0, :, 0], points[:, :, 1].mean(0), color=color, linewidth=2, label=algorithm)
    axes.set(xlabel="steps (decisions)", ylabel="mean return, 100 greedy episodes")
    axes.legend(frameon=False, loc="lower right")
    save(figure, name)


def draw_games(name: str, records: list[dict[str, Any]]) -> None:
    """Draw every evaluation of every seed, one panel for each game."""
    figure = Figure(figsize=(3 * len(records), 2.8), dpi=150)
    panels = figure.subplots(1, len(records), squeeze=False)
    for axes, found in zip(panels[0], records, strict=True):
        for row in found["rows"]:
            steps, scores = zip(*((point[0] / 1e6, point[1]) for point in row["evaluations"]), strict=True)
            axes.plot(steps, scores, color="#0072B2", linewidth=1.2)
        axes.set(title=found["env"].removeprefix("ALE/").removesuffix("-v5"), xlabel="million steps (of 4 frames)")
    panels[0][0].set_ylabel("score, 30 games")
    save(figure, name)
