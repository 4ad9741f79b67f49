"""Running statistics of wrappers: evaluations scale by those of the training, and a run goes on with them exactly."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.numpy
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TimeLimit
from gymnasium.wrappers.utils import RunningMeanStd

import nexus
from nexus.cli import watch
from nexus.cli.main import main
from nexus.core.errors import ConfigError, EnvError, RunError
from nexus.core.types import Array
from nexus.envs.factory import EnvSpec, make_env, make_vector_env
from nexus.envs.statistics import Running, Statistics, merged, require_statistics, stack_statistics
from nexus.envs.stream import TransitionStream
from nexus.envs.workers import close_env
from nexus.training.checkpoint import read_checkpoint
from nexus.training.config import TrainConfig
from nexus.training.evaluation import evaluate_policy
from nexus.training.files import write_tensors
from tests.chaos import SETTINGS, Silent, differences, interrupt, interrupted

ASYNC = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # how Linux starts processes before 3.14
MEAN, VAR, COUNT = (f"0.obs_rms.{moment}" for moment in ("mean", "var", "count"))


class Corridor(gym.Env[Any, Any]):
    """Stand at a height in [900, 1100]; action 1 is right above 1000, else 0: 1 for each of five answers."""

    observation_space = gym.spaces.Box(0, 2000, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def look(self) -> Array:
        self.height = self.np_random.uniform(900, 1100)
        return np.array([self.height], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        reward = float((self.height > 1000) == bool(action))
        return self.look(), reward, False, self.t == 5, {}


def scaled() -> gym.Env[Any, Any]:
    return NormalizeObservation(Corridor())


def wrapped_twice() -> gym.Env[Any, Any]:
    """Both kinds, with other wrappers outside and between."""
    pole = gym.make("CartPole-v1")
    return TimeLimit(NormalizeReward(TimeLimit(NormalizeObservation(pole), 400)), 300)


class Above:
    """Answers 1 where what it sees is above 0: right if 0 stands for 1000."""

    def act(self, states: Array, epsilon: float, training: bool, action_masks: Array | None) -> Array:
        return (states[:, 0] > 0).astype(np.int64)


def statistics_of(mean: float, var: float = 3333.0, count: float = 100.0) -> Statistics:
    return {MEAN: np.array([mean], np.float32), VAR: np.array([var], np.float32), COUNT: np.array(count)}


# --- one environment ---


def test_frozen_statistics_scale_and_do_not_move() -> None:
    env = scaled()
    running = Running(env)
    assert running.freeze(statistics_of(1000.0, 400.0))
    state, _ = env.reset(seed=0)
    height = env.unwrapped.height  # type: ignore[attr-defined]
    assert state == pytest.approx([(height - 1000) / 20], rel=1e-5)
    env.step(0)
    assert running.get()[COUNT] == 100.0
    assert running.kinds("observation") == []


def test_statistics_that_were_put_back_go_on_as_if_nothing_had_happened() -> None:
    one, other = (NormalizeReward(scaled()) for _ in range(2))
    one.reset(seed=0)
    for _ in range(3):
        one.step(1)
    Running(other).put(Running(one).get())
    other.reset(seed=7)
    one.reset(seed=7)
    for _ in range(5):
        mine, its = one.step(1), other.step(1)
        assert (mine[0].tobytes(), mine[1]) == (its[0].tobytes(), its[1])
        assert mine[0].dtype == its[0].dtype
    for name, value in Running(one).get().items():
        assert Running(other).get()[name].tobytes() == value.tobytes(), name
    assert set(Running(one).get()) == {
        *(f"0.return_rms.{moment}" for moment in ("mean", "var", "count")),
        "0.discounted_reward",
        *(f"1.obs_rms.{moment}" for moment in ("mean", "var", "count")),
    }


@pytest.mark.parametrize(
    "wrong",
    [{}, {MEAN: np.zeros(1)}, {**statistics_of(0.0), MEAN: np.zeros(2)}, {**statistics_of(0.0), "1.x": np.zeros(1)}],
)
def test_statistics_of_other_wrappers_are_not_taken(wrong: Statistics) -> None:
    env = scaled()
    assert not Running(env).freeze(wrong)
    assert Running(env).kinds("observation") == ["NormalizeObservation"]


class Copying(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps its statistics under names of its own."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.obs_rms = {"mean": 0.0}


def test_a_frozen_and_an_unknown_wrapper_are_left_alone() -> None:
    frozen = NormalizeObservation(Corridor())
    frozen.update_running_mean = False
    for env in (frozen, Copying(Corridor()), Corridor()):
        assert Running(env).get() == {}


# --- several sub-environments ---


def test_environments_are_merged_by_how_much_each_has_seen() -> None:
    envs = {
        "0.obs_rms.mean": np.array([[0.0], [3.0]], np.float32),
        "0.obs_rms.var": np.array([[1.0], [4.0]], np.float32),
        "0.obs_rms.count": np.array([1.0, 2.0]),
        "0.discounted_reward": np.array([[5.0], [6.0]]),
    }
    whole = merged(envs)
    assert {name: value.tolist() for name, value in whole.items()} == {MEAN: [2.0], VAR: [5.0], COUNT: 3.0}
    assert whole[MEAN].dtype == np.float32
    assert merged({}) == {}


def test_merged_statistics_are_those_of_all_that_was_seen() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(3, 2, (count, 2)) for count in (5, 50, 500)]
    fresh: Any = partial(RunningMeanStd, 0.0, (2,))
    envs, whole = [], fresh()
    for seen in parts:
        own = fresh()
        own.update(seen)
        whole.update(seen)
        envs.append({MEAN: own.mean, VAR: own.var, COUNT: np.array(own.count)})
    found = merged(stack_statistics(envs))
    np.testing.assert_allclose(found[MEAN], whole.mean, rtol=1e-12)
    np.testing.assert_allclose(found[VAR], whole.var, rtol=1e-12)
    np.testing.assert_allclose(found[VAR], np.concatenate(parts).var(0), rtol=1e-12)
    assert found[COUNT] == 555


def test_of_one_not_a_bit_changes() -> None:
    seen = {MEAN: np.array([0.1], np.float32), VAR: np.array([0.3], np.float32), COUNT: np.array(7.0001)}
    for name, value in merged(stack_statistics([seen])).items():
        assert value.tobytes() == seen[name].tobytes()


def test_environments_that_are_wrapped_otherwise_have_none_together() -> None:
    assert stack_statistics([statistics_of(0.0), {MEAN: np.zeros(1)}]) == {}
    assert stack_statistics([]) == {}


@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_vector_tells_and_freezes_those_of_its_environments(vectorization: Any) -> None:
    envs = make_vector_env(EnvSpec(scaled), 3, vectorization)
    stream = TransitionStream(envs, "Corridor")
    try:
        stream.reset(3)
        stream.step(np.zeros(3, np.int64))
        counts = stream.statistics()[COUNT]
        assert counts == pytest.approx([2.0001] * 3)
        assert stream.freeze({}) == ["NormalizeObservation"]
        assert stream.freeze(statistics_of(1000.0)) == []
        stream.step(np.zeros(3, np.int64))
        assert stream.statistics()[COUNT].tolist() == [100.0] * 3
    finally:
        close_env(envs)
    assert (stream.statistics() == {}) is (vectorization == "async")  # processes that are gone can't be asked


# --- evaluations ---


@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_evaluation_scales_by_what_it_is_given(vectorization: Any) -> None:
    play = partial(evaluate_policy, Above(), EnvSpec(scaled), 200, num_envs=4, vectorization=vectorization)
    assert play(statistics=statistics_of(1000.0)).returns == [5.0] * 200
    # With 1050 for a mean all heights in (1000, 1050] are answered wrong, which is a quarter.
    assert play(statistics=statistics_of(1050.0)).mean == pytest.approx(3.75, abs=0.15)
    assert play().mean < 4.95  # by what each sub-environment gathers in its own episodes


def test_what_can_not_be_taken_over_is_said() -> None:
    for statistics, count in ((statistics_of(1000.0), 0), (None, 1), ({}, 1), ({MEAN: np.zeros(2)}, 1)):
        said: list[str] = []
        evaluate_policy(Above(), EnvSpec(scaled), 2, statistics=statistics, notice=said.append)
        assert len(said) == count
        assert all(
            text == "scaled: NormalizeObservation scales observations by statistics of this evaluation alone, since "
            "the agent has none for it, so scores are for inputs scaled differently than in training"
            for text in said
        )


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> nexus.TrainResult:
    return nexus.train(
        scaled,
        run_dir=tmp_path_factory.mktemp("learned") / "run",
        total_steps=3_000,
        learning_starts=200,
        epsilon_steps=1_500,
        epsilon_min=0.0,
        hidden_dim=32,
        gamma=0.0,
        eval_every="1000 steps",
        eval_episodes=200,
        listener=Silent(),
    )


def test_a_normalized_environment_scores_what_it_does_in_training(learned: nexus.TrainResult) -> None:
    """Fresh statistics in each evaluation made it 4.2 of 5."""
    assert learned.evaluation is not None
    assert learned.evaluation.mean > 4.9
    for given in (learned, learned.agent, nexus.load_agent(learned.run_dir)):
        assert nexus.evaluate(given, scaled, 200, listener=Silent()).mean > 4.9


def test_its_statistics_are_those_of_what_was_seen(learned: nexus.TrainResult) -> None:
    stored = safetensors.numpy.load_file(learned.run_dir / "agent.safetensors")
    mean, var, count = (stored[f"statistics.{name}"] for name in (MEAN, VAR, COUNT))
    assert mean == pytest.approx([1000], abs=5)
    assert var == pytest.approx([200**2 / 12], rel=0.06)
    assert count == pytest.approx(3_600, abs=10)  # with the first of each of 600 episodes


def test_each_file_with_weights_has_those_of_its_moment(learned: nexus.TrainResult) -> None:
    run = learned.run_dir
    counts = {}
    for path in [run / "agent.safetensors", *(run / "best").glob("*.safetensors")]:
        counts[path.stem] = float(safetensors.numpy.load_file(path)[f"statistics.{COUNT}"])
    assert len(counts) > 1
    assert all(counts[steps] == pytest.approx(1.2 * int(steps), abs=10) for steps in counts if steps != "agent")
    for checkpoint in (None, "best", "latest"):
        kept = nexus.api.statistics_of(nexus.load_agent(run, checkpoint=checkpoint))
        assert set(kept) == {MEAN, VAR, COUNT}
    latest = nexus.api.statistics_of(nexus.load_agent(run, checkpoint="latest"))
    assert {name: value.tobytes() for name, value in latest.items()} == {
        name: value.tobytes() for name, value in nexus.api.statistics_of(learned.agent).items()
    }
    state = read_checkpoint(run, 3_000).read_state(1 << 20)
    assert state[f"stream.statistics_now.{COUNT}"].sum() == counts["agent"]


def test_evaluating_changes_no_bit_of_the_training(tmp_path: Path) -> None:
    """Also where the only environment of a training is evaluated in, as one of a function is."""
    ends = []
    for name, eval_every in (("often", "40 steps"), ("never", None)):
        config = TrainConfig.from_mapping(SETTINGS | {"num_envs": 1, "eval_every": eval_every, "total_steps": 300})
        nexus.train(wrapped_twice, config=config, run_dir=tmp_path / name, listener=Silent())
        ends.append((tmp_path / name / "agent.safetensors").read_bytes())
    assert ends[0] == ends[1]
    assert b"statistics.1.obs_rms.mean" in ends[0]


# --- going on ---

QUICK: dict[str, Any] = SETTINGS | {"total_steps": 300, "eval_every": "70 steps", "checkpoint_every": "60 steps"}


@ASYNC
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"vectorization": "async"},
        {"frame_stack": 3},  # whose older frames were scaled otherwise than the newest one
        {"num_envs": 1},
        {"actor_sync_every": "16 steps"},
    ],
    ids=str,
)
def test_a_run_goes_on_with_them_bit_for_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig.from_mapping(QUICK | settings)
    nexus.train(wrapped_twice, config=config, run_dir=tmp_path / "whole", listener=Silent())
    stop, again = Silent(160, interrupt), Silent()
    run = tmp_path / "run"
    interrupted(lambda: nexus.train(wrapped_twice, config=config, run_dir=run, listener=stop))
    nexus.resume(run, env=wrapped_twice, listener=again)
    assert differences(tmp_path / "whole", run, wrapped_twice) == []
    assert not [text for text in again.notices if "repeat" in text]


class Failing(gym.Wrapper[Any, Any, Any, Any]):
    """Fails at a step, as long as there is a file."""

    def __init__(self, env: gym.Env[Any, Any], file: str) -> None:
        super().__init__(env)
        self.file, self.steps = file, 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 70 and os.path.exists(self.file):
            raise RuntimeError("no power")
        return self.env.step(action)


@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_it_goes_on_where_an_environment_failed(vectorization: Any, tmp_path: Path) -> None:
    """Processes that failed are gone by then, and with them what their wrappers had gathered."""

    def make() -> gym.Env[Any, Any]:
        return NormalizeObservation(Failing(gym.make("CartPole-v1"), str(tmp_path / "fails")))

    settings: dict[str, Any] = {"vectorization": vectorization, "checkpoint_every": "1000 steps", "eval_every": None}
    config = TrainConfig.from_mapping(QUICK | settings)
    nexus.train(make, config=config, run_dir=tmp_path / "whole", listener=Silent())
    (tmp_path / "fails").touch()
    run = tmp_path / "run"
    with pytest.raises(EnvError, match="no power"):
        nexus.train(make, config=config, run_dir=run, listener=Silent())
    (tmp_path / "fails").unlink()
    again = Silent()
    nexus.resume(run, env=make, listener=again)
    assert [name for name in differences(tmp_path / "whole", run, make) if name != "evaluation.json"] == []
    assert again.notices == []


def test_a_checkpoint_without_them_is_read(tmp_path: Path) -> None:
    """As older versions wrote it: its episodes can't be brought back exactly, which is said."""
    envs = make_vector_env(EnvSpec(scaled), 2, "sync")
    stream = TransitionStream(envs, "Corridor")
    stream.reset(3)
    stream.step(np.zeros(2, np.int64))
    state = stream.get_state()
    older = {name: value for name, value in state.items() if not name.startswith("statistics")}
    again = TransitionStream(make_vector_env(EnvSpec(scaled), 2, "sync"), "Corridor")
    assert again.set_state(older).tolist() == [False, False]  # of the first episodes, which begin with none
    stream.step(np.zeros(2, np.int64))
    for wrong in ({**state, f"statistics.{MEAN}": np.zeros((2, 3))}, {**state, "statistics.3.x": np.zeros(2)}):
        with pytest.raises(RunError, match="running statistics do not match the environments' wrappers"):
            again.set_state(wrong)


def test_an_environment_that_does_not_repeat_itself_keeps_them(tmp_path: Path) -> None:
    class Forgetful(Corridor):
        def look(self) -> Array:
            self.height = np.random.default_rng().uniform(900, 1100)
            return np.array([self.height], np.float32)

    envs = make_vector_env(EnvSpec(lambda: NormalizeObservation(Forgetful())), 2, "sync")
    stream = TransitionStream(envs, "Forgetful")
    stream.reset(3)
    for _ in range(7):
        stream.step(np.zeros(2, np.int64))
    state = stream.get_state()
    assert state[f"statistics_now.{COUNT}"] == pytest.approx([9.0001] * 2)
    assert stream.set_state(state).all()
    assert stream.statistics()[COUNT] == pytest.approx([10.0001] * 2)  # and what another episode begins with


def test_where_only_rewards_do_not_repeat_another_episode_begins() -> None:
    class Generous(Corridor):
        def step(self, action: Any) -> Any:
            seen, _, *rest = super().step(action)
            return seen, np.random.default_rng().uniform(), *rest

    def make() -> Any:
        return NormalizeReward(Generous())

    stream = TransitionStream(make_vector_env(EnvSpec(make), 2, "sync"), "Generous")
    stream.reset(3)
    for _ in range(2):
        stream.step(np.zeros(2, np.int64))
    state, states = stream.get_state(), stream.states.copy()
    again = TransitionStream(make_vector_env(EnvSpec(make), 2, "sync"), "Generous")
    assert again.set_state(state).tolist() == [True, True]
    assert not np.array_equal(again.states, states)


# --- in another process, and where it is seen ---

NORMALIZED = "gymnasium.wrappers:NormalizeObservation"


@pytest.fixture(scope="module")
def pole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("pole") / "run"
    settings: dict[str, Any] = QUICK | {"scale_observations": False, "eval_every": None, "eval_episodes": 5}
    nexus.train("CartPole-v1", wrappers=NORMALIZED, run_dir=run, listener=Silent(), **settings)
    return run


def test_another_process_evaluates_with_them(pole: Path) -> None:
    said = json.loads((pole / "evaluation.json").read_text())
    words = ["evaluate", str(pole), "--episodes", "5", "--seed", str(said["protocol"]["seed"]), "--json"]
    done = subprocess.run([sys.executable, "-m", "nexus", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["returns"] == said["returns"]
    assert done.stderr == ""


def test_an_environment_that_is_watched_is_scaled_by_them(pole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imageio_ffmpeg")
    seen: list[Statistics] = []
    play: Callable[..., None] = watch.show_episodes

    def looking(env: Any, *rest: Any) -> None:
        play(env, *rest)
        assert Running(env).layers == []  # nothing gathers any more
        found = next(layer for layer in layers(env) if isinstance(layer, NormalizeObservation))
        seen.append({MEAN: found.obs_rms.mean, VAR: found.obs_rms.var, COUNT: np.array(found.obs_rms.count)})

    monkeypatch.setattr(watch, "show_episodes", looking)
    assert main(["watch", str(pole), "--episodes", "2", "--video", str(pole / "out.mp4")]) == 0
    kept = nexus.api.statistics_of(nexus.load_agent(pole))
    assert {name: value.tolist() for name, value in seen[0].items()} == {
        name: value.tolist() for name, value in kept.items()
    }


def layers(env: Any) -> Any:
    while env is not None:
        yield env
        env = getattr(env, "env", None)


def test_an_agent_that_was_trained_without_is_told_of_it(pole: Path) -> None:
    agent = nexus.DQNAgent({"state_dim": 4, "action_dim": 2, "hidden_dim": 8})
    with pytest.warns(RuntimeWarning, match="CartPole-v1: NormalizeObservation scales observations by statistics of"):
        nexus.evaluate(agent, "CartPole-v1", 2, wrappers=NORMALIZED)
    nexus.evaluate(pole, episodes=2, wrappers=[])  # has no use for them
    with closing(make_env(EnvSpec("CartPole-v1", wrappers=(NORMALIZED,)))) as env:
        assert len(nexus.api.scaled_as_trained(env, agent, "CartPole-v1")) == 1
        assert nexus.api.scaled_as_trained(env, nexus.load_agent(pole), "CartPole-v1") == []


# --- hostile files ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (MEAN, np.array([np.nan, 0, 0, 0], np.float32)),
        (VAR, np.array([-1, 1, 1, 1], np.float32)),
        (COUNT, np.array(0.0)),
        (COUNT, np.array(np.inf)),
        (MEAN, np.array([0, 0, 0, 0])),
        ("0.obs_rms.evil", np.zeros(4)),
        ("x.obs_rms.mean", np.zeros(4)),
        ("0", np.zeros(4)),
        ("0.evil.mean", np.zeros(4)),
    ],
)
def test_what_can_be_no_statistics_is_refused(name: str, value: Array, pole: Path, tmp_path: Path) -> None:
    good = nexus.api.statistics_of(nexus.load_agent(pole))
    with pytest.raises(RunError, match=f"here: {name} is"):
        require_statistics({**good, name: value}, "here")
    about = json.loads((pole / "run.json").read_text())
    weights = safetensors.numpy.load_file(pole / "agent.safetensors")
    run = tmp_path / "run"
    run.mkdir()
    nexus.training.files.write_json(run / "run.json", {**about, "weights": None})
    write_tensors(run / "agent.safetensors", {**weights, f"statistics.{name}": value})
    with pytest.raises(RunError, match=f"agent.safetensors: {name} is"):
        nexus.load_agent(run)


def test_more_than_statistics_can_take_is_not_read(pole: Path, tmp_path: Path) -> None:
    weights = safetensors.numpy.load_file(pole / "agent.safetensors")
    run = tmp_path / "run"
    run.mkdir()
    about = json.loads((pole / "run.json").read_text())
    nexus.training.files.write_json(run / "run.json", {**about, "weights": None})
    write_tensors(run / "agent.safetensors", {**weights, "statistics.7.obs_rms.mean": np.zeros(1 << 20)})
    with pytest.raises(RunError, match=r"at most .* are plausible"):
        nexus.load_agent(run)


def test_wrappers_that_were_left_out_are_not_missed(pole: Path) -> None:
    with pytest.raises(ConfigError, match="can't import"):
        nexus.evaluate(pole, episodes=2, wrappers="nosuch:X")
