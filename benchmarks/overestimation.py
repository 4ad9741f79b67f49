"""How far DQN and Double DQN overestimate a state of value 0.

    pip install matplotlib
    python -m benchmarks.overestimation --seeds 20

An episode is five decisions among ten actions. Every action leads to the next state and pays N(0, 1), so every
action in every state has the value 0. The behaviour is uniformly random and the replay short: both algorithms see the
same data, and the data stay fresh. Writes a record and `docs/images/overestimation.png`.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.page import load, provenance, table
from benchmarks.record import record
from nexus.core.seeding import generator
from nexus.core.types import Transitions
from nexus.data.replay_buffer import ReplayBuffer
from nexus.models.rl.dqn.agent import DQNAgent
from nexus.models.rl.dqn.double_dqn import greedy_on_online
from nexus.models.rl.dqn.dqn import NextAction, greedy_on_target
from nexus.training.statistics import bootstrap_interval

LENGTH, ACTIONS = 5, 10
ALGORITHMS: dict[str, NextAction] = {"DQN": greedy_on_target, "Double DQN": greedy_on_online}
COLOURS = {"DQN": "#D55E00", "Double DQN": "#0072B2"}
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "overestimation.png"
AGENT: dict[str, Any] = {
    "hidden_dim": 32,
    "hidden_layers": 1,
    "max_grad_norm": None,
    "learning_rate": 0.01,
    "loss": "squared",
}
LOOP = {
    "episodes_per_update": 2,
    "batch_size": 64,
    "replay_capacity": 300,  # renewed five times between two copies of the target network
    "target_update_every": 150,  # updates
}
STATES = np.eye(LENGTH, dtype=np.float32)  # one-hot

Floats = NDArray[np.float64]


def experience(rng: np.random.Generator, episodes: int) -> Transitions:
    """Play whole episodes at random: `K = LENGTH * episodes` transitions."""
    count = LENGTH * episodes
    positions = np.arange(count) % LENGTH  # [K]
    last = positions == LENGTH - 1
    return Transitions(
        states=STATES[positions],
        actions=rng.integers(ACTIONS, size=count),
        rewards=rng.normal(size=count).astype(np.float32),
        discounts=(~last).astype(np.float32),  # γ = 1
        next_states=STATES[np.where(last, 0, positions + 1)],  # the state after the last does not count
    )


def value_at_start(next_action: NextAction, seed: int, updates: int, every: int) -> Floats:
    """Train one agent and return max_a Q(start, a) after each `every` updates, `[updates / every]`."""
    agent = DQNAgent({"state_dim": LENGTH, "action_dim": ACTIONS, "seed": seed, **AGENT}, next_action=next_action)
    replay, rng = ReplayBuffer(LOOP["replay_capacity"], generator(seed, "replay")), generator(seed, "environments")
    replay.add(experience(rng, LOOP["replay_capacity"] // LENGTH))
    values = []
    for update in range(1, updates + 1):
        replay.add(experience(rng, LOOP["episodes_per_update"]))
        agent.learn(replay.sample(LOOP["batch_size"]))
        if update % LOOP["target_update_every"] == 0:
            agent.update_target_network()
        if update % every == 0:
            with torch.inference_mode():
                values.append(float(agent.q_network(STATES[0]).max()))
    return np.array(values)


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
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


def main() -> None:
    """Train all seeds of both, write the record and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--updates", type=int, default=1_500)
    parser.add_argument("--every", type=int, default=25, help="updates between two points of a curve")
    options = parser.parse_args()
    torch.set_num_threads(1)
    curves = {
        name: np.stack([value_at_start(part, seed, options.updates, options.every) for seed in range(options.seeds)])
        for name, part in ALGORITHMS.items()
    }  # [seeds, points] each
    rows = [summary(name, values) for name, values in curves.items()]
    for row in rows:
        print(row)
    updates = np.arange(1, options.updates // options.every + 1) * options.every
    draw(updates, curves)
    record("overestimation", rows, seeds=list(range(options.seeds)), updates=options.updates, agent=AGENT, loop=LOOP)


def summary(name: str, values: Floats) -> dict[str, Any]:
    """Return the mean over the last half of the updates with its 95 % interval over seeds; `values` is `[R, K]`."""
    per_seed = values[:, values.shape[1] // 2 :].mean(1)
    low, high = bootstrap_interval(per_seed)
    return {
        "algorithm": name,
        "true_value": 0.0,
        "mean_over_last_half": round(float(per_seed.mean()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "per_seed": [round(float(value), 4) for value in per_seed],
    }


def draw(updates: NDArray[np.int64], curves: dict[str, Floats]) -> None:
    """Write the plot: mean over seeds, with the 95 % interval of that mean at each point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for name, values in curves.items():
        label = f"{name} ({len(values)} seeds, 95 % interval)"
        axes.plot(updates, values.mean(0), color=COLOURS[name], linewidth=1.8, label=label)
        axes.fill_between(updates, *bootstrap_interval(values), color=COLOURS[name], alpha=0.18, linewidth=0)
    axes.axhline(0, color="black", linestyle="--", linewidth=1.2, label="true value")
    axes.set_title("Rewards of N(0, 1): what the start state seems to be worth", loc="left", fontweight="bold")
    axes.set_xlabel("updates")
    axes.set_ylabel("max Q(start, a)")
    axes.set_xlim(left=0)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=150)
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
