"""bsuite's scores by hand and against bsuite, and the experiments that `benchmarks.small_problems` runs."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from benchmarks import bsuite_scores, record, small_problems
from benchmarks.small_problems import BSUITE_DQN, EXPERIMENTS, Tally, chosen, jobs, measured, scores, section, whole
from nexus.problems import Catch, DeepSea

ROOT = Path(__file__).parent.parent


def test_regret_is_scored_against_a_baseline() -> None:
    assert bsuite_scores.bandit_score([0.05, 0.15]) == pytest.approx(0.8)  # (0.5 - 0.1) / 0.5
    assert bsuite_scores.catch_score([0.4]) == pytest.approx(0.75)  # (1.6 - 0.4) / 1.6
    assert bsuite_scores.catch_score([1.9, 1.7]) == 0
    assert bsuite_scores.bandit_score([0.0]) == 1


def test_a_discounting_chain_is_scored_by_how_often_it_chooses_the_best_one() -> None:
    assert bsuite_scores.discounting_chain_score([1.1, 1.0]) == pytest.approx(0.5)
    assert bsuite_scores.discounting_chain_score([1.02]) == pytest.approx(0.2)  # random
    assert bsuite_scores.discounting_chain_score([1.0]) == pytest.approx(0)
    assert bsuite_scores.discounting_chain_score([0.7]) == 0


def test_umbrellas_are_scored_by_the_lengths_that_are_learned() -> None:
    assert bsuite_scores.umbrella_score({1: [0.1], 5: [0.2, 0.6], 20: [0.5], 100: [1.0]}) == 0.5  # 0.1 and 0.4


def test_deep_sea_is_scored_by_the_sizes_that_are_solved_before_chance_solves_them() -> None:
    # 2^3 + 100 = 108: an episode later is too late
    assert bsuite_scores.deep_sea_score({3: 108, 4: 108, 10: 1123, 20: None}) == 0.5
    assert bsuite_scores.deep_sea_score({10: 1124}) == 0


def test_a_sea_is_solved_once_fewer_than_nine_of_ten_were_bad() -> None:
    assert bsuite_scores.solved_by([True] * 9 + [False]) is None  # nine of ten are not fewer than nine of ten
    assert bsuite_scores.solved_by([False]) == 1
    assert bsuite_scores.solved_by([True] * 10 + [False] * 10) == 12  # after 11 it would be 10 of 11; 12 is logged
    assert bsuite_scores.solved_by([True] * 17 + [False] * 4) == 20  # 17 of 19 would do, but 19 is not logged
    assert bsuite_scores.solved_by([True] * 300) is None


def test_a_stochastic_sea_counts_from_episode_100_on_and_needs_fewer_than_eight_of_ten() -> None:
    assert bsuite_scores.solved_by([False] * 99, stochastic=True) is None
    assert bsuite_scores.solved_by([False] * 100, stochastic=True) == 100
    assert bsuite_scores.solved_by(([True] * 17 + [False] * 3) * 50, stochastic=True) is None  # 85 %
    assert bsuite_scores.solved_by([True] * 90 + [False] * 50, stochastic=True) == 120  # 90 of 100, then 90 of 120


def test_some_episodes_are_logged() -> None:
    logged = [episode for episode in range(1, 1300) if bsuite_scores.is_logged(episode)]
    small = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 20, 25, 30, 40, 50, 60, 70, 80, 90]
    assert logged == [*small, 100, 120, 140, 170, 200, 250, 300, 400, 500, 600, 700, 800, 900, 1000, 1200]


def test_a_variant_is_scored_by_mean_and_deviation_of_its_levels() -> None:
    assert bsuite_scores.levels_score([0.5, 0.5, 0.5]) == pytest.approx(0.5)
    assert bsuite_scores.levels_score([0.2, 0.6]) == pytest.approx(0.3)  # (0.4 + 0.4 - 0.2) / 2
    assert bsuite_scores.levels_score([0.0, 0.0, 0.0, 1.0]) == pytest.approx(0.125)  # 0.25 - 0.433 counts as 0


@pytest.mark.filterwarnings("ignore")
def test_the_formulas_are_those_of_bsuite() -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("plotnine")
    module = "bsuite.experiments.{}.analysis"
    analysis = {
        name: pytest.importorskip(module.format(name))
        for name in ("bandit", "catch", "catch_noise", "bandit_scale", "discounting_chain", "umbrella_length")
    }
    rng = np.random.default_rng(0)
    for _ in range(20):
        regrets, returns = rng.uniform(0, 1.2, 20), rng.uniform(0.95, 1.1, 20)
        levels = np.repeat([0.1, 0.3, 1.0, 3.0, 10.0], 4)
        frame = pandas.DataFrame({"episode": 10_000, "total_regret": 10_000 * regrets, "noise_scale": levels})
        frame = frame.assign(reward_scale=levels, chain_length=levels)
        chain = pandas.DataFrame({"episode": 1_000, "total_return": 1_000 * returns})
        assert analysis["bandit"].score(frame) == pytest.approx(bsuite_scores.bandit_score(regrets.tolist()))
        assert analysis["catch"].score(frame) == pytest.approx(bsuite_scores.catch_score(regrets.tolist()))
        grouped = regrets.reshape(5, 4).tolist()
        for name, score in (("catch_noise", bsuite_scores.catch_score), ("bandit_scale", bsuite_scores.bandit_score)):
            ours = bsuite_scores.levels_score(map(score, grouped))
            assert analysis[name].score(frame) == pytest.approx(ours)
        ours = bsuite_scores.umbrella_score(dict(enumerate(grouped)))
        assert analysis["umbrella_length"].score(frame) == pytest.approx(ours)
        ours = bsuite_scores.discounting_chain_score(returns.tolist())
        assert analysis["discounting_chain"].score(chain) == pytest.approx(ours)
    wrappers = pytest.importorskip("bsuite.utils.wrappers")
    for episode in range(1, 12_000):
        assert bool(wrappers._logarithmic_logging(episode)) == bsuite_scores.is_logged(episode)


@pytest.mark.filterwarnings("ignore")
def test_the_settings_are_those_of_bsuite() -> None:
    names = {"noise_scale": "reward_noise", "chain_length": "length", "n_distractor": "distractors"}
    for name, of in EXPERIMENTS.items():
        sweep = pytest.importorskip(f"bsuite.experiments.{name}.sweep")
        theirs = [
            {names.get(key, key): value for key, value in given.items() if key != "seed"} for given in sweep.SETTINGS
        ]
        if name == "umbrella_distract":
            theirs = [{"length": 20, **given} for given in theirs]
        if name.startswith("deep_sea"):
            theirs = [{"size": given["size"]} for given in theirs]  # 42 is our default
        ours = [{key: value for key, value in given.items() if key != "stochastic"} for given in of.settings]
        assert ours == theirs, name
        assert of.episodes == sweep.NUM_EPISODES


def test_the_agent_is_that_of_bsuite() -> None:
    package = Path(pytest.importorskip("bsuite").__file__).parent
    agent = (package / "baselines" / "jax" / "dqn" / "agent.py").read_text("utf-8").partition("def default_agent")[2]
    assert "hk.nets.MLP([64, 64, action_spec.num_values])" in agent
    assert "optimizer=optax.adam(1e-3)" in agent
    theirs = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+),\n", agent)}
    assert theirs == {
        "batch_size": BSUITE_DQN["batch_size"],
        "discount": BSUITE_DQN["gamma"],
        "replay_capacity": BSUITE_DQN["replay_capacity"],
        "min_replay_size": BSUITE_DQN["learning_starts"],
        "sgd_period": int(BSUITE_DQN["update_every"].removesuffix(" steps")),
        "target_update_period": int(BSUITE_DQN["target_update_every"].removesuffix(" updates")),
        "epsilon": BSUITE_DQN["epsilon"],
    }
    assert BSUITE_DQN["epsilon_min"] == BSUITE_DQN["epsilon"]  # constant


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_an_episode_has_as_many_steps_as_are_counted_and_returns_in_the_range_of_the_atoms(name: str) -> None:
    of = EXPERIMENTS[name]
    for given in (of.settings[0], of.settings[-1]):
        env = gym.make(of.env, **given)
        for seed in range(5):
            env.reset(seed=seed)
            env.action_space.seed(seed + 50)
            steps, total, over = 0, 0.0, False
            while not over:
                _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
                steps, total, over = steps + 1, total + float(reward), terminated or truncated
            assert steps == of.steps(given)
            low, high = of.returns(given)
            spread = 3 * given.get("reward_noise", 0.0) * (steps - 1)  # rewards of several steps are noisy
            assert low - spread - 1e-6 <= total <= high + spread + 1e-6


def test_episodes_are_summed_up() -> None:
    seen: list[tuple[float, float, bool]] = []
    env = Tally(Catch(rows=3, columns=1, reward_scale=2.0), seen)
    for _ in range(2):
        env.reset(seed=0)
        env.step(1)
        env.step(1)
    assert seen == [(2.0, 0.0, False)] * 2
    sea = Tally(DeepSea(2, mapping_seed=None), seen)
    sea.reset(seed=0)
    sea.step(0)
    sea.step(1)
    assert list(seen[-1]) == [pytest.approx(-0.005), 0.0, True]


def test_a_run_is_measured() -> None:
    found = measured("catch", {}, 0, 30, {"algorithm": "dqn"})
    assert found["episodes"] == 30
    assert found["return"] == pytest.approx(1 - found["regret"])
    assert -1 <= found["return"] < 1
    solved = measured("deep_sea", {"size": 2}, 0, 60, {"algorithm": "dqn", "epsilon": 1.0, "epsilon_min": 1.0})
    assert solved["solved_by"] == solved["episodes"] < 60  # it stops there


def test_an_algorithm_keeps_what_it_is_made_of_and_the_rest_is_that_of_bsuite() -> None:
    plain = whole({"algorithm": "dqn"}, (-2.0, 3.0))
    assert plain == {**BSUITE_DQN, "algorithm": "dqn", "v_min": -2.0, "v_max": 3.0}
    noisy = whole({"algorithm": "noisy", "learning_rate": 0.1}, (0.0, 1.0))
    assert (noisy["epsilon"], noisy["epsilon_min"], noisy["noisy"]) == (0, 0, True)
    assert (noisy["hidden_dim"], noisy["learning_rate"]) == (64, 0.1)


@pytest.mark.parametrize("algorithm", ["rainbow", "beyond", "qr-dqn"])
def test_other_algorithms_take_the_settings(algorithm: str) -> None:
    assert measured("bandit", {"mapping_seed": 0}, 0, 120, {"algorithm": algorithm})["episodes"] == 120


def test_settings_are_chosen_evenly_and_each_run_has_a_seed() -> None:
    settings: list[dict[str, Any]] = [{"n": n} for n in range(10)]
    assert [place for place, _ in chosen(settings, 4)] == [0, 3, 6, 9]
    assert len(chosen(settings, None)) == len(chosen(settings, 99)) == 10
    options = argparse.Namespace(
        algorithms=["dqn"], experiments=["catch", "umbrella_length"], seeds=[0, 1], most_settings=3, episodes=50
    )
    options.set, options.label = [("learning_rate", 0.1)], "fast"
    found = jobs(options)
    assert [job["seed"] for job in found] == [0, 10, 19, 0, 11, 22, 1000, 1010, 1019, 1000, 1011, 1022]
    assert found[0] == {
        "experiment": "catch",
        "algorithm": "fast",
        "env_kwargs": {},
        "seed": 0,
        "asked": 50,
        "settings": {"algorithm": "dqn", "learning_rate": 0.1},
    }
    assert found[5]["env_kwargs"] == {"length": 100, "distractors": 20}


def row(experiment: str, given: dict[str, Any], **found: Any) -> dict[str, Any]:
    return {"experiment": experiment, "algorithm": "dqn", "env_kwargs": given, "seed": 0, **found}


def test_rows_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row("catch", {}, regret=0.4),
        row("catch", {}, regret=0.0),
        row("catch_noise", {"reward_noise": 0.1}, regret=0.0),
        row("catch_noise", {"reward_noise": 10.0}, regret=1.6),
        row("deep_sea", {"size": 10}, solved_by=500),
        row("deep_sea", {"size": 12}, solved_by=None),
        row("discounting_chain", {"mapping_seed": 0}, **{"return": 1.05}),
        row("umbrella_length", {"length": 3, "distractors": 20}, regret=0.1),
        row("umbrella_length", {"length": 9, "distractors": 20}, regret=0.9),
        row("umbrella_length", {"length": 1, "distractors": 20}, error=["killed"]),
        row("bandit", {"mapping_seed": 0}, error=["killed"]),
    ]
    assert scores(rows) == {
        ("catch", "dqn"): (pytest.approx(0.875), 2),
        ("catch_noise", "dqn"): (pytest.approx(0.25), 2),  # mean 0.5, deviation 0.5
        ("deep_sea", "dqn"): (0.5, 2),
        ("discounting_chain", "dqn"): (pytest.approx(0.5), 1),
        ("umbrella_length", "dqn"): (0.5, 2),
    }
    about = {"command": "c", "date": "d", "commit": "e", "machine": "m", "versions": {}, "rows": rows}
    monkeypatch.setattr(small_problems, "load", lambda name: about)
    assert "| catch | 0.91 | 0.88 (2) |\n" in section()
    monkeypatch.setattr(small_problems, "load", lambda name: None)
    assert section() == ""


def test_the_script_records_each_run_and_repeats_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "commit", lambda: "none")
    ran: list[list[str]] = []

    def run_here(command: list[str], **_: Any) -> SimpleNamespace:
        ran.append(command)
        job = json.loads(command[-1])
        found = measured(job["experiment"], job["env_kwargs"], job["seed"], job["asked"], job["settings"])
        return SimpleNamespace(returncode=0, stdout=json.dumps(found), stderr="")

    monkeypatch.setattr(subprocess, "run", run_here)
    words = [
        "--experiments",
        "bandit",
        "--most-settings",
        "2",
        "--episodes",
        "150",
        "--processes",
        "1",
        "--name",
        "try",
    ]
    for most in ("2", "3"):
        words[words.index("--most-settings") + 1] = most
        monkeypatch.setattr(sys, "argv", ["small_problems", *words])
        small_problems.main()
    assert len(ran) == 3  # settings 0 and 19, then 10
    rows = json.loads((tmp_path / "try.json").read_text("utf-8"))["rows"]
    assert [found["env_kwargs"]["mapping_seed"] for found in rows] == [0, 19, 10]
    assert all(found["episodes"] == 150 for found in rows)
    assert "3 runs" in capsys.readouterr().out


@pytest.mark.slow
def test_the_script_runs_in_processes() -> None:
    job = {"experiment": "bandit", "env_kwargs": {}, "seed": 0, "asked": 120, "settings": {"algorithm": "dqn"}}
    words = [sys.executable, "-m", "benchmarks.small_problems", "--run", json.dumps(job)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["episodes"] == 120
