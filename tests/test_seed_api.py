"""The public API and every snippet of the description that nexus was built from, line by line where they are code."""

import runpy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nexus.core import NexusModule
from nexus.data.replay_buffer import ReplayBuffer
from nexus.models.rl.dqn import DQNAgent, DQNNetwork

ROOT = Path(__file__).resolve().parent.parent
CONFIG = {"state_dim": 4, "action_dim": 2, "hidden_dim": 16, "device": "cpu"}


def batches(count: int, size: int = 32, seed: int = 0) -> Iterator[dict[str, Tensor]]:
    """Seed-style batches: about one item in four is terminal, errors lie on both sides of Huber's bend."""
    random = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield {
            "states": torch.randn(size, 4, generator=random),
            "actions": torch.randint(2, (size,), generator=random),
            "rewards": 3 * torch.randn(size, generator=random),
            "next_states": torch.randn(size, 4, generator=random),
            "dones": (torch.rand(size, generator=random) < 0.25).float(),
        }


def parameters(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def seed_network(like: DQNNetwork, hidden_dim: int = 16) -> nn.Sequential:
    """The network of the description in stock PyTorch, with the same weights."""
    network = nn.Sequential(
        nn.Linear(4, hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, 2),
    )
    with torch.no_grad():
        for mine, theirs in zip(network.parameters(), like.parameters(), strict=True):
            mine.copy_(theirs)
    return network


def filled_replay(count: int = 100) -> ReplayBuffer:
    random = np.random.default_rng(0)
    replay_buffer = ReplayBuffer(capacity=10_000)
    for number in range(count):
        state, next_state = random.normal(size=(2, 4)).astype(np.float32)
        replay_buffer.push(state, number % 2, float(number), next_state, number % 10 == 9)
    return replay_buffer


# The network.


def test_the_network_is_that_of_the_description() -> None:
    network = DQNNetwork(state_dim=4, action_dim=2)
    assert isinstance(network, NexusModule)
    assert [tuple(p.shape) for p in network.parameters()] == [(128, 4), (128,), (128, 128), (128,), (2, 128), (2,)]
    states = torch.randn(5, 4)
    assert torch.allclose(network(states), seed_network(network, hidden_dim=128)(states), atol=1e-6)
    assert DQNNetwork(4, 2, hidden_dim=7).head.linear.in_features == 7  # type: ignore[union-attr]


def test_q_values_may_be_negative() -> None:
    network = DQNNetwork(4, 2)
    q_values = network(torch.randn(200, 4))
    assert (q_values < 0).any()
    assert (q_values > 0).any()


# The agent.


def test_the_agent_has_the_attributes_and_defaults_of_the_description() -> None:
    agent = DQNAgent({"state_dim": 4, "action_dim": 2})
    assert isinstance(agent, NexusModule)
    assert (agent.gamma, agent.epsilon, agent.epsilon_decay, agent.epsilon_min) == (0.99, 1.0, 0.995, 0.01)
    assert isinstance(agent.q_network, DQNNetwork)
    assert isinstance(agent.target_network, DQNNetwork)
    assert isinstance(agent.optimizer, torch.optim.Adam)
    for online, target in zip(agent.q_network.parameters(), agent.target_network.parameters(), strict=True):
        assert torch.equal(online, target)
        assert online.data_ptr() != target.data_ptr()


def test_settings_of_the_config_are_taken() -> None:
    agent = DQNAgent(CONFIG | {"gamma": 0.5, "epsilon": 0.3, "epsilon_min": 0.2, "epsilon_decay": 0.9})
    assert (agent.gamma, agent.epsilon, agent.epsilon_min, agent.epsilon_decay) == (0.5, 0.3, 0.2, 0.9)


def test_select_action_is_greedy_outside_training_and_returns_an_int() -> None:
    agent = DQNAgent(CONFIG)
    for state in np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32):
        action = agent.select_action(state, training=False)
        assert type(action) is int
        assert action == int(agent.q_network(torch.from_numpy(state)).argmax())


def test_select_action_takes_doubles_and_lists() -> None:
    agent = DQNAgent(CONFIG)
    state = [0.1, -0.2, 0.3, 0.0]
    assert agent.select_action(state, training=False) == agent.select_action(np.array(state), training=False)


def test_select_action_explores_at_the_rate_epsilon() -> None:
    agent = DQNAgent(CONFIG | {"action_dim": 4, "epsilon": 0.4})
    state = np.zeros(4, np.float32)
    greedy = agent.select_action(state, training=False)
    draws = np.array([agent.select_action(state) for _ in range(4000)])
    # A random action is the greedy one in one case of four: 0.6 + 0.4 / 4. Bounds: 5 standard errors.
    assert np.mean(draws == greedy) == pytest.approx(0.7, abs=5 * np.sqrt(0.7 * 0.3 / 4000))
    for action in set(range(4)) - {greedy}:
        assert np.mean(draws == action) == pytest.approx(0.1, abs=5 * np.sqrt(0.1 * 0.9 / 4000))


def test_epsilon_decays_once_per_update_and_never_below_its_minimum() -> None:
    agent = DQNAgent(CONFIG | {"epsilon_decay": 0.5, "epsilon_min": 0.2})
    seen = []
    for batch in batches(4):
        agent.update(batch)
        seen.append(agent.epsilon)
    assert seen == [0.5, 0.25, 0.2, 0.2]


def test_neither_acting_nor_syncing_decays_epsilon() -> None:
    agent = DQNAgent(CONFIG)
    agent.select_action(np.zeros(4, np.float32))
    agent.update_target_network()
    assert agent.epsilon == 1.0


def test_update_target_network_copies_and_nothing_else_does() -> None:
    agent = DQNAgent(CONFIG)
    before = parameters(agent.target_network)
    for batch in batches(3):
        agent.update(batch)
    assert all(map(torch.equal, parameters(agent.target_network), before))
    assert not any(map(torch.equal, parameters(agent.q_network), before))
    agent.update_target_network()
    assert all(map(torch.equal, parameters(agent.target_network), parameters(agent.q_network)))
    online = parameters(agent.q_network)
    for batch in batches(1, seed=9):
        agent.update(batch)
    assert all(map(torch.equal, parameters(agent.target_network), online))


def test_predict_takes_one_or_many_observations_as_stable_baselines3_does() -> None:
    agent = DQNAgent(CONFIG)
    states = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    expected = agent.q_network(states).argmax(1).numpy()
    actions, state = agent.predict(states, state=None, episode_start=np.ones(6, bool), deterministic=True)
    assert state is None
    assert np.array_equal(actions, expected)
    action, _ = agent.predict(states[0])
    assert np.ndim(action) == 0
    assert int(action) == expected[0]
    explored = [int(agent.predict(states[0], deterministic=False)[0]) for _ in range(100)]
    assert set(explored) == {0, 1}  # ε is still 1


# The numbers of the update.


@pytest.mark.parametrize("max_norm", [10.0, 0.05])  # the description's, and one that clips every time
def test_updates_are_those_of_plain_torch(max_norm: float) -> None:
    agent = DQNAgent(CONFIG | {"learning_rate": 0.01, "max_grad_norm": max_norm})
    q_network, target_network = seed_network(agent.q_network), seed_network(agent.q_network)
    optimizer = torch.optim.Adam(q_network.parameters(), lr=0.01)
    for number, batch in enumerate(batches(20)):
        metrics = agent.update(batch)

        current_q = q_network(batch["states"]).gather(1, batch["actions"].unsqueeze(1))
        with torch.no_grad():
            next_q = target_network(batch["next_states"]).max(1)[0].unsqueeze(1)
            target_q = batch["rewards"].unsqueeze(1) + agent.gamma * next_q * (1 - batch["dones"].unsqueeze(1))
        loss = F.smooth_l1_loss(current_q, target_q)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(q_network.parameters(), max_norm=max_norm)
        optimizer.step()

        assert float(metrics["loss"]) == pytest.approx(loss.item(), abs=1e-6)
        assert float(metrics["grad_norm"]) == pytest.approx(norm.item(), rel=1e-4)
        assert max_norm == 10.0 or norm > max_norm
        if number == 9:
            agent.update_target_network()
            target_network.load_state_dict(q_network.state_dict())
    for mine, theirs in zip(agent.q_network.parameters(), q_network.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6, rtol=0)


def test_a_terminal_state_is_worth_its_reward() -> None:
    agent = DQNAgent(CONFIG | {"loss": "squared", "gamma": 0.9})
    batch = next(batches(1, size=4))
    next_q = agent.target_network(batch["next_states"]).max(1).values.detach()
    batch["dones"] = torch.tensor([0.0, 1.0, 1.0, 0.0])
    expected = batch["rewards"] + torch.tensor([0.9, 0.0, 0.0, 0.9]) * next_q
    assert float(agent.update(batch)["target_mean"]) == pytest.approx(expected.mean().item(), abs=1e-6)


def test_the_gradient_of_the_squared_loss_is_the_formula() -> None:
    """∇θ L = -E[(y - Q(s, a)) ∇θ Q(s, a)]; the description leaves out the sign, which the optimizer brings."""
    agent = DQNAgent(CONFIG | {"loss": "squared", "max_grad_norm": None})
    batch = next(batches(1, size=8))
    start = agent.q_network
    expected = [torch.zeros_like(parameter) for parameter in start.parameters()]
    for item in range(8):
        q_value = start(batch["states"][item])[batch["actions"][item]]
        with torch.no_grad():
            next_q = agent.target_network(batch["next_states"][item]).max()
            target = batch["rewards"][item] + agent.gamma * (1 - batch["dones"][item]) * next_q
        gradient = torch.autograd.grad(q_value, list(start.parameters()))
        for total, part in zip(expected, gradient, strict=True):
            total += (q_value.detach() - target) * part / 8
    found, _ = agent.learner.gradient(agent.learner.prepared(batch))
    assert torch.allclose(found, torch.cat([part.flatten() for part in expected]), atol=1e-5)


def test_no_gradient_reaches_the_target_network() -> None:
    agent = DQNAgent(CONFIG)
    for batch in batches(2):
        agent.update(batch)
    for parameter in agent.target_network.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad


def test_the_loss_falls_on_a_batch_that_stays() -> None:
    agent = DQNAgent(CONFIG | {"learning_rate": 0.01})
    batch = next(batches(1))
    losses = [float(agent.update(batch)["loss"]) for _ in range(100)]
    assert losses[-1] < 0.5 * losses[0]


# The replay.


def test_the_replay_takes_and_gives_what_the_description_says() -> None:
    replay_buffer = filled_replay(100)
    assert len(replay_buffer) == len(replay_buffer.buffer) == 100
    batch = replay_buffer.sample(64)
    assert {"states", "actions", "rewards", "next_states", "dones"} <= batch.keys()
    assert batch["states"].shape == batch["next_states"].shape == (64, 4)
    assert batch["actions"].dtype == torch.int64
    assert batch["actions"].shape == batch["rewards"].shape == batch["dones"].shape == (64,)
    assert set(batch["dones"].tolist()) == {0.0, 1.0}
    assert torch.equal(batch["dones"], (batch["rewards"] % 10 == 9).float())  # rows stay together
    state, action, reward, next_state, done = replay_buffer.buffer[9]
    assert (action, reward, done) == (1, 9.0, True)
    assert state.shape == next_state.shape == (4,)


# The complete training example.


def test_the_complete_training_example() -> None:
    config = CONFIG | {"learning_rate": 0.001}
    num_episodes, batch_size, target_update_frequency = 12, 64, 10

    # Setup
    env = gym.make("CartPole-v1")
    agent = DQNAgent(config)
    replay_buffer = ReplayBuffer(capacity=10000)
    start = parameters(agent.q_network)
    updates, total_steps = 0, 0

    # Training loop
    for episode in range(num_episodes):
        state, _ = env.reset(seed=episode)
        total_reward = 0.0
        done = False

        while not done:
            # Act
            action = agent.select_action(state)
            next_state, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated

            # Store
            replay_buffer.push(state, action, float(reward), next_state, terminated)
            state = next_state
            total_reward += float(reward)
            total_steps += 1

            # Learn
            if len(replay_buffer) >= batch_size:
                batch = replay_buffer.sample(batch_size)
                metrics = agent.update(batch)
                updates += 1

        # Update target
        if episode % target_update_frequency == 0:
            agent.update_target_network()

    env.close()
    assert updates == total_steps - batch_size + 1 > 0
    assert agent.epsilon == pytest.approx(max(agent.epsilon_min, 0.995**updates))
    assert np.isfinite(float(metrics["loss"]))
    assert not any(map(torch.equal, parameters(agent.q_network), start))
    assert not any(map(torch.equal, parameters(agent.target_network), start))  # after episode 10


def test_the_example_script_runs(capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "examples" / "rl" / "train_dqn.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
    returns = runpy.run_path(str(path))["main"](num_episodes=12)
    assert len(returns) == 12
    assert min(returns) >= 1
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in said] == ["0", "10"]
    assert float(said[-1].split()[-1]) < 1.0  # ε has decayed, so it has learned


# The optimization tricks that are code.


def test_a_learning_rate_scheduler_takes_the_optimizer() -> None:
    agent = DQNAgent(CONFIG)
    scheduler = torch.optim.lr_scheduler.StepLR(agent.optimizer, step_size=2, gamma=0.5)
    rates = []
    for batch in batches(4):
        agent.update(batch)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # PyTorch warns when the optimizer has not stepped first
            scheduler.step()
        rates.append(agent.optimizer.param_groups[0]["lr"])
    assert rates == [0.001, 0.0005, 0.0005, 0.00025]


def test_the_scheduled_learning_rate_is_the_one_that_counts() -> None:
    agent = DQNAgent(CONFIG)
    scheduler = torch.optim.lr_scheduler.StepLR(agent.optimizer, step_size=1, gamma=0.0)
    moving, still = batches(2)
    agent.update(moving)
    scheduler.step()
    before = parameters(agent.q_network)
    agent.update(still)
    assert all(map(torch.equal, parameters(agent.q_network), before))


def test_gradients_can_be_clipped_by_hand() -> None:
    agent = DQNAgent(CONFIG)
    loss = F.smooth_l1_loss(agent.q_network(torch.randn(8, 4)), torch.full((8, 2), 100.0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.nn.utils.clip_grad_norm_(agent.q_network.parameters(), max_norm=0.01) > 0.01
    norms = [parameter.grad.norm() for parameter in agent.q_network.parameters() if parameter.grad is not None]
    assert float(torch.stack(norms).norm()) == pytest.approx(0.01, rel=1e-3)


def test_rewards_can_be_clipped_before_they_are_stored() -> None:
    replay_buffer = ReplayBuffer(capacity=10)
    state = np.zeros(4, np.float32)
    for reward in (-7.0, 0.5, 3.0):
        replay_buffer.push(state, 0, float(np.clip(reward, -1, 1)), state, False)
    assert [row[2] for row in replay_buffer.buffer] == [-1.0, 0.5, 1.0]


def test_stacked_frames_are_states() -> None:
    frames = [np.full((1, 6, 6), number, np.uint8) for number in range(4)]
    state = np.concatenate(frames, axis=0)
    agent = DQNAgent(CONFIG | {"state_dim": state.shape})
    assert agent.select_action(state, training=False) in (0, 1)
    replay_buffer = ReplayBuffer(capacity=10)
    replay_buffer.push(state, 0, 1.0, state, False)
    assert float(agent.update(replay_buffer.sample(4))["loss"]) >= 0


def test_an_action_can_be_repeated_by_hand() -> None:
    env = gym.make("CartPole-v1")
    agent, frame_skip = DQNAgent(CONFIG), 4
    state, _ = env.reset(seed=0)
    action = agent.select_action(state)
    total_reward = 0.0
    for _ in range(frame_skip):
        next_state, reward, terminated, truncated, _info = env.step(action)
        total_reward += float(reward)
        if terminated or truncated:
            break
    env.close()
    assert total_reward == 4.0
    assert next_state.shape == state.shape


# The debugging tips.


@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray])
def test_q_values_can_be_checked(kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    agent = DQNAgent(CONFIG)
    state = kind(np.zeros(4, np.float32))
    with torch.no_grad():
        q_values = agent.q_network(state)
        print(f"Q-values: {q_values}")  # noqa: T201
        print(f"Mean Q: {q_values.mean():.2f}, Max Q: {q_values.max():.2f}")  # noqa: T201
    assert q_values.shape == (2,)
    assert "Mean Q: " in capsys.readouterr().out


def test_epsilon_can_be_monitored() -> None:
    agent = DQNAgent(CONFIG)
    agent.update(next(batches(1)))
    assert f"Epsilon: {agent.epsilon:.4f}" == "Epsilon: 0.9950"


def test_the_loss_can_be_checked() -> None:
    agent = DQNAgent(CONFIG)
    metrics = agent.update(filled_replay().sample(32))
    assert f"Loss: {metrics['loss']:.4f}" == f"Loss: {float(metrics['loss']):.4f}"


def test_the_replay_can_be_looked_at() -> None:
    replay_buffer = filled_replay(100)
    states, _, rewards, _, _ = zip(*replay_buffer.buffer, strict=True)
    said = f"Rewards: min={min(rewards):.2f}, max={max(rewards):.2f}, mean={np.mean(rewards):.2f}"
    assert said == "Rewards: min=0.00, max=99.00, mean=49.50"
    assert len(states) == 100


def test_metrics_can_be_logged_to_tensorboard(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    agent = DQNAgent(CONFIG)
    metrics = agent.update(next(batches(1)))
    writer = SummaryWriter(str(tmp_path))
    for tag, value in {
        "Reward/episode": 17.0,
        "Loss/train": metrics["loss"],
        "Q_value/mean": metrics["q_mean"],
    }.items():
        writer.add_scalar(tag, value, 1)
    writer.close()
    assert list(tmp_path.glob("events.*"))
