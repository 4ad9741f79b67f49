"""`nexus compare`: which runs form a group, which count, by which scores, and what is said of them."""

import json
import re
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nexus
from nexus.cli.main import main
from nexus.comparing.comparison import Comparison, EnvComparison
from nexus.comparing.measures import MEASURE_NAMES
from nexus.comparing.scores import scores_of_run
from nexus.core.errors import ConfigError, RunError
from nexus.reporting.compared import comparison_on_page
from nexus.reporting.reading import read_contents
from nexus.training.curves import ScoredRun
from tests.compared_runs import END, evaluated_run

Make = Callable[..., Path]
CURVE = {100: 10.0, 200: 30.0, 300: 70.0}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda name, *scores, **how: evaluated_run(tmp_path / "runs" / name, *scores, **how)


@pytest.fixture
def two_groups(make: Make, tmp_path: Path) -> Path:
    """Five seeds of DQN, 60 to 100, and five of C51, 10 higher."""
    for seed in range(5):
        make(f"dqn-{seed}", {100: 10, 200: 40, 300: 60 + 10 * seed}, seed=seed)
        make(f"c51-{seed}", {100: 10, 200: 50, 300: 70 + 10 * seed}, seed=seed, algorithm="c51")
    return tmp_path / "runs"


def only(comparison: Comparison) -> EnvComparison:
    (env,) = comparison.envs
    return env


def iqms(comparison: Comparison, measure: str | None = None) -> dict[str, float]:
    env = only(comparison)
    return {label: group.center.value for label, group in env.measures[measure or env.main].groups.items()}


def scores_in(env: EnvComparison, measure: str, label: str = "all runs") -> list[float]:
    return list(env.measures[measure].groups[label].scores)


# Groups.


def test_runs_that_differ_only_in_their_seed_are_a_group(two_groups: Path) -> None:
    found = only(nexus.compare(two_groups))
    assert {label: len(folders) for label, folders in found.groups.items()} == {"algorithm=c51": 5, "algorithm=dqn": 5}
    assert found.baseline == "algorithm=c51"
    # Of five scores the middle half is the middle one, and three quarters of its neighbours: 90 and 80.
    assert iqms(nexus.compare(two_groups)) == pytest.approx({"algorithm=c51": 90, "algorithm=dqn": 80})
    (difference,) = found.measures["final"].differences.values()
    assert difference.difference is not None
    assert difference.difference.value == pytest.approx(-10)
    # Of 25 pairs 6 are won and 4 are tied.
    assert difference.better.value == (6 + 4 / 2) / 25


def test_the_order_of_the_runs_changes_nothing(two_groups: Path) -> None:
    folders = sorted(two_groups.iterdir())
    expected = json.dumps(nexus.compare(folders).to_mapping())
    for order in (folders[::-1], [folders[place] for place in np.random.default_rng(0).permutation(len(folders))]):
        assert json.dumps(nexus.compare(order).to_mapping()) == expected


def test_a_label_has_the_fewest_settings_that_tell_groups_apart(make: Make, tmp_path: Path) -> None:
    make("a", n_step=1, double=False)
    make("b", n_step=3, double=True)
    make("c", n_step=10, double=True, seed=2)
    found = nexus.compare(tmp_path / "runs")
    assert list(only(found).groups) == ["n_step=1", "n_step=3", "n_step=10"]
    assert "the groups also differ in double" in found.notes


def test_two_settings_in_a_label_where_one_is_not_enough(make: Make, tmp_path: Path) -> None:
    for n_step in (1, 3):
        for algorithm in ("dqn", "c51"):
            make(f"{algorithm}{n_step}", n_step=n_step, algorithm=algorithm)
    found = nexus.compare(tmp_path / "runs")
    assert list(only(found).groups) == [
        f"algorithm={algorithm}, n_step={n_step}" for algorithm in ("c51", "dqn") for n_step in (1, 3)
    ]
    assert found.notes == []
    merged = nexus.compare(tmp_path / "runs", by="algorithm")
    assert {label: len(runs) for label, runs in only(merged).groups.items()} == {"algorithm=c51": 2, "algorithm=dqn": 2}
    said = " ".join(merged.notes)
    assert "runs within a group differ in n_step" in said
    assert "algorithm=dqn of CartPole-v1 has more than one run of seed 1" in said


def test_a_setting_that_is_not_there(two_groups: Path) -> None:
    with pytest.raises(ConfigError, match=r"by = 'algoritm'.*no run has it; did you mean algorithm"):
        nexus.compare(two_groups, by="algoritm")
    with pytest.raises(ConfigError, match=r"by = 'seed'.*grouped without it"):
        nexus.compare(two_groups, by=["algorithm", "seed"])
    with pytest.raises(ConfigError, match=r"baseline = 'algorithm=dqm'.*did you mean algorithm=dqn"):
        nexus.compare(two_groups, baseline="algorithm=dqm")


def test_the_baseline_can_be_chosen(two_groups: Path) -> None:
    found = only(nexus.compare(two_groups, baseline="algorithm=dqn"))
    (difference,) = found.measures["final"].differences.values()
    assert difference.difference is not None
    assert difference.difference.value == pytest.approx(10)


def test_a_run_of_the_same_seed_and_settings_is_skipped_and_said(make: Make, tmp_path: Path) -> None:
    make("a", 10.0)
    make("b", 90.0)
    said: list[str] = []
    found = nexus.compare([tmp_path / "runs" / name for name in ("b", "a")], notice=said.append)
    assert iqms(found) == {"all runs": 10}
    assert said == [f"{tmp_path}/runs/b is skipped: it has the same seed 1 and settings as {tmp_path}/runs/a"]


def test_functions_of_one_name_are_one_environment_only_if_that_is_said(make: Make, tmp_path: Path) -> None:
    for seed in (1, 2):
        make(f"{seed}", env="<lambda>", env_is_id=False, seed=seed)
    assert len(only(nexus.compare(tmp_path / "runs")).groups) == 2
    assert len(only(nexus.compare(tmp_path / "runs", same_env=True)).groups) == 1


# Scores.


def test_all_scores_of_one_run(make: Make, tmp_path: Path) -> None:
    make("a", CURVE)
    found = only(nexus.compare(tmp_path / "runs", threshold=30, window=0.5))
    center = {name: measure.groups["all runs"].center.value for name, measure in found.measures.items()}
    assert tuple(found.measures) == MEASURE_NAMES
    assert center == pytest.approx(
        {
            "final": 70,
            "step": 70,
            "window": ((20 + 30) / 2 * 50 + (30 + 70) / 2 * 100) / 150,  # from step 150, where it is 20
            "area": ((10 + 30) / 2 * 100 + (30 + 70) / 2 * 100) / 200,
            "threshold": 200,
        }
    )


def test_the_score_that_comes_first_can_be_chosen(make: Make, tmp_path: Path) -> None:
    make("a", CURVE)
    assert iqms(nexus.compare(tmp_path / "runs", score="area")) == {"all runs": 35}
    assert iqms(nexus.compare(tmp_path / "runs", at_step=150)) == {"all runs": 20}
    with pytest.raises(ConfigError, match=r"score = threshold: CartPole-v1 has none: needs a threshold"):
        nexus.compare(tmp_path / "runs", score="threshold")
    with pytest.raises(ConfigError, match=r"score = 'finl': needs final, .*; did you mean final"):
        nexus.compare(tmp_path / "runs", score="finl")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"at_step = 50: no run of CartPole-v1 has a score there.*step 100 to 300"):
        nexus.compare(tmp_path / "runs", at_step=50)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"window": 0.0}, "window = 0.0: needs a fraction"),
        ({"at_step": -1}, "at_step = -1: needs a step"),
        ({"threshold": inf}, "threshold = inf: needs a return"),
    ],
)
def test_a_number_that_makes_no_sense(how: dict[str, Any], said: str, make: Make, tmp_path: Path) -> None:
    make("a")
    with pytest.raises(ConfigError, match=said):
        nexus.compare(tmp_path / "runs", **how)


def test_runs_of_different_lengths_are_compared_at_the_common_step(make: Make, tmp_path: Path) -> None:
    make("short", {100: 1, 200: 5}, total_steps=200)
    make("long", {100: 2, 200: 7, 300: 99}, total_steps=300, seed=2)
    found = nexus.compare(tmp_path / "runs")
    assert only(found).main == "step"
    assert "final" not in only(found).measures
    assert iqms(found) == {"total_steps=200": 5, "total_steps=300": 7}
    assert "runs of different lengths (200, 300 steps) are compared at step 200" in only(found).remarks
    assert only(found).curves["total_steps=300"].x.tolist() == [100, 200]
    with pytest.raises(ConfigError, match=r"score = final.*different lengths"):
        nexus.compare(tmp_path / "runs", score="final")


def test_evaluations_at_other_steps_are_interpolated(make: Make, tmp_path: Path) -> None:
    make("a", {100: 0, 300: 20})
    assert iqms(nexus.compare(tmp_path / "runs", at_step=250)) == {"all runs": 15}


# Runs that did not end as planned.


def test_an_unfinished_run_is_left_out_and_named(make: Make, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        make(f"{seed}", CURVE, seed=seed)
    for seed, status in ((4, "running"), (5, "interrupted"), (6, "failed")):
        make(f"{seed}", {100: 900.0}, seed=seed, status=status)
    found = only(nexus.compare(tmp_path / "runs"))
    assert len(found.groups["all runs"]) == 6
    assert scores_in(found, "final") == [70, 70, 70]
    names = ", ".join(f"{tmp_path}/runs/{seed}" for seed in (4, 5, 6))
    assert f"all runs: 3 of 6 runs left out, unfinished: running, stopped or killed ({names})" in found.remarks
    # Where all of them were, they count.
    assert iqms(nexus.compare(tmp_path / "runs", at_step=100)) == {"all runs": pytest.approx(10 + 890 / 2)}


def test_while_no_run_is_finished_they_are_compared_where_all_have_been(make: Make, tmp_path: Path) -> None:
    make("a", {100: 1, 200: 2}, status="running")
    make("b", {100: 3, 200: 4, 250: 5}, status="running", seed=2)
    found = only(nexus.compare(tmp_path / "runs"))
    assert (found.step, found.main) == (200, "step")
    assert scores_in(found, "step") == [2, 4]
    make("bad", {100: 7}, status="diverged", seed=3)
    assert scores_in(only(nexus.compare(tmp_path / "runs")), "step") == [2, 4, 7]
    make("late", {300: 9}, status="running", seed=4)
    found = only(nexus.compare(tmp_path / "runs"))
    assert (found.step, scores_in(found, "step")) == (200, [2, 4, 7])
    assert found.remarks[0].startswith("all runs: 1 of 4 runs left out, unfinished")


def test_a_diverged_run_counts_with_its_last_score(make: Make, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        make(f"{seed}", CURVE, seed=seed)
    make("bad", {100: 10.0, 200: 1.0}, seed=4, status="diverged")
    found = only(nexus.compare(tmp_path / "runs", threshold=50))
    assert scores_in(found, "final") == [70, 70, 70, 1]
    assert scores_in(found, "step") == [70, 70, 70, 1]
    assert scores_in(found, "threshold") == [300, 300, 300, inf]
    said = f"all runs: 1 of 4 runs diverged and counts with the last score before that ({tmp_path}/runs/bad)"
    assert said in found.remarks


def test_a_run_that_stopped_at_its_target_keeps_its_score(make: Make, tmp_path: Path) -> None:
    make("early", {100: 80.0}, target_return=75.0)
    make("late", CURVE, target_return=75.0, seed=2)
    found = only(nexus.compare(tmp_path / "runs"))
    assert scores_in(found, "final") == [80, 70]
    assert scores_in(found, "area") == [80, 35]
    assert found.measures["threshold"].groups["all runs"].reached == 1  # of 75, which both have as their target
    assert any(
        "1 of 2 runs stopped at its target return and counts with the score there" in one for one in found.remarks
    )


def test_if_all_stop_early_the_common_step_is_that_of_the_last(make: Make, tmp_path: Path) -> None:
    make("a", {100: 80.0}, target_return=75.0)
    make("b", {100: 10.0, 200: 90.0}, target_return=75.0, seed=2)
    found = only(nexus.compare(tmp_path / "runs"))
    assert found.step == 200
    assert scores_in(found, "step") == [80, 90]


def test_runs_that_never_reach_a_threshold_count_as_such(make: Make, tmp_path: Path) -> None:
    for seed, curve in enumerate([{100: 60, 300: 60}, {100: 0, 300: 60}, {100: 0, 300: 1}, {100: 0, 300: 2}]):
        make(f"a{seed}", curve, seed=seed)
        make(f"b{seed}", {100: 60, 300: 60}, seed=seed, algorithm="c51")
    found = only(nexus.compare(tmp_path / "runs", threshold=50, score="threshold", baseline="algorithm=dqn"))
    slow, fast = (found.measures["threshold"].groups[f"algorithm={name}"] for name in ("dqn", "c51"))
    assert list(slow.scores) == [100, 300, inf, inf]
    assert (slow.reached, fast.reached) == (2, 4)
    assert (slow.center.value, slow.center.high) == (300, inf)
    assert (fast.center.value, fast.center.low, fast.center.high) == (100, 100, 100)
    better = found.measures["threshold"].differences["algorithm=c51"].better
    assert better.value == (12 + 4 / 2) / 16  # of 16 pairs 4 are tied
    assert found.conclusions[0] == "algorithm=c51 is sooner than algorithm=dqn."
    assert found.profiles == {}
    # A killed run was last seen without it at step 100, so 300 comes to half of those that were still there.
    make("a4", {100: 0}, seed=4, status="running")
    found = only(nexus.compare(tmp_path / "runs", threshold=50, by="algorithm"))
    assert scores_in(found, "threshold", "algorithm=dqn") == [100, 300, inf, inf, inf]


# What can't be read.


def test_a_folder_of_runs_is_its_runs(two_groups: Path) -> None:
    nested = two_groups.parent / "study" / "part"
    nested.mkdir(parents=True)
    two_groups.rename(nested / "runs")
    assert len(only(nexus.compare(two_groups.parent / "study")).groups["algorithm=dqn"]) == 5


def test_what_is_not_a_run_is_skipped_if_there_are_others(make: Make, tmp_path: Path) -> None:
    run = make("a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("")
    said: list[str] = []
    nexus.compare([run, tmp_path / "empty", tmp_path / "note.txt"], notice=said.append)
    assert said == [
        f"{tmp_path}/{name} is skipped: it is not a run, and has none in it" for name in ("empty", "note.txt")
    ]
    with pytest.raises(RunError, match=r"empty is not a run, since it has no run\.json"):
        nexus.compare(tmp_path / "empty")
    with pytest.raises(RunError, match=r"no run .*nowhere: there is no such folder"):
        nexus.compare([run, tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="name at least one run"):
        nexus.compare([])


def test_a_score_that_is_not_a_number_is_left_out_and_said(make: Make, tmp_path: Path) -> None:
    make("a", CURVE, lines='{"step": 250, "eval/mean_reward": NaN, "eval/std_reward": 1.0}\n')
    said: list[str] = []
    found = nexus.compare(tmp_path / "runs", notice=said.append)
    assert iqms(found) == {"all runs": 70}
    assert len(said) == 1
    assert re.search(r"metrics.jsonl is damaged: line 4 needs numbers .*; it is left out$", said[0])


def test_a_final_score_that_is_not_a_number_does_not_count(make: Make, tmp_path: Path) -> None:
    make("good", CURVE)
    bad = make("bad", CURVE, seed=2)
    about = json.loads((bad / "evaluation.json").read_text())
    about["mean"] = float("nan")
    (bad / "evaluation.json").write_text(json.dumps({key: value for key, value in about.items() if key != "sha256"}))
    said: list[str] = []
    found = only(nexus.compare(tmp_path / "runs", notice=said.append))
    assert scores_in(found, "final") == [70]
    assert any(str(bad) in one for one in [*said, *found.remarks])


def test_a_run_without_an_evaluation_is_named(make: Make, tmp_path: Path) -> None:
    make("a")
    make("b", {}, seed=2)
    found = only(nexus.compare(tmp_path / "runs"))
    assert f"all runs: 1 of 2 runs left out, not evaluated ({tmp_path}/runs/b)" in found.remarks
    with pytest.raises(RunError, match="nothing to compare: none of these runs was evaluated"):
        nexus.compare(tmp_path / "runs" / "b")


def test_unlike_protocols_are_refused(make: Make, tmp_path: Path) -> None:
    make("a")
    make("b", epsilon=0.05, seed=2)
    with pytest.raises(ConfigError, match="scores under different protocols can't be compared"):
        nexus.compare(tmp_path / "runs")


# Several environments.


@pytest.fixture
def two_envs(make: Make, tmp_path: Path) -> Path:
    for seed in range(4):
        for algorithm, more in (("dqn", 0), ("c51", 50)):
            make(f"p-{algorithm}-{seed}", 100.0 * seed + more, seed=seed, algorithm=algorithm)
            make(f"a-{algorithm}-{seed}", -100.0 * seed + more, seed=seed, algorithm=algorithm, env="Acrobot-v1")
    return tmp_path / "runs"


def test_environments_are_compared_each_for_itself(two_envs: Path) -> None:
    found = nexus.compare(two_envs)
    assert [env.env for env in found.envs] == ["Acrobot-v1", "CartPole-v1"]
    assert [env.measures["final"].groups["algorithm=dqn"].center.value for env in found.envs] == [-150, 150]
    assert found.aggregate is None
    assert found.notes == [
        "no figure over all 2 environments: their scores have different scales; "
        "--normalise ENV=RANDOM,REFERENCE for each of them gives one"
    ]


def test_normalised_scores_have_one_figure(two_envs: Path) -> None:
    found = nexus.compare(two_envs, normalise={"CartPole-v1": (0, 500), "Acrobot-v1": (-500, 0)}).aggregate
    assert found is not None
    # dqn: 0, 0.2, 0.4, 0.6 and 1, 0.8, 0.6, 0.4: the middle four are 0.4, 0.4, 0.6, 0.6; c51 is 0.1 higher.
    assert {label: group.center.value for label, group in found.groups.items()} == pytest.approx(
        {"algorithm=c51": 0.6, "algorithm=dqn": 0.5}
    )
    difference = found.differences["algorithm=dqn"].difference
    assert difference is not None
    assert difference.value == pytest.approx(-0.1)
    assert len(found.groups["algorithm=dqn"].scores) == 8


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"CartPole-v1": (0, 500)}, "Acrobot-v1 has no bounds; needs Acrobot-v1=RANDOM,REFERENCE"),
        ({"CartPole-v0": (0, 500)}, "no run of 'CartPole-v0'; did you mean CartPole-v1"),
        ({"CartPole-v1": (5, 5), "Acrobot-v1": (0, 1)}, "CartPole-v1=5,5: needs two different scores"),
    ],
)
def test_bounds_that_do_not_fit(bounds: dict[str, tuple[float, float]], said: str, two_envs: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        nexus.compare(two_envs, normalise=bounds)


# What is said.


def test_few_runs_give_a_sentence_and_no_interval(make: Make, tmp_path: Path) -> None:
    for seed in (1, 2):
        make(f"a{seed}", 10.0 * seed, seed=seed)
        make(f"b{seed}", 90.0 * seed, seed=seed, algorithm="c51")
    found = nexus.compare(tmp_path / "runs")
    assert only(found).conclusions == [
        "No interval with fewer than 3 runs (algorithm=c51: 2, algorithm=dqn: 2): nothing can be concluded. Add seeds."
    ]
    assert " to " not in str(found).partition("Against")[2].partition("No interval")[0].replace("to see", "")
    assert str(found).count("too few runs") >= 2


def test_a_difference_that_is_seen(make: Make, tmp_path: Path) -> None:
    for seed in range(10):
        make(f"a{seed}", 100.0 + seed, seed=seed)
        make(f"b{seed}", 200.0 + seed, seed=seed, algorithm="c51")
    (said,) = only(nexus.compare(tmp_path / "runs")).conclusions
    assert re.fullmatch(r"algorithm=dqn is worse than algorithm=c51 by 100.0 \((9\d\.\d) to (10\d\.\d)\)\.", said), said
    (said,) = only(nexus.compare(tmp_path / "runs", baseline="algorithm=dqn")).conclusions
    assert said.startswith("algorithm=c51 is better than algorithm=dqn by 100.0")


def test_a_difference_that_is_not_seen(two_groups: Path) -> None:
    said = only(nexus.compare(two_groups)).conclusions
    found = only(nexus.compare(two_groups)).measures["final"].differences["algorithm=dqn"]
    assert found.detectable is not None
    assert 20 < found.detectable < 60
    size = f"{found.detectable:.1f}"
    assert said[0] == (
        "algorithm=dqn against algorithm=c51: 5 and 5 runs show no difference: "
        f"a difference under {size} would not be seen reliably."
    )
    half, most = found.needed
    assert half is not None
    assert most is not None
    assert 5 < half < most < 100


def test_scores_at_a_ceiling_tell_nothing(make: Make, tmp_path: Path) -> None:
    for seed in range(10):
        make(f"a{seed}", 500.0, seed=seed)
        make(f"b{seed}", 500.0, seed=seed, algorithm="c51")
    (said,) = only(nexus.compare(tmp_path / "runs")).conclusions
    assert said == (
        "10 and 10 runs of algorithm=dqn and algorithm=c51 all have the same score: this score can't tell them apart."
    )


def test_of_several_comparisons_one_is_wrong_more_often(make: Make, tmp_path: Path) -> None:
    for seed in range(10):
        for place, name in enumerate(("c51", "dqn", "iqn", "qr-dqn")):
            make(f"{name}{seed}", 1.0 + place * 10 + seed, seed=seed, algorithm=name)
    said = only(nexus.compare(tmp_path / "runs")).conclusions
    assert said[-1].startswith("3 comparisons, each with a 95 % interval: about 14 % of such tables")  # 1 - 0.95³


# The command.


def test_the_tables_fit_eighty_columns(two_groups: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(two_groups), "--threshold", "80"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    paths = str(two_groups)
    assert [line for line in said.out.splitlines() if len(line) > 80 and paths not in line] == []
    assert said.out.startswith("CartPole-v1: greedy, 4 full episodes per evaluation\n")
    row = next(line for line in said.out.splitlines() if line.startswith("algorithm=dqn"))
    assert row.split()[:3] == ["algorithm=dqn", "5", "80.0"]


def test_the_tables_fit_with_long_labels(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        for env in ("x" * 50, "y" * 50):
            for rate in (0.000123456, 12345.678901):
                how: dict[str, Any] = {"algorithm_settings": {"a_long_name_of_ones_own": env + "!" * 60}}
                make(f"{env[0]}{rate}{seed}", 123456.7 * seed, learning_rate=rate, seed=seed, **how)
    assert main(["compare", str(tmp_path / "runs"), "--threshold", "1"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if len(line) > 80] == []
    assert "246,913.4" in out


def test_the_numbers_as_json(two_groups: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(two_groups), "--json", "--threshold", "1000"]) == 0
    found = json.loads(capsys.readouterr().out)
    (env,) = found["envs"]
    final = env["measures"]["final"]
    assert final["groups"]["algorithm=dqn"]["iqm"]["value"] == pytest.approx(80)
    assert final["groups"]["algorithm=dqn"]["scores"][str(two_groups / "dqn-3")] == 90
    assert final["differences"]["algorithm=dqn"]["probability_of_improvement"]["value"] == 8 / 25
    times = env["measures"]["threshold"]["groups"]["algorithm=dqn"]
    assert (times["reached"], times["median"]["value"]) == (0, None)
    assert set(times["scores"].values()) == {None}
    assert env["profiles"]["algorithm=dqn"]["y"][0] == 1


def test_several_settings_and_bounds_on_the_command_line(two_envs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bounds = ["--normalise", "CartPole-v1=0,500", "Acrobot-v1=-500,0"]
    assert main(["compare", str(two_envs), "--by", "algorithm,n_step", *bounds]) == 0
    assert "algorithm=dqn, n_step=1" in capsys.readouterr().out.replace("\n", " ")
    assert main(["compare", str(two_envs), "--normalise", "CartPole-v1:0,500"]) == 2
    said = capsys.readouterr().err
    assert "normalise = 'CartPole-v1:0,500': needs ENV=RANDOM,REFERENCE, as in CartPole-v1=22,500" in said


def test_bad_input_is_one_line(two_groups: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ([], "name at least one run, as in: nexus compare runs/*"),
        ([str(tmp_path / "no")], f"no run {tmp_path}/no: there is no such folder"),
        ([str(two_groups), "--out", "a.jpg"], "out = 'a.jpg': needs a file name that ends in .png, .pdf, .svg"),
        ([str(two_groups), "--out", f"{tmp_path}/no/a.png"], f"can't write {tmp_path}/no/a.png: there is no folder"),
    ):
        assert main(["compare", *words]) == 2
        err = capsys.readouterr().err
        assert err.startswith("nexus: error: ")
        assert said in err
        assert err.count("\n") == 1


def test_a_picture_has_curves_differences_and_a_profile(two_groups: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from nexus.comparing.picture import figure_of

    comparison = nexus.compare(two_groups)
    curves, differences, profiles = figure_of(comparison).axes
    assert curves.get_lines()[0].get_xydata()[-1].tolist() == pytest.approx([END, 90])
    assert len(curves.collections) == len(profiles.collections) == 2  # bands
    point, bar = differences.get_lines()[:2]
    assert list(point.get_xdata()) == pytest.approx([-10])
    (found,) = only(comparison).measures["final"].differences.values()
    assert found.difference is not None
    assert list(bar.get_xdata()) == [found.difference.low, found.difference.high]
    assert profiles.get_lines()[0].get_ydata()[0] == 1
    assert main(["compare", str(two_groups), "--out", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("how", [{"score": "threshold", "threshold": 80.0}, {"at_step": 200}, {"by": ["gamma"]}])
def test_a_picture_of_anything(how: dict[str, Any], two_groups: Path) -> None:
    pytest.importorskip("matplotlib")
    from nexus.comparing.picture import figure_of

    assert len(figure_of(nexus.compare(two_groups, **how)).axes) == 3


# The report.


def contents(folders: list[Path]) -> list[ScoredRun]:
    return [read_contents(folder, folder.name).scored for folder in folders]


def test_a_report_of_several_runs_compares_them(two_groups: Path) -> None:
    parts, notes = comparison_on_page(contents(sorted(two_groups.iterdir())))
    (part,) = parts
    assert notes == []
    assert [(row.label, row.cells[:2]) for row in part.groups] == [
        ("algorithm=c51", ["5", "90.0"]),
        ("algorithm=dqn", ["5", "80.0"]),
    ]
    assert [(row.place, row.cells[0], row.cells[2]) for row in part.differences] == [(1, "-10.0", "0.32")]
    curves, profile = part.charts
    assert curves.lines[1].y.tolist() == pytest.approx([10, 40, 80])
    assert curves.lines[1].low is not None
    drawn = profile.to_mapping(1_000)
    assert (drawn["axis"], drawn["start"], drawn["end"]) == ("score", pytest.approx(59), pytest.approx(111))
    assert part.shares["algorithm=dqn"][0] == "1.00"
    assert "no difference" in part.conclusions[0]


def test_a_page_has_the_comparison_only_of_several_runs(two_groups: Path, tmp_path: Path) -> None:
    page = nexus.report(sorted(two_groups.iterdir()), tmp_path / "r.html").read_text()
    assert '<section id="comparison">' in page
    assert "algorithm=dqn against algorithm=c51: 5 and 5 runs show no difference" in page
    data = json.loads(re.findall(r'id="report-data">(.*?)</script>', page)[0])
    assert [chart["title"] for chart in data["charts"]][-2:] == ["Evaluations of groups", "Performance profile"]
    places = re.findall(r'data-chart="(\d+)"', page.partition('id="comparison"')[2].partition("</section>")[0])
    assert [data["charts"][int(place)]["title"] for place in places] == ["Evaluations of groups", "Performance profile"]
    alone = nexus.report(two_groups / "dqn-1", tmp_path / "r.html").read_text()
    assert 'id="comparison"' not in alone
    assert 'href="#comparison"' not in alone


def test_a_hostile_label_is_text(make: Make, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    runs = [make(f"{name}{seed}", algorithm=name, seed=seed) for name in ("dqn", hostile) for seed in (1, 2)]
    page = nexus.report(runs, tmp_path / "r.html").read_text()
    assert hostile not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.partition('id="comparison"')[2]


def test_the_scores_of_a_run_are_found_by_hand(make: Make) -> None:
    run = scores_of_run(contents([make("a", CURVE)])[0])
    assert run.mean_between(100, 300) == 35
    assert run.time_to(30, 300) == (200, 1)
    assert run.time_to(30, 150) == (150, 0)
    assert run.time_to(71, 300) == (300, 0)
    assert run.covers(100, 300)
    assert not run.covers(99, 300)
    assert not run.covers(100, 301)
