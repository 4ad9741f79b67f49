"""Action masks from the environment to the target: an illegal action is the decoy, with the largest value of all."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, SupportsInt

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nexus.cli.watch import WatchCommand, show_episodes
from nexus.core import Batch, ConfigError, QOutput, Transitions
from nexus.core.errors import EnvError
from nexus.core.types import Array
from nexus.data.n_step import NStepAccumulator
from nexus.data.prioritized_replay_buffer import PrioritizedReplayBuffer
from nexus.data.replay_buffer import ReplayBuffer
from nexus.envs.episodes import episode_seed
from nexus.envs.factory import EnvSpec, make_vector_env
from nexus.envs.stream import TransitionStream
from nexus.envs.wrappers import FrameSkip
from nexus.models.rl.dqn import DQNAgent, DQNNetwork
from nexus.models.rl.dqn.dqn import NextAction, greedy_on_target
from nexus.models.rl.dqn.rainbow import ALGORITHMS, make_agent
from nexus.ops.action_values import only_legal
from nexus.ops.exploration import epsilon_greedy, random_legal
from nexus.ops.munchausen import log_policy, soft_value
from nexus.training.config import TrainConfig
from nexus.training.evaluation import evaluate_policy
from nexus.training.loop import Counters, train
from tests.rollouts import REPLAYED, pace_of
from tests.training import short_run

INF = math.inf
ACTIONS = 4


def mask_of(number: int) -> Array:
    """The legal actions of the state with this number; every number has at least one."""
    return np.array([(number >> action) & 1 or number % ACTIONS == action for action in range(ACTIONS)], bool)


class Masked(gym.Env[Array, SupportsInt]):
    """Its states are drawn numbers, whose bits say what is legal; it breaks where something else is done.

    After five steps it terminates in a state without a legal action, or after three it is truncated in one with some.
    """

    observation_space = spaces.Box(0, 16, (2,), np.float32)
    action_space = spaces.Discrete(ACTIONS)
    dtype: Any = np.int8

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.terminates = 0, bool(self.np_random.integers(2))
        return self.look()

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        assert self.mask[int(action)] == 1, f"{int(action)} is illegal: {self.mask}"
        self.steps += 1
        state, info = self.look()
        terminated = self.terminates and self.steps == 5
        if terminated:
            info["action_mask"] = np.zeros(ACTIONS, self.dtype)
        return state, 1.0, terminated, not self.terminates and self.steps == 3, info

    def look(self) -> tuple[Array, dict[str, Any]]:
        self.number = int(self.np_random.integers(16))
        self.mask = mask_of(self.number).astype(self.dtype)
        return np.array([self.number, self.steps], np.float32), {"action_mask": self.mask}


# --- the maths ---


def test_illegal_actions_are_worth_minus_infinity_and_a_row_without_any_legal_one_stays() -> None:
    q_values = torch.tensor([[1.0, 99.0, 2.0], [99.0, 3.0, 4.0]])
    masks = torch.tensor([[True, False, True], [False, False, False]])
    assert only_legal(q_values, masks).tolist() == [[1.0, -INF, 2.0], [99.0, 3.0, 4.0]]
    assert only_legal(q_values, None) is q_values


def test_soft_value_and_log_policy_leave_out_what_is_illegal_also_in_their_gradient() -> None:
    q_values = torch.tensor([[0.0, math.log(3), 99.0]], requires_grad=True)
    legal = only_legal(q_values, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(soft_value(legal, q_values, 1.0), torch.tensor([math.log(4)]))
    assert log_policy(legal, 1.0)[0, :2].exp().tolist() == pytest.approx([0.25, 0.75])
    assert log_policy(legal, 1.0)[0, 2] == -INF
    (slope,) = torch.autograd.grad(soft_value(legal, q_values, 1.0).sum(), q_values, retain_graph=True)
    torch.testing.assert_close(slope, torch.tensor([[0.25, 0.75, 0.0]]))
    (slope,) = torch.autograd.grad(log_policy(legal, 1.0)[0, 0], q_values)
    torch.testing.assert_close(slope, torch.tensor([[0.75, -0.75, 0.0]]))


def test_random_actions_are_uniform_over_legal_ones() -> None:
    masks = np.tile([[True, False, True, True], [False, True, False, False], [False] * 4], (20_000, 1))
    actions = random_legal(masks, np.random.default_rng(0)).reshape(20_000, 3)
    for column, odds in enumerate(([1 / 3, 0, 1 / 3, 1 / 3], [0, 1, 0, 0], [0.25] * 4)):
        expected = np.array(odds, float)
        found = np.bincount(actions[:, column], minlength=4) / 20_000
        assert np.abs(found - expected).max() < 5 * (0.25 / 20_000) ** 0.5
        assert (found[expected == 0] == 0).all()


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3).filter(any), min_size=1, max_size=9), st.integers(0))
@settings(max_examples=50, deadline=None)
def test_no_random_action_is_illegal(masks: list[list[bool]], seed: int) -> None:
    legal, rng = np.array(masks), np.random.default_rng(seed)
    greedy = legal.argmax(1)
    assert legal[np.arange(len(legal)), epsilon_greedy(greedy, 3, 0.5, rng, legal)].all()


# --- every loss, by hand ---

ONLINE, TARGET = (5.0, 1.0, 99.0), (1.0, 2.0, 99.0)  # Q of every state
LEGAL = [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
SETTINGS: dict[str, Any] = {
    "state_dim": 1,
    "action_dim": 3,
    "hidden_dim": 8,
    "quantiles": 4,
    "atoms": 121,
    "v_min": -10.0,
    "v_max": 110.0,
    "munchausen_temperature": 1.0,
    "munchausen_clip": -10.0,
    "device": "cpu",
}


def set_values(network: DQNNetwork, values: tuple[float, ...]) -> None:
    """Let a network give these Q-values for every state."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        last = [layer for layer in network.head.modules() if isinstance(layer, nn.Linear)][-1]
        per_action = last.bias.view(3, -1)  # [A, N]
        if per_action.shape[1] == 121:
            per_action[range(3), [int(value) + 10 for value in values]] = 1_000.0  # all probability on one atom
        else:
            per_action[:] = torch.tensor(values).unsqueeze(1)


def batch_of(legal: list[list[int]] = LEGAL) -> dict[str, Tensor]:
    count = len(legal)
    return {
        "states": torch.zeros(count, 1),
        "actions": torch.zeros(count, dtype=torch.int64),
        "rewards": torch.arange(1.0, count + 1),
        "discounts": torch.tensor([0.5, 0.25, 0.0])[:count],
        "next_states": torch.zeros(count, 1),
        "action_masks": torch.tensor([[True, True, False]] * count),
        "next_action_masks": torch.tensor(legal).bool(),
    }


BONUS, SOFT = -0.9 * math.log(1 + math.e), math.log(math.e + math.e**2)


@pytest.mark.parametrize(
    ("algorithm", "double", "targets"),
    [
        (algorithm, double, [1 + 0.5 * (1.0 if double else 2.0), 2 + 0.25 * 2.0, 3.0])
        for algorithm in ("dqn", "c51", "qr-dqn", "iqn")
        for double in (False, True)
    ]
    + [("munchausen", False, [1 + BONUS + 0.5 * SOFT, 2 + BONUS + 0.25 * 2.0, 3 + BONUS])],
)
def test_a_target_looks_at_legal_actions_only(algorithm: str, double: bool, targets: list[float]) -> None:
    """Row 2 is terminal and has no legal action: nothing is infinite there, and nothing NaN."""
    agent = make_agent(algorithm, **SETTINGS, double=double)
    set_values(agent.q_network, ONLINE)
    set_values(agent.target_network, TARGET)
    gradient, outcome = agent.learner.gradient(agent.learner.prepared(batch_of()))
    assert outcome.metrics["target_mean"].tolist() == pytest.approx(targets, abs=1e-4)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(outcome.priorities).all()


@pytest.mark.parametrize("algorithm", REPLAYED)
@pytest.mark.parametrize("masked", [False, True])
def test_every_algorithm_agrees_with_a_slow_oracle(algorithm: str, masked: bool) -> None:
    own = {"munchausen_alpha": 0.0, "boot_heads": 1}  # of several heads the mean of the targets is none of a mean
    agent = make_agent(algorithm, state_dim=2, action_dim=ACTIONS, seed=1, device="cpu", **own)
    learner = agent.learner
    with torch.no_grad():  # two networks that disagree
        drawn = torch.randn(len(learner.theta), generator=torch.Generator().manual_seed(2))
        learner.theta_target.copy_(drawn / 10)
    random = np.random.default_rng(0)
    states = random.normal(size=(64, 2)).astype(np.float32)
    masks = np.array([mask_of(number) for number in random.integers(16, size=64)])
    batch: dict[str, Tensor] = {
        "states": torch.from_numpy(states),
        "next_states": torch.from_numpy(states),
        "actions": torch.zeros(64, dtype=torch.int64),
        "rewards": torch.zeros(64),
        "discounts": torch.full((64,), 0.5),
    }
    if masked:
        batch |= {"action_masks": torch.from_numpy(masks), "next_action_masks": torch.from_numpy(masks)}
    agent.eval()
    out = learner.loss(learner.q_network, learner.target_network, learner.next_action, learner.prepared(batch))
    targets = out.metrics["target_mean"]
    with torch.no_grad():
        online, target = agent.q_network(states).numpy(), agent.target_network(states).numpy()
    for row in range(64):
        legal = [action for action in range(ACTIONS) if masks[row, action] or not masked]
        best = max(legal, key=lambda action: (online if agent.settings.double else target)[row, action])
        expected = target[row, best]
        if agent.settings.munchausen:
            expected = 0.03 * np.logaddexp.reduce(target[row, legal].astype(float) / 0.03)
        tolerance = 0.5 if algorithm in ("iqn", "beyond") else 1e-4  # its levels are drawn
        assert float(targets[row]) == pytest.approx(0.5 * expected, abs=tolerance)


def test_without_masks_nothing_is_computed_for_them() -> None:
    agent = make_agent("dqn", state_dim=2, action_dim=2, device="cpu")
    replay = ReplayBuffer(4)
    replay.push(np.zeros(2, np.float32), 0, 1.0, np.zeros(2, np.float32), False)
    batch = replay.sample(2)
    assert not [name for name in batch if "mask" in name]
    assert not [name for name in agent.learner.prepared(batch) if "mask" in name]
    assert not [name for name in replay.columns if "mask" in name]


# --- acting ---


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_agent_acts_illegally(algorithm: str) -> None:
    agent = make_agent(algorithm, state_dim=2, action_dim=ACTIONS)
    random = np.random.default_rng(0)
    for epsilon in (0.0, 0.3, 1.0):
        for training in (False, True):
            masks = np.array([mask_of(number) for number in random.integers(16, size=500)])
            states = random.normal(size=(500, 2)).astype(np.float32)
            assert masks[np.arange(500), agent.act(states, epsilon, training, masks)].all()


def greedy_three() -> DQNAgent:
    """Q = (5, 1, 99) everywhere."""
    agent = DQNAgent({"state_dim": 1, "action_dim": 3, "hidden_dim": 8, "device": "cpu"})
    set_values(agent.q_network, ONLINE)
    return agent


def test_the_greedy_action_is_the_best_legal_one_in_each_way_of_asking() -> None:
    agent, state = greedy_three(), np.zeros(1, np.float32)
    assert agent.select_action(state, training=False) == 2
    assert agent.select_action(state, training=False, action_masks=np.array([0, 1, 0], np.int8)) == 1
    assert agent.predict(state, action_masks=[1, 1, 0])[0] == 0
    assert agent.predict(np.zeros((2, 1), np.float32), action_masks=[[1, 1, 0], [0, 1, 0]])[0].tolist() == [0, 1]
    assert agent.act(np.zeros((1, 1), np.float32), 0.0, False, np.zeros((1, 3), bool)).tolist() == [2]
    explored = {agent.select_action(state, action_masks=[1, 1, 0]) for _ in range(100)}
    assert explored == {0, 1}


@pytest.mark.parametrize("masks", [[0, 0, 0], [1, 1], [1, 1, 1, 1], 1])
def test_masks_that_choose_nothing_are_refused(masks: Any) -> None:
    with pytest.raises(ConfigError, match=r"action_masks .*needs 3 entries, at least one of them 1"):
        greedy_three().predict(np.zeros(1, np.float32), action_masks=masks)
    with pytest.raises(ConfigError, match=r"needs 3 entries"):
        greedy_three().select_action(np.zeros(1, np.float32), action_masks=masks)


# --- from the environment to the replay ---


def folded(vector: VectorEnv[Any, Any, Any], n: int, steps: int = 60) -> ReplayBuffer:
    """A replay of random legal steps."""
    stream, rng = TransitionStream(vector), np.random.default_rng(0)
    accumulator, replay = NStepAccumulator(stream.num_envs, n, 0.9), ReplayBuffer(10_000)
    stream.reset(seed=0)
    for _ in range(steps):
        assert stream.action_masks is not None
        step = stream.step(random_legal(stream.action_masks, rng))
        masks = (step.action_masks, step.next_action_masks)
        valid, ended = step.valid, (step.terminated, step.truncated)
        replay.add(accumulator.push(step.states, step.actions, step.rewards, step.next_states, *ended, valid, *masks))
    vector.close()
    return replay


def check_masks(replay: ReplayBuffer) -> None:
    """Every stored mask is that of its state, every action legal, every terminal state without a legal action."""
    batch = {name: values.numpy() for name, values in replay.sample(2_000).items()}
    assert {"action_masks", "next_action_masks"} <= set(batch)
    for row in range(2_000):
        np.testing.assert_array_equal(batch["action_masks"][row], mask_of(int(batch["states"][row, 0])))
        assert batch["action_masks"][row, batch["actions"][row]]
        after = mask_of(int(batch["next_states"][row, 0])) & bool(batch["discounts"][row] > 0)
        np.testing.assert_array_equal(batch["next_action_masks"][row], after)
    assert (batch["discounts"] == 0).any()
    assert (batch["next_states"][batch["discounts"] > 0, 1] == 3).any()  # also truncated ones


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("n", [1, 3])
def test_each_state_in_the_replay_has_its_own_mask(mode: AutoresetMode, n: int) -> None:
    check_masks(folded(SyncVectorEnv([Masked] * 5, autoreset_mode=mode), n))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # how Linux starts the processes before 3.14
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_environments_in_processes_of_their_own_tell_their_masks_too(mode: AutoresetMode) -> None:
    check_masks(folded(AsyncVectorEnv([Masked] * 2, autoreset_mode=mode), 1, 100))


class OwnVector(VectorEnv[Array, Array, Array]):
    """A vector form of its own: masks as one array, without `_action_mask`, and one final mask in `final_info`."""

    def __init__(self, num_envs: int, mode: AutoresetMode) -> None:
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": mode}
        self.inner = SyncVectorEnv([Masked] * num_envs, autoreset_mode=mode)
        self.single_observation_space, self.single_action_space = Masked.observation_space, Masked.action_space

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Array, dict[str, Any]]:
        states, info = self.inner.reset(seed=seed, options=options)
        return states, self.told(info)

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        *rest, info = self.inner.step(actions)
        return (*rest, self.told(info))

    def told(self, info: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in info.items() if key in ("final_obs", "final_info")}
        return {"action_mask": info["action_mask"].astype(bool), **kept}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_form_of_its_own_tells_its_masks(mode: AutoresetMode) -> None:
    check_masks(folded(OwnVector(5, mode), 1))


def test_masks_may_be_lists_or_truth_values() -> None:
    class Lists(Masked):
        def look(self) -> tuple[Array, dict[str, Any]]:
            state, info = super().look()
            return state, {"action_mask": info["action_mask"].tolist()}

    class Booleans(Masked):
        dtype = bool

    for kind in (Lists, Booleans):
        check_masks(folded(SyncVectorEnv([kind] * 3, autoreset_mode=AutoresetMode.NEXT_STEP), 1, 120))


def test_taxi_tells_its_masks() -> None:
    """The one environment of Gymnasium's own that has them."""
    vector = make_vector_env(EnvSpec(max(name for name in gym.registry if name.startswith("Taxi-v"))), 4)
    taxis: Any = vector
    stream, rng = TransitionStream(vector), np.random.default_rng(0)
    stream.reset(seed=0)
    seen = set()
    for _ in range(250):
        assert stream.action_masks is not None
        before = stream.states.argmax(1)
        for state, mask in zip(before, stream.action_masks, strict=True):
            np.testing.assert_array_equal(mask, taxis.envs[0].unwrapped.action_mask(int(state)))
            seen.add(tuple(mask.tolist()))
        step = stream.step(random_legal(stream.action_masks, rng))
        moved = step.next_states.argmax(1) != before
        assert moved[~(step.terminated | step.truncated)].all()  # a legal action is one that changes something
    assert len(seen) > 5
    vector.close()


# --- the replay ---


def rows(first: int, count: int, masks: bool = True) -> Transitions:
    numbers = np.arange(first, first + count)
    mask = np.array([mask_of(int(number)) for number in numbers]) if masks else None
    after = np.array([mask_of(int(number) + 1) for number in numbers]) if masks else None
    states = numbers[:, None].astype(np.float32)
    return Transitions(states, numbers * 0, states[:, 0], states[:, 0] * 0, states + 1, mask, after)


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_masks_stay_with_their_rows_after_wrap_around(kind: Callable[[int], Any]) -> None:
    replay = kind(7)
    bare = kind(7)
    bare.add(rows(0, 1, masks=False))
    for first, count in ((0, 5), (5, 4), (9, 11), (20, 3)):
        replay.add(rows(first, count))
    assert replay.nbytes == bare.nbytes + 2 * 7 * ACTIONS
    batch = replay.sample(200)
    assert set(batch["states"][:, 0].tolist()) == set(range(16, 23))
    for number, mask, after in zip(
        batch["states"][:, 0].tolist(), batch["action_masks"], batch["next_action_masks"], strict=True
    ):
        np.testing.assert_array_equal(mask, mask_of(int(number)))
        np.testing.assert_array_equal(after, mask_of(int(number) + 1))


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_push_takes_masks_by_name(kind: Callable[[int], Any]) -> None:
    replay = kind(4)
    state = np.zeros(2, np.float32)
    replay.push(state, 1, 0.5, state, False, action_masks=[0, 1, 1], next_action_masks=[1, 0, 0])
    batch = replay.sample(1)
    assert batch["action_masks"].tolist() == [[False, True, True]]
    assert batch["next_action_masks"].tolist() == [[True, False, False]]
    agent = DQNAgent({"state_dim": 2, "action_dim": 3, "device": "cpu"})
    assert torch.isfinite(agent.update(batch)["loss"])
    for wrong in ({}, {"action_masks": [1, 1, 1]}, {"action_masks": [1, 1], "next_action_masks": [1, 1]}):
        with pytest.raises(ConfigError, match=r"action_masks: got .*, this replay needs shape"):
            replay.push(state, 1, 0.5, state, False, **wrong)
    assert len(replay) == 1


def test_masks_that_come_late_are_refused() -> None:
    replay = ReplayBuffer(9)
    replay.add(rows(0, 2, masks=False))
    with pytest.raises(ConfigError, match=r"action_masks: got one of shape .*, this replay needs none, as before"):
        replay.add(rows(2, 2))


# --- errors of an environment ---


class Broken(Masked):
    """Gives another mask from its fourth step on."""

    def __init__(self, give: Any, broken: bool = True) -> None:
        self.give, self.broken = give, broken

    def look(self) -> tuple[Array, dict[str, Any]]:
        self.mask = np.ones(ACTIONS, getattr(self.give, "dtype", np.int8))
        self.total = getattr(self, "total", -1) + 1  # the first is a reset
        info = {"action_mask": self.mask.tolist() if isinstance(self.give, list) else self.mask}
        if self.broken and self.total >= 4:
            info = {} if self.give is None else {"action_mask": self.give}
        return np.array([0, self.steps], np.float32), info


MESSAGES = [
    (np.zeros(4, np.int8), "an action_mask without a legal action: needs at least one 1"),
    (np.array([0.0, 1.0, 0.5, 0.0]), "an action_mask with entries other than 0 and 1"),
    (np.array([0, -1, 1, 0]), "an action_mask with entries other than 0 and 1"),
    (None, "no action_mask in its info: needs one at every reset and step, or none at all"),
    ([0, 2], "an action_mask of shape (2,): needs (4,), one entry per action"),
    (np.ones(3, np.int8), "(3,)"),
]


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(("give", "text"), MESSAGES)
def test_an_impossible_mask_is_refused_with_name_index_and_step(mode: AutoresetMode, give: Any, text: str) -> None:
    makers = [partial(Broken, give, index == 1) for index in range(3)]
    stream = TransitionStream(SyncVectorEnv(makers, autoreset_mode=mode), "Game-v0")
    with pytest.raises(EnvError) as caught:
        run_until_refused(stream)
    said = str(caught.value)
    seed = episode_seed(0, 1) if mode is AutoresetMode.DISABLED else 1
    assert said.startswith(f"Game-v0: sub-environment 1 of 3, seed {seed}, step ")
    assert text in said
    assert "\n" not in said


def run_until_refused(stream: TransitionStream) -> None:
    stream.reset(seed=0)
    for _ in range(20):
        assert stream.action_masks is not None
        stream.step(random_legal(stream.action_masks, np.random.default_rng(0)))


@pytest.mark.parametrize("length", [3, 5])
def test_a_mask_of_the_wrong_length_is_refused_at_reset(length: int) -> None:
    class Wrong(Masked):
        def look(self) -> tuple[Array, dict[str, Any]]:
            return np.zeros(2, np.float32), {"action_mask": np.ones(length)}

    with pytest.raises(
        EnvError, match=rf"Wrong: sub-environment 0 of 2, step 0: got .*shape \({length},\): needs \(4,\)"
    ):
        TransitionStream(SyncVectorEnv([Wrong] * 2)).reset()


def test_a_mask_that_was_not_there_at_reset_is_refused() -> None:
    class Late(Masked):
        def reset(self, **options: Any) -> tuple[Array, dict[str, Any]]:
            return super().reset(**options)[0], {}

    stream = TransitionStream(SyncVectorEnv([Late]))
    stream.reset(seed=0)
    with pytest.raises(
        EnvError,
        match="Late: sub-environment 0 of 1, seed 0, step 1: got an action_mask in its info, but had none",
    ):
        stream.step(np.zeros(1, np.int64) + int(stream.env.envs[0].mask.argmax()))  # type: ignore[attr-defined]


def test_a_repeated_action_stops_where_it_becomes_illegal() -> None:
    class Once(Masked):
        def look(self) -> tuple[Array, dict[str, Any]]:
            self.mask = np.array([1, self.steps < 2, 0, 0], np.int8)
            return np.zeros(2, np.float32), {"action_mask": self.mask}

    env = FrameSkip(Once(), 3)
    env.reset(seed=0)
    *_, info = env.step(1)
    assert (env.unwrapped.steps, info["action_mask"].tolist()) == (2, [1, 0, 0, 0])  # type: ignore[attr-defined]


# --- whole runs ---


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_illegal_action_in_training_or_evaluation(algorithm: str, tmp_path: Any) -> None:
    """`Masked` itself breaks on the first one."""
    settings = {"algorithm": algorithm, "total_steps": 2_000, "update_every": "16 steps", "eval_episodes": 100}
    result = short_run(Masked, tmp_path, **settings | pace_of(algorithm))
    assert result.counters.updates > 100
    assert result.evaluation is not None
    assert 3 <= result.evaluation.mean <= 5


def test_no_illegal_action_while_somebody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    agent = make_agent("dqn", state_dim=2, action_dim=ACTIONS, hidden_dim=16)
    show_episodes(Masked(), agent, WatchCommand("run", episodes=30), lambda: None)
    assert capsys.readouterr().out.count("return") == 30


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_no_illegal_action_in_any_autoreset_mode(mode: AutoresetMode) -> None:
    config = TrainConfig(total_steps=3_000, num_envs=6, learning_starts=100, n_step=2)
    agent = make_agent("double", state_dim=2, action_dim=ACTIONS, hidden_dim=16)
    counters = Counters()
    stream = TransitionStream(SyncVectorEnv([Masked] * 6, autoreset_mode=mode))
    for progress in train(stream, agent, agent, ReplayBuffer(2_000), config, counters):
        assert progress.update is None or math.isfinite(dict(progress.update.items())["loss"])
    assert counters.updates > 500
    assert evaluate_policy(agent, EnvSpec(Masked), 200, epsilon=0.5).mean > 3


class Trap(Masked):
    """Two steps, the second pays 1, and action 1 is never legal: Q(first, 0) = γ."""

    action_space = spaces.Discrete(2)

    def look(self) -> tuple[Array, dict[str, Any]]:
        self.mask = np.array([1, 0], np.int8)
        return np.array([self.steps, 0], np.float32), {"action_mask": self.mask}

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        state, _, _, _, info = super().step(action)
        return state, float(self.steps == 2), self.steps == 2, False, info


def unmasked(q_network: DQNNetwork, target_output: QOutput, batch: Batch) -> Tensor:
    return target_output.q_values.argmax(1)


@pytest.mark.parametrize(("next_action", "value"), [(greedy_on_target, 0.9), (unmasked, 0.9 * 50)])
def test_a_value_that_is_never_trained_stays_out_of_the_bootstrap(next_action: NextAction, value: float) -> None:
    """Action 1 starts at 50 and nothing ever corrects it: without masks in the target, action 0 learns γ times that."""
    config = TrainConfig.from_mapping(
        {"total_steps": 6_000, "learning_starts": 100, "gamma": 0.9, "target_update_every": "20 updates"}
        | {"learning_rate": 0.01}
    )
    agent = DQNAgent(
        {"state_dim": 2, "action_dim": 2, "hidden_dim": 16, "learning_rate": 0.01}, next_action=next_action
    )
    with torch.no_grad():
        last = [layer for layer in agent.q_network.head.modules() if isinstance(layer, nn.Linear)][-1]
        last.weight[1] = 0.0
        last.bias[1] = 50.0
    agent.update_target_network()
    stream = TransitionStream(SyncVectorEnv([Trap] * 8, autoreset_mode=AutoresetMode.SAME_STEP))
    for _ in train(stream, agent, agent, ReplayBuffer(2_000), config, Counters()):
        pass
    with torch.no_grad():
        first = agent.q_network(np.zeros(2, np.float32)).tolist()
    assert first[1] == pytest.approx(50.0)
    assert first[0] == pytest.approx(value, rel=0.1)
    assert agent.act(np.zeros((1, 2), np.float32), 0.0, False, np.array([[True, False]])).tolist() == [0]
