"""The doctor: each check on numbers written down by hand, each measure on material made by hand, and whole runs."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import nexus
from nexus.cli.main import main
from nexus.core.errors import RunError
from nexus.core.types import Outcome, Transitions
from nexus.data.replay import Replay
from nexus.data.rows import Rows
from nexus.data.uniform import Uniform
from nexus.doctor import examiner
from nexus.doctor.afterwards import chart_of
from nexus.doctor.chart import Chart
from nexus.doctor.diagnosis import ALL_CHECKS, CAUSES_FIRST, diagnosis_of, first_alarms
from nexus.doctor.doctor import Doctor, examined_every
from nexus.doctor.exam import Exam, Networks, Tally
from nexus.doctor.network import dormant, rank
from nexus.doctor.starts import EpisodeStarts
from nexus.doctor.storage import origins, storage_measures
from nexus.doctor.symptom import Symptom, Unjudged
from nexus.doctor.targets import of_ends, target_measures
from nexus.doctor.values import value_measures
from nexus.envs.stream import Step
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.rainbow import ALGORITHMS
from nexus.training.config import TrainConfig
from nexus.training.files import write_json
from nexus.training.loop import Taken
from nexus.training.run_folder import METRICS_FILE
from tests.chaos import Silent, differences, interrupt, interrupted, match_reward
from tests.rollouts import pace_of

SHORT: dict[str, Any] = {
    "total_steps": 3_200,
    "num_envs": 2,
    "learning_starts": 40,
    "hidden_dim": 16,
    "batch_size": 16,
    "update_every": "8 steps",
    "target_update_every": "20 updates",
    "epsilon_steps": 1_000,
    "eval_every": "1500 steps",
    "eval_episodes": 3,
    "checkpoint_every": "800 steps",
    "threads": 1,
}


FLAGS = {"--" + field.name.replace("_", "-") for field in fields(TrainConfig)} | {"--algo", "--preset", "--env-kwargs"}


def chart(progress: Any = 1.0, config: Any = None, **series: Any) -> Chart:
    """A chart with these series, evenly spaced up to a share of the run; names without a slash are the doctor's."""
    made = Chart(TrainConfig.from_mapping({"total_steps": 10_000, **(config or {})}))
    for name, values in series.items():
        full = name.replace("__", "/") if "__" in name else f"doctor/{name}"
        listed = list(values) if isinstance(values, list | tuple) else [values]
        for number, value in enumerate(listed, 1):
            made.add(round(10_000 * progress * number / len(listed)), {full: value})
    return made


def counts(last: int) -> list[float]:
    """A count that grew from 0 to its last value over five examinations."""
    return [last * part / 5 for part in range(6)]


EPSILON, LENGTH, UPDATES = "rollout__exploration_rate", "rollout__ep_len_mean", "train__n_updates"
RETURNS: dict[str, Any] = {"random_return": 20.0, "random_error": 1.0, "recent_error": 1.0}

# Name of the check, its chart, and the severity expected: "fine" and "unjudged" are the other two verdicts.
FIXED = {
    "terminal_rows": [0.04] * 5,
    "terminated": counts(400),
    "truncated": counts(0),
    "tallied_steps": counts(10_000),
}
ATOMS = {"algorithm": "c51", "v_min": -10.0, "v_max": 10.0}
CASES: list[tuple[str, Chart, str]] = [
    ("batch", chart(altered_rows=[0.5, 0.3, 0.25]), "critical"),
    ("batch", chart(altered_rows=[0.5, 0.1, 0.5]), "fine"),
    ("batch", chart(altered_rows=[0.5, 0.5]), "unjudged"),
    ("transitions", chart(unchanged=[0.96] * 3), "critical"),
    ("transitions", chart(unchanged=[1.0] * 3, distinct_states=[0.002] * 3), "note"),  # a bandit
    ("transitions", chart(unchanged=[0.9] * 3), "fine"),  # walls
    ("transitions", chart(unchanged=[0.0] * 3, chained=[0.4, 0.1, 0.2]), "critical"),
    ("transitions", chart(unchanged=[0.0] * 3, chained=[0.4, 0.6, 0.2]), "fine"),
    # Half of the steps lead to the end of a truncated episode, so a quarter is enough.
    ("transitions", chart(unchanged=[0.0] * 3, chained=[0.4] * 3, truncated=500, tallied_steps=1_000), "fine"),
    ("transitions", chart(unchanged=[0.0] * 3, chained=[0.2] * 3, truncated=500, tallied_steps=1_000), "critical"),
    ("target", chart(target_error=[0.01, 0.02, 0.006]), "critical"),
    ("target", chart(target_error=[0.01, 0.004, 0.01]), "fine"),
    ("target", chart(config={"noisy": True}, target_error=[0.04] * 3), "fine"),
    ("target", chart(config={"noisy": True}, target_error=[0.06] * 3), "critical"),
    ("target", chart(config={"algorithm": "iqn"}, target_error=[0.2] * 3), "fine"),
    ("target", chart(config={"algorithm": "iqn"}, target_error=[0.3] * 3), "critical"),
    ("target", chart(target_error=[0.0] * 3, end_error=[0.9, 0.006, 0.9]), "critical"),
    ("target", chart(target_error=[0.0] * 3, end_error=[0.9, 0.0, 0.9]), "fine"),
    ("target", chart(target_error=[0.0] * 3, end_error=[0.9, 0.9]), "fine"),
    (
        "terminals",
        chart(terminal_rows=[0.0] * 5, terminated=counts(500), truncated=counts(0), tallied_steps=counts(10_000)),
        "critical",
    ),
    (
        "terminals",
        chart(terminal_rows=[0.05] * 5, terminated=counts(500), truncated=counts(0), tallied_steps=counts(10_000)),
        "fine",
    ),
    (
        "terminals",
        chart(terminal_rows=[0.04] * 5, terminated=counts(0), truncated=counts(400), tallied_steps=counts(10_000)),
        "warning",
    ),
    (
        "terminals",
        chart(terminal_rows=[0.0] * 5, terminated=counts(0), truncated=counts(400), tallied_steps=counts(10_000)),
        "fine",
    ),
    (
        "terminals",
        chart(terminal_rows=[0.0] * 5, terminated=counts(9), truncated=counts(9), tallied_steps=counts(10_000)),
        "unjudged",
    ),
    (
        "terminals",  # episodes ended early on, which a small replay no longer holds
        chart(terminal_rows=[0.0] * 6, terminated=[100] * 6, truncated=counts(30), tallied_steps=counts(9_000)),
        "unjudged",
    ),
    (
        "terminals",  # a thousand ends without a terminal row early on; nothing has ended since
        chart(
            terminal_rows=[0.0] * 12,
            terminated=[0, 200, 400, 600, 800, *[1_000] * 7],
            truncated=[0] * 12,
            tallied_steps=[900.0 * count for count in range(12)],
        ),
        "critical",
    ),
    (
        "terminals",  # 1.1 % of the latest steps end an episode, but so far hardly any row of the replay is terminal
        chart(
            terminal_rows=[0.0] * 6,
            terminated=[0, 0, 0, 0, 0, 0, 20],
            truncated=[0] * 7,
            tallied_steps=[0, 8_200, 8_400, 8_600, 8_800, 9_000, 10_000],
        ),
        "fine",
    ),
    (
        "terminals",  # in 5 · 64 rows 6.4 ends are expected, in 5 · 256 rows 26
        chart(
            config={"replay_capacity": 64},
            terminal_rows=[0.0] * 5,
            terminated=counts(200),
            truncated=counts(0),
            tallied_steps=counts(10_000),
        ),
        "fine",
    ),
    ("terminals", chart(**FIXED, common_length=[25.0] * 3, ends_told=[0.0] * 3), "warning"),
    (
        "terminals",  # many episodes ended by themselves once; now each reaches the limit
        chart(
            terminal_rows=[0.05] * 12,
            terminated=[0, 200, 400, 600, 800, *[1_000] * 7],
            truncated=[0] * 11 + [20],
            tallied_steps=[900.0 * count for count in range(12)],
            common_length=[500.0] * 3,
            ends_told=[0.0] * 3,
        ),
        "fine",
    ),
    ("terminals", chart(**FIXED, common_length=[25.0] * 3, ends_told=[0.0, 1.0, 0.0]), "fine"),  # a clock in the state
    ("terminals", chart(**FIXED, common_length=[25.0, 0.0, 25.0], ends_told=[0.0] * 3), "fine"),
    ("terminals", chart(**FIXED, common_length=[9.0] * 3, ends_told=[0.0] * 3), "fine"),
    ("target-network", chart(0.3, target_moved=[0.0] * 4, zero_values=1.0, **{UPDATES: 600}), "unjudged"),
    ("target-network", chart(0.3, target_moved=[0.0] * 4, **{UPDATES: 600}), "critical"),
    ("target-network", chart(0.3, target_moved=[0.0, 0.0, 1.0, 0.0], **{UPDATES: 600}), "fine"),
    ("target-network", chart(0.1, target_moved=[0.0] * 4, **{UPDATES: 600}), "fine"),  # too early to tell
    ("target-network", chart(config={"algorithm": "pqn", "trace_lambda": 0.6}), "unjudged"),
    ("target-period", chart(config={"target_update_every": "4000 steps"}), "warning"),  # 2.5 times
    ("target-period", chart(config={"target_update_every": "2000 steps"}), "note"),  # 5 times
    ("target-period", chart(config={"target_update_every": "1000 steps"}), "fine"),
    ("target-period", chart(config={"target_update_every": "1 updates", "tau": 0.001}), "warning"),  # 2250 · 0.001
    ("target-period", chart(config={"target_update_every": "1 updates"}), "warning"),  # no target network at all
    ("target-period", chart(config={"target_update_every": "1 updates", "layer_norm": True}), "fine"),
    ("target-period", chart(config={"target_update_every": "4 steps"}), "warning"),
    (
        "target-period",  # 128 updates at once from one target network, as in RL Zoo's CartPole
        chart(config={"target_update_every": "10 steps", "update_every": "256 steps", "gradient_steps": 128}),
        "fine",
    ),
    ("target-period", chart(config={"target_update_every": "10 episodes"}), "unjudged"),
    ("acting", chart(acted_greedily=[0.5, 0.3] * 3, **{EPSILON: 0.1}), "critical"),  # 0.4, and half of 0.9 is 0.45
    ("acting", chart(acted_greedily=[0.7, 0.3] * 3, **{EPSILON: [0.1] * 6}), "fine"),
    ("acting", chart(acted_greedily=[0.5, 0.32] * 3, **{EPSILON: [0.1, 0.1, 0.1, 0.3, 0.3, 0.3]}), "fine"),  # 0.41
    ("acting", chart(acted_greedily=[0.1] * 6, **{EPSILON: [0.6] + [0.1] * 5}), "unjudged"),
    ("acting", chart(acted_greedily=[0.1] * 5, **{EPSILON: 0.1}), "unjudged"),
    ("learning-rate", chart(config={"learning_rate": 0.02}), "warning"),
    ("learning-rate", chart(config={"learning_rate": 1e-6}), "warning"),
    ("learning-rate", chart(config={"learning_rate": 0.004}), "fine"),
    ("exploration", chart(**{EPSILON: [0.0, 0.0]}), "warning"),
    ("exploration", chart(**{EPSILON: [0.1, 0.3, 0.5, 0.7, 0.9]}), "warning"),
    ("exploration", chart(0.8, **{EPSILON: [1.0, 0.6, 0.4]}), "warning"),
    ("exploration", chart(0.5, **{EPSILON: [1.0, 0.6, 0.4]}), "fine"),
    ("exploration", chart(**{EPSILON: [1.0, 0.5, 0.01]}), "fine"),
    ("exploration", chart(config={"algorithm": "noisy", "noisy": True, "epsilon": 0, "epsilon_min": 0}), "unjudged"),
    ("exploration-plan", chart(config={"epsilon_steps": 40_000}), "note"),
    ("exploration-plan", chart(config={"epsilon_min": 0.4, "epsilon_steps": 5_000}), "warning"),
    ("exploration-plan", chart(config={"epsilon_steps": 5_000}), "fine"),
    ("learning-start", chart(config={"learning_starts": 5_000}), "warning"),
    ("learning-start", chart(config={"learning_starts": 3_000}), "note"),
    ("learning-start", chart(config={"learning_starts": 1_000}), "fine"),
    ("horizon", chart(config={"gamma": 0.3}, **{LENGTH: 50.0}), "warning"),  # 1.4 steps ahead
    ("horizon", chart(config={"gamma": 0.85}, **{LENGTH: 50.0}), "note"),  # 6.7 steps
    ("horizon", chart(config={"gamma": 0.3}, **{LENGTH: 2.0}), "fine"),  # a game of two moves
    ("horizon", chart(config={"gamma": 0.99}, **{LENGTH: 900.0}), "fine"),
    ("horizon", chart(config={"gamma": 0.3}), "unjudged"),
    ("replay-batches", chart(config={"replay_capacity": 320, "batch_size": 64}), "warning"),
    ("replay-batches", chart(config={"replay_capacity": 640, "batch_size": 64}), "fine"),
    ("replay-size", chart(config={"replay_capacity": 800}, **{LENGTH: [100.0] * 3}), "note"),
    ("replay-size", chart(config={"replay_capacity": 800}, **{LENGTH: [400.0] * 3}), "warning"),
    ("replay-size", chart(config={"replay_capacity": 800}, **{LENGTH: [10.0] * 3}), "fine"),
    ("replay-size", chart(config={"replay_capacity": 20_000}, **{LENGTH: [5_000.0] * 3}), "fine"),  # holds the run
    ("batch-episodes", chart(0.5, batch_episodes=[7.0] * 3, batch_age=50.0, **{LENGTH: [100.0] * 3}), "note"),
    ("batch-episodes", chart(0.5, batch_episodes=[2.0] * 3, batch_age=50.0, **{LENGTH: [100.0] * 3}), "warning"),
    ("batch-episodes", chart(0.5, batch_episodes=[2.0, 9.0, 2.0], batch_age=50.0), "fine"),
    ("batch-episodes", chart(0.5, {"batch_size": 4}, batch_episodes=[2.0] * 3, batch_age=50.0), "unjudged"),
    ("observations", chart(observation_spread=[400.0] * 3, observation_max=[900.0] * 3), "warning"),
    ("observations", chart(observation_spread=[1e-4] * 3, observation_max=[1e-3] * 3), "warning"),
    ("observations", chart(observation_spread=[0.0] * 3, observation_max=[1.0] * 3), "unjudged"),  # a bandit
    ("observations", chart(observation_spread=[3.0] * 3, observation_max=[28.0] * 3), "fine"),  # Acrobot
    ("reward-scale", chart(target_abs_p99=[9e4] * 3, reward_abs_max=1e3), "warning"),
    ("reward-scale", chart(target_abs_p99=[0.1] * 3, reward_abs_max=0.005), "warning"),
    ("reward-scale", chart(target_abs_p99=[300.0] * 3, reward_abs_max=100.0), "fine"),
    ("reward-scale", chart(target_abs_p99=[0.1] * 3, reward_abs_max=1.0), "fine"),  # far from a goal that pays 1
    ("range", chart(edge_mass=[0.7] * 3), "warning"),
    ("range", chart(edge_mass=[0.4] * 3), "note"),
    ("range", chart(config=ATOMS, edge_mass=0.1, realised_start=[24.0, 9.0, 30.0]), "warning"),
    ("range", chart(config=ATOMS, edge_mass=[0.1] * 3, realised_start=[-24.0, 9.0, 30.0]), "fine"),
    ("range", chart(config={**ATOMS, "normalize_rewards": True}, edge_mass=[0.1] * 3, realised_start=24.0), "fine"),
    ("range", chart(config=ATOMS, edge_mass=[0.1] * 2, realised_start=[9.0]), "unjudged"),
    ("range", chart(edge_mass=[0.2] * 3), "fine"),
    ("noise", chart(0.4, {"noisy": True, "epsilon": 0.0, "epsilon_min": 0.0}, noise=[0.5, 0.04]), "warning"),
    ("noise", chart(0.4, {"noisy": True, "epsilon": 0.0, "epsilon_min": 0.0}, noise=[0.5, 0.2]), "fine"),
    ("noise", chart(0.4, {"noisy": True, "epsilon": 0.0, "epsilon_min": 0.0}, noise=[0.0, 0.0]), "warning"),
    ("noise", chart(1.0, {"noisy": True, "epsilon": 0.0, "epsilon_min": 0.0}, noise=[0.5, 0.4, 0.4, 0.01]), "fine"),
    ("priorities", chart(config={"prioritized": True}, most_drawn=[0.5] * 3, weights_used=[0.9] * 3), "warning"),
    ("priorities", chart(config={"prioritized": True}, most_drawn=[0.03] * 3, weights_used=[0.05] * 3), "warning"),
    ("priorities", chart(config={"prioritized": True}, most_drawn=[0.03] * 3, weights_used=[0.9] * 3), "fine"),
    ("signal", chart(0.3, reward_range=[0.0] * 3, terminated=0), "note"),
    ("signal", chart(0.6, reward_range=[0.0] * 3, terminated=0), "warning"),
    ("signal", chart(0.6, reward_range=[0.0] * 3, terminated=1), "fine"),
    ("signal", chart(0.6, reward_range=[0.0, 1.0, 0.0], terminated=0), "fine"),
    ("dead-units", chart(dormant_units=[0.995, 1.0, 1.0]), "critical"),
    ("dead-units", chart(dormant_units=[0.96, 1.0, 1.0]), "fine"),  # RL Zoo MountainCar
    ("output", chart(0.3, target_bias=[0.0] * 3, zero_values=[0.2] * 3), "critical"),
    ("output", chart(0.3, target_bias=[0.8, 0.7, 0.9], zero_values=[0.0] * 3), "critical"),
    ("output", chart(0.3, target_bias=[-0.8, -0.7, -0.9], zero_values=[0.0] * 3), "critical"),
    ("output", chart(0.3, target_bias=[0.8, 0.1, 0.9], zero_values=[0.0] * 3), "fine"),
    ("standstill", chart(0.5, weight_change=[0.001] * 10, **{UPDATES: 900}), "warning"),
    ("standstill", chart(0.5, weight_change=[0.01] * 10, **{UPDATES: 900}), "fine"),
    ("leaps", chart(0.5, weight_change=[0.9] * 4), "warning"),
    ("leaps", chart(0.5, weight_change=[0.5] * 4), "fine"),
    # R = 1 and γ = 0.99 allow 100.
    ("divergence", chart(q_abs_max=[600.0, 700.0], reward_abs_max=[1.0, 0.5]), "critical"),
    ("divergence", chart(q_abs_max=[160.0, 170.0], reward_abs_max=[1.0, 0.5]), "warning"),
    ("divergence", chart(q_abs_max=[600.0, 90.0], reward_abs_max=[1.0, 0.5]), "fine"),
    ("divergence", chart(q_abs_max=[600.0, 700.0]), "unjudged"),
    # Three rewards of 1 in one row: R = 2.97, and 2.97 / (1 - 0.99³) is 100 again.
    ("divergence", chart(config={"n_step": 3}, q_abs_max=[160.0] * 2, reward_abs_max=[2.9701]), "warning"),
    ("divergence", chart(config={"n_step": 3}, q_abs_max=[140.0] * 2, reward_abs_max=[2.9701]), "fine"),
    ("fit", chart(0.5, explained_variance=[-0.2, -0.5, 0.6, -0.01, 0.8], target_std=[1.0] * 3), "warning"),
    ("fit", chart(0.5, explained_variance=[-0.2, -0.5, 0.6, 0.01, 0.8], target_std=[1.0] * 3), "fine"),
    ("fit", chart(0.3, explained_variance=[-0.2] * 5, target_std=[1.0] * 3), "unjudged"),
    ("overestimation", chart(predicted_start=[90.0] * 5, realised_start=[20.0] * 5), "warning"),
    ("overestimation", chart(predicted_start=[50.0] * 5, realised_start=[20.0] * 5), "note"),
    ("overestimation", chart(predicted_start=[50.0] * 5, realised_start=[20.0] * 5, **{EPSILON: 0.3}), "unjudged"),
    ("overestimation", chart(predicted_start=[30.0] * 5, realised_start=[20.0] * 5), "fine"),
    ("action-gap", chart(0.8, action_gap=[0.001] * 3, value_error=[0.1] * 3), "warning"),
    ("action-gap", chart(0.8, action_gap=[0.01] * 3, value_error=[0.1] * 3), "fine"),
    ("one-action", chart(0.5, action_share=[0.99] * 3, greedy_share=[1.0] * 3), "note"),
    ("one-action", chart(0.5, action_share=[0.9] * 3, greedy_share=[1.0] * 3), "fine"),
    ("episode-limit", chart(0.3, terminated=0, truncated=0), "note"),
    ("episode-limit", chart(0.3, terminated=0, truncated=1), "fine"),
    ("episode-limit", chart(0.1, terminated=0, truncated=0), "unjudged"),
    ("learning-rate", chart(0.5, train__learning_rate=[0.001, 0.0001, 0.00004]), "warning"),
    ("learning-rate", chart(0.5, train__learning_rate=[0.001, 0.0001, 0.00006]), "fine"),
    ("learning-rate", chart(0.9, train__learning_rate=[0.001, 0.0001, 0.00004]), "fine"),
    ("forgetting", chart(recent_return=[20, 100, 200, 200, 200, 100, 90, 80], **RETURNS), "warning"),
    ("forgetting", chart(recent_return=[20, 100, 200, 200, 200, 100, 90, 150], **RETURNS), "fine"),
    ("forgetting", chart(recent_return=[20, 100, 200, 200, 200, 150, 90, 80], **RETURNS), "fine"),  # twice
    ("evaluation-gap", chart(eval__mean_reward=[30.0, 40.0, 20.0], recent_return=200.0, **RETURNS), "warning"),
    ("evaluation-gap", chart(eval__mean_reward=[30.0, 40.0], recent_return=200.0, **RETURNS), "unjudged"),
    ("evaluation-gap", chart(eval__mean_reward=[30.0, 150.0, 20.0], recent_return=200.0, **RETURNS), "fine"),
    ("worse-than-random", chart(0.6, recent_return=[9.0, 9.5, 9.4], **RETURNS), "warning"),
    ("worse-than-random", chart(0.6, recent_return=[20.0, 21.0, 22.0], **RETURNS), "fine"),  # may still come
    ("worse-than-random", chart(0.8, recent_return=[20.0, 21.0, 22.0], **RETURNS), "warning"),
    ("worse-than-random", chart(0.8, recent_return=[20.0, 21.0, 40.0], **RETURNS), "fine"),
    ("worse-than-random", chart(0.3, recent_return=[9.0, 9.5, 9.4], **RETURNS), "unjudged"),
    ("gradient-clipping", chart(0.5, gradient_clipped=[1.0] * 10), "note"),
    ("gradient-clipping", chart(0.5, gradient_clipped=[1.0, 0.0] * 5), "fine"),
    ("reuse", chart(config={"update_every": "1 steps", "gradient_steps": 9}), "note"),  # 576 times
    ("reuse", chart(config={"update_every": "256 steps", "batch_size": 64}), "note"),  # a quarter of the steps
    ("reuse", chart(), "fine"),
]


@pytest.mark.parametrize(("name", "made", "expected"), CASES, ids=[f"{name}-{end}" for name, _, end in CASES])
def test_each_check_by_hand(name: str, made: Chart, expected: str) -> None:
    verdict = ALL_CHECKS[name].judge(made)
    got = "fine" if verdict is None else "unjudged" if isinstance(verdict, Unjudged) else verdict.severity
    assert got == expected, verdict
    if isinstance(verdict, Symptom):
        assert verdict.evidence, "a symptom shows its numbers"
        assert all(np.isfinite(list(verdict.evidence.values())))
        assert all(flag in FLAGS for flag in re.findall(r"--[a-z-]+", verdict.cure or ALL_CHECKS[name].cure))
        assert verdict.threshold


def test_every_check_has_a_symptom_and_a_sound_case_and_a_place_among_the_causes() -> None:
    alarmed = {name for name, _, end in CASES if end not in ("fine", "unjudged")}
    fine = {name for name, _, end in CASES if end == "fine"}
    assert alarmed == fine == set(ALL_CHECKS) == set(CAUSES_FIRST)
    assert len(CAUSES_FIRST) == len(ALL_CHECKS)


def test_the_first_alarm_is_the_cause_of_the_others() -> None:
    made = chart(
        0.8,
        {"target_update_every": "100 updates", "epsilon_steps": 5_000},
        target_error=[0.1] * 3,
        explained_variance=[-1.0] * 5,
        target_std=[1.0] * 3,
        recent_return=[9.0, 9.5, 9.4],
        gradient_clipped=[1.0] * 10,
        **RETURNS,
    )
    found = diagnosis_of(made)
    assert [symptom.check for symptom in found.symptoms] == ["target", "fit", "worse-than-random", "gradient-clipping"]
    assert found.root is not None
    assert found.root.check == "target"
    assert [symptom.check for symptom in found.alarms] == ["target", "fit", "worse-than-random"]
    assert found.to_mapping()["root"] == "target"
    assert set(found.fine) | set(found.unjudged) | {symptom.check for symptom in found.symptoms} == set(CAUSES_FIRST)


def test_a_chart_leaves_out_what_is_not_finite_and_survives_json() -> None:
    made = chart(x=[1.0, float("nan"), 3.0])
    assert made.series("doctor/x").tolist() == [1.0, 3.0]
    assert made.last("doctor/x") == 3.0
    assert np.isnan(made.last("doctor/y"))
    other = Chart(made.config)
    other.restore(json.loads(json.dumps(made.to_mapping())))
    assert other.to_mapping() == made.to_mapping()
    assert other.step == 10_000
    assert other.steps("doctor/x").tolist() == [3_333, 10_000]


def test_a_chart_as_it_was_at_a_step() -> None:
    made = Chart(TrainConfig.from_mapping({"total_steps": 10_000}))
    for step, value in ((1_000, 1.0), (2_000, 2.0), (3_000, 3.0)):
        made.add(step, {"x": value})
    made.add(3_000, {"y": 4.0})
    before = made.until(2_500)
    assert (before.series("x").tolist(), before.holds("y"), before.step, before.progress) == (
        [1.0, 2.0],
        False,
        2_000,
        0.2,
    )
    assert made.until(3_000).to_mapping() == made.to_mapping()
    assert made.until(0).step == 0


def test_an_alarm_that_is_over_is_told_with_its_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three wrong targets in a row at 600, 800 and 1,000, none of the last three."""
    run = tmp_path / "run"
    nexus.train(match_reward, config=TrainConfig.from_mapping(SHORT), run_dir=run, listener=Silent())
    lines = [
        {"step": step, "doctor/q_abs_max": 1.0, "doctor/target_error": 0.5 if 400 < step <= 1_000 else 0.0}
        for step in range(200, 2_000, 200)
    ]
    (run / METRICS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = nexus.diagnose(run)
    assert found.past["target"] == 1_000
    assert "target" in found.fine
    assert found.to_mapping()["past"]["target"] == 1_000
    main(["doctor", str(run)])
    assert "earlier alarms, over now: " in (out := capsys.readouterr().out)
    assert "target (step 1,000)" in out


def test_a_run_is_examined_thirty_times() -> None:
    counts = [examined_every(total).count for total in (500, 30_000, 150_000, 50_000_000)]
    assert counts == [1_000, 1_000, 5_000, 100_000]


# Measures.


def a_step(states: Any, rewards: Any, begins: Any, terminated: Any = (0, 0), truncated: Any = (0, 0)) -> Step:
    now = np.array(states, np.float32)[:, None]
    terminated, truncated, valid, begins = (np.array(x, bool) for x in (terminated, truncated, (1, 1), begins))
    return Step(now, np.array([1, 0]), np.array(rewards, float), now, terminated, truncated, valid, begins)


def test_discounted_returns_of_first_states() -> None:
    """γ = 0.5; the first episode earns 1 + 0.5 · 2 + 0.25 · 4 = 3; one cut off after a step leaves half of a value."""
    starts, clipped = EpisodeStarts(0.5), EpisodeStarts(0.5, clip=2.0)
    rows = [
        a_step([10, 20], [1, 9], [1, 1]),
        a_step([11, 21], [2, 9], [0, 0]),
        a_step([12, 22], [4, 9], [0, 0], (1, 0)),
        a_step([13, 30], [0, 9], [0, 1]),  # it only resets: no reward, and no beginning yet
        a_step([40, 31], [6, 9], [1, 0], (1, 1)),
        a_step([50, 32], [9, 9], [1, 0], (0, 1), (1, 0)),
        a_step([60, 33], [-8, 9], [1, 0]),
    ]
    for row in rows:
        starts.follow(row)
        clipped.follow(row)
    assert list(starts.returns) == [3.0, 6.0, 9.0]
    assert list(clipped.returns) == [2.5, 2.0, 2.0]
    assert [float(state[0]) for state in starts.states] == [10.0, 40.0, 50.0]
    assert [float(state[0]) for state in starts.lasts] == [12.0, 40.0, 50.0]
    assert list(starts.rests) == [0.0, 0.0, 0.5]
    assert list(starts.actions) == [1, 1, 1]
    again = EpisodeStarts(0.5)
    again.set_state(starts.get_state())
    for each in (starts, again):
        each.follow(a_step([61, 60], [2, 9], [0, 1], (1, 0)))
    assert list(again.returns) == list(starts.returns) == [3.0, 6.0, 9.0, -7.0]
    assert [float(state[0]) for state in again.states] == [10.0, 40.0, 50.0, 60.0]
    assert list(again.rests) == list(starts.rests) == [0.0, 0.0, 0.5, 0.0]
    assert np.array_equal(np.stack(again.lasts), np.stack(starts.lasts))


def test_a_truncated_episode_under_masks_is_left_out() -> None:
    starts, masks = EpisodeStarts(0.5), np.ones((2, 3), bool)
    starts.follow(replace(a_step([10, 20], [1, 9], [1, 1], (0, 0), (1, 0)), next_action_masks=masks))
    starts.follow(replace(a_step([30, 20], [2, 9], [1, 0], (1, 0)), next_action_masks=masks))
    assert list(starts.returns) == [2.0]


def test_a_first_state_without_axes_is_an_array() -> None:
    row = a_step([10, 20], [1, 9], [1, 1])
    bare = Step(**{**{name: getattr(row, name) for name in Step.__slots__}, "states": row.states[:, 0]})
    starts = EpisodeStarts(0.5)
    starts.follow(bare)
    assert isinstance(starts.get_state()["first"], np.ndarray)


def test_dormant_units_and_rank() -> None:
    """The mean activations are 1, 0.01, 0: the layer's mean is 0.337, and 2.5 % of that 0.0084."""
    activations = torch.tensor([[1.0, 0.02, 0.0], [1.0, 0.0, 0.0]])
    assert dormant(activations) == pytest.approx(1 / 3)
    assert dormant(torch.tensor([[1.0, 0.01, 0.0], [1.0, 0.0, 0.0]])) == pytest.approx(2 / 3)
    assert dormant(torch.zeros(2, 3)) == 1.0
    assert dormant(torch.ones(2, 3, 4, 4)) == 0.0
    assert rank(torch.outer(torch.arange(1.0, 9.0), torch.ones(5))) == 1
    assert rank(torch.eye(8)) == 8


def an_exam(**changed: Any) -> Exam:
    """Twelve transitions along a line, by one environment: 0 → 1 → ... → 12, of which the last ends."""
    config = TrainConfig.from_mapping({"num_envs": 1, "gamma": 0.9, "total_steps": 2_000, "learning_starts": 1})
    agent = DQNAgent({"state_dim": 1, "action_dim": 2, "hidden_dim": 8, "gamma": 0.9})
    places = np.arange(40, dtype=np.float32)[:, None]
    ends = np.zeros(40, bool)
    ends[-1] = True
    rows = Transitions(
        states=places,
        actions=np.zeros(40, np.int64),
        rewards=np.ones(40, np.float32),
        next_states=changed.pop("next_states", places + 1),
        discounts=(0.9 * ~ends).astype(np.float32),
    )
    replay = Replay(Rows(40), Uniform(np.random.default_rng(0), torch.device("cpu")))
    replay.add(rows)
    held = agent.learner.prepared(replay.gather(torch.arange(40), torch.ones(40)))
    batch = {**replay.gather(torch.arange(8), torch.ones(8)), **changed.pop("batch", {})}
    with torch.no_grad():
        values = agent.target_network(batch["next_states"]).amax(1)
        used = batch["rewards"] + batch["discounts"] * values
    metrics = {"target_mean": changed.pop("used", used), "grad_norm": torch.tensor(1.0)}
    with torch.no_grad():
        agent.learner.theta.mul_(1.5)  # the target network has not followed
    networks = Networks(agent.learner)
    networks.follow()
    taken = Taken(batch, Outcome(torch.tensor(0.0), torch.zeros(8), metrics))
    return Exam(
        config,
        agent.learner,
        networks,
        held["states"],
        held,
        held,
        replay,
        taken,
        Tally(3, 4),
        changed.pop("before", {}),
    )


def test_sound_transitions_and_targets_measure_as_sound() -> None:
    exam = an_exam()
    with torch.no_grad():
        stored, target = storage_measures(exam), target_measures(exam)
    assert stored["unchanged"] == 0.0
    assert stored["chained"] == 1.0
    assert stored["altered_rows"] == 0.0
    assert stored["most_drawn"] == 1 / 8
    assert stored["weights_used"] == pytest.approx(1.0)
    assert target["target_error"] == pytest.approx(0.0, abs=1e-6)
    assert target["terminal_rows"] == pytest.approx(1 / 40)
    assert (target["terminated"], target["truncated"]) == (3, 4)
    assert target["target_lag"] > 0


def test_a_batch_is_from_episodes() -> None:
    """Twenty steps by two environments in turn, places 0 to 39, half of which a later round has overwritten.

    Places 18, 19 are the newest rows, one of each environment; 20 the oldest. With episodes of five steps rows 10, 12,
    14, 16 and 18 are one episode of the first, and 8 is of the one before.
    """
    replay: Any = SimpleNamespace(added=60, capacity=40)
    assert origins(replay, np.array([18, 16, 10]), 2, [5, 5]) == {"batch_age": (1 + 3 + 9) / 3, "batch_episodes": 1}
    assert origins(replay, np.array([18, 8]), 2, [5, 5])["batch_episodes"] == 2
    assert origins(replay, np.array([18, 19]), 2, [5, 5])["batch_episodes"] == 2
    assert origins(replay, np.array([20]), 2, []) == {"batch_age": 39}


@pytest.mark.parametrize(
    ("lengths", "clock", "expected"),
    [
        ([30] * 20, False, {"common_length": 30.0, "ends_told": 0.0}),
        ([30] * 20, True, {"common_length": 30.0, "ends_told": 1.0}),
        ([30] * 19 + [31], False, {"common_length": 0.0}),
        ([9] * 20, False, {"common_length": 9.0}),
        ([30] * 19, False, {}),
    ],
)
def test_episodes_of_one_length_and_whether_states_tell_of_their_end(
    lengths: list[int], clock: bool, expected: Mapping[str, float]
) -> None:
    """Every fifth row ends an episode, at any place; a clock is 1 there and below 1 elsewhere."""
    ends = torch.arange(60) % 5 == 4
    places = torch.from_numpy(np.random.default_rng(0).random((60, 1)))
    times = torch.where(ends, 1.0, 0.9 * places[:, 0])[:, None] if clock else torch.zeros(60, 1)
    rows = {"next_states": torch.cat([places, times], 1), "discounts": 0.9 * (~ends).float()}
    exam: Any = SimpleNamespace(
        tally=SimpleNamespace(lengths=lengths), rows=rows, newest=rows, probes=torch.zeros(4, 2)
    )
    assert of_ends(exam) == expected


def test_shuffled_repeated_and_altered_transitions_are_measured() -> None:
    places = np.arange(40, dtype=np.float32)[:, None]
    with torch.no_grad():
        assert storage_measures(an_exam(next_states=places))["unchanged"] == 1.0
        assert storage_measures(an_exam(next_states=places + 0.5))["chained"] == 0.0
        rewards = torch.tensor([1.0, 1, 1, 1, 1, 1, 5, 5])
        assert storage_measures(an_exam(batch={"rewards": rewards}))["altered_rows"] == 2 / 8


@pytest.mark.parametrize("wrong", [lambda y: -y, lambda y: y * 1.01 + 0.01], ids=["sign", "a hundredth"])
def test_wrong_targets_are_measured(wrong: Callable[[Any], Any]) -> None:
    exam = an_exam()
    assert exam.taken is not None
    used = wrong(exam.taken.outcome.metrics["target_mean"])
    with torch.no_grad():
        assert target_measures(an_exam(used=used))["target_error"] > 0.005


def test_values_are_measured() -> None:
    exam = an_exam(before={"greedy": np.zeros(40, np.int64)})
    with torch.no_grad():
        values = value_measures(exam)
    q = exam.q
    assert values["q_abs_max"] == np.abs(q).max()
    assert values["action_gap"] == pytest.approx(np.abs(q[:, 0] - q[:, 1]).mean(), rel=1e-5)
    assert values["churn"] == (q.argmax(1) != 0).mean()
    assert (values["reward_abs_max"], values["reward_range"]) == (1.0, 0.0)


# Whole runs.


def settings_of(algorithm: str) -> dict[str, Any]:
    return {**SHORT, "atoms": 11, **ALGORITHMS[algorithm].settings, **pace_of(algorithm), "algorithm": algorithm}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_examined_and_learns_the_same_bits_without(algorithm: str, tmp_path: Path) -> None:
    runs = {}
    for doctor in ("on", "off"):
        told = Silent()
        config = TrainConfig.from_mapping({**settings_of(algorithm), "doctor": doctor, "eval_every": None})
        runs[doctor] = nexus.train(match_reward, config=config, run_dir=tmp_path / doctor, listener=told)
        assert not [text for text in told.notices if "can't examine" in text]
    weights = [(result.run_dir / "agent.safetensors").read_bytes() for result in runs.values()]
    assert weights[0] == weights[1]
    lines = [json.loads(line) for line in (tmp_path / "on" / METRICS_FILE).read_text().splitlines()]
    examined = [line for line in lines if "doctor/alarms" in line]
    assert [line["step"] // 1_000 for line in examined] == [1, 2, 3]
    assert {"doctor/q_abs_max", "doctor/action_gap", "doctor/recent_return"} <= set(examined[-1])
    assert not any("doctor/" in line for line in (tmp_path / "off" / METRICS_FILE).read_text().splitlines())
    assert not (tmp_path / "off" / "findings.json").exists()
    assert nexus.diagnose(runs["on"]).step >= 3_000


@pytest.mark.parametrize("algorithm", ["dqn", "rainbow", "pqn"])
def test_a_resumed_run_is_examined_as_if_it_never_stopped(algorithm: str, tmp_path: Path) -> None:
    config = TrainConfig.from_mapping(settings_of(algorithm))
    whole = nexus.train(match_reward, config=config, run_dir=tmp_path / "whole", listener=Silent())
    stop = Silent(2_100, interrupt)
    broken = tmp_path / "broken"
    interrupted(lambda: nexus.train(match_reward, config=config, run_dir=broken, listener=stop))
    nexus.resume(broken, env=match_reward, listener=Silent())
    assert differences(whole.run_dir, broken) == []
    ours, theirs = (json.loads((run / "findings.json").read_text()) for run in (whole.run_dir, broken))
    assert ours == theirs
    measured = [
        [line for line in (run / METRICS_FILE).read_text().splitlines() if "doctor/" in line]
        for run in (whole.run_dir, broken)
    ]
    assert measured[0] == measured[1]
    assert len(measured[0]) == 3


def test_a_doctor_of_an_older_version_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state in the checkpoint lacks what this version saves."""
    run, stop = tmp_path / "run", Silent(2_100, interrupt)
    config = TrainConfig.from_mapping(SHORT)
    with monkeypatch.context() as patched:
        patched.setattr(Doctor, "get_state", lambda self: {"chart": {}, "said": {}})
        interrupted(lambda: nexus.train(match_reward, config=config, run_dir=run, listener=stop))
    told = Silent()
    nexus.resume(run, env=match_reward, listener=told)
    said = [text for text in told.notices if "the doctor" in text]
    assert said == ["the doctor can't continue what an older version saved, and begins with this step"]
    assert json.loads((run / "findings.json").read_text())["step"] > 2_100


def test_a_fault_of_the_doctor_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(exam: Exam) -> Mapping[str, float]:
        raise ValueError("no such number")

    monkeypatch.setattr(examiner, "MEASURES", (broken,))
    told = Silent()
    result = nexus.train(match_reward, config=TrainConfig.from_mapping(SHORT), run_dir=tmp_path / "run", listener=told)
    assert result.counters.steps >= 3_200
    said = [text for text in told.notices if "the doctor" in text]
    assert said == ["the doctor can't examine this run and stops: no such number; --doctor off hides this"]


def test_a_full_disk_at_the_end_is_told_and_the_listener_still_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, values: Any) -> None:
        raise RunError("can't write findings.json: no space left")

    ended: list[str] = []

    class Told(Silent):
        def on_end(self, status: str) -> None:
            ended.append(status)

    monkeypatch.setattr("nexus.doctor.doctor.write_json", full)
    told, config = Told(), TrainConfig.from_mapping({**SHORT, "total_steps": 900})  # never examined before its end
    nexus.train(match_reward, config=config, run_dir=tmp_path / "run", listener=told)
    assert ended == ["finished"]
    said = [text for text in told.notices if "the doctor" in text]
    assert said == [
        "the doctor can't examine this run and stops: can't write findings.json: no space left; --doctor off hides this"
    ]


@pytest.mark.parametrize(("steps", "times"), [(5_000, 1), (4_999, 0)])
def test_an_alarm_is_said_once_and_at_the_start_notes_are(steps: int, times: int, tmp_path: Path) -> None:
    """But not of a run that is too short to learn anything."""
    told = Silent()
    own = {"learning_rate": 0.5, "epsilon_steps": 9_000, "learning_starts": 1_500}
    config = TrainConfig.from_mapping({**SHORT, "total_steps": steps, **own})
    nexus.train(match_reward, config=config, run_dir=tmp_path / "run", listener=told)
    rates = [text for text in told.notices if text.startswith("warning: learning-rate: the learning rate is 0.5")]
    assert len(rates) == times
    assert sum(text.startswith("learning-start: learning starts after 1,500") for text in told.notices) == times
    # The run says this one itself, so the doctor does not repeat it.
    assert sum("at the end of the run" in text for text in told.notices) == 1
    findings = json.loads((tmp_path / "run" / "findings.json").read_text())
    assert findings["root"] == "learning-rate"
    assert findings["findings"][0]["evidence"] == {"learning_rate": 0.5}


# Afterwards.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without alarms in its settings; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("doctor") / "run"
    config = TrainConfig.from_mapping({**SHORT, "num_envs": 4})
    nexus.train(match_reward, config=config, run_dir=folder, listener=Silent())
    return folder


def copied(run: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(run, to / "copy"))


def test_live_and_afterwards_agree(finished: Path) -> None:
    live = json.loads((finished / "findings.json").read_text())
    after = json.loads(json.dumps(nexus.diagnose(finished).to_mapping()))
    assert [each["check"] for each in after["findings"]] == [each["check"] for each in live["findings"]]
    assert set(after["unjudged"]) == set(live["unjudged"])


def test_the_findings_say_when_each_alarm_was_first_said(tmp_path: Path) -> None:
    """Diagnosing the logs up to each examination gives the same alarms at the same steps."""
    own = {"learning_rate": 0.5, "max_grad_norm": None, "total_steps": 12_000, "target_update_every": "1 updates"}
    config = TrainConfig.from_mapping({**SHORT, **own})
    run = nexus.train(match_reward, config=config, run_dir=tmp_path / "run", listener=Silent()).run_dir
    written = json.loads((run / "findings.json").read_text())
    alarms = {each["check"]: each["step"] for each in written["findings"] if each["severity"] != "note"}
    first = first_alarms(chart_of(run, config))
    assert first == alarms | written["past"]
    assert {"learning-rate", "target-period"} <= set(alarms)
    assert max(first.values()) > 0, "some need an examination"


def test_a_run_that_burst_is_explained_by_its_causes_first(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path)
    about = json.loads((run / "run.json").read_text())
    settings = {**about["config"], "learning_rate": 0.5}
    del about["sha256"]
    write_json(run / "run.json", {**about, "config": settings, "divergence": "the loss is nan"})
    with (run / METRICS_FILE).open("a") as file:
        for step in (3_300, 3_400, 3_500, 3_600, 3_700):
            file.write(json.dumps({"step": step, "doctor/explained_variance": -9.0, "doctor/target_std": 1.0}) + "\n")
    assert [symptom.check for symptom in nexus.diagnose(run).alarms] == ["learning-rate", "diverged", "fit"]


def test_the_command_prints_and_returns_the_verdict(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = nexus.diagnose(finished)
    assert main(["doctor", str(finished)]) == (1 if found.alarms else 0)
    capsys.readouterr()
    assert main(["doctor", str(finished), "--json"]) == (1 if found.alarms else 0)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_mapping()))
    run = copied(finished, tmp_path)
    with (run / METRICS_FILE).open("a") as file:
        for step in (3_300, 3_400, 3_500):
            file.write(json.dumps({"step": step, "doctor/target_error": 0.9}) + "\n")
    assert main(["doctor", str(run)]) == 1
    out = capsys.readouterr().out
    assert "critical: target: the targets learned from differ" in out
    assert "  likely cause:  the target" in out
    assert "  cure:          checking the loss" in out


def test_a_killed_run_and_half_a_line(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path)
    log = run / METRICS_FILE
    before = nexus.diagnose(run)
    log.write_text(log.read_text() + '{"step": 3300, "doctor/q_ab')
    about = json.loads((run / "run.json").read_text())
    assert nexus.diagnose(run) == before
    for name in ("findings.json", "evaluation.json", "agent.safetensors"):
        (run / name).unlink()
    assert nexus.diagnose(run) == before
    assert about["status"] == "finished"


@pytest.mark.parametrize("line", ["{", "[1]", '{"step": "a"}', '{"step": 1, "x": "y"}', "{}"])
def test_a_damaged_log_is_one_line(
    line: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(finished, tmp_path)
    log = run / METRICS_FILE
    log.write_text(line + "\n" + log.read_text())
    assert main(["doctor", str(run)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("nexus: error: ")
    assert f"{METRICS_FILE} is damaged: line 1 needs a step and numbers" in err
    assert err.count("\n") == 1


def test_folders_that_are_no_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path / "missing")]) == 2
    assert "no run at" in capsys.readouterr().err
    with pytest.raises(RunError, match="is not a run folder"):
        nexus.diagnose(tmp_path)


@pytest.mark.parametrize("kind", ["runs_of_format_2", "runs_of_format_3"])
def test_runs_of_older_versions_are_diagnosed(kind: str) -> None:
    folders = [path.parent for path in sorted((Path(__file__).parent / kind).rglob("run.json"))]
    assert folders
    for run in folders:
        found = nexus.diagnose(run)
        assert "target" in found.unjudged, "nothing measured it"
        assert set(found.fine)


def test_returns_are_read_from_the_episodes_of_a_run_without_a_doctor(tmp_path: Path) -> None:
    class Paid(gym.Env[Any, Any]):
        """Ten steps that pay the action."""

        observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.left = 10
            return np.zeros(1, np.float32), {}

        def step(self, action: Any) -> Any:
            self.left -= 1
            return np.zeros(1, np.float32), float(action), self.left == 0, False, {}

    found = {}
    for doctor in ("on", "off"):
        run = tmp_path / doctor
        config = TrainConfig.from_mapping({**SHORT, "doctor": doctor})
        nexus.train(Paid, config=config, run_dir=run, listener=Silent())
        found[doctor] = chart_of(run, config)
    for made in found.values():
        assert made.last("doctor/random_return") == pytest.approx(5.0, abs=1.0)
        assert made.last("doctor/recent_return") > 9.0


def test_the_history_of_a_long_log_without_a_doctor_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 lines every ninth, the last one among them, and the beginning."""
    looked_at: list[int] = []

    def judged(chart: Chart) -> Any:
        looked_at.append(chart.step)
        return diagnosis_of(Chart(chart.config))

    monkeypatch.setattr("nexus.doctor.diagnosis.diagnosis_of", judged)
    chart = Chart(TrainConfig(total_steps=1_000_000))
    for step in range(1_000, 1_001_000, 1_000):
        chart.add(step, {"doctor/q_abs_max": 1.0})
    first_alarms(chart)
    assert looked_at == [0, *range(1_000, 1_001_000, 9_000)]
