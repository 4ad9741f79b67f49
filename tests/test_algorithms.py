"""Every member of the family, alone and combined: it learns, it repeats itself, it survives being saved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import nexus
from nexus.api import make_config
from nexus.cli.main import main
from nexus.core.errors import ConfigError, EnvError
from nexus.core.types import Array, Batch, Transitions
from nexus.data.prioritized_replay_buffer import PrioritizedReplayBuffer
from nexus.data.replay_buffer import ReplayBuffer
from nexus.models.rl.dqn.dqn import GreedyBootstrap
from nexus.models.rl.dqn.iqn import IQNLoss
from nexus.models.rl.dqn.munchausen_dqn import MunchausenBootstrap
from nexus.models.rl.dqn.rainbow import ALGORITHMS, make_agent
from nexus.models.states import PlainStates
from nexus.ops.distributional import quantile_levels
from nexus.training.config import TrainConfig
from nexus.training.run_folder import read_run
from tests import probes
from tests.rollouts import pace_of, with_returns

GAMMA = 0.9
SETTINGS: dict[str, Any] = {
    "total_steps": 3_000,
    "num_envs": 4,
    "learning_starts": 100,
    "update_every": "4 steps",
    "hidden_dim": 32,
    "learning_rate": 0.005,
    "learning_rate_schedule": "linear",
    "gamma": GAMMA,
    "epsilon": 1.0,  # noise alone need not find an action in so few steps
    "epsilon_min": 0.2,
    "epsilon_steps": 1_000,
    "target_update_every": "20 updates",
    "eval_episodes": 20,
    "v_min": -2.0,
    "v_max": 2.0,
    "atoms": 21,
    "quantiles": 8,
    "munchausen_alpha": 0.0,  # the bonus changes what Q is; tests/test_munchausen.py has its numbers
}


def trained(env: type[probes.Probe], tmp_path: Path, algorithm: str, **settings: Any) -> nexus.DQNAgent:
    result = nexus.train(
        env, run_dir=tmp_path / "run", algorithm=algorithm, **{**SETTINGS, **pace_of(algorithm), **settings}
    )
    assert result.counters.updates > 0
    return result.agent


def q_values(agent: nexus.DQNAgent, *state: float) -> Array:
    agent.q_network.eval()
    with torch.no_grad():
        values: Array = agent.q_network(np.array(state, np.float32)).numpy()
    return values


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_learns_actions_states_and_the_discount(tmp_path: Path, algorithm: str) -> None:
    # One step: several would learn the value of the exploring policy, whose second action is not the best one.
    agent = trained(probes.MatchReward, tmp_path, algorithm, n_step=1)
    np.testing.assert_allclose(q_values(agent, 1, 1), [0, 1], atol=0.25)
    np.testing.assert_allclose(q_values(agent, 1, -1), [1, 0], atol=0.25)
    np.testing.assert_allclose(q_values(agent, 0, 1), [GAMMA, 1 + GAMMA], atol=0.3)


@pytest.mark.parametrize(
    ("algorithm", "switches"),
    [
        ("c51", {"double": True, "dueling": True}),
        ("qr-dqn", {"double": True, "prioritized": True, "n_step": 3}),
        ("iqn", {"dueling": True, "noisy": True, "prioritized": True}),
        ("munchausen", {"dueling": True, "n_step": 2, "prioritized": True, "layer_norm": True}),
        ("rainbow", {"noisy": False, "layer_norm": True, "weight_decay": 1e-4}),
    ],
)
def test_combinations_learn_too(tmp_path: Path, algorithm: str, switches: dict[str, Any]) -> None:
    agent = trained(probes.ActionReward, tmp_path, algorithm, **switches)
    np.testing.assert_allclose(q_values(agent, 0, 1), [-1, 1], atol=0.25)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_repeats_itself_and_comes_back_from_its_files(tmp_path: Path, algorithm: str) -> None:
    def run(name: str, seed: int) -> nexus.DQNAgent:
        settings = {**SETTINGS, **pace_of(algorithm), "total_steps": 300, "seed": seed, "eval_episodes": 1}
        return nexus.train(probes.MatchReward, run_dir=tmp_path / name, algorithm=algorithm, **settings).agent

    first, again, other = run("a", 0), run("b", 0), run("c", 1)
    for name, value in first.q_network.state_dict().items():
        assert torch.equal(value, again.q_network.state_dict()[name]), name
    assert not torch.equal(first.learner.theta, other.learner.theta)
    loaded = nexus.load_agent(tmp_path / "a")
    states = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    np.testing.assert_array_equal(loaded.act(states, 0.0, False), first.act(states, 0.0, False))
    first.q_network.eval()
    loaded.q_network.eval()
    torch.testing.assert_close(loaded.q_network(states), first.q_network(states))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_state_and_many_agree(algorithm: str) -> None:
    agent = make_agent(algorithm, state_dim=3, action_dim=4)
    agent.q_network.eval()
    states = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    with torch.no_grad():
        many = agent.q_network(states)
        one = torch.stack([agent.q_network(state) for state in states])
    torch.testing.assert_close(one, many)


class FixedLevels(IQNLoss):
    """Draws for a batch of one what it draws for a batch of many."""

    def draw(self, like: Tensor, count: int) -> Tensor:
        return quantile_levels(count).expand(len(like), -1)


def filled(replay: ReplayBuffer | PrioritizedReplayBuffer, rows: int = 64) -> ReplayBuffer | PrioritizedReplayBuffer:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(2, rows, 3)).astype(np.float32)
    rewards, discounts = (rng.normal(size=rows).astype(np.float32), np.where(rng.random(rows) < 0.2, 0, 0.9))
    replay.add(Transitions(states[0], rng.integers(4, size=rows), rewards, discounts.astype(np.float32), states[1]))
    return replay


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_batch_of_one_and_a_batch_of_many_agree(algorithm: str) -> None:
    agent = make_agent(algorithm, state_dim=3, action_dim=4)
    learner = agent.learner
    loss: Any = learner.loss
    if isinstance(loss, IQNLoss):
        loss = FixedLevels(loss.generator, bootstrap=loss.bootstrap)
    with torch.no_grad():
        learner.theta_target += 0.1 * torch.randn(learner.theta.shape, generator=torch.Generator().manual_seed(0))
        batch = with_returns(filled(ReplayBuffer(64, seed=0)).sample(6))
        many = loss(agent.q_network, agent.target_network, learner.next_action, batch)
        for row in range(6):
            one = {key: value[row : row + 1] for key, value in batch.items()}
            alone = loss(agent.q_network, agent.target_network, learner.next_action, one)
            for found, expected in (
                (alone.loss, many.loss),
                (alone.priorities, many.priorities),
                (alone.metrics["target_mean"], many.metrics["target_mean"]),
            ):
                torch.testing.assert_close(found, expected[row : row + 1])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_equal_priorities_make_the_uniform_update(algorithm: str) -> None:
    """To the bit: the weights are exactly 1, whatever β is; unequal ones make another."""
    replay = filled(PrioritizedReplayBuffer(64, seed=0))
    uniform = filled(ReplayBuffer(64, seed=0))

    def weights_after(batch: Batch) -> Tensor:
        agent = make_agent(algorithm, state_dim=3, action_dim=4)
        agent.learn(batch)
        return agent.learner.theta.clone()

    replay.update_priorities(torch.arange(64), torch.full((64,), 3.0))
    batch = with_returns(replay.sample(16))
    everything = with_returns(uniform.sample(64 * 20))  # holds every row somewhere
    where = [int((everything["indices"] == row).nonzero()[0]) for row in batch["indices"]]
    same = {key: value[where] for key, value in everything.items()}
    assert torch.equal(weights_after(batch), weights_after(same))
    replay.update_priorities(torch.arange(64), torch.linspace(0.1, 5.0, 64))
    unequal = {**same, "weights": replay.sample(16)["weights"]}
    assert not torch.equal(weights_after(unequal), weights_after(same))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_state_dict_goes_round(algorithm: str) -> None:
    agent, other = (make_agent(algorithm, state_dim=3, action_dim=4, seed=seed) for seed in (0, 1))
    agent.learn(with_returns(filled(ReplayBuffer(64, seed=0)).sample(16)))
    other.load_state_dict(agent.state_dict())
    assert torch.equal(other.learner.theta, agent.learner.theta)  # the flat buffer is what the parameters are views of
    assert torch.equal(other.learner.theta_target, agent.learner.theta_target)
    states = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    np.testing.assert_array_equal(other.act(states, 0.0, False), agent.act(states, 0.0, False))


SOFT, ATOMS, DRAWS, TOLD = "so none is chosen", "atoms can't move", "compiled graph", "already contain the value of s'"
REFUSED = [
    ("munchausen", {"double": True}, SOFT),
    ("beyond", {"double": True}, SOFT),
    ("dqn", {"munchausen": True, "double": True}, SOFT),
    ("double", {"munchausen": True}, SOFT),
    ("qr-dqn", {"munchausen": True, "double": True}, SOFT),
    ("iqn", {"munchausen": True, "double": True}, SOFT),
    ("c51", {"munchausen": True}, ATOMS),
    ("rainbow", {"munchausen": True, "double": False}, ATOMS),
    ("iqn", {"compile": True}, DRAWS),
    ("beyond", {"compile": True}, DRAWS),
    ("bootstrapped", {"noisy": True}, "would change it at every step"),
    ("bootstrapped", {"munchausen": True, "double": True}, SOFT),
    ("pqn", {"double": True}, TOLD),
    ("pqn", {"munchausen": True}, TOLD),
]


@pytest.mark.parametrize(("algorithm", "settings", "reason"), REFUSED)
def test_each_combination_that_makes_no_sense_is_refused(algorithm: str, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"can't take .*{reason}"):
        make_agent(algorithm, state_dim=2, action_dim=2, **settings)


def test_every_other_pair_of_an_algorithm_and_a_switch_works() -> None:
    refused = {(algorithm, *sorted(settings)) for algorithm, settings, _ in REFUSED}
    refused |= {("rainbow", "munchausen")}
    for algorithm in ALGORITHMS:
        for switch in ("double", "dueling", "noisy", "munchausen", "layer_norm"):
            if (algorithm, switch) not in refused:
                make_agent(algorithm, state_dim=2, action_dim=2, hidden_dim=8, **{switch: True})


def test_the_list_of_algorithms_says_what_each_refuses_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algorithms"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, settings, reason in REFUSED:
        if len(settings) == 1 and name != "double":  # that one is said from the other side
            (setting,) = settings
            said = [line.partition(": ") for line in lines if line.startswith(f"  {setting} with ")]
            assert any(name in who.split(" with ")[1].split(", ") and reason in why for who, _, why in said)


def test_noise_acts_while_training_and_is_gone_in_evaluation() -> None:
    agent = make_agent("noisy", state_dim=3, action_dim=8)
    states = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    draws = [agent.act(states, 0.0, True).tolist() for _ in range(5)]
    still = [agent.act(states, 0.0, False).tolist() for _ in range(5)]
    assert any(draw != draws[0] for draw in draws)
    assert all(actions == still[0] for actions in still)


def test_rainbow_is_its_parts() -> None:
    agent = make_agent("rainbow", state_dim=3, action_dim=2)
    assert type(agent.learner.loss).__name__ == "C51Loss"
    assert type(agent.q_network.head).__name__ == "DuelingHead"
    assert agent.learner.next_action.__name__ == "greedy_on_online"
    assert type(make_agent("rainbow", state_dim=3, action_dim=2, dueling=False).q_network.head).__name__ == "Head"


def test_beyond_is_its_parts() -> None:
    agent = make_agent("beyond", state_dim=3, action_dim=2)
    assert isinstance(agent.learner.loss, IQNLoss)
    assert agent.learner.loss.bootstrap == MunchausenBootstrap(0.9, 0.03, -1.0)
    names = [type(module).__name__ for module in agent.q_network.modules()]
    assert {"IQNNetwork", "DuelingHead", "NoisyLinear", "LayerNorm"} <= set(names)
    config = make_config("any", algorithm="beyond")
    assert (config.n_step, config.prioritized, config.epsilon, config.double) == (3, True, 1.0, False)


@pytest.mark.parametrize("algorithm", ["dqn", "qr-dqn", "iqn", "double"])
def test_munchausen_is_a_switch(algorithm: str) -> None:
    agent = make_agent(algorithm, state_dim=3, action_dim=2, munchausen=True, munchausen_alpha=0.5, double=False)
    plain = make_agent(algorithm, state_dim=3, action_dim=2)
    assert agent.learner.loss.bootstrap == MunchausenBootstrap(alpha=0.5)  # type: ignore[attr-defined]
    assert plain.learner.loss.bootstrap == GreedyBootstrap()  # type: ignore[attr-defined]
    assert type(agent.learner.loss) is type(plain.learner.loss)


@pytest.mark.parametrize(
    ("algorithm", "settings", "says"),
    [
        ("rainbo", {}, "rainbow"),
        ("c51", {"v_min": 3.0, "v_max": 3.0}, "v_min"),
        ("c51", {"atoms": 1}, "atoms"),
        ("dqn", {"quantiles": 0}, "quantiles"),
    ],
)
def test_what_is_impossible_is_refused_by_name(algorithm: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_agent(algorithm, state_dim=2, action_dim=2, **settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prioritized": True, "priority_exponent": 1.5}, "priority_exponent"),
        ({"importance_exponent": -0.1}, "importance_exponent"),
        ({"noisy": True, "epsilon_schedule": "constant", "epsilon": 1.0}, "epsilon 0"),
        ({"n_step": 0}, "n_step"),
    ],
)
def test_impossible_training_settings_are_refused(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        nexus.train("CartPole-v1", run_dir=tmp_path / "run", **settings)


def test_settings_beside_a_whole_config_are_refused_and_not_ignored() -> None:
    with pytest.raises(ConfigError, match="seed"):
        nexus.train("CartPole-v1", config=TrainConfig(), seed=3)


def test_a_run_that_an_error_ended_is_not_called_finished(tmp_path: Path) -> None:
    class Breaks(probes.ConstantReward):
        def reward(self, action: int) -> float:
            raise RuntimeError("broken joint")

    with pytest.raises(EnvError, match="broken joint"):
        nexus.train(Breaks, run_dir=tmp_path / "run", **SETTINGS)
    assert read_run(tmp_path / "run")["status"] == "failed"


def test_states_scaled_by_their_bounds_are_scaled_again_after_loading(tmp_path: Path) -> None:
    result = nexus.train(
        "CartPole-v1", run_dir=tmp_path / "run", scale_observations=True, total_steps=300, learning_starts=50,
        eval_episodes=1, hidden_dim=8,
    )  # fmt: skip
    loaded = nexus.load_agent(tmp_path / "run")
    assert isinstance(loaded.states, PlainStates)
    assert loaded.states.bounds is not None
    np.testing.assert_allclose(loaded.states.bounds[1], [4.8, 1.0, 0.41887903, 1.0], rtol=1e-6)
    states = np.array([[4.8, 0.5, -0.41887903, 0.0]], np.float32)
    torch.testing.assert_close(loaded.q_network(states), result.agent.q_network(states), rtol=0, atol=0)
    plain = nexus.DQNAgent({"state_dim": 4, "action_dim": 2, "hidden_dim": 8, "layer_norm": loaded.settings.layer_norm})
    plain.q_network.load_state_dict(loaded.q_network.state_dict())
    scaled = np.array([[1.0, 0.5, -1.0, 0.0]], np.float32)
    torch.testing.assert_close(loaded.q_network(states), plain.q_network(scaled))


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        (([0.0], [1.0]), r"state_bounds of 1 and 1 numbers: a state \(2,\) has 2"),
        (([0.0, 1.0], [1.0, 1.0]), "state_bounds of component 1 are 1.0 and 1.0: needs finite, low < high"),
        (([0.0, -float("inf")], [1.0, 1.0]), "state_bounds of component 1 are -inf and 1.0: needs finite, low < high"),
    ],
)
def test_impossible_bounds_are_refused(bounds: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_agent("c51", state_dim=2, action_dim=2, state_bounds=bounds)
    with pytest.raises(ConfigError, match=says):
        nexus.DQNAgent({"state_dim": 2, "action_dim": 2, "state_bounds": bounds})
