"""A run that was stopped or killed, and resumed, is the run that never was: weights, replay, logs and evaluation."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nexus
from nexus import observers, run_files
from nexus.api import TrainResult, resume, train
from nexus.cli.main import main
from nexus.core.errors import ConfigError, RunError
from nexus.core.seeding import seed_of
from nexus.core.state import Series, State
from nexus.envs import stream
from nexus.models.rl.dqn.rainbow import ALGORITHMS
from nexus.observers import Evaluations
from nexus.runner import Run
from nexus.training import checkpoint_writer, evaluation, run_folder
from nexus.training.best import BestWeights
from nexus.training.checkpoint import Checkpoint, read_checkpoint
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.config import TrainConfig
from nexus.training.files import write_json, write_tensors
from nexus.training.run_folder import locked
from nexus.training.verify import verify
from tests.chaos import FRAMES, SETTINGS, Silent, differences, interrupt, interrupted, match_reward, run_child
from tests.rollouts import pace_of
from tests.training import weights

RAINBOW: dict[str, Any] = {
    "algorithm": "rainbow",
    "double": True,
    "dueling": True,
    "noisy": True,
    "prioritized": True,
    "n_step": 3,
    "epsilon": 0.0,
    "epsilon_min": 0.0,
    "atoms": 11,
}
QUICK: dict[str, Any] = SETTINGS | {"total_steps": 300, "eval_every": "70 steps", "checkpoint_every": "60 steps"}
ENDLESS = ["--total-steps", "1000000", "--num-envs", "2", "--hidden-dim", "16", "--checkpoint-every", "200 steps"]
ENDLESS += ["--target-return", "none"]
KINDS = ("file", "torn", "step")


def config_of(**settings: Any) -> TrainConfig:
    return TrainConfig.from_mapping(QUICK | settings)


def algorithm_settings(algorithm: str) -> dict[str, Any]:
    return {"atoms": 11, **ALGORITHMS[algorithm].settings, **pace_of(algorithm), "algorithm": algorithm}


def whole(folder: Path, **settings: Any) -> TrainResult:
    return train(match_reward, config=config_of(**settings), run_dir=folder, listener=Silent())


def broken(folder: Path, at_step: int = 200, **settings: Any) -> TrainResult:
    stop = Silent(at_step, interrupt)
    return interrupted(lambda: train(match_reward, config=config_of(**settings), run_dir=folder, listener=stop))


def go_on(folder: Path, **settings: Any) -> TrainResult:
    return resume(folder, env=match_reward, listener=Silent(), **settings)


# What is restored.


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_goes_on_bit_for_bit(algorithm: str, tmp_path: Path) -> None:
    settings = algorithm_settings(algorithm)
    whole(tmp_path / "whole", **settings)
    assert broken(tmp_path / "broken", **settings).resumes_from in (200, 201)
    result = go_on(tmp_path / "broken")
    assert result.counters.updates > 20
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


@pytest.mark.parametrize(
    "settings",
    [
        {"num_envs": 1, "n_step": 5, "epsilon_schedule": "per_episode"},
        {"num_envs": 3, "update_every": "2 episodes", "target_update_every": "3 episodes"},
        {"learning_rate_schedule": "cosine", "prioritized": True, "replay_capacity": 40, "batch_size": 16},
        {"replay_capacity": 1000, "checkpoint_every": "7 steps", "keep_checkpoints": 1},
        {"vectorization": "async", "frame_stack": 2},
        {"actor_sync_every": "16 steps", "noisy": True},
        {"averaged_updates": 30},
        {"log_every": "1 episodes", "update_every": "50 steps", "eval_every": None},
    ],
    ids=str,
)
def test_every_way_to_train_goes_on_bit_for_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    whole(tmp_path / "whole", **settings)
    broken(tmp_path / "broken", 130, **settings)
    assert go_on(tmp_path / "broken").counters.updates > 5
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


def test_the_environments_own_vector_form_goes_on_bit_for_bit(tmp_path: Path) -> None:
    config = config_of(n_step=3)  # CartPole, whose vector form resets by a step of its own
    train("CartPole-v1", config=config, run_dir=tmp_path / "whole", listener=Silent())
    stop = Silent(200, interrupt)
    interrupted(lambda: train("CartPole-v1", config=config, run_dir=tmp_path / "broken", listener=stop))
    resume(tmp_path / "broken", listener=Silent())
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


def test_a_run_can_be_broken_many_times(tmp_path: Path) -> None:
    whole(tmp_path / "whole", **RAINBOW)
    broken(tmp_path / "broken", 30, **RAINBOW)  # before any checkpoint was due
    for at_step in (50, 61, 62, 119, 150, 151, 299):
        stop = Silent(at_step, interrupt)
        result = interrupted(partial(resume, tmp_path / "broken", env=match_reward, listener=stop))
        assert result.evaluation is None
        assert result.resumes_from == result.counters.steps
    go_on(tmp_path / "broken")
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


def test_a_run_that_stopped_for_its_score_is_reported_by_the_same_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"target_return": 0.0, "eval_every": "120 steps"}  # reached at step 120
    assert whole(tmp_path / "whole", **settings).counters.steps == 120
    play, calls = Evaluations.play, []

    def stop(evaluations: Evaluations, steps: int, seed: int | None = None) -> Any:
        calls.append(seed)
        if seed is not None:
            raise KeyboardInterrupt
        return play(evaluations, steps, seed)

    monkeypatch.setattr(Evaluations, "play", stop)
    interrupted(lambda: whole(tmp_path / "broken", **settings))
    assert calls == [None, seed_of(0, "evaluation") + 10_000]
    monkeypatch.undo()
    assert go_on(tmp_path / "broken").counters.steps == 120
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


@pytest.mark.parametrize("when", [0, 1])
def test_an_evaluation_that_is_broken_off_is_played_when_the_run_goes_on(when: int, tmp_path: Path) -> None:
    class Stop(Silent):
        def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
            if steps > when:
                raise KeyboardInterrupt

    whole(tmp_path / "whole", n_step=3)
    stop = Stop()
    config = config_of(n_step=3)
    result = interrupted(lambda: train(match_reward, config=config, run_dir=tmp_path / "broken", listener=stop))
    assert result.counters.steps == 70
    assert not (tmp_path / "broken" / "best").exists()
    go_on(tmp_path / "broken")
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


def test_a_signal_in_an_evaluation_ends_it_at_once_and_it_is_played_when_the_run_goes_on(tmp_path: Path) -> None:
    class Signals(Silent):
        seen: list[int]

        def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
            self.seen.append(steps)
            if len(self.seen) == 1:
                signal.raise_signal(signal.SIGINT)

    whole(tmp_path / "whole")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        stop = Signals()
        stop.seen = []
        interrupted(lambda: train(match_reward, config=config_of(), run_dir=tmp_path / "broken", listener=stop))
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.seen == [1]
    go_on(tmp_path / "broken")
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


# Each random stream is needed: without it the chaos test would go red.

STREAMS = {
    "agent.exploration": {},
    "replay.rng": {},
    "agent.generators.noise": algorithm_settings("noisy"),
    "agent.generators.loss.generator": algorithm_settings("iqn"),
    "agent.acting.rng": algorithm_settings("bootstrapped"),
}
OTHERS = {
    "agent.optimizer.exp_avg": {},
    "agent.optimizer.step": {},
    "agent.target_network.head.linear.weight": {},
    "agent.acting.heads": algorithm_settings("bootstrapped"),
    "agent.loss.rows.key": algorithm_settings("bootstrapped"),
    "replay.leaves": {"prioritized": True},
    "replay.highest_priority": {"prioritized": True, "update_every": "50 steps"},
    "episodes.returns": {},
    "episodes.length_so_far": {},
    "stream.numbers": {},
    "under_way.accumulator.open": {"n_step": 5},
}


@pytest.mark.parametrize(("name", "settings"), [*STREAMS.items(), *OTHERS.items()])
def test_leaving_a_part_of_the_state_out_shows(
    name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Checkpoint.read_state

    def forget(checkpoint: Checkpoint, limit: int) -> State:
        state = read(checkpoint, limit)
        return state | {name: forgotten(name, state[name])}

    whole(tmp_path / "whole", **settings)
    broken(tmp_path / "broken", 202, **settings)
    shutil.copytree(tmp_path / "broken", tmp_path / "right")
    go_on(tmp_path / "right")
    assert differences(tmp_path / "whole", tmp_path / "right") == []
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "read_state", forget)
        go_on(tmp_path / "broken")
    assert differences(tmp_path / "whole", tmp_path / "broken") != []


def forgotten(name: str, value: Any) -> Any:
    """What a part of a state is where nobody saved it."""
    if isinstance(value, dict):
        return np.random.default_rng(1234).bit_generator.state
    if ".generators." in name:
        return torch.Generator().get_state().numpy()
    if name == "replay.highest_priority":
        return 1.0
    return np.ones_like(value) if name == "replay.leaves" else np.zeros_like(value)


def test_leaving_the_environments_stream_out_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole(tmp_path / "whole")
    broken(tmp_path / "broken")
    monkeypatch.setattr(stream, "episode_seed", lambda root, number: 0)
    go_on(tmp_path / "broken")
    assert "episodes" in differences(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_stream_is_without_its_test(algorithm: str, tmp_path: Path) -> None:
    settings = algorithm_settings(algorithm)
    with Run(match_reward, None, config_of(**settings), tmp_path / "run", Silent()) as run:
        state = run.get_state()
    generators = {name for name, value in state.items() if isinstance(value, dict) and "bit_generator" in value}
    generators |= {name for name in state if ".generators." in name}
    assert generators <= STREAMS.keys()


# Further, or not at all.


def test_a_finished_run_can_go_further(tmp_path: Path) -> None:
    whole(tmp_path / "long", total_steps=300)
    whole(tmp_path / "short", total_steps=180)
    with pytest.raises(ConfigError, match="finished"):
        go_on(tmp_path / "short")
    with pytest.raises(ConfigError, match="already at step"):
        go_on(tmp_path / "short", total_steps=100)
    assert go_on(tmp_path / "short", total_steps=300).counters.steps == 300
    assert differences(tmp_path / "long", tmp_path / "short") == []
    assert json.loads((tmp_path / "short" / "run.json").read_text())["config"]["total_steps"] == 300


def test_without_periodic_checkpoints_a_run_still_ends_with_one(tmp_path: Path) -> None:
    whole(tmp_path / "whole", checkpoint_every=None)
    assert broken(tmp_path / "run", checkpoint_every=None).resumes_from == 200
    assert kept(tmp_path / "run") == [200]
    go_on(tmp_path / "run")
    assert differences(tmp_path / "whole", tmp_path / "run") == []


@pytest.mark.parametrize("status", ["interrupted", "failed", "finished"])
def test_a_run_that_learned_and_has_no_checkpoint_is_not_begun_again(status: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    broken(run)
    shutil.rmtree(run / "checkpoints")
    write_json(run / "run.json", json.loads((run / "run.json").read_text()) | {"status": status})
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=rf"no checkpoint.*would discard what it learned.*nexus train --config {run}"):
        go_on(run, total_steps=1_000)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_that_was_stopped_before_its_first_step_begins_again(tmp_path: Path) -> None:
    class AtOnce(Silent):
        def on_start(self, plan: Any) -> None:
            raise KeyboardInterrupt

    whole(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(match_reward, config=config_of(), run_dir=tmp_path / "broken", listener=AtOnce())
    listener = Silent()
    resume(tmp_path / "broken", env=match_reward, listener=listener)
    assert listener.notices == ["the run was stopped before its first checkpoint, so it starts over"]
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


def test_a_function_must_be_given_again(tmp_path: Path) -> None:
    broken(tmp_path / "run")
    with pytest.raises(RunError, match="env="):
        resume(tmp_path / "run")


def test_other_versions_are_named_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(tmp_path / "run", 100)
    now = run_folder.versions()
    monkeypatch.setattr(run_files, "versions", lambda: now | {"torch": "99.0"})
    for _ in range(2):  # the first one is stopped before it writes a checkpoint of its own
        listener = Silent(102, interrupt)
        monkeypatch.setattr(Checkpoints, "write", lambda *given: None)
        interrupted(partial(resume, tmp_path / "run", env=match_reward, listener=listener))
        (notice,) = listener.notices
        assert f"torch {now['torch']} is now 99.0" in notice


# Which checkpoints stay, and what a damaged one means.


def kept(run: Path) -> list[int]:
    return sorted(int(path.name) for path in (run / "checkpoints").iterdir())


def scores_of(monkeypatch: pytest.MonkeyPatch, *means: float) -> None:
    """Let evaluations end with these scores, in this order."""
    left, play = iter(means), evaluation.evaluate_policy
    monkeypatch.setattr(
        observers, "evaluate_policy", lambda *given, **named: replace(play(*given, **named), mean=next(left))
    )


def test_the_newest_stay_with_their_chunks(tmp_path: Path) -> None:
    whole(tmp_path / "run", num_envs=1, replay_capacity=60, keep_checkpoints=1)
    assert kept(tmp_path / "run") == [300]
    chunks = sorted(path.name for path in (tmp_path / "run" / "replay").iterdir())
    assert chunks == ["000000000240-000000000300.safetensors"]


def test_the_weights_that_were_scored_are_the_weights_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores_of(monkeypatch, 1.0, 9.0, 2.0, 9.0, 3.0)  # at 70, 140, 210 and 280, and at the end
    seen: dict[int, bytes] = {}

    class Watch(Silent):
        def on_start(self, plan: Any) -> None:
            self.agent = plan.agent

        def on_evaluation(self, steps: int, evaluation: Any) -> None:
            seen[steps] = weights(self.agent.q_network).numpy().tobytes()

    run = tmp_path / "run"
    train("CartPole-v1", config=config_of(num_envs=1, checkpoint_every="100 steps"), run_dir=run, listener=Watch())
    assert sorted(seen) == [70, 140, 210, 280, 300]
    best = nexus.load_agent(run, checkpoint="best")
    assert weights(best.q_network).numpy().tobytes() == seen[280]  # of equal scores the newer
    assert seen[280] not in (seen[140], seen[300])
    assert sorted(path.name for path in (run / "best").iterdir()) == [
        "140.json",
        "140.safetensors",
        "280.json",
        "280.safetensors",
    ]
    # Those of step 140 were the best as of the checkpoint of step 200, and are again if the run goes back to it.
    shutil.rmtree(run / "checkpoints" / "300")
    interrupted(lambda: resume(run, total_steps=400, listener=Silent(210, interrupt)))
    assert weights(nexus.load_agent(run, checkpoint="best").q_network).numpy().tobytes() == seen[140]


def test_a_best_that_is_half_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores_of(monkeypatch, 1.0, 2.0, 3.0, 4.0, 0.0)
    run = tmp_path / "run"
    whole(run, num_envs=1)
    (run / "best" / "280.json").write_text("{")
    assert not verify(run).whole
    assert BestWeights(run, {}).present()[0].steps < 280
    nexus.load_agent(run, checkpoint="best")


def test_a_checkpoint_writes_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, int]] = []

    def count(path: Path, arrays: Any) -> Any:
        if path.parent.name == "replay":
            written.append((path.name, len(arrays["states"])))
        return write_tensors(path, arrays)

    monkeypatch.setattr(checkpoint_writer, "write_tensors", count)
    whole(tmp_path / "run", num_envs=1)
    assert [rows for _, rows in written] == [60] * 5
    assert len({name for name, _ in written}) == 5


def test_any_checkpoint_that_is_kept_can_be_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    train("CartPole-v1", config=config_of(num_envs=1), run_dir=run, listener=Silent())
    assert kept(run) == [240, 300]
    cases: list[tuple[str | int, int]] = [("latest", 300), (240, 240), ("240", 240)]
    for checkpoint, steps in cases:
        agent = nexus.load_agent(run, checkpoint=checkpoint)
        saved = read_checkpoint(run, steps).read_state(1 << 20)
        for name, network in agent.networks.items():
            for key, value in network.state_dict().items():
                assert np.array_equal(saved[f"agent.{name}.{key}"], value.numpy())
    (score, end) = (nexus.evaluate(run, episodes=3, checkpoint=which) for which in (240, None))
    assert main(["evaluate", str(run), "--checkpoint", "240", "--episodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] == score.returns
    assert score.returns != end.returns
    assert main(["evaluate", str(run), "--checkpoint", "180"]) == 2
    assert "needs best, latest or one of [300, 240]" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="needs the folder of a run"):
        nexus.evaluate(nexus.load_agent(run), "CartPole-v1", checkpoint="best")


def test_checkpoints_that_are_damaged_or_gone_are_not_loaded(tmp_path: Path) -> None:
    whole(tmp_path / "run", eval_every=None)
    flip(tmp_path / "run/checkpoints/300/state.safetensors")
    with pytest.raises(RunError, match="damaged"):
        nexus.load_agent(tmp_path / "run", checkpoint="latest")
    shutil.rmtree(tmp_path / "run/checkpoints")
    with pytest.raises(RunError, match="has no checkpoint"):
        nexus.load_agent(tmp_path / "run", checkpoint="latest")
    shutil.rmtree(tmp_path / "run/best")
    with pytest.raises(RunError, match="no best weights"):
        nexus.load_agent(tmp_path / "run", checkpoint="best")


def test_a_run_that_was_killed_is_loaded_from_its_latest_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = SETTINGS | {"env": "CartPole-v1"}
    assert run_child(run, settings, ("step", 350)) == -signal.SIGKILL
    name = "head.linear.weight"
    saved = read_checkpoint(run, 300).read_state(1 << 20)[f"agent.q_network.{name}"]
    assert np.array_equal(nexus.load_agent(run).q_network.state_dict()[name].numpy(), saved)


def test_an_agent_explores_as_much_as_its_training_did_at_the_end(tmp_path: Path) -> None:
    broken(tmp_path / "run", 140)
    expected = 1.0 - 0.99 * (140 - 40) / 200  # from 1 to 0.01 over 200 steps, after the first 40
    assert nexus.load_agent(tmp_path / "run").epsilon == pytest.approx(expected)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("victim", ["state.json", "state.safetensors", "replay", "gone"])
def test_the_newest_that_is_whole_is_used_and_a_damaged_one_is_named(victim: str, tmp_path: Path) -> None:
    whole(tmp_path / "whole")
    run = tmp_path / "broken"
    broken(run)
    newest, older = sorted(kept(run), reverse=True)[:2]
    if victim == "replay":
        flip(max((run / "replay").iterdir()))
    elif victim == "gone":
        (run / f"checkpoints/{newest}/state.safetensors").unlink()
    else:
        flip(run / f"checkpoints/{newest}/{victim}")
    listener = Silent()
    resume(run, env=match_reward, listener=listener)
    (notice,) = listener.notices
    assert f"checkpoint {newest}: " in notice
    assert f"resuming from step {older}" in notice
    assert differences(tmp_path / "whole", run) == []


@pytest.mark.parametrize("harm", ["gone", "shorter", "torn", "changed"])
@pytest.mark.parametrize("victim", ["episodes.csv", "metrics.jsonl"])
def test_a_damaged_log_is_named_and_the_run_goes_on_all_the_same(victim: str, harm: str, tmp_path: Path) -> None:
    whole(tmp_path / "whole")
    run = tmp_path / "broken"
    broken(run)
    log = run / victim
    lines = log.read_bytes().splitlines(keepends=True)
    left = {"gone": [], "shorter": lines[:-2], "torn": [*lines[:-1], lines[-1][:5]], "changed": [b" ", *lines]}[harm]
    log.write_bytes(b"".join(left))
    if harm == "gone":
        log.unlink()
    assert any(victim in text for text in verify(run).damage)
    assert verify(run).checkpoints[0] == 200
    listener = Silent()
    resume(run, env=match_reward, listener=listener)
    (notice,) = listener.notices
    assert victim in notice
    assert "continues" in notice
    assert set(differences(tmp_path / "whole", run)) <= {"episodes", "metrics"}
    after = log.read_bytes().splitlines(keepends=True)
    expected = (tmp_path / "whole" / victim).read_bytes().splitlines(keepends=True)
    assert after[-1].split(b",")[:2] == expected[-1].split(b",")[:2]
    kept_lines = {"gone": 0, "shorter": len(lines) - 2, "torn": len(lines) - 1, "changed": 0}[harm]
    assert after[:kept_lines] == left[:kept_lines]


def test_if_none_is_whole_nothing_is_touched(tmp_path: Path) -> None:
    run = tmp_path / "run"
    broken(run)
    for path in (run / "checkpoints").glob("*/state.json"):
        flip(path)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="nothing to resume from"):
        go_on(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_disk_that_fills_up_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole(tmp_path / "whole")
    write = Checkpoints.write_new

    def full(checkpoints: Checkpoints, series: Series) -> Any:
        if series.last > 150:
            monkeypatch.setattr(os, "fsync", no_space)
        return write(checkpoints, series)

    def no_space(handle: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write_new", full)
        with pytest.raises(
            RunError, match=r"replay/.*No space left on device: needs [\d,]+ bytes, [\d,]+ bytes are free"
        ):
            whole(tmp_path / "full")
    monkeypatch.undo()
    assert kept(tmp_path / "full")[-1] == 120
    go_on(tmp_path / "full")
    assert differences(tmp_path / "whole", tmp_path / "full") == []


# Locks and signals.


def test_two_processes_never_write_into_one_run(tmp_path: Path) -> None:
    config, stop = config_of(), Silent(100, interrupt)
    interrupted(lambda: train("CartPole-v1", config=config, run_dir=tmp_path / "run", listener=stop))
    with locked(tmp_path / "run"):
        other = "import sys; from nexus.cli.main import main; sys.exit(main(['resume', sys.argv[1]]))"
        done = subprocess.run(
            [sys.executable, "-c", other, str(tmp_path / "run")], capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert "another process is writing to" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_has_its_own_exit_code(number: signal.Signals, code: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # A shell that starts the tests in the background lets them ignore Ctrl-C, and Python then keeps to that.
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "from nexus.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "train", "CartPole-v1", *ENDLESS, "--run-dir", str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(lambda: list(run.glob("checkpoints/*/state.json")))
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert "nexus resume" in said
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    nexus.load_agent(run)


def wait_for(done: Callable[[], object]) -> None:
    start = time.monotonic()
    while not done():
        assert time.monotonic() - start < 60
        time.sleep(0.02)


def test_a_signal_handler_of_the_program_around_is_left_alone(tmp_path: Path) -> None:
    def own(number: int, frame: Any) -> None:
        """The program's own way to stop."""

    before = signal.signal(signal.SIGTERM, own)
    try:
        seen = []
        listener = Silent(10, lambda: seen.append(signal.getsignal(signal.SIGTERM)))
        train(match_reward, config=config_of(total_steps=60), run_dir=tmp_path / "run", listener=listener)
        assert set(seen) == {own}
    finally:
        signal.signal(signal.SIGTERM, before)
    whole(tmp_path / "other", total_steps=60)
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_command_line_resumes_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("CartPole-v1", config=config_of(), run_dir=tmp_path / "whole", listener=Silent())
    stop = Silent(200, interrupt)
    interrupted(lambda: train("CartPole-v1", config=config_of(), run_dir=tmp_path / "broken", listener=stop))
    newest = kept(tmp_path / "broken")[-1]
    assert newest == 200
    assert main(["verify", str(tmp_path / "broken")]) == 0
    assert f"continues from step {newest}" in capsys.readouterr().out
    assert main(["resume", str(tmp_path / "broken")]) == 0
    seconds = json.loads((tmp_path / "whole" / "run.json").read_text())["seconds"]
    found = re.search(rf"Continuing from step {newest}, ([0-9.]+) s into the run", capsys.readouterr().out)
    assert found is not None
    assert 0 < float(found[1]) < 10 * seconds  # not from 1970 on
    assert differences(tmp_path / "whole", tmp_path / "broken") == []
    assert main(["resume", str(tmp_path / "broken")]) == 2
    assert "finished" in capsys.readouterr().err
    assert main(["resume", str(tmp_path / "broken"), "--total-steps", "360"]) == 0


# Killed.


def kills(seed: int, count: int, steps: int) -> Iterator[tuple[str, int]]:
    """Seeded moments, each soon after the last: before a file operation, with half a file written, at a step."""
    rng = random.Random(seed)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        yield kind, rng.randrange(1, {"file": 50, "torn": 15, "step": steps}[kind])


def killed_and_compared(tmp_path: Path, settings: dict[str, Any], seed: int, count: int) -> None:
    """Kill a run many times, let it end, and compare it with one that nothing happened to."""
    assert run_child(tmp_path / "whole", settings) == 0
    for kill in kills(seed, count, settings["total_steps"]):
        assert run_child(tmp_path / "broken", settings, kill) == -signal.SIGKILL
    assert run_child(tmp_path / "broken", settings) == 0
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


@pytest.mark.parametrize("settings", [SETTINGS | RAINBOW, FRAMES], ids=["rows", "frames"])
def test_a_process_killed_at_random_moments_loses_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    killed_and_compared(tmp_path, settings | {"total_steps": 400}, seed=5, count=3)


CHAOS: list[dict[str, Any]] = [
    SETTINGS | RAINBOW,
    SETTINGS | algorithm_settings("iqn") | {"env": match_reward, "n_step": 4, "num_envs": 3},
    SETTINGS | algorithm_settings("dqn") | {"num_envs": 1, "epsilon_schedule": "per_episode"},
    SETTINGS | algorithm_settings("munchausen") | {"env": "Acrobot-v1", "prioritized": True},
    SETTINGS | algorithm_settings("qr-dqn") | {"env": "LunarLander-v3", "vectorization": "async"},
    FRAMES | algorithm_settings("double"),
    FRAMES | algorithm_settings("dueling") | {"replay_store": "raw", "prioritized": False},
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("settings", CHAOS, ids=lambda settings: settings["algorithm"])
def test_thirty_kills_of_many_kinds_of_runs_lose_nothing(settings: dict[str, Any], seed: int, tmp_path: Path) -> None:
    killed_and_compared(tmp_path, settings, seed=100 + seed, count=3)


def test_a_run_that_was_killed_as_it_began_does_not_block_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert run_child(run, SETTINGS, ("torn", 2)) == -signal.SIGKILL  # run.json is there, the weights are half
    assert (run / "run.json").exists()
    assert not (run / "agent.safetensors").exists()
    with pytest.raises(RunError, match=r"agent\.safetensors"):
        resume(run)
    train(match_reward, config=config_of(), run_dir=run, listener=Silent())
    with pytest.raises(RunError, match="not empty"):
        train(match_reward, config=config_of(), run_dir=run, listener=Silent())


def test_a_second_ctrl_c_ends_at_once_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    # The first one saves, and saving takes for ever: the disk sleeps.
    program = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import nexus.run_files
def asleep(folder, networks):
    print("saving", flush=True)
    time.sleep(600)
from nexus.cli.main import main
save = nexus.run_files.save_weights
calls = []
nexus.run_files.save_weights = lambda *given: asleep(*given) if calls else calls.append(save(*given))
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", program, "train", "CartPole-v1", *ENDLESS, "--run-dir", str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: list(run.glob("checkpoints/*/state.json")))
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        while "saving" not in (line := process.stdout.readline()):
            assert line, "it ended by itself"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert said == ""
    verdict = verify(run)
    assert verdict.whole
    interrupted(lambda: resume(run, listener=Silent(verdict.checkpoints[0] + 50, interrupt)))
