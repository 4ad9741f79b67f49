"""A run that starts with the weights of another one: what it takes over, records and refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.wrappers import NormalizeObservation

import nexus
from nexus.api import make_config
from nexus.cli.main import main
from nexus.core.errors import ConfigError, RunError
from nexus.core.state import part
from nexus.listener import Plan
from nexus.models.rl.dqn.rainbow import ALGORITHMS
from nexus.runner import Run
from nexus.training.checkpoint import read_checkpoint
from nexus.training.config import TrainConfig
from nexus.training.curves import read_one as read_curve
from nexus.training.files import read_tensors
from nexus.training.verify import verify
from tests.chaos import Silent, differences, interrupt, interrupted, match_reward
from tests.rollouts import pace_of

SETTINGS: dict[str, Any] = {
    "total_steps": 400,
    "learning_starts": 64,
    "num_envs": 2,
    "hidden_dim": 16,
    "eval_every": "200 steps",
    "eval_episodes": 3,
    "checkpoint_every": "100 steps",
    "epsilon_schedule": "linear",
    "epsilon_steps": 800,
    "epsilon_min": 0.1,
    "target_return": None,
    "replay_capacity": 300,
    "threads": 1,
}


class Longer(CartPoleEnv):
    """CartPole on another planet: states and actions of the same shapes, other episodes."""

    def __init__(self, gravity: float = 3.7) -> None:
        super().__init__()
        self.gravity = gravity


gym.register(
    "Pole-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=200
)  # no settings are tuned for it
gym.register("Lighter-v0", entry_point="tests.test_lineage:Longer", max_episode_steps=200)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests only read it."""
    folder = tmp_path_factory.mktemp("first") / "run"
    nexus.train("Pole-v0", preset="plain", run_dir=folder, listener=Silent(), **SETTINGS)
    return folder


def about(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "run.json").read_text())
    return read


def scores(run: Path) -> dict[int, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["eval/mean_reward"] for line in lines if "eval/mean_reward" in line}


def settings_but(run: Path, *names: str) -> dict[str, Any]:
    return {name: value for name, value in about(run)["config"].items() if name not in names}


class Start(Silent):
    """Keeps what a run has before its first step, and the steps at which it was evaluated."""

    def on_start(self, plan: Plan) -> None:
        assert plan.live is not None
        self.state = {name: np.array(value) for name, value in arrays(plan.agent.get_state()).items()}
        self.stored = len(plan.live.replay)
        self.batch = plan.live.replay.sample(500) if self.stored else {}
        self.lineage = plan.lineage
        self.epsilons: list[float] = []

    def on_step(self, progress: Any, episodes: Any) -> None:
        super().on_step(progress, episodes)
        self.epsilons.append(progress.epsilon)


def arrays(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if isinstance(value, np.ndarray)}


def end_of(run: Path) -> dict[str, Any]:
    """The state of the last checkpoint."""
    checkpoint = read_checkpoint(run, about(run)["progress"]["steps"])
    return checkpoint.read_state(checkpoint.arrays.bytes)


def test_a_run_starts_with_the_weights_of_another_one_and_with_its_score(first: Path, tmp_path: Path) -> None:
    start = Start()
    run = nexus.train(from_run=first, learning_rate=0.0001, run_dir=tmp_path / "run", listener=start).run_dir
    trained = read_tensors(first / "agent.safetensors", 10**9, must_carry=True)
    assert len(trained) == 12  # three layers, each a weight and a bias, in two networks
    for name, values in trained.items():
        np.testing.assert_array_equal(start.state[name], values)
    scored = json.loads((first / "evaluation.json").read_text())
    assert scores(run)[0] == scored["mean"]
    assert about(run)["from"] == start.lineage
    assert start.lineage == {
        "run": str(first.resolve()),
        "env": "Pole-v0",
        "algorithm": "dqn",
        "steps": 400,
        "weights": about(first)["weights"],
        "score": scored["mean"],
        "evaluation_seed": scored["protocol"]["seed"],
        "keep": [],
        "from": None,
    }
    assert about(run)["config"]["learning_rate"] == 0.0001
    assert settings_but(run, "learning_rate") == settings_but(first, "learning_rate")
    assert about(run)["progress"]["steps"] == 400
    assert start.stored == 0
    assert start.epsilons[0] == 1.0
    assert not verify(run).damage
    assert read_tensors(run / "agent.safetensors", 10**9, must_carry=True).keys() == trained.keys()
    assert not np.array_equal(
        end_of(run)["agent.q_network.head.linear.weight"], trained["q_network.head.linear.weight"]
    )


def test_the_moments_are_fresh_unless_they_are_kept(first: Path, tmp_path: Path) -> None:
    fresh, kept = Start(), Start()
    nexus.train(from_run=first, run_dir=tmp_path / "fresh", listener=fresh)
    nexus.train(from_run=first, keep="optimizer", run_dir=tmp_path / "kept", listener=kept)
    there = part(end_of(first), "agent")
    assert there["optimizer.step"] > 0
    for name in ("optimizer.exp_avg", "optimizer.exp_avg_sq"):
        assert not fresh.state[name].any()
        np.testing.assert_array_equal(kept.state[name], there[name])
    assert fresh.state["optimizer.step"] == 0
    assert kept.state["optimizer.step"] == there["optimizer.step"]


def test_the_exploration_begins_again_unless_it_is_kept(first: Path, tmp_path: Path) -> None:
    kept = Start()
    run = nexus.train(from_run=first, keep=["epsilon"], run_dir=tmp_path / "run", listener=kept).run_dir
    # Linear from 1 to 0.1 in the 800 steps after learning_starts: at step 400 it is 1 - 0.9 (400 - 64) / 800.
    assert about(run)["config"]["epsilon"] == pytest.approx(0.622)
    assert kept.epsilons[0] == pytest.approx(0.622)
    assert about(run)["from"]["keep"] == ["epsilon"]
    given = nexus.train(from_run=first, keep="epsilon", epsilon=0.3, run_dir=tmp_path / "given", listener=Silent())
    assert about(given.run_dir)["config"]["epsilon"] == 0.3


@pytest.mark.parametrize("store", ["full", "prioritized"])
def test_a_replay_that_is_kept_has_the_same_transitions(store: str, tmp_path: Path) -> None:
    own: dict[str, Any] = {"prioritized": store == "prioritized", "n_step": 3}
    end, start = Start(), Start()
    first = nexus.train("Pole-v0", run_dir=tmp_path / "first", listener=end, **SETTINGS | own).run_dir
    nexus.train(from_run=first, keep="replay", run_dir=tmp_path / "run", listener=start)
    with Run("Pole-v0", None, TrainConfig.from_mapping(about(first)["config"]), first, Silent(), True) as again:
        assert len(again.parts.replay) == start.stored == 300
        there = again.parts.replay.sample(500)
    for name, values in there.items():
        np.testing.assert_array_equal(start.batch[name].numpy(), values.numpy())


def test_another_environment_of_the_same_shapes(first: Path, tmp_path: Path) -> None:
    heavy = nexus.train(
        "Lighter-v0", env_kwargs={"gravity": 9.8}, run_dir=tmp_path / "heavy", listener=Silent(), **SETTINGS
    ).run_dir
    start = Start()
    run = nexus.train("Pole-v0", from_run=heavy, run_dir=tmp_path / "run", listener=start).run_dir
    assert about(run)["config"]["env_kwargs"] == {}
    assert about(run)["from"]["env"] == "Lighter-v0"
    assert settings_but(run, "env_kwargs") == settings_but(heavy, "env_kwargs")
    there = nexus.train("Lighter-v0", from_run=heavy, run_dir=tmp_path / "same", listener=start).run_dir
    assert about(there)["config"]["env_kwargs"] == {"gravity": 9.8}
    assert scores(there)[0] == json.loads((heavy / "evaluation.json").read_text())["mean"]


def test_a_preset_takes_the_place_of_the_settings(first: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "hidden_dim": 16,
        "hidden_layers": 2,
        "total_steps": 300,
        "learning_starts": 64,
        "eval_episodes": 0,
    }
    run = nexus.train("Pole-v0", preset="seed", from_run=first, run_dir=tmp_path / "run", listener=Silent(), **given)
    seed = make_config("Pole-v0", "seed", **given).to_mapping()
    assert about(run.run_dir)["config"] == json.loads(json.dumps(seed))
    assert about(run.run_dir)["from"]["run"] == str(first.resolve())


def test_the_best_weights_and_those_of_a_checkpoint(first: Path, tmp_path: Path) -> None:
    best, early = Start(), Start()
    nexus.train(from_run=first, from_checkpoint="best", run_dir=tmp_path / "best", listener=best)
    scored = max(
        (json.loads(path.read_text()) for path in (first / "best").glob("*.json")),
        key=lambda it: it["evaluation"]["mean"],
    )
    assert best.lineage is not None
    assert best.lineage["score"] == scored["evaluation"]["mean"] == scores(tmp_path / "best")[0]
    nexus.train(from_run=first, from_checkpoint=300, run_dir=tmp_path / "early", listener=early)
    assert early.lineage is not None
    assert (early.lineage["steps"], early.lineage["score"]) == (300, None)
    checkpoint = read_checkpoint(first, 300)
    there = part(checkpoint.read_state(checkpoint.arrays.bytes), "agent")
    np.testing.assert_array_equal(early.state["q_network.head.linear.weight"], there["q_network.head.linear.weight"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm(algorithm: str, tmp_path: Path) -> None:
    own = ALGORITHMS[algorithm].settings
    greedy = {"epsilon": 0.0, "epsilon_min": 0.0} if own.get("noisy") or own.get("epsilon") == 0.0 else {}
    settings = SETTINGS | greedy | {"atoms": 11} | pace_of(algorithm) | {"algorithm": algorithm, "total_steps": 256}
    end, start = tmp_path / "first", Start()
    nexus.train("Pole-v0", run_dir=end, listener=Silent(), **settings)
    keep = "optimizer,epsilon" if algorithm == "pqn" else "replay,optimizer,epsilon"
    run = nexus.train(from_run=end, keep=keep, run_dir=tmp_path / "run", listener=start)
    assert run.counters.updates > 0
    state = part(end_of(end), "agent")
    for name, values in start.state.items():
        if name.startswith(("q_network.", "target_network.", "optimizer.", "averaged_network.")):
            np.testing.assert_array_equal(values, state[name], err_msg=name)
    assert scores(run.run_dir)[0] == json.loads((end / "evaluation.json").read_text())["mean"]


def test_killed_and_resumed_without_the_other_run_it_comes_to_the_same_bits(tmp_path: Path) -> None:
    first = tmp_path / "first"
    nexus.train(match_reward, run_dir=first, listener=Silent(), **SETTINGS)
    keep: dict[str, Any] = {"from_run": first, "keep": "replay,optimizer,epsilon"}
    nexus.train(match_reward, run_dir=tmp_path / "whole", listener=Silent(), **keep)
    for step in (2, 150):
        folder = tmp_path / f"stopped{step}"
        stop = Silent(step, interrupt)
        interrupted(lambda: nexus.train(match_reward, run_dir=folder, listener=stop, **keep))  # noqa: B023
    shutil.rmtree(first)
    for step in (2, 150):
        folder = tmp_path / f"stopped{step}"
        nexus.resume(folder, env=match_reward, listener=Silent())
        assert not differences(tmp_path / "whole", folder)
        assert about(folder)["from"]["run"] == str(first.resolve())


def test_stopped_at_its_first_evaluation_it_still_has_the_weights(first: Path, tmp_path: Path) -> None:
    class Stop(Silent):
        def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
            interrupt()

    interrupted(lambda: nexus.train(from_run=first, run_dir=tmp_path / "run", listener=Stop()))
    whole = nexus.train(from_run=first, run_dir=tmp_path / "whole", listener=Silent())
    again = nexus.resume(tmp_path / "run", listener=Silent())
    assert not differences(whole.run_dir, again.run_dir, "Pole-v0")


def test_wrappers_start_with_the_statistics_of_the_other_run(tmp_path: Path) -> None:
    own = SETTINGS | {"wrappers": [NormalizeObservation]}
    first = nexus.train("Pole-v0", run_dir=tmp_path / "first", listener=Silent(), **own).run_dir
    run = nexus.train(from_run=first, run_dir=tmp_path / "run", listener=Silent(), total_steps=100)
    mean, count = (
        read_tensors(folder / "agent.safetensors", 10**9, must_carry=True)["statistics.0.obs_rms.count"].item()
        for folder in (first, run.run_dir)
    )
    # Each of the two environments goes on from all that both had seen.
    assert count > 2 * mean
    assert scores(run.run_dir)[0] == json.loads((first / "evaluation.json").read_text())["mean"]


@pytest.mark.parametrize("checkpoint", [None, "best", 300])
def test_normalised_numbers_and_rewards_keep_their_units(checkpoint: Any, tmp_path: Path) -> None:
    own = SETTINGS | {"normalize_observations": True, "normalize_rewards": True}
    first = nexus.train("Pole-v0", run_dir=tmp_path / "first", listener=Silent(), **own).run_dir
    start = Start()
    run = nexus.train(from_run=first, from_checkpoint=checkpoint, run_dir=tmp_path / "run", listener=start).run_dir
    if checkpoint != 300:  # whose weights were never evaluated
        assert start.lineage is not None
        assert scores(run)[0] == start.lineage["score"]
    read = read_checkpoint(first, checkpoint if checkpoint == 300 else 400)
    there = part(part(read.read_state(read.arrays.bytes), "agent"), "returns")
    assert there["var"].item() > 0
    np.testing.assert_array_equal(start.state["returns.var"], there["var"])
    counted = {name: values for name, values in start.state.items() if name.endswith("normalizer.samples")}
    assert len(counted) == 2
    assert all(values.item() >= 200 for values in counted.values())


def test_runs_that_start_elsewhere_are_not_seeds_of_one_curve(first: Path, tmp_path: Path) -> None:
    run = nexus.train(from_run=first, seed=1, run_dir=tmp_path / "run", listener=Silent())
    assert read_curve(run.run_dir).settings != read_curve(first).settings


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"hidden_dim": 24}, "another network: q_network.torso.layers.0.weight is [24, 4] here, it is [16, 4] there"),
        ({"dueling": True}, "another network: "),
        ({"env": "Acrobot-v1"}, "Acrobot-v1 has states of shape (6,) and 3 actions: "),
        ({"keep": "replai"}, "keep = 'replai': needs any of replay, optimizer, epsilon; did you mean replay?"),
        ({"keep": 3}, "keep = 3: needs any of"),
        ({"keep": "replay", "n_step": 2}, "keep = replay: needs the same n_step as "),
        ({"keep": "optimizer", "optimizer": "rmsprop"}, "keep = optimizer: needs the same optimizer as "),
        ({"keep": "replay", "from_checkpoint": "best"}, "the best checkpoint has only weights"),
        ({"normalize_rewards": True}, "learned from rewards as they are, so its values have another unit"),
        ({"normalize_observations": True}, "another network: q_network.torso.normalizer."),
        ({"from_run": None, "env": "Pole-v0", "keep": "replay"}, "keep: needs from_run"),
        ({"from_run": None}, "name an environment"),
        ({"from_run": 3}, "from_run = 3: needs the path of a folder"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    given: dict[str, Any], text: str, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        nexus.train(**{"from_run": first, "listener": Silent(), **given})
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_no_such_run_or_checkpoint(first: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no such folder"):
        nexus.train(from_run=tmp_path / "nowhere", listener=Silent())
    with pytest.raises(RunError, match=r"has no checkpoint '77': needs best, latest or one of \["):
        nexus.train(from_run=first, from_checkpoint=77, listener=Silent())


def test_from_the_command_line(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "train",
        "--from",
        str(first),
        "--keep",
        "replay,epsilon",
        "--lr",
        "1e-4",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    assert main(words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "starts with the weights, replay, epsilon of" in printed
    assert "Pole-v0, step 400, which scored" in printed
    assert "settings of that run" in printed
    config = about(tmp_path / "run")["config"]
    assert (config["learning_rate"], config["epsilon"]) == (0.0001, pytest.approx(0.622))
    assert main(["resume", str(tmp_path / "run"), "--total-steps", "500"]) == 0
    assert "starts with" in capsys.readouterr().out
    assert main(["train", "--from", str(first), "--config", str(first)]) == 2
    assert "--from and --config both bring all settings: give one of them" in capsys.readouterr().err
    assert main(["train", "--from", str(first), "--keep", "replai"]) == 2
    assert "did you mean replay?" in capsys.readouterr().err
