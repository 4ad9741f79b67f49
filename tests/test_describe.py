"""What `nexus describe` says of a run: each part on numbers written down by hand, and whole runs of all kinds."""

import json
import shutil
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nexus
from nexus.cli.main import main
from nexus.core.errors import ConfigError, DivergenceError, RunError
from nexus.core.types import Transitions
from nexus.data.replay import Replay
from nexus.data.rows import Rows
from nexus.data.uniform import Uniform
from nexus.doctor.chart import Chart
from nexus.inspection import contents
from nexus.inspection.contents import ReplayContents, contents_of
from nexus.inspection.describe import Description
from nexus.inspection.exploring import exploring_at
from nexus.inspection.losses import LossTrend, loss_trend
from nexus.inspection.saved_replay import SavedReplay
from nexus.inspection.state_values import QValues, q_values
from nexus.inspection.words import Unknown, percent
from nexus.models.rl.dqn import DQNAgent, DQNNetwork
from nexus.training.config import TrainConfig
from tests import structured
from tests.chaos import FRAMES, SETTINGS, Silent, interrupt, interrupted
from tests.probes import ActionReward
from tests.training import weights

OLDER = sorted(
    path.parent for kind in "23" for path in (Path(__file__).parent / f"runs_of_format_{kind}").rglob("run.json")
)
KEEPS_NONE = {"pqn-interrupted", "target-without-checkpoint"}


# Q-values.


class Given(nn.Module):
    """A head that says the same of every state."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, features: Tensor) -> Tensor:
        return self.values.expand(len(features), -1).unsqueeze(-1)


def agent_of(*values: float) -> DQNAgent:
    """An agent with these Q-values in every state."""
    network = DQNNetwork(2, len(values), torso=nn.Identity(), head=Given(*values))
    return DQNAgent({"state_dim": 2, "action_dim": len(values)}, network=network)


def test_numbers_of_q_values() -> None:
    found = nexus.q_values(agent_of(1.0, 4.0, 2.5), [0.0, 0.0])
    assert found.values == (1.0, 4.0, 2.5)
    assert (found.low, found.high, found.mean, found.spread, found.gap) == (1.0, 4.0, 2.5, 1.5, 1.5)
    assert (found.greedy, found.second) == (1, 2)
    assert str(found) == (
        "Q-values of this state by action: 0: 1.00, 1: 4.00, 2: 2.50. They range from 1.00 to 4.00; action 1 is "
        "greedy, 1.50 above the mean of 2.50 and 1.50 above the second best. The network prefers action 1 to action 2, "
        "by 38 % of the largest value."
    )
    with pytest.raises(FrozenInstanceError):
        found.greedy = 0  # type: ignore[misc]


def test_illegal_actions_count_for_nothing() -> None:
    found = q_values(agent_of(1.0, 4.0, 2.0, -9.0), [0.0, 0.0], [1, 0, 1, 0])
    assert (found.greedy, found.second, found.low, found.high, found.mean, found.gap) == (2, 0, 1.0, 2.0, 1.5, 1.0)
    assert "0: 1.00, 1: illegal, 2: 2.00, 3: illegal. They range from 1.00 to 2.00; action 2 is greedy" in str(found)
    alone = q_values(agent_of(1.0, 4.0), [0.0, 0.0], [1, 0])
    assert (alone.greedy, alone.gap, alone.spread) == (0, None, 0.0)
    assert str(alone).endswith("0.00 above the mean of 1.00. Only one action is legal, so there is nothing to choose.")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((5.0, 5.0, 5.0), "They are all equal: the network does not tell the actions apart"),
        ((0.0, 0.0), "They are all equal"),
        ((5.0, 5.004, 5.001), "They are all equal"),
        ((5.0, 5.01, 5.001), "to action 2, by 0.2 % of the largest value"),
        ((-5.0, 1.0, 1.0), "The best two, actions 1 and 2, are worth the same to the network"),
        ((-4.0, -2.0), "prefers action 1 to action 0, by 50 % of the largest value"),
        ((float("nan"), 1.0), "They are not finite: the network has diverged"),
    ],
)
def test_what_q_values_say(values: tuple[float, ...], said: str) -> None:
    found = QValues(values, (True,) * len(values), int(np.argmax(values)))
    assert said in found.meaning
    assert found.meaning in str(found)


def test_values_beyond_what_returns_can_be() -> None:
    real, grown = (QValues((1.0, high), (True, True), 1, bound=10.0) for high in (10.0, 10.5))
    assert str(real).endswith(" With the rewards logged so far, no return exceeds 10.0 in size, nor does a value.")
    assert str(grown).endswith("exceeds 10.0 in size, but a value does: it is larger than a real one can be.")


def test_looking_at_q_values_changes_no_bit_of_the_agent() -> None:
    agent = nexus.make_agent("rainbow", state_dim=2, action_dim=2)
    before = weights(agent.q_network), agent.learner.noise.get_state(), agent.policy.rng.bit_generator.state
    first, second = (nexus.q_values(agent, [0.5, -0.5]) for _ in range(2))
    assert first == second
    at_rest = deepcopy(agent.q_network).eval()
    assert list(first.values) == at_rest(np.array([[0.5, -0.5]], np.float32))[0].tolist()
    assert first.greedy == agent.select_action([0.5, -0.5], training=False)
    assert torch.equal(weights(agent.q_network), before[0])
    assert torch.equal(agent.learner.noise.get_state(), before[1])
    assert agent.policy.rng.bit_generator.state == before[2]


def test_q_values_are_those_of_the_averaged_network() -> None:
    agent = nexus.make_agent("dqn", state_dim=2, action_dim=2, averaged_updates=10)
    with torch.no_grad():
        agent.learner.theta += 1.0  # the average has not followed yet
        own = agent.policy.at_rest(np.zeros((1, 2), np.float32))[0].tolist()
        other = agent.q_network(np.zeros((1, 2), np.float32))[0].tolist()
    assert list(nexus.q_values(agent, [0.0, 0.0]).values) == own != other


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([0.0],), "needs (2,)"),
        (([0.0, 0.0], [0, 0]), "at least one of them 1"),
        (([0.0, float("nan")],), "needs finite numbers"),
    ],
)
def test_states_that_are_none(arguments: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        q_values(agent_of(1.0, 2.0), *arguments)
    assert said in str(caught.value)
    with pytest.raises(ConfigError, match=r"needs an agent, as nexus\.load_agent returns"):
        q_values("runs/mine", *arguments)  # type: ignore[arg-type]


# Exploration.


@pytest.mark.parametrize(
    ("settings", "moment", "said"),
    [
        (
            # 1 - 0.99 · 10,000 / 19,000
            {"learning_starts": 1_000, "epsilon_steps": 19_000},
            (11_000, 3),
            "ε is 0.479 at step 11,000, so 48 % of the actions are drawn at random; it reaches 0.01 at step 20,000, "
            "40 % of the run.",
        ),
        (
            {"learning_starts": 1_000, "epsilon_steps": 19_000},
            (20_000, 3),
            "ε is 0.01 at step 20,000, so 1 % of the actions are drawn at random; it reached 0.01 at step 20,000, "
            "40 % of the run.",
        ),
        (
            {"learning_starts": 1_000, "epsilon_steps": 98_000},  # half of the way from 1 to 0.01
            (50_000, 3),
            "ε is 0.505 at step 50,000, so 50 % of the actions are drawn at random; it ends at 0.505 with step 50,000, "
            "the last, before it reaches 0.01.",
        ),
        (
            # 0.5^6 = 0.0156, 0.5^7 = 0.0078
            {"epsilon_schedule": "per_step", "epsilon_decay": 0.5, "learning_starts": 10},
            (12, 0),
            "ε is 0.25 at step 12, so 25 % of the actions are drawn at random; it reaches 0.01 at step 17, less than "
            "0.1 % of the run.",
        ),
        (
            {"epsilon_schedule": "per_episode", "epsilon_decay": 0.5},
            (400, 2),
            "ε is 0.25 at step 400, so 25 % of the actions are drawn at random; it reaches 0.01 after 7 episodes, of "
            "which 2 have ended.",
        ),
        (
            {"epsilon_schedule": "per_episode", "epsilon_decay": 1.0},
            (400, 2),
            "ε is 1 at step 400, so 100 % of the actions are drawn at random; it falls with each episode, too slowly "
            "to reach 0.01 in this run.",
        ),
        (
            {"epsilon_schedule": "constant", "epsilon": 0.1},
            (400, 2),
            "ε is 0.1 at step 400, so 10 % of the actions are drawn at random; it is the same in the whole run.",
        ),
        (
            {"noisy": True, "epsilon": 0.0, "epsilon_min": 0.0},
            (400, 2),
            "Noisy layers explore, with learned noise that has no schedule. ε is 0 at step 400; it is the same in the "
            "whole run.",
        ),
        (
            {"exploration": "boltzmann", "temperature": 1.0, "temperature_min": 0.2, "epsilon_steps": 1_000}
            | {"learning_starts": 0},
            (500, 2),
            "Actions are drawn from softmax(Q / temperature) (Boltzmann). The temperature is 0.6 at step 500; it "
            "reaches 0.2 at step 1,000, 2 % of the run.",
        ),
        (
            {"epsilon_schedule": "tests.test_describe:halved"},
            (25_000, 2),
            "ε is 0.75 at step 25,000, so 75 % of the actions are drawn at random; it follows "
            "tests.test_describe:halved to 0.5 at step 50,000, the last.",
        ),
    ],
)
def test_exploration_in_words(settings: dict[str, Any], moment: tuple[int, int], said: str) -> None:
    config = TrainConfig.from_mapping({"total_steps": 50_000, **settings})
    assert str(exploring_at(config, *moment)) == said


def halved(progress: float) -> float:
    return 1 - progress / 2


# Loss.


def chart_with(**series: list[float]) -> Chart:
    chart = Chart(TrainConfig())
    for name, values in series.items():
        for number, value in enumerate(values, 1):
            chart.add(100 * number, {name.replace("__", "/"): value})
    return chart


def test_the_trend_of_a_loss() -> None:
    found = loss_trend(
        chart_with(
            train__loss=[1.0, 3.0, 9.0, 0.5, 4.0, 4.0, 4.0, 4.0, 5.0, 7.0],
            train__td_error=[1.0, 1.0, 0, 0, 0, 0, 0, 0, 2.0, 2.0],
            train__q_mean=[0.5, 0.5, 0, 0, 0, 0, 0, 0, -40.0, -40.0],
            rollout__ep_rew_mean=[20.0, 200.0],
        )
    )
    assert isinstance(found, LossTrend)
    loss = found.loss
    assert (loss.first, loss.last, loss.low, loss.high, loss.count) == (2.0, 6.0, 0.5, 9.0, 10)
    assert (loss.first_step, loss.last_step, loss.direction) == (100, 1_000, "rose")
    assert found.relative_errors == (2.0, 0.05)
    assert str(found) == (
        "The loss rose: 2.00 in the first fifth of the log, 6.00 in the last, between 0.50 and 9.00, over steps 100 to "
        "1,000. A rising loss alone is not a fault: targets grow as returns do, and errors with them. Look instead at "
        "the mean return (20.0 to 200.0), the mean Q-value (0.5 to -40.0) and the TD error divided by the size of that "
        "(2.00 to 0.05)."
    )


@pytest.mark.parametrize(
    ("values", "direction"),
    [([1.0, 1.2], "stayed about the same"), ([1.0, 1.3], "rose"), ([1.3, 1.0], "fell"), ([0.0, 0.1], "rose")],
)
def test_directions(values: list[float], direction: str) -> None:
    assert str(loss_trend(chart_with(train__loss=values))).startswith(f"The loss {direction}:")


def test_a_loss_that_was_hardly_logged() -> None:
    assert str(loss_trend(chart_with(train__loss=[2.0]))).startswith("The loss was logged once, 2.00 at step 100. A")
    assert str(loss_trend(chart_with())) == "No loss has been logged, so nothing has been learned yet."
    ended = str(loss_trend(chart_with(train__loss=[2.0]), "diverged at step 7"))
    assert ended.endswith("errors with them. The run diverged: diverged at step 7.")


# Replay.


def replay_of(rewards: list[float], discounts: list[float], actions: list[int], states: list[float]) -> SavedReplay:
    """A replay of these transitions, with room for four; one number per state."""
    replay = Replay(Rows(4), Uniform())
    for reward, discount, action, state in zip(rewards, discounts, actions, states, strict=True):
        one = np.array([[state]], np.float32)
        replay.add(
            Transitions(
                one,
                np.array([action]),
                np.array([reward], np.float32),
                np.array([discount], np.float32),
                one,
            )
        )
    return SavedReplay(replay, 7, 3, {})


def described(saved: SavedReplay, **settings: Any) -> ReplayContents:
    found = contents_of(saved, TrainConfig.from_mapping(settings))
    assert found is not None
    return found


def test_contents_of_a_replay() -> None:
    found = described(
        # The first row is overwritten by the fifth.
        replay_of([9, 0, 0, 2, -1], [0, 0.9, 0.9, 0, 0.9], [0, 1, 1, 1, 2], [9, 1, 2, 1, 1])
    )
    assert (found.rows, found.capacity, found.added, found.oldest) == (4, 4, 5, 3)
    assert (found.reward_low, found.reward_high, found.reward_mean, found.common_reward) == (-1.0, 2.0, 0.25, 0.0)
    assert (found.other_rewards, found.terminals, found.compared, found.repeats) == (0.5, 0.25, 4, 0.5)
    assert found.action_shares == (0.0, 0.75, 0.25)
    assert str(found) == (
        "At step 7 the replay holds 4 transitions, 0 to 3 transitions old (it has room for 4; 5 were stored so far). "
        "Rewards are -1.00 to 2.00, 0.25 on average; 50 % differ from the most common, 0.00. 25 % of the transitions "
        "are terminal. 50 % of the states equal an earlier one. Shares of the actions: 0: 0 %, 1: 75 %, 2: 25 %."
    )


def test_a_replay_without_variety() -> None:
    same = described(replay_of([1, 1], [0.9, 0.9], [1, 1], [1, 2]), n_step=3)
    assert "All rewards, each summed over up to 3 steps, are 1.00. No transition is terminal. No two of" in str(same)
    assert str(same).endswith("1: 100 %, 2: 0 %; hardly anything but action 1 was tried.")
    ends = described(replay_of([1, 1], [0.9, 0.0], [0, 1], [1, 2]))
    assert "All rewards are 1.00: what tells actions apart is only when episodes end. 50 % of" in str(ends)
    blind = described(replay_of([1, 2], [0.0, 0.0], [0, 1], [1, 2]), gamma=0.0)
    assert blind.terminals is None
    assert "With γ = 0 terminal transitions look like all others." in str(blind)
    assert contents_of(replay_of([], [], [], []), TrainConfig()) is None


def test_a_large_replay_is_compared_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MOST_STATES", 2)
    found = described(replay_of([0] * 5, [0.9] * 5, [0] * 5, [1, 5, 1, 1, 5]))
    assert (found.compared, found.repeats) == (2, 0.5)  # the oldest and the newest
    assert "50 % of 2 states, evenly spaced, equal an earlier one." in str(found)


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0, "0 %"),
        (0.0004, "less than 0.1 %"),
        (0.031, "3.1 %"),
        (0.05, "5 %"),
        (0.354, "35 %"),
        (0.996, "99.6 %"),
        (0.99995, "more than 99.9 %"),
        (1, "100 %"),
        (1.5, "150 %"),
    ],
)
def test_percentages(share: float, said: str) -> None:
    assert percent(share) == said


# Runs.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> nexus.TrainResult:
    run = tmp_path_factory.mktemp("describe") / "run"
    return nexus.train("CartPole-v1", config=TrainConfig.from_mapping(SETTINGS), run_dir=run, listener=Silent())


def test_a_finished_run(finished: nexus.TrainResult) -> None:
    found = nexus.describe(finished)
    assert (found.env, found.status, found.steps, found.total_steps) == ("CartPole-v1", "finished", 600, 600)
    agent = finished.agent
    values, replay = found.q_values, found.replay
    assert isinstance(values, QValues)
    assert isinstance(replay, ReplayContents)
    assert values.state.startswith("the first state of CartPole-v1 (seed ")
    assert values.bound == pytest.approx(100.0)  # 1 / (1 - 0.99)
    given = nexus.describe(finished.run_dir, [0.0, 0.0, 0.1, 0.0]).q_values
    assert isinstance(given, QValues)
    assert given.values == nexus.q_values(agent, [0.0, 0.0, 0.1, 0.0]).values != values.values
    assert (replay.steps, replay.rows, replay.capacity, replay.added) == (600, 250, 250, 600)
    assert (replay.reward_low, replay.reward_high, replay.other_rewards) == (1.0, 1.0, 0.0)
    assert sum(replay.action_shares) == pytest.approx(1)
    lines = str(found).splitlines()
    assert lines[0] == "CartPole-v1, finished, step 600 of 600"
    assert len(lines) == 5
    assert json.loads(json.dumps(found.to_mapping()))["replay"]["rows"] == 250


def test_the_first_state_is_that_of_the_evaluations(finished: nexus.TrainResult) -> None:
    found = nexus.describe(finished).q_values
    assert isinstance(found, QValues)
    seen: list[Any] = []

    agent = nexus.load_agent(finished.run_dir)
    act = agent.policy.act

    def looked(states: Any, *arguments: Any) -> Any:
        seen.append(states[0].copy())
        return act(states, *arguments)

    agent.policy.act = looked  # type: ignore[assignment,method-assign]
    seed = int(found.state.rpartition(" ")[2].rstrip(")"))
    nexus.evaluate(agent, episodes=1, seed=seed)
    assert found.values == nexus.q_values(agent, seen[0]).values


def described_at(step: int, run: Path, settings: dict[str, Any]) -> Description:
    """What is said of a run that is at a step."""
    said: list[Description] = []

    def look() -> None:
        if not said:
            said.append(nexus.describe(run))

    config = TrainConfig.from_mapping(settings)
    nexus.train("CartPole-v1", config=config, run_dir=run, listener=Silent(step, look))
    return said[0]


def test_a_run_in_progress(tmp_path: Path) -> None:
    first = described_at(400, tmp_path / "run", SETTINGS)
    assert (first.status, first.total_steps) == ("running", 600)
    assert 360 <= first.steps <= 400  # as logged
    assert isinstance(first.q_values, QValues)
    assert isinstance(first.replay, ReplayContents)
    assert first.replay.steps in (300, 400)


def test_a_run_that_has_hardly_begun(tmp_path: Path) -> None:
    found = described_at(1, tmp_path / "run", {**SETTINGS, "total_steps": 60})
    assert isinstance(found.q_values, QValues)
    assert str(found.loss) == "No loss has been logged, so nothing has been learned yet."
    assert str(found.replay) == "No replay was saved: the run has no checkpoint."


def test_a_run_of_frames_and_priorities_that_was_interrupted(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {name: value for name, value in FRAMES.items() if name != "env"}
    config = TrainConfig.from_mapping(settings)
    interrupted(lambda: nexus.train(FRAMES["env"], config=config, run_dir=run, listener=Silent(350, interrupt)))
    found = nexus.describe(run)
    assert found.status == "interrupted"
    assert isinstance(found.replay, ReplayContents)
    assert (found.replay.rows, found.replay.n_step) == (250, 3)
    assert 0 < found.replay.repeats < 0.5  # some of its frames are black
    assert isinstance(found.q_values, QValues)


class Paying(ActionReward):
    """Whose loss overflows."""

    def reward(self, action: int) -> float:
        return 1e30


def test_a_diverged_run_on_a_function(tmp_path: Path) -> None:
    config = TrainConfig.from_mapping({**SETTINGS, "loss": "squared"})
    with pytest.raises(DivergenceError):
        nexus.train(Paying, config=config, run_dir=tmp_path / "run", listener=Silent())
    found = nexus.describe(tmp_path / "run")
    assert found.status == "diverged"
    assert str(found.q_values) == (
        "The Q-values of the first state are not known: the run was trained on the function Paying, which a folder "
        "can't store; those of a given state can be."
    )
    given = nexus.describe(tmp_path / "run", [0.0, 1.0]).q_values
    assert isinstance(given, QValues)
    assert given.state == "this state"


def test_masks_of_the_environment_and_of_the_caller(tmp_path: Path) -> None:
    config = TrainConfig.from_mapping({**SETTINGS, "total_steps": 120, "hidden_dim": 8, "eval_every": None})
    gym.register("Masked-v0", entry_point="tests.structured:MaskedXor")
    try:
        run = nexus.train("Masked-v0", config=config, run_dir=tmp_path / "run", listener=Silent()).run_dir
        first = nexus.describe(run).q_values
    finally:
        gym.registry.pop("Masked-v0")
    assert isinstance(first, QValues)
    assert sum(first.legal) == 2
    assert first.legal[first.greedy]
    seen, _ = structured.MaskedXor().reset(seed=0)
    given = nexus.describe(run, {**seen, "action_mask": np.array([0, 0, 1])}).q_values
    assert isinstance(given, QValues)
    assert (given.legal, given.greedy) == ((False, False, True), 2)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module with an environment, in a folder on Python's path."""
    place = tmp_path / "code"
    place.mkdir()
    (place / "worlds_described.py").write_text(
        "import gymnasium as gym\nfrom tests.probes import ActionReward\n"
        "gym.register('World-v0', entry_point=ActionReward)\n"
        "def schedule(progress): return 1 - progress\n"
    )
    monkeypatch.syspath_prepend(place)
    yield place
    sys.modules.pop("worlds_described", None)
    gym.registry.pop("World-v0", None)


def test_a_run_whose_code_is_missing(
    own_module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    own = {**SETTINGS, "total_steps": 120, "epsilon_schedule": "worlds_described:schedule"}
    nexus.train("worlds_described:World-v0", config=TrainConfig.from_mapping(own), run_dir=run, listener=Silent())
    assert isinstance(nexus.describe(run).q_values, QValues)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(own_module)])
    monkeypatch.delitem(sys.modules, "worlds_described")
    gym.registry.pop("World-v0")
    monkeypatch.chdir(tmp_path)
    assert main(["describe", str(run)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "The Q-values of the first state are not known: " in said
    assert "The exploration is not known: " in said
    assert said.count("worlds_described") >= 2
    assert "The loss " in said
    assert "the replay holds 120 transitions" in said
    monkeypatch.chdir(own_module)
    assert main(["describe", str(run)]) == 0
    assert "Q-values of the first state of worlds_described:World-v0" in " ".join(capsys.readouterr().out.split())


def test_weights_that_are_damaged(finished: nexus.TrainResult, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(finished.run_dir, run)
    (run / "agent.safetensors").write_bytes(b"nothing")
    for chunk in (run / "replay").iterdir():
        chunk.write_bytes(b"nothing")
    found = nexus.describe(run)
    assert isinstance(found.q_values, Unknown)
    assert found.q_values.why.startswith("the Q-values are not known: ")
    assert str(found.replay).startswith("The replay can't be read: checkpoint 600: ")
    assert isinstance(found.loss, LossTrend)


@pytest.mark.parametrize("run", OLDER, ids=lambda run: f"{run.parent.name}/{run.name}")
def test_runs_of_older_formats(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["q_values"]["values"]) >= 2
    assert found["loss"]["loss"]["count"] >= 1
    assert 0 <= found["exploration"]["value"] <= 1
    if run.name in KEEPS_NONE:
        assert found["replay"]["text"].startswith("No replay was saved: ")
    else:
        assert found["replay"]["rows"] == 60


def test_it_fits_the_terminal(
    finished: nexus.TrainResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["describe", str(finished.run_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 15
    assert [line for line in lines if len(line) > 60 or line.startswith("%")] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["describe", "missing"], "no run at missing"),
        (["describe", "."], "is not a run folder"),
        (["describe"], "see nexus describe --help"),
        (["describe", "missing", "--jsn"], "did you mean --json"),
        (["descibe", "missing"], "did you mean describe"),
    ],
)
def test_bad_words(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


def test_bad_arguments(finished: nexus.TrainResult) -> None:
    with pytest.raises(ConfigError, match="needs the state in which these actions are legal"):
        nexus.describe(finished, action_masks=[1, 0])
    with pytest.raises(ConfigError, match=r"needs \(4,\)"):
        nexus.describe(finished, [0.0])
    with pytest.raises(ConfigError, match="needs the path of a folder"):
        nexus.describe(finished.agent)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="no run at"):
        nexus.describe("missing")


def test_the_help_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "describe a run:        nexus describe runs/NAME" in capsys.readouterr().out
