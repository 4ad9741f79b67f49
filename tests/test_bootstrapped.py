"""Bootstrapped DQN: targets by hand, heads held to independent learners, priors, masks, and who acts when."""

from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.deep_sea import solved_after
from nexus.core import Batch, ConfigError, QOutput
from nexus.core.errors import RunError
from nexus.models.layers import Head, MLPTorso
from nexus.models.rl.dqn import DQNAgent, DQNNetwork
from nexus.models.rl.dqn.bootstrapped_dqn import (
    BlockLinear,
    BlockNorm,
    BootstrappedLoss,
    HeadPerEpisode,
    HeadWithPrior,
    HeldRows,
    TorsoWithPrior,
    mean_of_heads,
)
from nexus.models.rl.dqn.double_dqn import greedy_on_online
from nexus.models.rl.dqn.dqn import NextAction, greedy_on_target, huber, squared
from nexus.models.rl.dqn.dueling_dqn import DuelingHead
from nexus.models.rl.dqn.rainbow import make_agent
from nexus.ops.hashing import hashed
from nexus.parts import Parts
from nexus.training.config import TrainConfig

ACTIONS, HEADS, STATE = 2, 3, 4


# --- the loss, by hand ---


class Table(nn.Module):
    """Values `[A, K]` of each of two states, which are numbered 0 and 1."""

    def __init__(self, values: list[list[list[float]]]) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))  # [S, A, K]

    def forward(self, states: Tensor) -> Tensor:
        return self.values[states[:, 0].long()]


def table(values: list[list[list[float]]]) -> DQNNetwork:
    return DQNNetwork(1, 2, torso=nn.Identity(), head=Table(values), readout=mean_of_heads)


# Of state 0 and then 1; of action 0 and then 1; of head 0 and then 1.
ONLINE = table([[[1.0, 2.0], [3.0, 0.0]], [[5.0, 1.0], [0.0, 4.0]]])
TARGET = table([[[9.0, 9.0], [9.0, 9.0]], [[2.0, 7.0], [6.0, 3.0]]])
BATCH = {
    "states": torch.tensor([[0.0]]),
    "actions": torch.tensor([0]),
    "rewards": torch.tensor([1.0]),
    "discounts": torch.tensor([0.5]),
    "next_states": torch.tensor([[1.0]]),
    "indices": torch.tensor([3]),
}


@pytest.mark.parametrize(
    ("of_error", "next_action", "loss", "priority", "target"),
    [
        # y = 1 + 6/2 and 1 + 7/2 against 1 and 2: errors of 3 and 2.5. The mean of the heads would choose action 0 for
        # both, and 1 + 2/2 for the first.
        (squared, greedy_on_target, (4.5 + 3.125) / 2, 2.75, 4.25),
        (huber, greedy_on_target, (2.5 + 2.0) / 2, 2.75, 4.25),
        # Head 0 chooses action 0, worth 2; head 1 chooses 1, worth 3: y = 2 and 2.5, errors of 1 and 0.5.
        (squared, greedy_on_online, (0.5 + 0.125) / 2, 0.75, 2.25),
    ],
)
def test_each_head_has_a_target_of_its_own(
    of_error: Any, next_action: NextAction, loss: float, priority: float, target: float
) -> None:
    outcome = BootstrappedLoss(of_error)(ONLINE, TARGET, next_action, BATCH)
    assert outcome.loss.tolist() == [pytest.approx(loss)]
    assert outcome.priorities.tolist() == [pytest.approx(priority)]
    assert outcome.metrics["target_mean"].tolist() == [pytest.approx(target)]
    assert outcome.metrics["q_mean"].tolist() == [[1.5, 1.5]]  # over heads
    assert outcome.metrics["head_spread"].tolist() == [0.5]  # of 1 and 2


def test_a_head_only_takes_legal_actions_of_the_next_state() -> None:
    batch = {**BATCH, "action_masks": torch.tensor([[True, True]]), "next_action_masks": torch.tensor([[True, False]])}
    outcome = BootstrappedLoss(squared)(ONLINE, TARGET, greedy_on_target, batch)
    assert outcome.priorities.tolist() == [pytest.approx((1 + 2.5) / 2)]  # y = 1 + 2/2 and 1 + 7/2


def test_a_terminal_state_is_worth_nothing_to_any_head() -> None:
    outcome = BootstrappedLoss(squared)(ONLINE, TARGET, greedy_on_target, {**BATCH, "discounts": torch.zeros(1)})
    assert outcome.priorities.tolist() == [0.5]  # y = 1 against 1 and 2


class Held(HeldRows):
    """Rows of which only number 3 is learned from, by these heads, with this noise."""

    def __init__(self, masks: list[bool], noise: list[float]) -> None:
        super().__init__(len(masks), 1.0, 0.0, np.random.default_rng(0))
        self.masks, self.noises = torch.tensor([masks]).float(), torch.tensor([noise])

    def learns(self, indices: Tensor) -> Tensor:
        return self.masks * (indices == 3)

    def noisy(self, targets: Tensor, indices: Tensor) -> Tensor:
        return targets + self.noises * (indices == 3)


def held(*masks: bool, noise: tuple[float, float] = (0.0, 0.0)) -> HeldRows:
    return Held(list(masks), list(noise))


def test_a_head_that_does_not_learn_from_a_row_has_no_loss_and_no_gradient_there() -> None:
    network = deepcopy(ONLINE)
    outcome = BootstrappedLoss(squared, rows=held(True, False))(network, TARGET, greedy_on_target, BATCH)
    assert outcome.loss.tolist() == [pytest.approx(4.5 / 2)]  # the other head's 0 counts in the mean
    assert outcome.priorities.tolist() == [pytest.approx(3.0)]  # of the head that learns alone
    (gradient,) = torch.autograd.grad(outcome.loss.sum(), list(network.parameters()))
    assert gradient.tolist() == [[[-1.5, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]  # (1 - 4) / 2
    nobody = BootstrappedLoss(squared, rows=held(False, False))(network, TARGET, greedy_on_target, BATCH)
    assert (nobody.loss.tolist(), nobody.priorities.tolist()) == ([0.0], [0.0])


def test_noise_is_added_to_a_head_s_reward() -> None:
    outcome = BootstrappedLoss(squared, rows=held(True, True, noise=(1.0, -2.0)))(
        ONLINE, TARGET, greedy_on_target, BATCH
    )
    assert outcome.priorities.tolist() == [pytest.approx((4 + 0.5) / 2)]  # y = 4 + 1 and 4.5 - 2 against 1 and 2


def test_without_rows_of_a_replay_all_heads_learn() -> None:
    batch = {name: values for name, values in BATCH.items() if name != "indices"}
    outcome = BootstrappedLoss(squared, rows=held(True, False))(ONLINE, TARGET, greedy_on_target, batch)
    assert outcome.priorities.tolist() == [pytest.approx(2.75)]


def test_which_heads_learn_from_a_row_is_held_and_comes_from_the_seed() -> None:
    rows, again, other = (HeldRows(20, 0.3, 2.0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    indices = torch.arange(5_000)
    learns = rows.learns(indices)
    assert set(learns.flatten().tolist()) == {0.0, 1.0}
    assert float(learns.mean()) == pytest.approx(0.3, abs=0.01)
    assert (learns.mean(0) - 0.3).abs().max() < 0.03  # each head
    assert (rows.learns(indices) == learns).all()
    assert (again.learns(indices) == learns).all()
    assert not (other.learns(indices) == learns).all()
    other.load_state_dict(rows.state_dict())  # as a checkpoint does
    assert (other.learns(indices) == learns).all()
    noise = rows.noisy(torch.zeros(5_000, 20), indices)
    assert float(noise.std()) == pytest.approx(2.0, abs=0.05)
    assert abs(float(noise.mean())) < 0.05
    assert (rows.noisy(torch.zeros(5_000, 20), indices) == noise).all()
    both = torch.corrcoef(torch.cat([learns, noise], 1).T).fill_diagonal_(0)  # heads are drawn separately
    assert float(both.abs().max()) < 0.06


def test_hashed_numbers_are_uniform_and_do_not_follow_rows() -> None:
    numbers = hashed(torch.arange(100_000), 3, torch.tensor(7))
    counts = torch.histc(numbers, 20, 0, 1)
    assert float((counts / 15_000 - 1).abs().max()) < 0.04
    assert 0 < float(numbers.min()) < 1e-4
    assert 1 - 1e-4 < float(numbers.max()) < 1
    for lag in (1, 10, 4_096):
        pair = torch.stack([numbers[:-lag, 0], numbers[lag:, 0]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.02
    assert not (numbers == hashed(torch.arange(100_000), 3, torch.tensor(8))).any(1).all()


# --- heads that share nothing are as many agents ---


def config(**settings: Any) -> dict[str, Any]:
    sizes = {"state_dim": STATE, "action_dim": ACTIONS, "hidden_dim": 8, "boot_heads": HEADS, "boot_mask": 1.0}
    # The mean over heads divides each gradient by their number, which Adam undoes but for its ε.
    return {**sizes, "adam_epsilon": 1e-20, "max_grad_norm": None, "learning_rate": 0.01, "device": "cpu", **settings}


def linear_of(block: nn.Module, head: int, heads: int = HEADS) -> nn.Linear:
    """Return the layer of one head."""
    if isinstance(block, BlockLinear):
        weight, bias = block.weight[head].T, block.bias[head, 0]
    else:
        assert isinstance(block, nn.Linear)
        weight, bias = (part.chunk(heads)[head] for part in (block.weight, block.bias))
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight.detach().clone(), bias.detach().clone()
    return layer


def one_of(torso: nn.Module, head: nn.Module, number: int, layer_norm: bool) -> tuple[nn.Module, nn.Module]:
    """Return the torso and the head of one of several heads."""
    assert isinstance(torso, MLPTorso)
    depth = sum(isinstance(layer, nn.Linear | BlockLinear) for layer in torso.layers)
    single = MLPTorso((STATE,), 8, depth, layer_norm)
    layers: list[nn.Module] = []
    for layer, own in zip(torso.layers, single.layers, strict=True):
        if isinstance(layer, BlockNorm) and isinstance(own, nn.LayerNorm):
            own.weight.data, own.bias.data = layer.weight[number].detach().clone(), layer.bias[number].detach().clone()
        layers.append(own if isinstance(layer, BlockNorm | nn.ReLU) else linear_of(layer, number))
    single.layers = nn.Sequential(*layers)
    if isinstance(head, DuelingHead):
        dueling = DuelingHead(8, ACTIONS)
        dueling.value, dueling.advantage = linear_of(head.value, number), linear_of(head.advantage, number)
        return single, dueling
    assert isinstance(head, Head)
    plain = Head(8, ACTIONS)
    plain.linear = linear_of(head.linear, number)
    return single, plain


def alone(agent: DQNAgent, number: int, **settings: Any) -> DQNAgent:
    """Return an agent of one head, with the weights and the prior of one of several."""
    network, norm = agent.q_network, agent.settings.layer_norm
    torso, head = network.torso, network.head
    if isinstance(torso, TorsoWithPrior) and isinstance(head, HeadWithPrior):
        assert isinstance(torso.prior, nn.Sequential)
        prior = nn.Sequential(*one_of(torso.prior[0], torso.prior[1], number, norm)).requires_grad_(False)
        for module in prior.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, weight.data)
        inner, last = one_of(torso.torso, head.head, number, norm)
        inner, last = TorsoWithPrior(inner, prior, torso.scale), HeadWithPrior(last, ACTIONS, 1)
        single = DQNNetwork(STATE, ACTIONS, torso=inner, head=last)
    else:
        inner, last = one_of(torso, head, number, norm)
        single = DQNNetwork(STATE, ACTIONS, torso=inner, head=last)
    loss = make_agent("dqn", **config(**settings)).learner
    return DQNAgent(config(**settings), network=single, loss=loss.loss, next_action=loss.next_action)


def batches(count: int, masked: bool = False, seed: int = 0) -> Iterator[Batch]:
    torch.manual_seed(seed)
    for _ in range(count):
        every = torch.ones(16, ACTIONS, dtype=torch.bool)
        masks = {"action_masks": every, "next_action_masks": torch.rand(16, ACTIONS) < 0.7}
        yield {
            "states": torch.randn(16, STATE),
            "actions": torch.randint(ACTIONS, (16,)),
            "rewards": torch.randn(16),
            "discounts": 0.99 * (torch.rand(16) < 0.8),
            "next_states": torch.randn(16, STATE),
            "weights": torch.rand(16) + 0.5,
            "indices": torch.randint(1_000, (16,)),
            **(masks if masked else {}),
        }


@pytest.mark.parametrize(
    "settings",
    [
        {"prior_scale": 0.0},
        {"prior_scale": 3.0},
        {"double": True, "loss": "squared"},
        {"dueling": True, "layer_norm": True},
        {"munchausen": True},
        {"munchausen": True, "dueling": True, "hidden_layers": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("masked", [False, True])
def test_heads_on_vectors_are_independent_agents(settings: dict[str, Any], masked: bool) -> None:
    agent = make_agent("bootstrapped", **config(**settings))
    singles = [alone(agent, number, **settings) for number in range(HEADS)]
    states = torch.randn(5, STATE)
    before = agent.q_network.output(states).distribution.detach()
    for at, batch in enumerate(batches(12, masked)):
        priorities = agent.learn(batch).priorities
        each = torch.stack([single.learn(batch).priorities for single in singles])
        assert torch.allclose(priorities, each.mean(0), atol=1e-4)
        if at % 5 == 4:
            for one in (agent, *singles):
                one.update_target_network()
    after = agent.q_network.output(states).distribution.detach()  # [5, A, K]
    alones = torch.stack([single.q_network.output(states).q_values.detach() for single in singles], -1)
    assert torch.allclose(after, alones, atol=1e-4)
    assert not torch.allclose(after, before, atol=1e-2)
    assert not torch.allclose(after[..., 0], after[..., 1], atol=1e-2)


def test_a_loss_of_all_heads_reaches_each_of_them_alone() -> None:
    network = make_agent("bootstrapped", **config()).q_network
    values = network.output(torch.randn(6, STATE)).distribution  # [6, A, K]
    gradients = torch.autograd.grad(values[..., 1].sum(), list(network.parameters()), allow_unused=True)
    reached = 0
    for (name, _), gradient in zip(network.named_parameters(), gradients, strict=True):
        assert gradient is not None, name
        blocks = gradient if gradient.ndim == 3 else gradient.view(HEADS, -1)
        assert not blocks[0].any(), name
        assert not blocks[2].any(), name
        reached += bool(blocks[1].any())
    assert reached == 6  # weights and biases of three layers


# --- priors ---


def test_a_prior_is_part_of_the_values_and_never_learned() -> None:
    agent = make_agent("bootstrapped", **config(prior_scale=3.0))
    torso, head = agent.q_network.torso, agent.q_network.head
    assert isinstance(torso, TorsoWithPrior)
    assert isinstance(head, HeadWithPrior)
    states = torch.randn(7, STATE)
    learned, prior = head.head(torso.torso(states)), torso.prior(states)
    assert torch.allclose(agent.q_network.output(states).distribution, learned + 3 * prior, atol=1e-5)
    assert prior.shape == (7, ACTIONS, HEADS)
    assert not prior.requires_grad
    assert not any("prior" in name for name, _ in agent.q_network.named_parameters())
    for batch in batches(3):
        agent.learn(batch)
    agent.update_target_network()
    assert (torso.prior(states) == prior).all()
    assert not torch.allclose(head.head(torso.torso(states)), learned)
    theirs = agent.target_network.torso
    assert isinstance(theirs, TorsoWithPrior)
    assert (theirs.prior(states) == prior).all()
    assert any("prior" in name for name in agent.q_network.state_dict())  # saved with the weights


def test_without_a_scale_there_is_no_prior() -> None:
    network = make_agent("bootstrapped", **config(prior_scale=0.0)).q_network
    assert isinstance(network.torso, MLPTorso)
    assert isinstance(network.head, Head)
    assert not network.state_dict().keys() - dict(network.named_parameters()).keys()


def test_priors_have_the_published_initialisation() -> None:
    network = make_agent("bootstrapped", **config(hidden_dim=64, boot_heads=20, state_dim=100)).q_network
    torso = network.torso
    assert isinstance(torso, TorsoWithPrior)
    buffers = dict(torso.prior.named_buffers())
    for name, inputs in (("0.layers.0", 100), ("0.layers.2", 64), ("1.linear", 64)):
        weight = buffers[f"{name}.weight"] * inputs**0.5
        assert float(weight.abs().max()) <= 2.0
        assert float(weight.std()) == pytest.approx(0.88, abs=0.02)  # of a normal distribution cut off at 2
        assert not buffers[f"{name}.bias"].any()
    values = torso.prior(torch.eye(100))  # [100, A, K]
    assert float(values.std(-1).mean()) > 0.02  # the heads differ


def test_seeds_give_other_priors_and_other_heads() -> None:
    states = torch.randn(3, STATE)
    outputs = [
        make_agent("bootstrapped", **config(seed=seed)).q_network.output(states).distribution for seed in (0, 0, 1)
    ]
    assert (outputs[0] == outputs[1]).all()
    assert not torch.allclose(outputs[0], outputs[2])


# --- images and other torsos are shared ---


def test_heads_on_images_share_a_torso_and_the_priors_have_another() -> None:
    agent = make_agent("bootstrapped", state_dim=[4, 10, 10], action_dim=3, boot_heads=5, boot_mask=0.5)
    torso, head = agent.q_network.torso, agent.q_network.head
    assert isinstance(torso, TorsoWithPrior)
    assert isinstance(head, HeadWithPrior)
    plain = make_agent("dqn", state_dim=[4, 10, 10], action_dim=3)
    of_torso = sum(weight.numel() for weight in plain.q_network.torso.parameters())
    assert sum(weight.numel() for weight in torso.parameters()) == of_torso
    assert sum(weight.numel() for weight in torso.prior.buffers()) >= of_torso
    states = torch.randint(256, (6, 4, 10, 10), dtype=torch.uint8)
    before = agent.q_network.output(states).distribution.detach()
    assert before.shape == (6, 3, 5)
    batch = {"states": states, "next_states": states, "actions": torch.zeros(6).long(), "rewards": torch.ones(6)}
    agent.learn({**batch, "discounts": torch.ones(6), "indices": torch.arange(6)})
    assert (agent.q_network.output(states).distribution != before).any((0, 1)).all()


# --- acting ---


def output_of(count: int) -> QOutput:
    """Head k values action k most in every state."""
    values = torch.eye(HEADS).expand(count, HEADS, HEADS)
    return mean_of_heads(values)


def test_a_head_acts_until_its_episode_ends() -> None:
    part, drawn = HeadPerEpisode(HEADS, np.random.default_rng(5)), np.random.default_rng(5)
    expected = drawn.integers(HEADS, size=4)
    script = [[1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1]]
    changed = 0
    for begins in np.array(script, bool):
        if not (begins.all() and not changed):
            new = expected.copy()
            new[begins] = drawn.integers(HEADS, size=int(begins.sum()))
            changed += int((new != expected).sum())
            expected = new
        part.begin(begins)
        assert part(output_of(4)).argmax(1).tolist() == expected.tolist()
        changed = max(changed, 1)
    assert len(set(expected.tolist())) > 1


def test_each_call_draws_heads_where_no_episode_was_said_to_begin() -> None:
    part = HeadPerEpisode(HEADS, np.random.default_rng(0))
    acted = {int(part(output_of(1)).argmax()) for _ in range(50)}
    assert acted == {0, 1, 2}


def test_the_acting_heads_are_restored_and_checked() -> None:
    part, other = (HeadPerEpisode(HEADS, np.random.default_rng(seed)) for seed in (1, 2))
    part.begin(np.ones(6, bool))
    other.set_state(part.get_state())
    some = np.array([1, 0, 1, 0, 1, 1], bool)
    for one in (part, other):
        one.begin(some)
    assert part.chosen.tolist() == other.chosen.tolist()
    for wrong in (np.array([0, 3]), np.array([-1]), np.array([0.5]), np.zeros((2, 2), np.int64)):
        with pytest.raises(RunError, match="acting heads"):
            other.set_state({**part.get_state(), "heads": wrong})
    with pytest.raises(RunError, match="heads"):
        other.set_state({})


def test_training_acts_on_one_head_and_evaluation_on_their_mean() -> None:
    agent = make_agent("bootstrapped", **config(boot_heads=20))
    states = np.random.default_rng(0).normal(size=(40, STATE)).astype(np.float32)
    agent.begin(np.ones(40, bool))
    values = agent.q_network.output(torch.from_numpy(states)).distribution  # [40, A, K]
    part = agent.policy.acting
    assert isinstance(part, HeadPerEpisode)
    each = values.argmax(1)[torch.arange(40), torch.from_numpy(part.chosen)]
    assert agent.act(states, 0.0, True).tolist() == each.tolist()
    mean = values.mean(-1).argmax(1)
    assert agent.act(states, 0.0, False).tolist() == mean.tolist()
    assert each.tolist() != mean.tolist()
    masks = np.tile([True, False], (40, 1))
    assert agent.act(states, 0.0, True, masks).tolist() == [0] * 40


def test_a_follower_acts_on_the_heads_of_its_policy() -> None:
    agent = make_agent("bootstrapped", **config(boot_heads=20))
    follower = agent.policy.follower()
    follower.follow()
    states = np.random.default_rng(0).normal(size=(40, STATE)).astype(np.float32)
    follower.begin(np.ones(40, bool))
    assert follower.act(states, 0.0).tolist() == agent.act(states, 0.0, True).tolist()
    copy = deepcopy(agent)
    copy.begin(np.ones(40, bool))
    assert isinstance(copy.policy.acting, HeadPerEpisode)
    assert isinstance(agent.policy.acting, HeadPerEpisode)
    assert copy.policy.acting.chosen.tolist() != agent.policy.acting.chosen.tolist()  # it goes on alone


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noisy": True}, "bootstrapped can't take noisy: a head explores by acting for a whole episode"),
        ({"double": True, "munchausen": True}, "munchausen can't take double"),
        ({"boot_heads": 0}, "boot_heads = 0: needs at least 1 head"),
        ({"prior_scale": -1.0}, "prior_scale = -1.0: needs 0 or more"),
        ({"boot_mask": 0.0}, r"boot_mask = 0.0: needs a probability in \(0, 1\]"),
        ({"boot_noise": -0.1}, "boot_noise = -0.1: needs 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_agent("bootstrapped", **config(**settings))


# --- learning ---


def test_heads_act_alone_for_whole_episodes_in_a_run() -> None:
    """Three environments, each with episodes of its own length; every change of a head is at the end of an episode."""
    acting: list[list[int]] = []
    ended: list[list[bool]] = []
    config = TrainConfig.from_mapping(
        {
            "algorithm": "bootstrapped",
            "boot_heads": 5,
            "hidden_dim": 8,
            "epsilon": 0.0,
            "epsilon_min": 0.0,
            "num_envs": 3,
            "total_steps": 3_000,
            "learning_starts": 2_950,
            "batch_size": 8,
            "replay_capacity": 3_000,
        }
    )
    with ExitStack() as stack:
        parts = Parts("CartPole-v1", config, stack)
        part = parts.agent.policy.acting
        assert isinstance(part, HeadPerEpisode)
        parts.watch(Path())
        for progress in parts.steps(config):
            acting.append(part.chosen.tolist())
            ended.append((progress.step.terminated | progress.step.truncated).tolist())
    changes = np.array(acting)[1:] != np.array(acting)[:-1]
    ends = np.array(ended)[:-1]
    assert changes.any(0).all()  # in each environment
    assert not (changes & ~ends).any()
    assert 0.7 < changes.sum() / ends.sum() < 0.9  # 4 of 5 new heads are others
    assert len({tuple(row) for row in acting}) > 10  # environments have heads of their own


@pytest.mark.slow
def test_it_finds_the_treasure_of_deep_sea_and_dqn_does_not() -> None:
    after, found = solved_after("bootstrapped", 10, seed=1, episodes=1_000)
    assert after is not None
    assert found >= 25
    assert solved_after("dqn, ε = 0.05", 10, seed=1, episodes=300)[0] is None
