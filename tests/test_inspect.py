"""Looking into a saved replay: a transition worked out by hand, conditions, histograms, the export, and whole runs."""

import json
import math
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nexus
from nexus.cli.main import main
from nexus.cli.replay import lines_of_table
from nexus.core.errors import ConfigError, RunError
from nexus.core.types import Array, Outcome, Transitions
from nexus.data.prioritized_replay_buffer import Priorities
from nexus.data.replay import Replay
from nexus.data.rows import Rows
from nexus.inspection.export import export_rows, nested_lists, require_archive
from nexus.inspection.histograms import action_lines, histogram_lines
from nexus.inspection.rows import Condition, ReplayRows, conditions_of, rows_of_run
from nexus.inspection.saved_replay import SavedReplay
from nexus.inspection.telling import state_text, target_text, value_text
from nexus.inspection.transition import terms_in_run, terms_of
from nexus.listener import Listener
from nexus.models.rl.dqn import DQNAgent, DQNNetwork
from nexus.models.rl.dqn.c51 import C51Loss, CategoricalReadout
from nexus.models.rl.dqn.double_dqn import greedy_on_online
from nexus.models.rl.dqn.dqn import DQNLoss, Loss, NextAction, greedy_on_target
from nexus.models.rl.dqn.munchausen_dqn import MunchausenBootstrap
from nexus.models.rl.dqn.rainbow import ALGORITHMS
from nexus.training.config import TrainConfig
from tests.chaos import FRAMES, SETTINGS, Silent
from tests.training import weights

FORMATS = Path(__file__).parent

# A transition.


class Scaled(nn.Module):
    """A head whose Q-values are the two numbers of the state, each times a weight."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([first, second]))

    def forward(self, features: Any) -> Any:
        return (features * self.factors).unsqueeze(-1)


def agent_with(loss: Loss | None = None, next_action: NextAction = greedy_on_target, **settings: Any) -> DQNAgent:
    """An agent with Q(s, ·; θ) = (s₀, s₁) and Q(s, ·; θ⁻) = (2 s₀, s₁ / 2)."""
    network = DQNNetwork(2, 2, torso=nn.Identity(), head=Scaled(1.0, 1.0))
    agent = DQNAgent({"state_dim": 2, "action_dim": 2, **settings}, network=network, loss=loss, next_action=next_action)
    agent.learner.theta_target.copy_(torch.tensor([2.0, 0.5]))
    return agent


def batch_of(discount: float = 0.9, **more: Any) -> dict[str, Any]:
    """From (1, 2) by action 1 to (3, 4), paying 0.5."""
    return {
        "states": torch.tensor([[1.0, 2.0]]),
        "actions": torch.tensor([1]),
        "rewards": torch.tensor([0.5]),
        "discounts": torch.tensor([discount]),
        "next_states": torch.tensor([[3.0, 4.0]]),
        "weights": torch.tensor([0.25]),
        **more,
    }


def near(value: float | None) -> Any:
    return pytest.approx(value, abs=1e-5)


def test_the_terms_of_dqn() -> None:
    found = terms_of(agent_with().learner, batch_of())
    assert (found.q_values, found.next_online, found.next_target) == ((1.0, 2.0), (3.0, 4.0), (6.0, 2.0))
    assert (found.online_choice, found.target_choice, found.chosen) == (1, 0, 0)
    assert (found.reward, found.stored_reward, found.discount) == (0.5, 0.5, near(0.9))
    assert (found.next_value, found.prediction) == (6.0, 2.0)
    assert found.target == near(5.9)  # 0.5 + 0.9 · 6
    assert found.td_error == near(3.9)
    assert (found.loss, found.priority) == (near(3.4), near(3.9))  # |3.9| - ½, without the weight
    assert found.next_legal is None


def test_the_terms_of_double_dqn() -> None:
    found = terms_of(agent_with(next_action=greedy_on_online).learner, batch_of())
    assert (found.chosen, found.next_value) == (1, 2.0)  # chosen by θ, valued by θ⁻
    assert (found.target, found.td_error, found.loss) == (near(2.3), near(0.3), near(0.045))


def test_a_terminal_transition_and_a_mask() -> None:
    end = terms_of(agent_with().learner, batch_of(discount=0.0))
    assert (end.discount, end.target, end.td_error, end.loss) == (0.0, 0.5, -1.5, 1.0)
    masks = {"action_masks": torch.tensor([[1, 1]]), "next_action_masks": torch.tensor([[0, 1]])}
    masked = terms_of(agent_with().learner, batch_of(0.9, **masks))
    assert (masked.online_choice, masked.target_choice, masked.chosen, masked.next_value) == (1, 1, 1, 2.0)
    assert masked.next_legal == (False, True)
    assert masked.target == near(2.3)


def test_dones_of_the_original_interface() -> None:
    batch = batch_of()
    del batch["discounts"]
    found = terms_of(agent_with(gamma=0.8).learner, {**batch, "dones": torch.tensor([0.0])})
    assert (found.discount, found.target) == (near(0.8), near(5.3))


def test_the_terms_of_munchausen() -> None:
    loss = DQNLoss(bootstrap=MunchausenBootstrap(alpha=0.9, temperature=1.0, clip=-1.0))
    found = terms_of(agent_with(loss).learner, batch_of())
    # θ⁻ gives (2, 1) at s: log π(1|s) = -1 - log(1 + 1/e) = -1.313, clipped to -1. At s' it gives (6, 2).
    assert (found.stored_reward, found.reward) == (0.5, near(0.5 - 0.9))
    assert found.chosen is None
    assert found.next_value == near(math.log(math.exp(6) + math.exp(2)))
    assert found.target == near(-0.4 + 0.9 * 6.01815)


@pytest.mark.parametrize(("reward", "target"), [(0.5, 5.0), (5.0, 7.5)])
def test_the_terms_of_c51(reward: float, target: float) -> None:
    network = DQNNetwork(2, 2, torso=nn.Identity(), head=Even(), readout=CategoricalReadout(0.0, 10.0, 2))
    agent = DQNAgent({"state_dim": 2, "action_dim": 2}, network=network, loss=C51Loss())
    found = terms_of(agent.learner, batch_of(rewards=torch.tensor([reward])))
    # The atoms 0 and 10, both at ½, become r and r + 9; the second of them is clipped to 10 for r = 5.
    assert (found.prediction, found.next_value, found.chosen) == (near(5.0), near(5.0), 0)
    assert found.target == near(target)


class Even(nn.Module):
    """A head that gives two atoms the same logit for each of two actions."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(1))

    def forward(self, features: Any) -> Any:
        return self.logit.expand(len(features), 2, 2)


def test_targets_in_words() -> None:
    plain = terms_of(agent_with().learner, batch_of())
    assert target_text(plain) == "0.5 + 0.9 · 6 = 5.9"
    assert target_text(replace(plain, next_value=-6.0, target=-4.9)) == "0.5 + 0.9 · (-6) = -4.9"
    assert target_text(replace(plain, target=4.0)) == "4, by the loss; the terms alone give 0.5 + 0.9 · 6 = 5.9"
    assert target_text(replace(plain, next_value=None)) == "5.9"
    assert target_text(replace(plain, target=None)) == "the loss does not report it"
    assert value_text(plain) == "6, of action 0 by the target network"
    assert value_text(replace(plain, chosen=None)) == "6, over all actions"
    assert value_text(replace(plain, next_value=None)) == "the loss does not say"


def test_rewards_are_in_the_unit_of_the_learner() -> None:
    agent = agent_with(normalize_rewards=True)
    returns = agent.learner.returns
    assert returns is not None
    returns.follow(np.array([0.0, 4.0]), np.array([True, True]), np.array([True, True]))
    unit = agent.learner.unit_of_rewards()
    assert unit != 1.0
    found = terms_of(agent.learner, batch_of())
    assert (found.stored_reward, found.reward, found.target) == (0.5, near(0.5 / unit), near(0.5 / unit + 5.4))


def test_a_loss_that_reports_nothing() -> None:
    def silent(q_network: Any, target_network: Any, next_action: Any, batch: Any) -> Outcome:
        q_values = q_network.output(batch["states"]).q_values
        return Outcome(q_values[:, 0] ** 2, q_values[:, 0].detach(), {"q_mean": q_values.mean()})

    found = terms_of(agent_with(silent).learner, batch_of())
    assert (found.target, found.td_error, found.chosen, found.next_value) == (None, None, None, None)
    assert (found.prediction, found.loss) == (2.0, 1.0)


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - {"pqn"}))
def test_the_terms_are_those_of_the_loss(algorithm: str) -> None:
    agent = nexus.make_agent(algorithm, state_dim=2, action_dim=2, hidden_dim=8)
    with torch.no_grad():
        agent.learner.theta_target += 0.1
    before = weights(agent.q_network), weights(agent.target_network), agent.learner.noise.get_state()
    found = terms_of(agent.learner, batch_of())
    assert found.target is not None
    assert found.next_value is not None
    assert found.reward + found.discount * found.next_value == pytest.approx(found.target, abs=1e-4)
    assert found.chosen in (found.online_choice, found.target_choice, None)
    after = weights(agent.q_network), weights(agent.target_network), agent.learner.noise.get_state()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


# Rows.


def rows_of(**settings: Any) -> ReplayRows:
    """Six transitions in a replay with room for five; rewards 0, 0, 0.1, -1, 3, 0, actions 0 to 2 by turns."""
    replay = Replay(Rows(5), Priorities(5, priority_exponent=0.5))
    for number, reward in enumerate([0, 0, 0.1, -1, 3, 0]):
        states = np.full((1, 2), number, np.float32)
        replay.add(
            Transitions(
                states,
                np.array([number % 3]),
                np.array([reward], np.float32),
                np.array([0.0 if number in (3, 5) else 0.9], np.float32),
                states + 1,
            )
        )
    replay.update_priorities(torch.tensor([0, 1, 2, 3, 4]), torch.tensor([5.0, 1.0, 2.0, 3.0, 4.0]))
    state = {f"replay.{name}": value for name, value in replay.get_state().items()}
    config = TrainConfig.from_mapping({"prioritized": True, "priority_exponent": 0.5, **settings})
    return ReplayRows(Path(), {"agent": {}}, config, SavedReplay(replay, 60, 3, state))


def test_columns_are_oldest_first() -> None:
    columns = rows_of().columns
    assert columns["row"].tolist() == [1, 2, 3, 4, 5]  # the first was overwritten
    assert columns["age"].tolist() == [4, 3, 2, 1, 0]
    assert columns["action"].tolist() == [1, 2, 0, 1, 2]
    assert columns["reward"].tolist() == [0, np.float32(0.1), -1, 3, 0]
    assert columns["priority"] == pytest.approx([1, 2, 3, 4, 5])  # place 0 has row 5


@pytest.mark.parametrize(
    ("texts", "rows"),
    [
        ({"reward": ">0"}, [2, 4]),
        ({"reward": "0.1"}, [2]),  # as float32
        ({"reward": "!=0"}, [2, 3, 4]),
        ({"reward": ">= -1, <0.1"}, [1, 3, 5]),
        ({"age": "<=1"}, [4, 5]),
        ({"age": "=4"}, [1]),
        ({"priority": ">2.5", "reward": "<=0"}, [3, 5]),
        ({"action": "==2"}, [2, 5]),
    ],
)
def test_conditions(texts: Mapping[str, str], rows: list[int]) -> None:
    conditions = [each for name, text in texts.items() for each in conditions_of(name, text)]
    found = rows_of()
    assert found.columns["row"][found.where(conditions)].tolist() == rows


def test_terminal_rows() -> None:
    found = rows_of()
    assert found.columns["row"][found.where([], only_terminal=True)].tolist() == [3, 5]
    assert found.columns["row"][found.where([Condition("reward", "<", 0)], only_terminal=True)].tolist() == [3]
    with pytest.raises(ConfigError, match="with gamma = 0 terminal transitions look like all others"):
        rows_of(gamma=0.0).where([], only_terminal=True)


@pytest.mark.parametrize("text", ["", ">", "many", ">0,", "=>1", ">nan"])
def test_texts_that_are_no_condition(text: str) -> None:
    with pytest.raises(ConfigError, match=r"reward = .*: needs a comparison with a number, as in"):
        conditions_of("reward", text)


def test_priorities_that_can_not_be_known() -> None:
    with pytest.raises(ConfigError, match="priority_exponent = 0 makes all the same"):
        rows_of(priority_exponent=0.0).where(conditions_of("priority", ">1"))


def test_numbers_of_rows() -> None:
    found = rows_of()
    assert [found.place_of(number) for number in (1, 5)] == [0, 4]
    for number in (0, 6):
        with pytest.raises(ConfigError, match=f"row = {number}: the replay of step 60 holds rows 1 to 5"):
            found.place_of(number)


def test_the_table() -> None:
    assert list(lines_of_table(rows_of(), np.array([4, 1]))) == [
        "row  age  action  reward  discount  priority  state",
        "  5    0       2       0         0         5  5 5",
        "  2    3       2     0.1       0.9         2  2 2",
    ]


@pytest.mark.parametrize(
    ("state", "room", "said"),
    [
        (np.array([0.5, -1.25], np.float32), 40, "0.5 -1.25"),
        (np.arange(9.0), 12, "0 1 2 3 ..."),
        (np.array([0, 0, 1], np.int8), 40, "one-hot 2"),
        (np.array([0, 1, 1], np.int8), 40, "0 1 1"),
        (np.full((4, 2, 2), 3, np.uint8), 40, "uint8[4, 2, 2], mean 3"),
        (np.full((4, 2, 2), 3, np.uint8), 12, "uint8[4, ..."),
    ],
)
def test_states_in_a_line(state: Array, room: int, said: str) -> None:
    assert state_text(state, room) == said
    assert len(said) <= room


# Histograms.


def test_a_histogram_of_few_values() -> None:
    assert list(histogram_lines("reward", np.array([1.0, 1.0, 1.0, 1.0, -0.5], np.float32))) == [
        "reward                          rows",
        "  -0.5                             1  ##########",
        "  1                                4  ##########################################",
    ]


def counted(lines: list[str]) -> list[int]:
    """The counts in the lines of a histogram."""
    found = [re.match(r"  .{22} +([\d,]+)(?:  #|$)", line) for line in lines[1:]]
    return [int(match[1].replace(",", "")) for match in found if match is not None]


def test_histograms_count_every_value() -> None:
    whole = list(histogram_lines("age", np.arange(25)))
    assert counted(whole) == [2, 3, 2, 3, 2, 3, 2, 3, 2, 3]
    assert [line[:10].strip() for line in whole[1:3]] == ["0 to 1", "2 to 4"]
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=1_000), np.exp(5 * rng.normal(size=1_000)), rng.integers(0, 11, 1_000)):
        lines = list(histogram_lines("priority", values))
        assert sum(counted(lines)) == 1_000
        assert len(lines) == 11
        assert max(map(len, lines)) == 80
    assert [line.split()[0] for line in histogram_lines("priority", np.geomspace(1, 1e10, 11))][1:3] == ["1", "10"]


def test_actions_and_their_mean_reward() -> None:
    assert list(action_lines(np.array([0, 2, 2, 2]), np.array([1.0, 0.0, 0.0, 0.75]), 3)) == [
        "action       mean reward        rows",
        "  0                    1           1  ##############",
        "  1                    -           0",
        "  2                 0.25           3  ##########################################",
    ]


# The export.


def test_an_export_read_back(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    export_rows(rows_of(), np.array([1, 3]), path)
    with np.load(path, allow_pickle=False) as archive:
        found = dict(archive)
    assert found.keys() == {"row", "age", "priority", "states", "actions", "rewards", "discounts", "next_states"}
    assert found["row"].tolist() == [2, 4]
    assert found["age"].tolist() == [3, 1]
    assert found["priority"] == pytest.approx([2, 4])
    assert found["states"].tolist() == [[2, 2], [4, 4]]
    assert found["next_states"].tolist() == [[3, 3], [5, 5]]
    assert found["actions"].tolist() == [2, 1]
    assert found["rewards"].tolist() == [np.float32(0.1), 3]
    assert (found["rewards"].dtype, found["states"].dtype) == (np.float32, np.float32)
    assert [path.name for path in tmp_path.iterdir()] == ["some.npz"]


def test_an_export_of_nothing_and_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_rows(rows_of(), np.array([], np.int64), tmp_path / "none.npz")
    with np.load(tmp_path / "none.npz") as archive:
        assert (archive["states"].shape, archive["row"].shape) == ((0, 2), (0,))
    monkeypatch.setattr("nexus.inspection.export.AT_ONCE", 2)
    export_rows(rows_of(), np.arange(5), tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as archive:
        assert archive["states"][:, 0].tolist() == [1, 2, 3, 4, 5]


def test_places_that_can_not_be_exported_to(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs a file name that ends in \.npz or \.parquet"):
        require_archive(str(tmp_path / "rows.csv"))
    with pytest.raises(ConfigError, match="there is no folder"):
        require_archive(str(tmp_path / "missing" / "rows.npz"))
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(RunError, match="can't write"):
        export_rows(rows_of(), np.arange(5), tmp_path / "folder.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npz"]


def test_a_parquet_file_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: pip install -e '.[parquet]'")
    monkeypatch.setattr("nexus.inspection.export.AT_ONCE", 2)
    monkeypatch.setattr("nexus.inspection.export.GROUP_BYTES", 1)
    export_rows(rows_of(), np.array([0, 1, 3]), tmp_path / "some.parquet")
    assert parquet.ParquetFile(tmp_path / "some.parquet").num_row_groups == 2
    table = parquet.read_table(tmp_path / "some.parquet")
    found = table.to_pydict()
    assert found.keys() == {"row", "age", "priority", "states", "actions", "rewards", "discounts", "next_states"}
    assert found["row"] == [1, 2, 4]
    assert found["age"] == [4, 3, 1]
    assert found["priority"][1:] == pytest.approx([2, 4])
    assert found["states"] == [[1, 1], [2, 2], [4, 4]]
    assert found["next_states"] == [[2, 2], [3, 3], [5, 5]]
    assert found["actions"][1:] == [2, 1]
    assert found["rewards"][1:] == [np.float32(0.1), 3]
    assert str(table.schema.field("states").type) == "fixed_size_list<element: float>[2]"
    assert [path.name for path in tmp_path.iterdir()] == ["some.parquet"]
    export_rows(rows_of(), np.array([], np.int64), tmp_path / "none.parquet")
    empty = parquet.read_table(tmp_path / "none.parquet")
    assert (empty.num_rows, empty.schema) == (0, table.schema)


def test_images_are_nested_lists_in_parquet() -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install -e '.[parquet]'")
    images = np.arange(2 * 2 * 3 * 4, dtype=np.uint8).reshape(2, 2, 3, 4)
    lists = nested_lists(arrow, images)
    assert lists.to_pylist() == images.tolist()
    assert nested_lists(arrow, np.array([True, False])).to_pylist() == [True, False]


# Runs.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("inspect") / "run"
    config = TrainConfig.from_mapping({**SETTINGS, "double": True, "n_step": 2})
    nexus.train("CartPole-v1", config=config, run_dir=run, listener=Silent())
    return run


def test_a_transition_of_a_run_is_that_of_its_networks(finished: Path) -> None:
    rows = rows_of_run(finished, Listener())
    place = int(rows.where([], only_terminal=False)[100])
    found = terms_in_run(rows, place, Listener())
    agent = nexus.load_agent(finished, checkpoint="latest")
    batch = {name: values[0].numpy() for name, values in rows.batch_at(np.array([place])).items()}
    with torch.no_grad():
        online, target = (net(batch["next_states"]).numpy() for net in (agent.q_network, agent.target_network))
        prediction = float(agent.q_network(batch["states"])[batch["actions"]])
    y = float(batch["rewards"] + batch["discounts"] * target[online.argmax()])
    assert found.target == pytest.approx(y, rel=1e-5)
    assert found.td_error == pytest.approx(y - prediction, rel=1e-4)


def told(capsys: pytest.CaptureFixture[str], *words: str | Path) -> list[str]:
    """The lines that `nexus replay` prints."""
    assert main(["replay", *map(str, words)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines: list[str] = out.splitlines()
    assert [line for line in lines if len(line) > 80 and not line.startswith("Exported ")] == []
    return lines


def test_the_replay_of_a_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, finished, "--rows", "5")
    assert lines[0] == "Replay of step 600: 250 transitions"
    assert lines[2].split() == ["row", "age", "action", "reward", "discount", "state"]
    assert [int(line.split()[1]) for line in lines[3:8]] == [0, 1, 2, 3, 4]
    assert [line.split()[0] for line in lines if line.endswith("rows")] == ["reward", "age", "action"]
    few = told(
        capsys,
        finished,
        "--rows",
        "0",
        "--terminal",
        "--action",
        "1",
        "--reward",
        ">0.5",
        "--export",
        tmp_path / "o.npz",
    )
    with np.load(tmp_path / "o.npz") as archive:
        assert (archive["discounts"] == 0).all()
        assert (archive["actions"] == 1).all()
        count = len(archive["row"])
    assert few[0] == f"Replay of step 600: {count} of 250 transitions (reward > 0.5, action = 1, terminal)"
    assert few[-1] == f"Exported {count} transitions to {tmp_path / 'o.npz'}"
    assert not any(line.startswith("row ") for line in few)
    assert told(capsys, finished, "--age", ">1000") == ["Replay of step 600: 0 of 250 transitions (age > 1000)"]


def test_one_row_of_a_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of_run(finished, Listener())
    end = int(rows.columns["row"][rows.where([], only_terminal=True)[0]])
    terms = terms_in_run(rows, rows.place_of(end), Listener())
    lines = told(capsys, finished, "--row", str(end))
    said = {line[:17].strip(): line[17:] for line in lines[2:]}
    assert lines[0].startswith(f"Transition {end} of the run, ")
    assert said["discount"] == "0: terminal, so no value follows"
    assert said["reward"] == f"{terms.reward:.4g}, summed over up to 2 steps"
    assert said["target"].endswith(f" = {terms.reward:.4g}")
    assert said["TD error"] == f"{terms.td_error:.4g}, the target minus Q(s, a)"
    assert "priority" not in said


@pytest.mark.parametrize(
    ("run", "row"),
    [
        ("2/finished", 250),
        ("2/rows-interrupted", 150),
        ("2/frames-interrupted", 200),
        ("2/iqn-interrupted", 205),
        ("2/rainbow-interrupted", 200),
        ("3/finished", 295),
        ("3/rainbow-interrupted", 150),
    ],
)
def test_runs_of_older_formats(run: str, row: int, capsys: pytest.CaptureFixture[str]) -> None:
    folder = FORMATS / f"runs_of_format_{run}"
    lines = told(capsys, folder)
    assert lines[0].endswith(": 60 transitions")
    assert len([line for line in lines[3:23] if line]) == 20
    assert any(line.startswith("TD error ") for line in told(capsys, folder, "--row", str(row)))


def test_a_run_of_frames_and_priorities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    settings = {name: value for name, value in FRAMES.items() if name != "env"} | {"total_steps": 300}
    nexus.train(FRAMES["env"], config=TrainConfig.from_mapping(settings), run_dir=run, listener=Silent())
    lines = told(capsys, run, "--priority", ">0", "--export", tmp_path / "all.npz")
    assert "uint8[3, 3, 5], mean " in lines[3]
    with np.load(tmp_path / "all.npz") as archive:
        assert archive["states"].shape == archive["next_states"].shape == (250, 3, 3, 5)
        # A stack that goes on shares all frames but the newest.
        one_step = archive["states"][:, 1:]
        assert one_step.any()
        assert archive["priority"].shape == (250,)
        row = int(archive["row"][-1])
    assert any(line.startswith("new priority ") for line in told(capsys, run, "--row", str(row)))


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one line with which `nexus replay` fails."""
    assert main(["replay", *map(str, words)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    line: str = err
    return line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--row", "5"], "row = 5: the replay of step 600 holds rows 3"),
        (
            ["--row", "5", "--terminal", "--reward", ">0"],
            "row = 5: takes one transition apart; leave out reward, terminal",
        ),
        (["--reward", "high"], "reward = 'high': needs a comparison with a number"),
        (["--priority", ">1"], "priority: the replay of this run has none, since prioritized = False"),
        (["--action", "2"], "action = 2: needs 0 to 1"),
        (["--rows", "-1"], "rows = -1: needs 0 or more"),
        (["--export", "rows.txt"], "needs a file name that ends in .npz"),
        (["--terminl"], "did you mean --terminal"),
    ],
)
def test_bad_words(finished: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, finished, *words)


def test_runs_without_a_replay(tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run at" in refused(capsys, tmp_path / "missing")
    assert "is not a run folder" in refused(capsys, tmp_path)
    pqn = FORMATS / "runs_of_format_3" / "pqn-interrupted"
    assert f"{pqn}: no replay was saved: pqn learns from each rollout once and keeps none" in refused(capsys, pqn)
    bare = FORMATS / "runs_of_format_2" / "target-without-checkpoint"
    assert f"{bare}: no replay was saved: the run has no checkpoint" in refused(capsys, bare)
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    for chunk in (copy / "replay").iterdir():
        chunk.unlink()
    assert "the replay can't be read: checkpoint 600: " in refused(capsys, copy)


def test_a_foreign_checkpoint_is_refused(tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, copy = tmp_path / "other", tmp_path / "copy"
    config = TrainConfig.from_mapping({**SETTINGS, "double": True, "n_step": 2, "gamma": 0.5})
    nexus.train("CartPole-v1", config=config, run_dir=other, listener=Silent())
    shutil.copytree(finished, copy)
    for part in ("checkpoints", "replay"):
        shutil.rmtree(copy / part)
        shutil.copytree(other / part, copy / part)
    assert "it is from another run: its gamma is 0.5" in refused(capsys, copy)
    assert json.loads((copy / "run.json").read_text())["status"] == "finished"


def test_the_help_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "look into its replay:  nexus replay runs/NAME" in capsys.readouterr().out


def test_without_pyarrow_the_command_that_installs_it_is_printed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    said = refused(capsys, finished, "--export", tmp_path / "rows.parquet")
    assert "pyarrow is not installed; get it with: " in said
    assert "[parquet]" in said
    assert not list(tmp_path.iterdir())
