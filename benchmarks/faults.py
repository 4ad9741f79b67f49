"""The fault zoo: whether the doctor finds faults put into runs on purpose, names them, and leaves sound runs be.

    python -m benchmarks.faults RUNS                        all faults and sound runs, five seeds each
    python -m benchmarks.faults RUNS --seeds 1000 1001      those on which the thresholds are chosen
    python -m benchmarks.diagnoses RUNS                     what the doctor says of them, and the record

A run that is there already is not repeated.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch

import nexus
from nexus.core.errors import NexusError
from nexus.core.types import Transitions
from nexus.data.replay import Replay
from nexus.models.rl.dqn import dqn
from nexus.models.rl.dqn.learner import Learner
from nexus.models.rl.dqn.policy import Policy
from nexus.models.rl.dqn.rainbow import make_agent
from nexus.ops import optimizers
from nexus.training.presets import PRESETS

__all__ = ["FAULTS", "SOUND"]

ROW_FILE = "row.json"
LENGTHS = {"CartPole-v1": 30_000, "Acrobot-v1": 40_000}
UNBOUNDED = ("scale_observations",)  # which needs bounds
BASE: Mapping[str, Any] = {"eval_every": "10000 steps", "eval_episodes": 5, "threads": 1, "target_return": None}


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Args:
        checks: the checks that are about its area.
        settings: that make it, for a run of a number of steps.
        wrapper: around the environment.
        patched: replaces a part of nexus while the run lasts.
        without: settings that the fault makes useless.
        seen: where real programs had it.
    """

    checks: tuple[str, ...]
    seen: str
    settings: Callable[[int], Mapping[str, Any]] = lambda steps: {}
    wrapper: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None = None
    patched: Callable[[], AbstractContextManager[Any]] = nullcontext
    without: tuple[str, ...] = ()


def given(**settings: Any) -> Callable[[int], Mapping[str, Any]]:
    """Return settings that do not depend on the length of a run."""
    return lambda steps: settings


class Returned(gym.Wrapper[Any, Any, Any, Any]):
    """Changes what a step returns."""

    def __init__(self, env: gym.Env[Any, Any], change: Callable[..., tuple[Any, ...]]) -> None:
        super().__init__(env)
        self.change = change
        self.last: Any = None

    def reset(self, **kwargs: Any) -> Any:
        """Remember the first observation."""
        self.last, info = super().reset(**kwargs)
        return self.last, info

    def step(self, action: Any) -> Any:
        """Step and change."""
        return self.change(self.last, *super().step(action))


def rewards_times(factor: float) -> Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]:
    """Return a wrapper that multiplies rewards."""
    return lambda env: gym.wrappers.TransformReward(env, lambda reward: float(reward) * factor)


def observations_times(factor: float) -> Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]:
    """Return a wrapper that multiplies observations."""

    def wrap(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        space = gym.spaces.Box(-np.inf, np.inf, env.observation_space.shape or (), np.float32)
        return gym.wrappers.TransformObservation(env, lambda seen: (seen * factor).astype(np.float32), space)

    return wrap


def frozen(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return the first observation of an episode again and again."""
    return Returned(env, lambda last, seen, *others: (last, *others))


def without_reward(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Pay nothing, and never end but by the limit."""
    return Returned(env, lambda last, seen, reward, ended, cut, info: (seen, 0.0, False, ended or cut, info))


def limit_as_end(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """End after 25 steps, which is reported as an end and not as a limit."""
    limited = gym.wrappers.TimeLimit(env, 25)
    return Returned(limited, lambda last, seen, reward, ended, cut, info: (seen, reward, ended or cut, False, info))


@contextmanager
def targets(change: Callable[[Any, Any, Any], Any]) -> Iterator[None]:
    """Replace y = r + d · Q in the losses."""
    with patch.object(dqn, "td_target", change):
        yield


@contextmanager
def batches(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[None]:
    """Change each batch between replay and loss."""
    before = Replay.sample

    def sample(self: Replay, batch_size: int) -> Any:
        return change(dict(before(self, batch_size)))

    with patch.object(Replay, "sample", sample):
        yield


@contextmanager
def stored(change: Callable[[Transitions], Transitions]) -> Iterator[None]:
    """Change transitions before they are stored."""
    before = Replay.add
    with patch.object(Replay, "add", lambda self, rows: before(self, change(rows))):
        yield


def with_next(rows: Transitions, next_states: Any) -> Transitions:
    """Return transitions with other next states."""
    return replace(rows, next_states=next_states)


def bootstrapping(rows: Transitions) -> Transitions:
    """Return transitions that never end."""
    return replace(rows, discounts=np.full_like(rows.discounts, rows.discounts.max(initial=0.95) or 0.95))


def mixed(batch: dict[str, Any]) -> dict[str, Any]:
    """Shuffle next states and rewards against states and actions."""
    order = torch.arange(len(batch["actions"])).roll(1)
    return {**batch, "next_states": batch["next_states"][order], "rewards": batch["rewards"][order]}


@contextmanager
def networks(change: Callable[[Any], None]) -> Iterator[None]:
    """Change each new agent's networks."""
    import nexus.parts as parts

    def made(*words: Any, **settings: Any) -> Any:
        agent = make_agent(*words, **settings)
        for network in (agent.q_network, agent.target_network):
            change(network)
        return agent

    with patch.object(parts, "make_agent", made):
        yield


def ending_with(function: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a change that puts a function behind the head."""

    def change(network: Any) -> None:
        readout = network.readout
        network.readout = lambda out: readout(function(out))

    return change


def dead(network: Any) -> None:
    """Give the first hidden layer a bias that no input outweighs, behind a normalisation or not."""
    layers = [module for module in network.torso.modules() if isinstance(module, torch.nn.LayerNorm | torch.nn.Linear)]
    norms = [module for module in layers if isinstance(module, torch.nn.LayerNorm)]
    with torch.no_grad():
        (norms or layers)[0].bias.fill_(-50.0)


@contextmanager
def acting(change: Callable[[Any], Any]) -> Iterator[None]:
    """Change the actions of a policy."""
    before = Policy.act

    def act(self: Policy, states: Any, epsilon: float, training: bool = True, action_masks: Any = None) -> Any:
        chosen = before(self, states, epsilon, training, action_masks)
        return change(chosen) if training and epsilon < 1 else chosen

    with patch.object(Policy, "act", act):
        yield


class PlainSteps(optimizers.Adam):
    """Stochastic gradient descent in the place of Adam."""

    def step(self, closure: Any = None, *, learning_rate: Any = None) -> None:  # type: ignore[override]
        """θ ← θ - α g."""
        theta = self.param_groups[0]["params"][0]
        with torch.no_grad():
            theta -= learning_rate * theta.grad


def backwards(self: Learner) -> None:
    """Copy the target network to the online network."""
    with torch.no_grad():
        self.theta.copy_(self.theta_target)


def rising(progress: float) -> float:
    """ε that grows with the progress of a run."""
    return progress


FAULTS: Mapping[str, Fault] = {
    "no_exploration": Fault(("exploration",), "DRLinter", given(epsilon=0.0, epsilon_min=0.0)),
    "epsilon_never_falls": Fault(("exploration",), "DRLinter", given(epsilon_schedule="constant")),
    "epsilon_grows": Fault(
        ("exploration",),
        "DRLinter",
        given(epsilon_schedule="benchmarks.faults:rising"),
        without=("epsilon_min", "epsilon_steps"),
    ),
    "final_epsilon": Fault(("exploration", "exploration-plan"), "muPRL", given(epsilon_min=0.7)),
    "target_never": Fault(
        ("target-network", "target-period"), "DRLinter", given(target_update_every="900000 updates", tau=1.0)
    ),
    "target_rare": Fault(
        ("target-period",), "muPRL", lambda steps: {"target_update_every": f"{steps * 3 // 10} steps", "tau": 1.0}
    ),
    "target_at_once": Fault(
        ("target-period",), "DRLinter", given(target_update_every="1 updates", tau=1.0, layer_norm=False)
    ),
    "tau_tiny": Fault(("target-period", "target-network"), "muPRL", given(target_update_every="1 updates", tau=1e-6)),
    "target_backwards": Fault(
        ("target-network",),
        "DRLinter",
        given(target_update_every="500 updates", tau=1.0),
        patched=lambda: patch.object(Learner, "update_target_network", backwards),
    ),
    "gamma": Fault(("horizon",), "Stack Overflow 51425688", given(gamma=0.3)),
    "late_start": Fault(("learning-start",), "muPRL", lambda steps: {"learning_starts": steps // 2}),
    "learning_rate_large": Fault(("learning-rate", "leaps", "divergence"), "issue trackers", given(learning_rate=0.03)),
    "learning_rate_small": Fault(("learning-rate", "standstill"), "muPRL", given(learning_rate=1e-6)),
    "replay_small": Fault(
        ("replay-size", "replay-batches"), "Stack Exchange 56053", given(replay_capacity=500, batch_size=64)
    ),
    "replay_of_a_batch": Fault(("replay-batches",), "issue trackers", given(replay_capacity=64, batch_size=64)),
    "narrow_range": Fault(("range",), "issue trackers", given(algorithm="c51", v_min=-1.0, v_max=1.0)),
    "noise_gone": Fault(
        ("noise",), "issue trackers", given(algorithm="noisy", noisy_sigma=0.0, epsilon=0.0, epsilon_min=0.0)
    ),
    "rewards_x1000": Fault(("reward-scale",), "RLMutation", wrapper=rewards_times(1000.0)),
    "rewards_x0.001": Fault(("reward-scale",), "RLMutation", wrapper=rewards_times(0.001)),
    "observations_x1000": Fault(("observations",), "RLExplorer", wrapper=observations_times(1000.0), without=UNBOUNDED),
    "observations_x0.00001": Fault(
        ("observations",), "RLExplorer", wrapper=observations_times(0.00001), without=UNBOUNDED
    ),
    "state_not_advanced": Fault(("transitions",), "RLMutation", wrapper=frozen),
    "no_reward": Fault(("signal",), "issue trackers", wrapper=without_reward),
    "limit_as_end": Fault(("terminals",), "issue trackers", wrapper=limit_as_end),
    "sign": Fault(("target",), "RLMutation", patched=lambda: targets(lambda r, d, q: r - d * q)),
    "no_discount": Fault(("target",), "RLMutation", patched=lambda: targets(lambda r, d, q: r + (d != 0) * q)),
    "terminal_ignored": Fault(
        ("target", "terminals"), "DRLinter", patched=lambda: targets(lambda r, d, q: r + d.max() * q)
    ),
    "terminal_not_stored": Fault(
        ("terminals",),
        "RLMutation",
        patched=lambda: stored(bootstrapping),
    ),
    "shuffled_batch": Fault(("batch",), "RLMutation", patched=lambda: batches(mixed)),
    "repeated_state": Fault(
        ("transitions",), "RLMutation", patched=lambda: stored(lambda rows: with_next(rows, rows.states))
    ),
    "unrelated_state": Fault(
        ("transitions",),
        "RLMutation",
        patched=lambda: stored(lambda rows: with_next(rows, np.random.default_rng(0).permuted(rows.next_states))),
    ),
    "wrong_action": Fault(("acting",), "DRLinter", patched=lambda: acting(lambda chosen: np.zeros_like(chosen))),
    "relu_output": Fault(("output",), "DRLinter", patched=lambda: networks(ending_with(torch.relu))),
    "softmax_output": Fault(("output",), "DRLinter", patched=lambda: networks(ending_with(lambda q: q.softmax(1)))),
    "sigmoid_output": Fault(("output",), "RLMutation", patched=lambda: networks(ending_with(torch.sigmoid))),
    "plain_steps": Fault(
        ("standstill", "fit", "output"), "RLMutation", patched=lambda: patch.object(optimizers, "Adam", PlainSteps)
    ),
    "dead_layer": Fault(("dead-units",), "RLExplorer", patched=lambda: networks(dead)),
}


ZOO: Mapping[str, Mapping[str, Any]] = {
    # RL Baselines3 Zoo, hyperparams/dqn.yml.
    "CartPole-v1": {
        "total_steps": 50_000,
        "learning_rate": 0.0023,
        "learning_starts": 1_000,
        "update_every": "256 steps",
        "gradient_steps": 128,
        "target_update_every": "10 steps",
        "epsilon_steps": 8_000,
        "epsilon_min": 0.04,
    },
    "Acrobot-v1": {
        "total_steps": 50_000,
        "learning_rate": 0.00063,
        "learning_starts": 128,
        "update_every": "4 steps",
        "gradient_steps": 4,
        "batch_size": 128,
        "replay_capacity": 50_000,
        "target_update_every": "250 steps",
        "epsilon_steps": 6_000,
        "epsilon_min": 0.1,
    },
    "LunarLander-v3": {
        "total_steps": 100_000,
        "learning_rate": 0.00063,
        "learning_starts": 128,
        "update_every": "4 steps",
        "gradient_steps": 4,
        "batch_size": 128,
        "replay_capacity": 50_000,
        "target_update_every": "250 steps",
        "epsilon_steps": 12_000,
        "epsilon_min": 0.1,
    },
    "MountainCar-v0": {
        "total_steps": 120_000,
        "learning_rate": 0.004,
        "learning_starts": 1_000,
        "update_every": "16 steps",
        "gradient_steps": 8,
        "batch_size": 128,
        "replay_capacity": 10_000,
        "gamma": 0.98,
        "target_update_every": "600 steps",
        "epsilon_steps": 24_000,
        "epsilon_min": 0.07,
    },
}


@dataclass(frozen=True)
class Sound:
    """Settings that are known to be good."""

    env: str
    settings: Mapping[str, Any] = field(default_factory=dict)


EVERYWHERE = ("general", "plain", "seed")  # the presets that fit any environment
SOUND: Mapping[str, Sound] = {
    "tuned CartPole": Sound("CartPole-v1", {"total_steps": 50_000}),
    "tuned Acrobot": Sound("Acrobot-v1"),
    "tuned MountainCar": Sound("MountainCar-v0"),
    "tuned LunarLander": Sound("LunarLander-v3"),
    **{
        f"zoo {env}": Sound(env, {"preset": "plain", "num_envs": 1, "hidden_dim": 256, **own})
        for env, own in ZOO.items()
    },
    **{f"{preset} CartPole": Sound("CartPole-v1", {"preset": preset, "total_steps": 50_000}) for preset in EVERYWHERE},
    "general FrozenLake": Sound("FrozenLake-v1", {"total_steps": 50_000}),
    "general Taxi": Sound("Taxi-v4", {"total_steps": 50_000}),
    **{
        f"{name} CartPole": Sound("CartPole-v1", {"algorithm": name, "total_steps": 30_000})
        for name in ("c51", "qr-dqn", "iqn", "rainbow", "munchausen", "noisy", "prioritized", "pqn")
    },
}


def train(run: Path, env: Any, seed: int, settings: Mapping[str, Any]) -> None:
    """Train in a folder, and keep of it what a diagnosis reads, and `row.json`: the last score or the error."""
    started, error, score = time.perf_counter(), None, None
    try:
        result = nexus.train(env, run_dir=run, seed=seed, verbose=False, **{**BASE, **settings})
        score = None if result.evaluation is None else result.evaluation.mean
    except NexusError as fault:
        if not run.exists():
            raise
        error = str(fault)
    for path in run.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix not in (".json", ".jsonl", ".csv"):
            path.unlink()
    row = {"score": score, "error": error, "s": round(time.perf_counter() - started, 1)}
    (run / ROW_FILE).write_text(json.dumps(row))


def with_fault(run: Path, name: str, env: str, seed: int) -> None:
    """Train with a fault."""
    fault, steps = FAULTS[name], LENGTHS[env]
    source: Any = env
    if fault.wrapper is not None:
        wrapper = fault.wrapper

        def source() -> gym.Env[Any, Any]:
            return wrapper(gym.make(env))

    tuned = {**PRESETS["tuned"][env], **BASE, "total_steps": steps}
    own = {name: value for name, value in tuned.items() if name not in fault.without}
    own = {"preset": "plain", **own, **fault.settings(steps)}
    with fault.patched():
        train(run, source, seed, own)


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the runs, FOLDER/NAME/ENV/SEED")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--envs", nargs="*", default=list(LENGTHS), choices=list(LENGTHS), help="for the faults")
    parser.add_argument("--only", nargs="*", default=[*FAULTS, *SOUND], choices=[*FAULTS, *SOUND])
    words = parser.parse_args()
    torch.set_num_threads(1)
    for seed in words.seeds:
        for name in words.only:
            for env in words.envs if name in FAULTS else [SOUND[name].env]:
                run = words.folder / name.replace(" ", "_") / env / str(seed)
                if (run / ROW_FILE).exists():
                    continue
                shutil.rmtree(run, ignore_errors=True)  # of a killed call
                if name in FAULTS:
                    with_fault(run, name, env, seed)
                else:
                    train(run, env, seed, SOUND[name].settings)
                print(run, (run / ROW_FILE).read_text(), flush=True)


if __name__ == "__main__":
    main()
