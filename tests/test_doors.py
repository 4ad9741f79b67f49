"""Sketches of the next rooms, each in one place and of public parts only: what they need has a door."""

import json
import multiprocessing
from collections.abc import Mapping
from copy import deepcopy
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

import nexus
from nexus.core.period import Period
from nexus.core.state import State
from nexus.core.types import Batch, Outcome
from nexus.listener import Listener, Listeners, Plan
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.dqn import DQNLoss, DQNNetwork, NextAction
from nexus.models.rl.dqn.own_parts import OwnNetwork
from nexus.models.rl.dqn.pure import noise_of, pure_gradient
from nexus.models.rl.dqn.rainbow import make_agent
from nexus.parts import agent_for, agent_from
from nexus.runner import Run
from nexus.training.config import TrainConfig
from tests.chaos import SETTINGS, Silent, differences, interrupt, interrupted, match_reward
from tests.training import weights

QUICK: dict[str, Any] = SETTINGS | {"total_steps": 300, "eval_every": "140 steps", "checkpoint_every": "100 steps"}


def config_of(**settings: Any) -> TrainConfig:
    return TrainConfig.from_mapping(QUICK | settings)


# A diagnosis: a listener with a period, a memory, numbers for the log, and a way to stop.


class Doctor(Silent):
    """Watches how sure the agent is of its first states."""

    every = Period.parse("20 steps")

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at
        self.sums: list[float] = []

    def on_start(self, plan: Plan) -> None:
        assert plan.live is not None
        self.live = plan.live

    def on_step(self, progress: Any, episodes: Any) -> None:
        q_values = self.live.agent.q_network(np.zeros((1, 2), np.float32)).detach()
        self.sums.append(float(q_values.max()) + len(self.live.replay))
        self.live.log({"doctor/sum": sum(self.sums), "doctor/looks": len(self.sums)})
        if self.stop_at is not None and progress.counters.steps >= self.stop_at:
            self.live.stop("nothing is learned")

    def get_state(self) -> State:
        return {"sums": np.array(self.sums)}

    def set_state(self, state: State) -> None:
        self.sums = state["sums"].tolist() if "sums" in state else []


def logged(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "doctor/looks" in line]


def test_a_diagnosis_logs_changes_no_bit_and_goes_on_exactly(tmp_path: Path) -> None:
    plain = nexus.train(match_reward, config=config_of(), run_dir=tmp_path / "plain", listener=Silent())
    whole = nexus.train(match_reward, config=config_of(), run_dir=tmp_path / "whole", listener=Doctor())
    assert torch.equal(weights(plain.agent.q_network), weights(whole.agent.q_network))
    assert [line["step"] for line in logged(tmp_path / "whole")] == list(range(20, 301, 20))
    assert [line["doctor/looks"] for line in logged(tmp_path / "whole")] == list(range(1, 16))
    stop = Listeners(Doctor(), Silent(210, interrupt))
    interrupted(lambda: nexus.train(match_reward, config=config_of(), run_dir=tmp_path / "broken", listener=stop))
    nexus.resume(tmp_path / "broken", env=match_reward, listener=Listeners(Doctor(), Silent()))
    assert logged(tmp_path / "broken") == logged(tmp_path / "whole")
    found = differences(tmp_path / "whole", tmp_path / "broken")
    assert [name for name in found if not name.startswith("listeners.")] == []


def test_a_listener_stops_a_run_as_its_last_step_would(tmp_path: Path) -> None:
    result = nexus.train(match_reward, config=config_of(), run_dir=tmp_path / "run", listener=Doctor(stop_at=70))
    assert result.counters.steps == 80
    assert result.stop_reason == "nothing is learned"
    assert result.evaluation is not None
    assert result.resumes_from == 80
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"
    further = nexus.resume(tmp_path / "run", env=match_reward, total_steps=320, listener=Silent())
    assert further.counters.steps == 320


class Keeps(Silent):
    """Keeps the lines of scalars and how the run ended."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.lines: list[dict[str, float]] = []
        self.ends: list[str] = []

    def on_scalars(self, steps: int, values: Mapping[str, float]) -> None:
        self.lines.append({"step": steps, **values})

    def on_end(self, status: str) -> None:
        self.ends.append(status)


def test_a_listener_gets_every_line_of_scalars_and_the_end(tmp_path: Path) -> None:
    keeps = Keeps()
    listener = Listeners(keeps, Doctor())
    nexus.train(match_reward, config=config_of(), run_dir=tmp_path / "run", listener=listener)
    assert keeps.lines == [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("eval/mean_reward" in line for line in keeps.lines)
    assert any("doctor/sum" in line for line in keeps.lines)
    assert any("train/loss" in line for line in keeps.lines)
    assert keeps.ends == ["finished"]


def test_a_listener_is_told_how_a_run_ended_that_was_not_finished(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("mine")

    keeps = Keeps(210, fail)
    with pytest.raises(ValueError, match="mine"):
        nexus.train(match_reward, config=config_of(), run_dir=tmp_path / "failed", listener=keeps)
    stopped = Keeps(210, interrupt)
    interrupted(lambda: nexus.train(match_reward, config=config_of(), run_dir=tmp_path / "stopped", listener=stopped))
    assert (keeps.ends, stopped.ends) == (["failed"], ["interrupted"])


def test_several_listeners_are_told_in_their_order_and_keep_their_own(tmp_path: Path) -> None:
    said: list[tuple[str, str]] = []

    class Speaks(Listener):
        def __init__(self, name: str, every: str | None = None) -> None:
            self.name, self.every = name, None if every is None else Period.parse(every)

        def on_start(self, plan: Plan) -> None:
            said.append((self.name, "start"))

        def on_step(self, progress: Any, episodes: Any) -> None:
            said.append((self.name, f"step {progress.counters.steps}"))

        def on_evaluation(self, steps: int, evaluation: Any) -> None:
            said.append((self.name, f"evaluation {steps}"))

        def on_notice(self, text: str) -> None:
            said.append((self.name, text))

        def get_state(self) -> State:
            return {"name": self.name}

        def set_state(self, state: State) -> None:
            said.append((self.name, f"was {state.get('name')}"))

    config = config_of(total_steps=60, eval_every=None, learning_starts=50, num_envs=1, epsilon_steps=10)
    listeners = Listeners(Speaks("a", "30 steps"), Speaks("b", "25 steps"))
    nexus.train(match_reward, config=config, run_dir=tmp_path / "run", listener=listeners)
    assert said == [
        ("a", "start"),
        ("b", "start"),
        ("b", "step 25"),
        ("a", "step 30"),
        ("b", "step 50"),
        ("a", "step 60"),
        ("a", "evaluation 60"),
        ("b", "evaluation 60"),
    ]
    said.clear()
    again = Listeners(Speaks("c", "30 steps"), Speaks("d", "90 steps"))
    nexus.resume(tmp_path / "run", env=match_reward, total_steps=90, listener=again)
    assert said[:2] == [("c", "was a"), ("d", "was b")]
    with pytest.warns(RuntimeWarning, match="odd"):
        Listeners(Listener(), Listener()).on_notice("odd")


# Intrinsic reward: a loss with networks and an optimizer of its own.


class Curious:
    """Random network distillation (https://arxiv.org/abs/1810.12894): what it can't foretell yet pays a bonus."""

    def __init__(self, features: int = 2) -> None:
        rng = torch.Generator().manual_seed(3)
        made = [nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, 4)) for _ in range(2)]
        for network in made:
            for parameter in network.parameters():
                nn.init.normal_(parameter, std=0.5, generator=rng)
        self.fixed, self.predictor = made[0].requires_grad_(False), OwnNetwork(made[1], 0.01)
        self.inner = DQNLoss()

    def __call__(
        self, q_network: DQNNetwork, target_network: DQNNetwork, next_action: NextAction, batch: Batch
    ) -> Outcome:
        seen = batch["next_states"].float()
        errors = (self.predictor.network(seen) - self.fixed(seen)).square().mean(1)  # [B]
        self.own_loss, bonus = errors.mean(), errors.detach()
        out = self.inner(q_network, target_network, next_action, {**batch, "rewards": batch["rewards"] + bonus})
        return Outcome(out.loss, out.priorities, {**out.metrics, "rnd_bonus": bonus})

    def after_update(self) -> None:
        self.predictor.step(self.own_loss)
        del self.own_loss  # with its graph


def curious(config: TrainConfig) -> DQNAgent:
    return DQNAgent(agent_for((2,), 2, config).config, loss=Curious())


def train_curious(run_dir: Path, listener: Silent, begun: bool = False) -> dict[str, Any]:
    config = config_of()
    with Run(match_reward, None, config, run_dir, listener, begun, curious(config)) as run:
        run.run()
        state = run.parts.agent.get_state()
        return {name: value.tobytes() if isinstance(value, np.ndarray) else value for name, value in state.items()}


def test_a_loss_that_learns_is_saved_and_goes_on_exactly(tmp_path: Path) -> None:
    whole = train_curious(tmp_path / "whole", Silent())
    train_curious(tmp_path / "broken", Silent(210, interrupt))
    assert train_curious(tmp_path / "broken", Silent(), begun=True) == whole
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    bonus = [line["train/rnd_bonus"] for line in lines if "train/rnd_bonus" in line]
    assert bonus[-1] < bonus[0] / 2  # what it sees again and again is foretold
    assert "loss.predictor.theta" in whole
    assert "loss.fixed.0.weight" in whole
    plain = nexus.train(match_reward, config=config_of(), run_dir=tmp_path / "plain", listener=Silent())
    assert weights(plain.agent.q_network).numpy().tobytes() != whole["q_network.head.linear.weight"]


def test_a_copy_of_an_agent_has_its_own_curiosity() -> None:
    agent = curious(config_of())
    batch = {
        "states": torch.randn(8, 2),
        "actions": torch.zeros(8, dtype=torch.int64),
        "rewards": torch.zeros(8),
        "discounts": torch.full((8,), 0.9),
        "next_states": torch.randn(8, 2),
    }
    agent.learn(batch)
    twin = deepcopy(agent)
    for _ in range(3):
        agent.learn(batch)
        twin.learn(batch)
    one, other = agent.get_state(), twin.get_state()
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_equal(value, other[name], err_msg=name)
    before = agent.get_state()["loss.predictor.theta"].copy()
    twin.learn(batch)
    assert np.array_equal(agent.get_state()["loss.predictor.theta"], before)


# A policy elsewhere: made from plain values there, and fed with plain arrays.


def play_there(pipe: Connection, config: Mapping[str, Any]) -> None:
    """Act on what comes through a pipe, in another process."""
    torch.set_num_threads(1)
    policy = agent_from(config).policy
    while (message := pipe.recv()) is not None:
        weights, states = message
        policy.set_weights(weights)
        pipe.send(policy.act(states, 0.0, training=False))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_policy_plays_in_another_process_by_plain_arrays() -> None:
    agent = make_agent("dueling", state_dim=4, action_dim=5, hidden_dim=16, device="cpu")
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("forkserver").Process(target=play_there, args=(there, agent.config))
    process.start()
    rng = np.random.default_rng(0)
    for _ in range(3):
        with torch.no_grad():
            agent.learner.theta.add_(0.3 * torch.randn(agent.learner.theta.shape))
        states = rng.normal(size=(64, 4)).astype(np.float32)
        here.send((agent.policy.get_weights(), states))
        assert here.poll(60)
        assert here.recv().tolist() == agent.act(states, 0.0, training=False).tolist()
    here.send(None)
    process.join(20)
    assert process.exitcode == 0


# Several agents in one call.


@pytest.mark.parametrize("settings", [{}, {"double": True, "dueling": True}, {"noisy": True}, {"layer_norm": True}])
def test_two_seeds_learn_through_one_vmapped_gradient(settings: dict[str, Any]) -> None:
    agents = [
        make_agent(**settings, state_dim=3, action_dim=2, hidden_dim=8, seed=seed, max_grad_norm=None, device="cpu")
        for seed in (0, 1)
    ]
    rng = torch.Generator().manual_seed(0)

    def batch() -> dict[str, Tensor]:
        return {
            "states": torch.randn(16, 3, generator=rng),
            "actions": torch.randint(2, (16,), generator=rng),
            "rewards": torch.randn(16, generator=rng),
            "discounts": torch.full((16,), 0.9),
            "next_states": torch.randn(16, 3, generator=rng),
            "weights": torch.rand(16, generator=rng),
        }

    batches = [batch(), batch()]
    learners = [agent.learner for agent in agents]
    for learner in learners:
        learner.theta_target.add_(0.1 * torch.randn(learner.theta.shape, generator=rng))
    thetas, targets = (torch.stack([getattr(each, name) for each in learners]) for name in ("theta", "theta_target"))
    stacked = {name: torch.stack([each[name] for each in batches]) for name in batches[0]}
    noise = torch.stack([noise_of(learner) for learner in learners])
    together = vmap(pure_gradient(learners[0]))(thetas, targets, stacked, noise)
    for learner, own, found in zip(learners, batches, together, strict=True):
        torch.testing.assert_close(found, learner.gradient(own)[0], atol=1e-6, rtol=1e-4)
    assert not torch.allclose(together[0], together[1])
