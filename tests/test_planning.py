"""Planning a run: the arithmetic by hand, what is expected of it, and a short probe of CartPole."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nexus
from benchmarks.expected import bands
from benchmarks.record import RESULTS
from nexus.api import Listener, make_config
from nexus.cli.main import main
from nexus.cli.plan import duration, memory_line, size, table
from nexus.cli.train import TrainCommand
from nexus.core.errors import ConfigError, DivergenceError, RunError
from nexus.envs.factory import EnvSpec
from nexus.planning import Band, Disk, Forecast, Memory
from nexus.planning import plan as planned
from nexus.planning.expected import EXPECTED, IGNORED, expectation
from nexus.planning.forecast import EPISODE_LINE, LOG_LINE, Measured, Slice, disk_of, evaluations, require_disk, time_of
from nexus.planning.planner import notes
from nexus.planning.probe import Enough, Probe, TimedLearner, TimedReplay, longest_episode, measure, probed
from nexus.runner import Run
from nexus.training.config import TrainConfig
from nexus.training.divergence import WatchedLearner
from tests import probes

PROBE: dict[str, Any] = {"probe_seconds": 0.6, "hidden_dim": 16, "eval_episodes": 3}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and temporary folders inside it."""
    (tmp_path / "here").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


def left_in(folder: Path) -> list[str]:
    return [path.name for path in (*(folder / "here").iterdir(), *(folder / "temporary").iterdir())]


# Time, by hand.

CONFIG = make_config(
    "Unknown-v0",
    total_steps=1_000,
    learning_starts=200,
    update_every="4 steps",
    gradient_steps=3,
    eval_every=None,
    eval_episodes=250,
    checkpoint_every="300 steps",
)


def but(config: TrainConfig, **settings: Any) -> TrainConfig:
    """The config with other settings."""
    return replace(config, **settings)


# Of 2 s one is acting: 100 steps at 10 ms; 50 updates at 20 ms. Then 30 ms and 40 ms.
SLICES = (Slice(2.0, 100, 50, 1.0), Slice(5.0, 100, 50, 2.0))
MEASURED = Measured(
    startup=7.0,
    slices=SLICES,
    eval_setup=0.5,
    eval_steps=(0.1, 0.3),
    checkpoint=2.0,
    checkpoint_row=0.01,
    episode_length=20.0,
    under_way=8.0,
)


def test_the_time_of_a_run_by_hand() -> None:
    time = time_of(CONFIG, MEASURED, limit=40)
    assert time.startup == 7.0
    assert time.acting == pytest.approx(1_000 * 4.0 / 200)  # 20 ms a step: both slices together
    assert time.learning == pytest.approx(600 * 3.0 / 100)  # (1000 - 200) / 4 x 3 updates of 30 ms
    # 250 episodes on 100 sub-environments are 3 rounds of 40 steps at 0.2 s on average, once.
    assert time.evaluating == pytest.approx(0.5 + 3 * 40 * 0.2)
    assert time.saving == pytest.approx(3 * (2.0 + 300 * 0.01))
    assert time.total == pytest.approx(7 + 20 + 18 + 24.5 + 15)
    assert time.steps_per_second == pytest.approx(1_000 / 38)
    assert sum(time.shares.values()) == pytest.approx(1)
    assert time.shares["learning"] == pytest.approx(18 / 84.5)


def test_the_range_is_that_of_the_slices_alone() -> None:
    time = time_of(CONFIG, MEASURED, limit=40)
    # The first slice alone: 1000 x 10 ms + 600 x 20 ms = 22 s; the second 1000 x 30 ms + 600 x 40 ms = 54 s. A tenth of
    # the way from either end they are 25.2 and 50.8; an evaluated step likewise 0.12 and 0.28.
    assert time.low == pytest.approx(7 + 15 + 25.2 + 0.5 + 3 * 20 * 0.12)  # episodes as long as in the probe
    assert time.high == pytest.approx(7 + 15 + 50.8 + 0.5 + 3 * 40 * 0.28)
    assert time.low < time.total < time.high


def test_without_a_time_limit_the_lengths_of_the_probe_count() -> None:
    assert time_of(CONFIG, MEASURED, None).evaluating == pytest.approx(0.5 + 3 * 20 * 0.2)


def test_where_no_episode_ended_the_range_begins_at_how_far_they_came() -> None:
    measured = replace(MEASURED, episode_length=None)
    time = time_of(CONFIG, measured, limit=40)
    assert time.low == pytest.approx(7 + 15 + 25.2 + 0.5 + 3 * 8 * 0.12)
    assert time.evaluating == pytest.approx(0.5 + 3 * 40 * 0.2)
    assert time_of(CONFIG, measured, None).evaluating == pytest.approx(0.5 + 3 * 1_000 * 0.2)  # no longer than the run


def test_a_probe_without_updates_gives_no_time_to_learning() -> None:
    time = time_of(CONFIG, replace(MEASURED, slices=(Slice(2.0, 100, 0, 0.0),)), 40)
    assert (time.learning, time.acting) == (0.0, 20.0)


def test_one_odd_slice_leaves_the_mean_within_the_range() -> None:
    slices = (*[Slice(1.0, 100, 0, 0.0)] * 19, Slice(101.0, 100, 0, 0.0))
    time = time_of(CONFIG, replace(MEASURED, slices=slices), 40)
    assert time.acting == pytest.approx(60.0)  # 19 slices give 10 s and one 1010 s: the 90th percentile is 10 s
    assert time.low < time.total < time.high


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"eval_every": None}, 1),
        ({"eval_every": "300 steps"}, 4),  # at 300, 600, 900, and of the final weights
        ({"eval_every": "500 steps"}, 2),  # that at 1000 is of the final weights
        ({"eval_every": "2000 steps"}, 1),
        ({"eval_every": "250 updates"}, 3),  # 600 updates
        ({"eval_every": "20 episodes"}, 3),  # 1000 / 20 = 50 episodes
    ],
)
def test_how_many_evaluations_a_run_makes(settings: dict[str, Any], count: int) -> None:
    assert evaluations(but(CONFIG, **settings), 600, 20.0) == count


def test_updates_by_episodes_come_as_often_as_in_the_probe() -> None:
    config = but(CONFIG, update_every="1 episodes")
    assert time_of(config, MEASURED, 40).learning == pytest.approx(800 * 100 / 200 * 0.03)


# Disk, by hand.


def test_the_disk_of_a_run_by_hand() -> None:
    config = but(CONFIG, replay_capacity=100, batch_size=10, checkpoint_every="50 steps", keep_checkpoints=3)
    config = but(config, log_every="100 steps")
    disk = disk_of(config, network=1_000, row=10.0, free=5, episode_length=20.0)
    # A state has two networks and two moments; one more is there while it is written. 100 rows, and those that only the
    # older checkpoints need.
    assert disk.checkpoints == (3 + 1 + 1) * 4_000 + (100 + 3 * 50) * 10  # that of the end is the fourth
    assert disk.logs == 10 * LOG_LINE + 50 * EPISODE_LINE + 2 * 2 * 1_000  # the last weights and the best
    assert (disk.kept, disk.free, disk.total) == (4, 5, disk.checkpoints + disk.logs)
    kept = disk_of(but(config, keep_episodes=True), network=1_000, row=10.0, free=5, episode_length=20.0)
    assert kept.logs == disk.logs + 1_000 + 50 * 24  # a byte for each action, and the rest of each line


def test_best_weights_and_priorities_take_more() -> None:
    config = but(CONFIG, replay_capacity=100, batch_size=10, checkpoint_every="50 steps", keep_checkpoints=3)
    plain, best = (disk_of(but(config, eval_every=every), 1_000, 10.0, None) for every in (None, "50 steps"))
    assert best.logs - plain.logs == 2 * 1_000
    assert best.checkpoints == plain.checkpoints
    by_priority = disk_of(but(config, prioritized=True), 1_000, 10.0, None)
    assert by_priority.checkpoints == 5 * (4_000 + 8 * 100) + (100 + 3 * 50) * 10


ROLLOUT: dict[str, Any] = {
    "algorithm": "pqn",
    "rollout_steps": 200,
    "checkpoint_every": "50 steps",
}


def test_each_checkpoint_has_its_own_rollout_and_nothing_else_would_be_smaller() -> None:
    config = make_config("Unknown-v0", total_steps=1_000, eval_every=None, batch_size=10, **ROLLOUT)
    disk = disk_of(config, 1_000, 10.0, None)
    assert disk.checkpoints == (2 + 1 + 1) * (4_000 + 200 * 10)
    with pytest.raises(ConfigError, match="are free: checkpoint_every none would fit"):
        require_disk(config, disk_of(config, 1_000, 10.0, 20_000), 1_000, 10.0)
    with pytest.raises(ConfigError, match="are free: make room"):
        require_disk(config, disk_of(config, 1_000, 10.0, 10_000), 1_000, 10.0)


def test_a_run_never_leaves_more_rows_than_it_has_steps() -> None:
    config = but(CONFIG, checkpoint_every="900 steps", eval_every="10 steps")
    assert disk_of(config, 0, 10.0, None).checkpoints == 1_000 * 10
    assert disk_of(config, 0, 10.0, None).kept == 2  # no more than are written
    assert disk_of(but(config, checkpoint_every=None), 0, 10.0, None).checkpoints == 1_000 * 10
    assert disk_of(but(config, checkpoint_every=None), 0, 10.0, None).kept == 1


def test_a_disk_that_is_too_small_says_what_would_fit() -> None:
    config = but(CONFIG, replay_capacity=800, batch_size=10, checkpoint_every="50 steps", keep_checkpoints=1)
    config = but(config, log_every="2000 steps")

    def complaint(free: int) -> str:
        with pytest.raises(ConfigError) as refused:
            require_disk(config, disk_of(config, 1_000, 1_000.0, free), 1_000, 1_000.0)
        return str(refused.value)

    # Three states and four networks are 16,000 bytes, so that 300,000 hold 284 rows, 50 of them those since the oldest.
    said = complaint(300_000)
    assert said.startswith("checkpoint_every = 50 steps: 2 checkpoint(s) and the logs need 0.9 MB on the disk")
    assert said.endswith("0.3 MB are free: a replay_capacity of at most 234 would fit")
    assert complaint(60_000).endswith("0.1 MB are free: make room")
    assert complaint(820_000).endswith("a replay_capacity of at most 754 or checkpoint_every none would fit")
    enough = 12_000 + 4_000 + 850_000
    require_disk(config, disk_of(config, 1_000, 1_000.0, enough), 1_000, 1_000.0)
    require_disk(config, disk_of(config, 1_000, 1_000.0, None), 1_000, 1_000.0)


def test_a_rollout_does_not_make_its_checkpoints_dear(elsewhere: Path) -> None:
    """Its rows are none while it is too short: what a checkpoint takes is not that of a row."""
    with Run(
        "CartPole-v1", None, probed(make_config("CartPole-v1", algorithm="pqn")), elsewhere / "run", Listener()
    ) as run:
        assert len(run.parts.replay) == 0
        measured = measure(run, 0.5, time.perf_counter())
        steps_each = run.parts.counters.steps / run.config.num_envs
    assert 0 < measured.under_way <= steps_each
    assert 0 < measured.checkpoint < 0.5
    assert measured.checkpoint_row < 0.001


@pytest.mark.parametrize("prioritized", [False, True])
def test_what_a_run_leaves_is_what_was_said(prioritized: bool, elsewhere: Path) -> None:
    settings = make_config(
        "CartPole-v1",
        total_steps=3_000,
        replay_capacity=1_200,
        checkpoint_every="500 steps",
        log_every="200 steps",
        eval_every=None,
        target_return=None,
        prioritized=prioritized,
        eval_episodes=2,
    )
    disk = planned("CartPole-v1", config=settings, probe_seconds=0.3).disk
    run = nexus.train("CartPole-v1", config=settings, run_dir=elsewhere / "run", listener=Listener()).run_dir
    saved = [path for name in ("checkpoints", "replay") for path in (run / name).rglob("*") if path.is_file()]
    checkpoints = sum(path.stat().st_size for path in saved)
    logs = sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) - checkpoints
    assert 0.6 < checkpoints / disk.checkpoints < 1.1  # at most what was said, and some kB of JSON
    assert 0.5 < logs / disk.logs < 1.3


# What is expected.


def entry(**changes: Any) -> Band:
    values: dict[str, Any] = {
        "env": "CartPole-v1",
        "protocol": None,
        "preset": "tuned",
        "algorithm": "dqn",
        "settings": {},
    }
    scores: dict[str, Any] = {"seeds": [1, 2, 3], "mean": 20.0, "median": 10.0, "low": 5.0, "high": 45.0}
    where = {"total_steps": 100_000, "record": "a.json", "date": "2026-01-01"}
    return Band(**{**values, **scores, **where, **changes})


def test_the_expected_scores_are_those_of_the_records() -> None:
    assert json.loads(EXPECTED.read_text()) == json.loads(json.dumps([asdict(band) for band in bands()])), (
        "run python -m benchmarks.expected"
    )


def test_a_band_is_of_the_final_evaluation_of_each_seed() -> None:
    (found,) = [band for band in bands() if band.record.endswith("/lunarlander.json")]
    rows = json.loads((RESULTS / "lunarlander.json").read_text())["rows"]
    scores = sorted(row["evaluations"][-1][1] for row in rows)
    assert (found.low, found.high, len(found.seeds)) == (scores[0], scores[-1], len(rows))
    assert found.mean == pytest.approx(sum(scores) / len(scores), abs=0.05)


def test_every_band_is_found_by_its_own_settings() -> None:
    for band in bands():
        assert expectation(band.env, band.config).band == band


def test_a_setting_counts_by_what_it_comes_to() -> None:
    bands = [entry(env="FrozenLake-v1", preset=None)]
    assert expectation("FrozenLake-v1", make_config("FrozenLake-v1", update_every="4 steps"), bands).band is not None
    assert expectation("FrozenLake-v1", make_config("FrozenLake-v1", rollout_steps=7), bands).band is not None
    assert expectation("FrozenLake-v1", make_config("FrozenLake-v1", update_every="5 steps"), bands).band is None
    pqn = [entry(env="FrozenLake-v1", preset=None, algorithm="pqn")]
    config = make_config("FrozenLake-v1", algorithm="pqn", replay_capacity=500)
    assert expectation("FrozenLake-v1", config, pqn).band is not None
    config = make_config("FrozenLake-v1", algorithm="pqn", rollout_steps=500)
    assert expectation("FrozenLake-v1", config, pqn).band is None


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_what_does_not_move_learning_does_not_hide_a_band(name: str) -> None:
    other = {
        "seed": 5,
        "device": "cuda",
        "compile": True,
        "cuda_graph": False,
        "threads": 2,
        "vectorization": "async",
        "step_timeout": 1.0,
        "replay_store": "raw",
        "log_every": "7 steps",
        "keep_episodes": True,
        "eval_every": "7 steps",
        "eval_episodes": 7,
        "checkpoint_every": None,
        "keep_checkpoints": 7,
        "on_divergence": "rollback",
        "doctor": "off",
    }
    settings: dict[str, Any] = {name: other[name]}
    settings |= {"vectorization": "async"} if name == "step_timeout" else {}
    settings |= {"target_return": None}
    if name == "replay_store":  # only for stacks, which are another setting
        config = make_config(
            "CartPole-v1", frame_stack=2, checkpoint_every=None, target_return=None, replay_store="raw"
        )
        band = entry(settings={"frame_stack": 2, "target_return": None})
    else:
        config, band = make_config("CartPole-v1", **settings), entry(settings={"target_return": None})
    assert expectation("CartPole-v1", config, [band]).band == band


def test_every_other_setting_hides_the_band_and_is_named() -> None:
    names = {field.name for field in fields(TrainConfig)} - IGNORED - {"protocol", "env_kwargs", "wrappers"}
    assert {"total_steps", "num_envs", "frame_skip", "target_return", "gamma", "seed"} - names == {"seed"}
    for name in names:
        plain, other = changed(name)
        found = expectation("CartPole-v1", other, [entry(algorithm=plain.algorithm, settings=settings_of(plain))])
        assert found.band is None, name
        assert found.differing[0].startswith(f"{name} (") or name in "".join(found.differing)


def settings_of(config: TrainConfig) -> dict[str, Any]:
    return {key: value for key, value in config.to_mapping().items() if key not in ("algorithm", "protocol")}


def changed(name: str) -> tuple[TrainConfig, TrainConfig]:
    """Two configs that differ in one setting."""
    algorithm = "pqn" if name in ("trace_lambda", "rollout_steps") else "dqn"
    base = make_config("CartPole-v1", algorithm=algorithm, temperature_min=0.05)
    value = getattr(base, name)
    text: dict[str, Any] = {
        "algorithm": "munchausen",
        "algorithm_settings": {"mine": 1},
        "torso": "mlp",
        "optimizer": "rmsprop",
        "precision": "float32",
        "loss": "huber",
        "exploration": "boltzmann",
        "epsilon_schedule": "constant",
        "learning_rate_schedule": "cosine",
        "epsilon_decay": 0.9,
        "learning_rate_factor": 0.25,
        "munchausen_clip": -2.0,
        "channels": "last",
        "hidden_layers": 3,
        "averaged_updates": 100,
        "frame_size": 42,
        "reward_clip": 1.0,
        "update_every": "2 steps",
        "actor_sync_every": "64 steps",
        "eval_max_steps": 500,
        "target_update_every": "7 steps",
        "potential": "tests.test_shaping:height",
        "her": "future",
        "bonus": "counts",
        "bonus_states": "exact",
        "curriculum": {"stages": [{}, {}], "success": 1},
    }
    if name in text:
        return base, but(base, **{name: text[name]})
    if isinstance(value, bool):
        return base, but(base, **{name: not value})
    if isinstance(value, int):
        return base, but(base, **{name: value + 1})
    return base, but(base, **{name: 0.5 * value if value else 0.001})


def test_the_nearest_result_is_the_one_that_differs_least() -> None:
    config = make_config("CartPole-v1", gamma=0.5, target_return=None)
    far = entry(settings={"gamma": 0.5, "num_envs": 3, "batch_size": 7, "target_return": None})
    near = entry(settings={"gamma": 0.9, "target_return": None})
    found = expectation("CartPole-v1", config, [far, near, entry(env="Acrobot-v1", settings={"gamma": 0.5})])
    assert (found.band, found.nearest, found.differing) == (None, near, ("gamma (0.9 there, 0.5 here)",))
    assert str(found) == (
        "no committed result for these settings; the nearest differs in gamma (0.9 there, 0.5 here): 5 to 45 over 3 "
        "seeds, median 10, mean 20 (a.json, 2026-01-01)"
    )


def test_many_differences_are_counted() -> None:
    config = make_config("CartPole-v1", gamma=0.5, num_envs=3, batch_size=7, n_step=2, tau=0.5, target_return=None)
    said = str(expectation("CartPole-v1", config, [entry(settings={"target_return": None})]))
    assert said.count(" there, ") == 4
    assert " and 1 more: 5 to 45" in said


def test_scores_of_another_protocol_are_never_shown() -> None:
    pong = "ALE/Pong-v5"
    config = make_config(pong, "nature")
    band = entry(
        env=pong, protocol="machado", preset="nature", settings={"protocol": "machado"}, total_steps=50_000_000
    )
    found = expectation(pong, config, [band])
    assert (found.band, found.nearest, found.other_protocols) == (None, None, ("machado",))
    assert not re.search(r"\d", str(found))
    assert "those under machado can't be compared" in str(found)
    assert expectation(pong, but(config, protocol="machado"), [band]).band == band
    assert "under machado" in str(band)


def test_scores_of_an_environment_that_was_made_otherwise_are_never_shown() -> None:
    plain, other = entry(settings={"target_return": None}), {"sutton_barto_reward": True}
    made = entry(settings={"target_return": None, "env_kwargs": other})
    config = make_config("CartPole-v1", target_return=None)
    around = ("gymnasium.wrappers:NormalizeReward",)
    wrapped = entry(settings={"target_return": None, "wrappers": around})
    for ours, theirs in (
        (config, made),
        (but(config, env_kwargs=other), plain),
        (config, wrapped),
        (but(config, wrappers=around), plain),
    ):
        found = expectation("CartPole-v1", ours, [theirs])
        assert (found.band, found.nearest) == (None, None)
        assert str(found) == "no committed result for these settings"
    assert expectation("CartPole-v1", but(config, env_kwargs=other), [plain, made]).band == made
    assert expectation("CartPole-v1", but(config, wrappers=around), [plain, wrapped]).band == wrapped


def test_no_protocol_is_the_nature_protocol() -> None:
    band = entry(env="ALE/Pong-v5", protocol="nature", preset="nature", total_steps=50_000_000)
    config = but(make_config("ALE/Pong-v5", "nature"), protocol=None)
    assert expectation("ALE/Pong-v5", config, [band]).band == band


def test_a_function_has_no_committed_results_whatever_its_name() -> None:
    def env() -> Any:
        """Never called."""

    env.__name__ = "CartPole-v1"
    assert expectation(env, make_config("CartPole-v1", target_return=None)).band is None
    assert str(expectation(env, make_config("CartPole-v1"))) == "no committed result for these settings"


# The probe.


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fake_run() -> Any:
    """What a probe needs of a run."""
    counters, learner = SimpleNamespace(steps=0, updates=0), SimpleNamespace(settle=lambda: None)
    return SimpleNamespace(parts=SimpleNamespace(counters=counters, learner=learner))


def test_updates_targets_batches_and_priorities_count_as_learning() -> None:
    clock, calls = Clock(), []

    class Slow:
        """Anything that is called, takes a second and returns its arguments."""

        optimizer = "optimizer"

        def __len__(self) -> int:
            return 7

        def __getattr__(self, name: str) -> Any:
            def called(*arguments: Any) -> Any:
                clock.now += 1.0
                calls.append((name, *arguments))
                return arguments

            return called

    probe: Any = Probe(fake_run(), 20.0, started=95.0, clock=clock)
    learner, replay = TimedLearner(Slow(), probe), TimedReplay(Slow(), probe)  # type: ignore[arg-type]
    assert learner.learn("batch") == ("batch",)  # type: ignore[comparison-overlap, arg-type]
    learner.update_target_network()
    assert replay.sample(32) == (32,)  # type: ignore[comparison-overlap]
    replay.update_priorities("indices", "priorities")  # type: ignore[arg-type]
    assert probe.learning == 4.0
    replay.anneal(0.5)
    replay.add("transitions")  # type: ignore[arg-type]
    learner.settle()
    assert probe.learning == 4.0
    optimizer: Any = learner.optimizer
    assert optimizer == "optimizer"
    assert len(replay) == 7
    named = ["learn", "update_target_network", "sample", "update_priorities", "anneal", "add", "settle"]
    assert [name for name, *_ in calls] == named
    assert calls[3] == ("update_priorities", "indices", "priorities")


def test_the_probe_cuts_slices_after_its_warm_up() -> None:
    clock, run = Clock(), fake_run()
    probe: Any = Probe(run, 20.0, started=95.0, clock=clock)  # slices of a second
    progress: Any = SimpleNamespace(counters=run.parts.counters)
    episodes: Any = SimpleNamespace(lengths=[10, 30], under_way=4.5)

    def learn() -> None:
        with probe.learns():
            clock.now += 0.25

    def step(learning: bool) -> None:
        clock.now += 0.25
        run.parts.counters.steps += 8
        if learning:
            learn()
            run.parts.counters.updates += 1
        probe.on_step(progress, episodes)

    for number in range(6):
        step(learning=number >= 3)
    assert probe.startup == pytest.approx(5 + 6 * 0.25 + 3 * 0.25)  # three updates are warm enough
    assert probe.slices == []
    for _ in range(4):
        step(learning=True)
    assert probe.slices == [Slice(1.0, 16, 2, 0.5), Slice(1.0, 16, 2, 0.5)]
    assert (probe.episode_length, probe.under_way) == (20.0, 4.5)
    for _ in range(2 * 18 - 1):
        step(learning=True)
    with pytest.raises(Enough):
        step(learning=True)
    assert len(probe.slices) == 20


def test_a_probe_that_never_learns_is_cut_all_the_same() -> None:
    clock, run = Clock(), fake_run()
    probe: Any = Probe(run, 10.0, started=100.0, clock=clock)
    progress: Any = SimpleNamespace(counters=run.parts.counters)
    episodes: Any = SimpleNamespace(lengths=[], under_way=7.0)
    for _ in range(7):
        clock.now += 0.5
        run.parts.counters.steps += 1
        probe.on_step(progress, episodes)
    assert probe.startup == 2.0  # a fifth of its time
    assert len(probe.slices) == 3
    assert (probe.episode_length, probe.under_way) == (None, 7.0)


def test_the_probe_keeps_every_setting_but_a_few() -> None:
    config = make_config("CartPole-v1", learning_starts=5_000)
    changes = {
        field.name for field in fields(config) if getattr(config, field.name) != getattr(probed(config), field.name)
    }
    assert changes == {"learning_starts", "eval_every", "target_return", "checkpoint_every", "doctor"}
    assert probed(config).learning_starts == config.batch_size
    assert probed(but(config, checkpoint_every=None)).checkpoint_every is None


@pytest.mark.parametrize(
    ("spec", "limit"),
    [
        (EnvSpec("CartPole-v1"), 500),
        (EnvSpec("CartPole-v1", frame_skip=3), 167),
        (EnvSpec("ALE/Pong-v5", 4), 4_500),
        (EnvSpec("ALE/Pong-v5", 4, protocol="machado"), 27_000),
        (EnvSpec(probes.CutOff), None),
    ],
)
def test_the_longest_episode_of_an_evaluation(spec: EnvSpec, limit: int | None) -> None:
    assert longest_episode(spec) == limit


@pytest.fixture(scope="module")
def cartpole() -> Forecast:
    """A real plan, shared by all tests that only read it."""
    return planned("CartPole-v1", **PROBE)


def test_a_plan_learned_and_says_everything(cartpole: Forecast) -> None:
    assert cartpole.env == "CartPole-v1"
    assert cartpole.preset == "tuned"
    assert cartpole.rules is None
    assert cartpole.time.learning > 0
    assert cartpole.time.acting > 0
    assert cartpole.time.evaluating > 0
    assert cartpole.time.saving > 0
    assert 0 < cartpole.time.low <= cartpole.time.total <= cartpole.time.high
    assert cartpole.memory.replay == 100_000 * 48
    assert cartpole.memory.base is None or 50e6 < cartpole.memory.base < 5e9
    assert cartpole.disk.kept == 3
    assert cartpole.parameters > 0
    assert cartpole.expected.band is None
    assert any(text.startswith("hidden_dim (64 there, 16 here)") for text in cartpole.expected.differing)
    assert any("475" in note for note in cartpole.notes)
    assert not any("no update" in note for note in cartpole.notes)


def test_a_plan_leaves_nothing_behind(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--probe-seconds 0.4 --hidden-dim 16 --eval-episodes 3 -n 40000"
    assert main(["plan", "CartPole-v1", *flags.split()]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert left_in(elsewhere) == []
    for part in ("CartPole-v1", "preset tuned", "40,000 steps", "when full", "at most", "learning", "steps/s", "score"):
        assert part in said
    assert "frames/s" not in said


def test_frames_and_the_protocol_are_said_of_a_game(cartpole: Forecast) -> None:
    from rich.console import Console

    rules = EnvSpec("ALE/Pong-v5", protocol="machado").rules
    game = replace(cartpole, env="ALE/Pong-v5", rules=rules, config=replace(cartpole.config, frame_skip=4))
    console = Console(width=400)
    with console.capture() as captured:
        console.print(table(game))
    assert "machado: sticky 0.25" in captured.get()
    assert f"{4 * game.time.steps_per_second:,.0f} frames/s" in captured.get()


def test_what_learns_without_a_replay_is_said_to_have_a_rollout(cartpole: Forecast) -> None:
    assert memory_line(cartpole).startswith("replay 4.8 MB when full")
    pqn = replace(cartpole, config=make_config("CartPole-v1", algorithm="pqn"))
    assert memory_line(pqn).startswith("rollout 4.8 MB when full")


def test_a_run_that_is_shorter_than_the_probe_is_planned(elsewhere: Path) -> None:
    found = planned("CartPole-v1", total_steps=100, learning_starts=64, eval_every=None, target_return=None, **PROBE)
    assert found.time.total > 0
    assert found.disk.kept == 1


def test_learning_beside_acting_takes_no_time_of_its_own(elsewhere: Path) -> None:
    found = planned("CartPole-v1", actor_sync_every="64 steps", **PROBE)
    assert found.time.learning == 0
    assert found.time.steps_per_second > 0
    assert any("concurrently with acting" in note for note in found.notes)


def test_frames_are_probed_in_the_store_that_the_run_would_have(elsewhere: Path) -> None:
    settings: dict[str, Any] = {"frame_stack": 2, "frame_skip": 2, "checkpoint_every": None, "replay_store": "raw"}
    found = planned("CartPole-v1", **settings, **PROBE)
    assert found.time.saving == 0
    assert found.frames_per_second == pytest.approx(2 * found.time.steps_per_second)


def test_too_little_memory_is_refused_before_the_probe(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus.planning.planner.measure", lambda *_: pytest.fail("probed"))
    monkeypatch.setattr("nexus.data.memory.available_memory", lambda: 48 * 99_999)
    with pytest.raises(ConfigError, match="at most 99999 transitions fit"):
        planned("CartPole-v1", **PROBE)
    assert left_in(elsewhere) == []


def test_too_little_disk_is_refused_before_the_probe(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nexus.planning.planner.measure", lambda *_: pytest.fail("probed"))
    monkeypatch.setattr("nexus.planning.planner.free_disk", lambda folder: 3_000_000)
    assert main(["plan", "CartPole-v1", "--run-dir", "new"]) == 2
    said = capsys.readouterr().err
    assert re.search(
        r"checkpoint\(s\) and the logs need 5\.\d MB on the disk, 3\.0 MB are free: a replay_capacity", said
    )
    assert said.count("\n") == 1
    assert left_in(elsewhere) == []


def test_memory_that_replay_and_process_exceed_together_is_said() -> None:
    assert Memory(replay=80, filled=50, base=50, free=100).fits
    assert not Memory(replay=80, filled=50, base=51, free=100).fits
    assert Memory(replay=80, filled=50, base=51, free=None).fits


@pytest.mark.parametrize(("load", "busy"), [(1.0, False), (2.4, False), (2.6, True)])
def test_a_busy_machine_is_named(load: float, busy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    said = " ".join(notes(CONFIG, MEASURED, Memory(replay=1, filled=1, base=1, free=None), limit=40))
    assert ("busy" in said) == busy


def test_the_notes_say_what_the_numbers_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    enough, small = (Memory(replay=1, filled=1, base=1, free=free) for free in (None, 1))
    assert notes(CONFIG, MEASURED, enough, 40) == ()
    assert "more memory than is free" in notes(CONFIG, MEASURED, small, 40)[0]
    assert "no time limit" in notes(CONFIG, MEASURED, enough, None)[0]
    idle = replace(MEASURED, slices=(Slice(1.0, 1, 0, 0.0),))
    assert "the probe saw no update" in notes(CONFIG, idle, enough, 40)[0]


def test_a_used_folder_is_refused(elsewhere: Path) -> None:
    used = elsewhere / "used"
    used.mkdir()
    (used / "run.json").write_text("{}")
    with pytest.raises(RunError):
        planned("CartPole-v1", run_dir=used, **PROBE)


def test_a_divergence_in_the_probe_names_no_file_that_is_gone(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(agent: WatchedLearner, batch: Any) -> Any:
        raise DivergenceError("diverged at step 9, update 1: loss nan, gradient norm nan; its batch is in /gone")

    monkeypatch.setattr(WatchedLearner, "learn", diverge)
    with pytest.raises(
        DivergenceError, match=r"^in the probe: diverged at step 9, update 1: loss nan, gradient norm nan$"
    ):
        planned("CartPole-v1", **PROBE)
    assert left_in(elsewhere) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_probe_cleanly(number: signal.Signals, code: int, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "temporary").mkdir()
    program = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs inherit it ignored
        "from nexus.planning.probe import Probe\n"
        "real = Probe.end\n"
        f"Probe.end = lambda probe, episodes: (real(probe, episodes), os.kill(os.getpid(), {int(number)}))\n"
        "from nexus.cli.main import main\n"
        "sys.exit(main(['plan', 'CartPole-v1', '--probe-seconds', '20']))\n"
    )
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "here",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_the_probe_needs_a_time(seconds: float) -> None:
    with pytest.raises(ConfigError, match="probe_seconds"):
        planned("CartPole-v1", probe_seconds=seconds)


def test_plan_takes_the_flags_of_train() -> None:
    from nexus.cli.plan import PlanCommand

    names = [field.name for field in fields(TrainCommand)]
    assert [field.name for field in fields(PlanCommand)] == [*names, "probe_seconds"]


def test_a_plan_from_python_is_the_same(cartpole: Forecast) -> None:
    assert nexus.plan is planned
    with pytest.raises(ConfigError, match="config= contains all settings: gamma"):
        nexus.plan("CartPole-v1", config=cartpole.config, gamma=0.5)


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (duration, 0.34, "0.3 s"),
        (duration, 119.0, "119.0 s"),
        (duration, 150.0, "2.5 min"),
        (duration, 9_000.0, "2.5 h"),
        (duration, 864_000.0, "10.0 days"),
        (size, None, "unknown"),
        (size, 4_800_000, "4.8 MB"),
        (size, 7_130_000_000, "7.1 GB"),
    ],
)
def test_numbers_are_said_as_people_read_them(function: Callable[[Any], str], value: Any, text: str) -> None:
    assert function(value) == text


def test_a_disk_has_a_total() -> None:
    assert Disk(checkpoints=5, kept=1, logs=3, free=None).total == 8
