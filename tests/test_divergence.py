"""A run whose loss or gradient is no finite number any more stops, or goes back, and never saves what it became."""

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import nexus
from nexus.api import TrainResult, resume, train
from nexus.cli.main import main
from nexus.core.errors import ConfigError, DivergenceError, RunError
from nexus.core.types import Batch, Outcome
from nexus.runner import MOST_ROLLBACKS, Run
from nexus.training.config import TrainConfig
from nexus.training.course import Course
from nexus.training.divergence import BATCH_FILE, WINDOW, WatchedLearner
from nexus.training.files import read_tensors, write_tensors
from nexus.training.loop import Counters
from nexus.training.verify import verify
from tests.chaos import SETTINGS, Silent, differences, interrupt, interrupted, match_reward

QUICK: dict[str, Any] = SETTINGS | {"total_steps": 400, "num_envs": 1, "eval_every": None, "log_every": "20 steps"}
RATE = TrainConfig().learning_rate
POISONED = 50  # the update whose batch holds an infinite reward: that of step 236, after the checkpoint of step 200


def trained(folder: Path, listener: Silent | None = None, **settings: Any) -> TrainResult:
    config = TrainConfig.from_mapping(QUICK | settings)
    return train(match_reward, config=config, run_dir=folder, listener=Silent() if listener is None else listener)


def rates_of(run: Path) -> dict[int, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["train/learning_rate"] for line in lines if "train/learning_rate" in line}


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes one update of every run fail, as long as the learning rate is above a limit; no state but the agent's."""

    def use(above: float = 0.0, at_update: int = POISONED, name: str = "rewards", value: float = math.inf) -> None:
        learn = WatchedLearner.learn

        def poisoned(watched: WatchedLearner, batch: Batch) -> Any:
            steps = next(iter(watched.optimizer.state.values()))["step"].item()
            if steps == at_update - 1 and watched.optimizer.param_groups[0]["lr"] > above:
                batch = {**batch, name: torch.full_like(batch[name], value)}
            return learn(watched, batch)

        monkeypatch.setattr(WatchedLearner, "learn", poisoned)

    return use


@pytest.mark.parametrize(
    ("name", "value"), [("rewards", math.inf), ("rewards", math.nan), ("weights", math.nan), ("next_states", math.nan)]
)
@pytest.mark.parametrize("settings", [{}, {"prioritized": True}, {"loss": "squared", "max_grad_norm": None}], ids=str)
def test_a_run_that_diverges_stops_at_that_update_and_keeps_what_was_good(
    name: str, value: float, settings: dict[str, Any], poison: Callable[..., None], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    poison(name=name, value=value)
    with pytest.raises(DivergenceError) as caught:
        trained(run, **settings)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"diverged at step 240, update {POISONED}: loss ")
    assert str(run / BATCH_FILE) in said
    assert "last good checkpoint is at step 200" in said
    assert "--on-divergence rollback" in said
    batch = read_tensors(run / BATCH_FILE, 1 << 20)
    assert batch["states"].shape == (16, 2)
    assert np.array_equal(batch[name], np.full_like(batch[name], value), equal_nan=True)
    about = json.loads((run / "run.json").read_text())
    assert about["status"] == "diverged"
    assert about["divergence"] == said
    assert about["progress"]["steps"] == 200
    assert not (run / "evaluation.json").exists()
    # Weights and checkpoints are those of step 200, and whole.
    verdict = verify(run)
    assert verdict.whole
    assert verdict.checkpoints == (200, 100)
    saved = read_tensors(run / "checkpoints/200/state.safetensors", 1 << 20)
    for key, tensor in nexus.load_agent(run).q_network.state_dict().items():
        assert np.array_equal(saved[f"agent.q_network.{key}"], tensor.numpy())


def told(loss: float, norm: float) -> Outcome:
    """What an update tells that is looked at."""
    return Outcome(torch.tensor(loss), torch.zeros(1), {"grad_norm": torch.tensor(norm)})


def test_an_infinite_loss_with_a_finite_gradient_is_no_learning_either(tmp_path: Path) -> None:
    """Huber's slope is ±1 wherever the error is, infinity included."""

    class Agent(SimpleNamespace):
        def learn(self, batch: Batch) -> Outcome:
            return told(math.inf, 1.0)

    agent = Agent(epsilon=0.0, temperature=0.0, optimizer=None)
    watched = WatchedLearner(agent, Counters(7, 0, 2), tmp_path, at_once=True)
    with pytest.raises(DivergenceError, match=r"step 7, update 3: loss inf, gradient norm 1;"):
        watched.learn({"states": torch.zeros(1)})


def test_where_looking_waits_for_a_device_the_first_bad_update_is_still_named(tmp_path: Path) -> None:
    bad = {WINDOW + 3, WINDOW + 5}

    class Agent(SimpleNamespace):
        def learn(self, batch: Batch) -> Outcome:
            number = int(batch["states"])
            return told(0.5, math.nan if number in bad else 1.0)

    counters = Counters()
    agent = Agent(epsilon=0.0, temperature=0.0, optimizer=None)
    watched = WatchedLearner(agent, counters, tmp_path, at_once=False)

    def learn_until(last: int) -> None:
        while counters.updates < last:
            watched.learn({"states": torch.tensor(counters.updates + 1)})
            counters.updates += 1

    learn_until(2 * WINDOW - 1)  # nobody has looked
    with pytest.raises(DivergenceError, match=rf"update {WINDOW + 3}: loss 0.5, gradient norm nan"):
        learn_until(2 * WINDOW)
    assert read_tensors(tmp_path / BATCH_FILE, 1 << 20)["states"] == WINDOW + 3
    bad.add(40)
    counters.updates = 39
    learn_until(41)
    with pytest.raises(DivergenceError, match="update 40"):
        watched.settle()
    watched.settle()  # said once


@pytest.mark.parametrize(("at_update", "total_steps"), [(POISONED, 400), (85, 390)])  # before a checkpoint, or the end
def test_a_run_that_looks_rarely_never_saves_or_evaluates_what_diverged(
    at_update: int, total_steps: int, poison: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nexus.training.divergence.WINDOW", 10_000)
    make = WatchedLearner.__init__
    monkeypatch.setattr(
        WatchedLearner, "__init__", lambda self, *given, **named: make(self, *given, **named | {"at_once": False})
    )
    poison(at_update=at_update)
    with pytest.raises(DivergenceError, match=f"update {at_update}: "):
        trained(tmp_path / "run", total_steps=total_steps)
    newest = 200 if at_update == POISONED else 300
    assert verify(tmp_path / "run").checkpoints == (newest, newest - 100)
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    def spoil(run: Run) -> None:
        with torch.no_grad():
            next(run.parts.agent.q_network.parameters()).view(-1)[0] = math.nan

    class Spoiler(Silent):
        def on_step(self, progress: Any, episodes: Any) -> None:
            if progress.counters.steps == 195:
                spoil(run)

    run_dir = tmp_path / "run"
    config = TrainConfig.from_mapping(QUICK | {"learning_starts": 390, "total_steps": 399})  # so no update finds it
    with (
        pytest.raises(DivergenceError, match=r"diverged by step 200: q_network\..* contains NaN"),
        Run(match_reward, None, config, run_dir, Spoiler()) as run,
    ):
        run.run()
    assert verify(run_dir).checkpoints == (100,)
    with Run(match_reward, None, config, tmp_path / "weights", Silent()) as run:
        run.files.save("running", run.course)
        before = (tmp_path / "weights" / "agent.safetensors").read_bytes()
        spoil(run)
        run.files.save("interrupted", run.course)
    assert (tmp_path / "weights" / "agent.safetensors").read_bytes() == before


# Going back.


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prioritized": True, "n_step": 3, "num_envs": 2},
        {"noisy": True, "epsilon": 0.0, "epsilon_min": 0.0},
        {"learning_rate_schedule": "cosine", "learning_rate_end": RATE / 10},
    ],
    ids=str,
)
def test_a_rollback_halves_the_learning_rate_and_is_the_same_however_often_it_is_broken(
    settings: dict[str, Any], poison: Callable[..., None], tmp_path: Path
) -> None:
    poison(above=0.3 * RATE)
    listener = Silent()
    trained(tmp_path / "whole", listener, on_divergence="rollback", **settings)
    (notice, *more) = listener.notices
    assert f"update {POISONED}" in notice
    assert "back to step 20" in notice
    rates = rates_of(tmp_path / "whole")
    config = TrainConfig.from_mapping(QUICK | settings)
    for step, rate in rates.items():
        halvings = len(listener.notices) if step > 201 else 0
        assert rate == pytest.approx(config.learning_rate_at(step, 0) * 0.5**halvings)
    logged = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert {line.get("train/rollbacks") for line in logged if 201 < line["step"] < 400} == {1 + len(more)}
    assert sorted(rates) == list(range(20, 401, 20)) or config.num_envs > 1
    about = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert (about["status"], about["rollbacks"]) == ("finished", 1 + len(more))
    assert about["config"]["learning_rate"] == RATE

    seen = []

    for place, at_step in enumerate((230, 290, 310, 390)):  # before it diverges, after a rollback, past a checkpoint
        stop = Silent(at_step, interrupt)
        if place == 0:
            interrupted(partial(trained, tmp_path / "broken", stop, on_divergence="rollback", **settings))
        else:
            interrupted(partial(resume, tmp_path / "broken", env=match_reward, listener=stop))
        seen.append(len(stop.notices))
    assert seen == [0, 1 + len(more), 0, 0]  # what is saved at an interruption knows of it
    resume(tmp_path / "broken", env=match_reward, listener=Silent())
    assert differences(tmp_path / "whole", tmp_path / "broken") == []


def test_a_rollback_gives_what_a_new_process_with_half_the_rate_would(
    poison: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(partial(trained, tmp_path / "other", Silent(230, interrupt), num_envs=1))
    shutil.rmtree(tmp_path / "other" / "checkpoints" / "230")
    with monkeypatch.context() as patch:
        set_state = Course.set_state
        patch.setattr(Course, "set_state", lambda course, state: set_state(course, {**state, "rollbacks": 1}))
        resume(tmp_path / "other", env=match_reward, listener=Silent())
    poison(above=0.6 * RATE)
    trained(tmp_path / "run", on_divergence="rollback")
    assert differences(tmp_path / "other", tmp_path / "run") == []


def test_rollbacks_are_bounded(poison: Callable[..., None], tmp_path: Path) -> None:
    poison()
    listener = Silent()
    with pytest.raises(DivergenceError, match=f"{MOST_ROLLBACKS} rollbacks did not help; try"):
        trained(tmp_path / "run", listener, on_divergence="rollback")
    assert len(listener.notices) == MOST_ROLLBACKS
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (about["status"], about["rollbacks"]) == ("diverged", MOST_ROLLBACKS)
    nexus.load_agent(tmp_path / "run")


def test_without_a_checkpoint_there_is_no_way_back(poison: Callable[..., None], tmp_path: Path) -> None:
    poison(at_update=5)
    with pytest.raises(DivergenceError, match="there is no earlier checkpoint"):
        trained(tmp_path / "run", on_divergence="rollback")
    nexus.load_agent(tmp_path / "run")  # the weights that it began with
    with pytest.raises(ConfigError, match="on_divergence"):
        TrainConfig(on_divergence="rollback", checkpoint_every=None)


def test_a_run_that_diverged_can_be_resumed_with_another_answer(poison: Callable[..., None], tmp_path: Path) -> None:
    poison(above=0.6 * RATE)
    with pytest.raises(DivergenceError):
        trained(tmp_path / "run")
    listener = Silent()
    with pytest.raises(DivergenceError):
        resume(tmp_path / "run", env=match_reward, listener=listener)
    assert "the run diverged and will diverge again with the same settings" in listener.notices[0]
    resume(tmp_path / "run", env=match_reward, on_divergence="rollback", listener=Silent())
    trained(tmp_path / "whole", on_divergence="rollback")
    assert differences(tmp_path / "whole", tmp_path / "run") == []


def test_a_batch_that_can_not_be_saved_does_not_hide_the_divergence(
    poison: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, arrays: Any) -> Any:
        if path.name == BATCH_FILE:
            raise RunError("can't write: No space left on device")
        return write_tensors(path, arrays)

    monkeypatch.setattr("nexus.training.divergence.write_tensors", full)
    poison()
    with pytest.raises(DivergenceError, match=r"its batch could not be saved \(can't write: No space left on device\)"):
        trained(tmp_path / "run")


def test_a_damaged_batch_is_named_by_verify(poison: Callable[..., None], tmp_path: Path) -> None:
    poison()
    with pytest.raises(DivergenceError):
        trained(tmp_path / "run")
    path = tmp_path / "run" / BATCH_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\x77")
    (line,) = verify(tmp_path / "run").damage
    assert BATCH_FILE in line


EXPLOSIVE = """
import gymnasium as gym
from tests.probes import Probe

class Explosive(Probe):
    def reward(self, action):
        return 3e38  # float32 holds it, but not the sum over a batch

gym.register("Explosive-v0", entry_point=Explosive)
"""


def test_the_command_line_says_it_in_one_line_with_its_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "explosive_envs.py").write_text(EXPLOSIVE)
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    words = ["--total-steps", "2000", "--learning-starts", "100", "--run-dir", str(run)]
    assert main(["train", "explosive_envs:Explosive-v0", *words]) == 3
    said = capsys.readouterr().err
    assert said.startswith("nexus: error: diverged at step 104, update 1: loss ")
    assert len(said.splitlines()) == 1


def test_looking_costs_little(tmp_path: Path) -> None:
    """A bound that only a slip such as reducing every metric would pass: 450 µs is a plain update."""
    import time

    ready = told(0.5, 1.0)

    class Agent(SimpleNamespace):
        def learn(self, batch: Batch) -> Outcome:
            return ready

    agent = Agent(epsilon=0.0, temperature=0.0, optimizer=None)
    watched = WatchedLearner(agent, Counters(), tmp_path, at_once=True)
    best = math.inf
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(100):
            watched.learn({})
        best = min(best, (time.perf_counter() - started) / 100)
    assert best < 20e-6
