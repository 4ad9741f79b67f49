"""Evaluations of episodes without an end: where they are cut off, and who is told."""

import json
import time
from pathlib import Path
from typing import Any, SupportsInt

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import nexus
from nexus.cli import progress
from nexus.cli.main import main
from nexus.cli.progress import EvaluationView, TrainView
from nexus.core.errors import ConfigError
from nexus.core.types import Array
from nexus.envs.factory import EnvSpec
from nexus.listener import Listener
from nexus.training.config import TrainConfig
from nexus.training.evaluation import Evaluation, evaluate_policy, long_evaluation


class Sometimes(gym.Env[Array, SupportsInt]):
    """Ends after seven steps, or never, as its seed has it; a step pays 1."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 7 if self.np_random.random() < 0.5 else -1
        return np.zeros(1, np.float32), {}

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.zeros(1, np.float32), 1.0, self.left == 0, False, {}


class Zero:
    def act(self, states: Array, epsilon: float, training: bool, action_masks: Array | None) -> Array:
        return np.zeros(len(states), np.int64)


@pytest.mark.parametrize("num_envs", [1, 3, 40])
def test_what_was_cut_off_is_counted_and_said(num_envs: int) -> None:
    score = evaluate_policy(Zero(), EnvSpec(Sometimes), 40, max_episode_steps=20, num_envs=num_envs)
    assert set(score.returns) == {7.0, 20.0}
    assert score.cut == score.returns.count(20.0)
    assert str(score).endswith(f"; {score.cut} of 40 episodes were cut off after 20 steps")
    assert str(score.protocol).endswith("seed 0, at most 20 steps each")
    assert Evaluation.from_mapping(json.loads(json.dumps(score.to_mapping()))) == score


def test_a_limit_of_the_environment_cuts_nothing_off() -> None:
    limited = evaluate_policy(
        Zero(), EnvSpec(lambda: gym.wrappers.TimeLimit(Sometimes(), 20)), 40, max_episode_steps=20
    )
    assert (limited.cut, max(limited.returns)) == (0, 20.0)
    whole = evaluate_policy(Zero(), EnvSpec(lambda: gym.wrappers.TimeLimit(Sometimes(), 20)), 40)
    assert "cut off" not in str(whole)
    assert "at most" not in str(whole.protocol)


def test_an_evaluation_from_before_they_were_counted_is_read() -> None:
    values = evaluate_policy(Zero(), EnvSpec(Sometimes), 2, max_episode_steps=9).to_mapping()
    del values["cut"], values["protocol"]["env_kwargs"]
    assert Evaluation.from_mapping(values).cut == 0


def test_one_that_takes_long_is_said_once() -> None:
    spec = EnvSpec("Blackjack-v1")
    said = [long_evaluation(spec, steps, 3, 100, 100_000) for steps in range(0, 30_000, 5_000)]
    assert [text is not None for text in said] == [False, False, True, False, False, False]
    assert str(said[2]).startswith(
        "the evaluation has taken 10,000 steps, and 3 of 100 episodes have ended: one without"
    )
    assert str(said[2]).endswith("is cut off after 100,000 steps; eval_max_steps sets this limit")
    assert long_evaluation(spec, 10_000, 3, 100, 10_000) is None  # it is over
    assert long_evaluation(EnvSpec("ALE/Pong-v5", 4), 10_000, 3, 100, 100_000) is None  # its protocol wants it


class Heard(Listener):
    def __init__(self) -> None:
        self.notices: list[str] = []
        self.steps: list[tuple[int, int, int]] = []

    def on_notice(self, text: str) -> None:
        self.notices.append(text)

    def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
        self.steps.append((steps, ended, episodes))


def small_agent() -> nexus.DQNAgent:
    return nexus.DQNAgent({"state_dim": 1, "action_dim": 2, "hidden_dim": 4})


def test_a_program_can_follow_its_own_evaluations() -> None:
    heard = Heard()
    score = nexus.evaluate(small_agent(), Sometimes, 5, max_steps=20, listener=heard)
    assert score.protocol.max_episode_steps == 20
    assert [steps for steps, _, _ in heard.steps] == list(range(1, 21))
    assert heard.steps[-1] == (20, 5, 5)
    assert heard.notices == []
    nexus.evaluate(small_agent(), Sometimes, 5, max_steps=10_001, listener=heard)
    assert len(heard.notices) == 1
    assert heard.notices[0].endswith("; max_steps sets this limit")
    with pytest.raises(ConfigError, match="max_steps = 0: needs at least 1"):
        nexus.evaluate(small_agent(), Sometimes, 5, max_steps=0)


def test_impossible_numbers_are_refused() -> None:
    for wrong in ({"eval_max_steps": 0}, {"eval_max_steps": 100_001}, {"eval_episodes": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            TrainConfig.from_mapping(wrong)
    with pytest.raises(ConfigError, match="eval_episodes = 0: needs at least 1 with eval_every = 100 steps"):
        TrainConfig(eval_episodes=0, eval_every="100 steps")  # type: ignore[arg-type]
    assert TrainConfig(eval_episodes=0).eval_envs == 0


def test_the_command_line_shows_how_far_an_evaluation_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    nexus.train("CartPole-v1", run_dir=run, total_steps=1100, eval_every=None, target_return=None, eval_episodes=2)
    words = ["evaluate", str(run), "--episodes", "2", "--max-steps", "5", "--json"]
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    capsys.readouterr()
    assert main(words) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["cut"] == 2
    assert said.err.splitlines()[0] == "evaluating: 0 of 2 episodes, step 1"
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 1e9)
    assert main(words) == 0
    assert capsys.readouterr().err == ""
    assert main(words[:-1]) == 0
    assert "2 of 2 episodes were cut off after 5 steps" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--max-steps", "0"]) == 2


def test_a_terminal_shows_one_line_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(progress, "REFRESH", 0)
    with EvaluationView() as view:
        view.on_evaluation_step(7, 1, 100)
        assert view.status is not None
        assert view.status.status == "evaluating: 1 of 100 episodes, step 7"
    assert capsys.readouterr().out == ""


def test_a_training_that_is_written_to_a_file_says_that_it_evaluates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    view = TrainView()
    view.shown_at = time.perf_counter()
    view.on_evaluation_step(1, 0, 100)
    assert capsys.readouterr().out == ""
    view.shown_at -= progress.SECONDS_BETWEEN_LINES
    view.on_evaluation_step(9_000, 3, 100)
    view.on_evaluation_step(9_001, 3, 100)
    assert capsys.readouterr().out == "evaluating: 3 of 100 episodes, step 9,000\n"
