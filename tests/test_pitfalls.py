"""The pitfalls: their worlds by hand, what each pair of arms differs in, the intervals, and the command."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.seeding import np_random

from benchmarks.pitfall_diagnoses import sentence
from nexus.cli.main import main
from nexus.core.errors import ConfigError
from nexus.core.installation import install_command
from nexus.core.types import Batch, Outcome
from nexus.parts import Parts
from nexus.pitfalls import PITFALLS, Evidence, demonstrate
from nexus.pitfalls.arms import DQNArm, measured_at
from nexus.pitfalls.deadly_triad import StarArm, star_features, td_gradient
from nexus.pitfalls.evidence import Estimate, estimate_of
from nexus.pitfalls.insufficient_exploration import sea_of_the_page
from nexus.pitfalls.overestimation import NoisyChain
from nexus.pitfalls.picture import drawn
from nexus.pitfalls.sparse_rewards import BitFlip, Shaped
from nexus.pitfalls.wrong_loss import WithoutTerminals

NAMES = [
    "overestimation",
    "catastrophic-forgetting",
    "deadly-triad",
    "insufficient-exploration",
    "sparse-rewards",
    "correlated-samples",
    "moving-target",
    "wrong-loss",
]
WITH_DQN = [name for name in NAMES if name != "deadly-triad"]
# What the broken arm has and the cured one has not: a setting, an environment or a part.
DIFFERS: dict[str, Any] = {
    "overestimation": {"double": (None, True)},
    "catastrophic-forgetting": {"replay_capacity": (200, 20_000)},
    "insufficient-exploration": {"epsilon_steps": (500, 8_000)},
    "sparse-rewards": "env",
    "correlated-samples": {"replay_capacity": (64, 20_000)},
    "moving-target": {"target_update_every": ("1 updates", "50 updates")},
    "wrong-loss": "patch",
}


def test_there_are_the_eight() -> None:
    assert list(PITFALLS) == NAMES
    assert all(name == pitfall.name for name, pitfall in PITFALLS.items())


# The worlds.


def test_the_noisy_chain() -> None:
    env = NoisyChain()
    observation, info = env.reset(seed=3)
    assert observation.tolist() == [1, 0]
    assert info["action_mask"].tolist() == [True, True] + [False] * 8
    observation, reward, terminated, truncated, info = env.step(0)  # left
    assert (observation.tolist(), reward, terminated, truncated) == ([0, 1], 0.0, False, False)
    assert info["action_mask"].tolist() == [True] * 10
    _, reward, terminated, truncated, _ = env.step(7)
    assert (terminated, truncated) == (True, False)
    assert reward == np_random(3)[0].normal(-0.1, 1.0)
    env.reset()
    assert env.step(1)[1:4] == (0.0, True, False)  # right


def test_left_in_the_noisy_chain_is_worth_a_tenth_less_than_right() -> None:
    env, rewards = NoisyChain(), []
    env.reset(seed=0)
    for _ in range(10_000):
        env.reset()
        env.step(0)
        rewards.append(env.step(2)[1])
    assert np.mean(rewards) == pytest.approx(-0.1, abs=0.03)
    assert np.std(rewards) == pytest.approx(1.0, abs=0.03)


def test_the_sea_is_the_one_that_the_page_shows() -> None:
    assert sea_of_the_page(3).right.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert len(set(sea_of_the_page(8).right.ravel().tolist())) == 2  # no action is right everywhere


def bits(env: BitFlip, now: list[int], goal: list[int]) -> BitFlip:
    env.reset(seed=0)
    env.bits, env.goal = np.array(now, np.float32), np.array(goal, np.float32)
    return env


def test_flipping_bits() -> None:
    env = bits(BitFlip(3), [0, 1, 0], [1, 1, 1])
    observation, *rest, _ = env.step(0)
    assert observation.tolist() == [1, 1, 0, 1, 1, 1]
    assert rest == [0.0, False, False]
    observation, *rest, _ = env.step(2)
    assert observation.tolist() == [1, 1, 1, 1, 1, 1]
    assert rest == [1.0, True, False]
    env = bits(BitFlip(3), [0, 0, 0], [1, 1, 1])
    assert [env.step(0)[1:4] for _ in range(3)] == [(0.0, False, False), (0.0, False, False), (0.0, False, True)]


def test_a_goal_always_differs_from_the_bits() -> None:
    env = BitFlip(1)
    env.reset(seed=0)
    drawn_bits = [env.reset()[0].tolist() for _ in range(50)]
    assert {tuple(each) for each in drawn_bits} == {(0, 1), (1, 0)}


def test_shaping_pays_for_getting_closer_and_adds_up_to_the_first_potential() -> None:
    env = BitFlip(3)
    shaped = Shaped(env, gamma=0.9)
    bits(env, [0, 1, 0], [1, 1, 1])  # distance 2 of 3
    first, second = float(shaped.step(0)[1]), float(shaped.step(2)[1])
    assert first == pytest.approx(0.9 * -1 / 3 + 2 / 3)
    assert second == pytest.approx(1 + 0.9 * 0 + 1 / 3)
    # Σ γ^t F = γ^T Φ(s_T) - Φ(s_0) = 0 + 2/3, beside the 1 for the goal.
    assert first + 0.9 * second == pytest.approx(0.9 * 1 + 2 / 3)
    bits(env, [1, 1, 0], [1, 1, 1])
    assert shaped.step(0)[1] == pytest.approx(0.9 * -2 / 3 + 1 / 3)


def test_the_star_by_hand() -> None:
    features = star_features()
    assert features[0].tolist() == [2, 0, 0, 0, 0, 0, 0, 1]
    assert features[5].tolist() == [0, 0, 0, 0, 0, 2, 0, 1]
    assert features[6].tolist() == [0, 0, 0, 0, 0, 0, 1, 2]
    weights = np.array([1, 1, 1, 1, 1, 1, 10, 1.0])  # v(tip) = 3, v(centre) = 12
    expected = 0.99 * 12 - 3  # of a step from a tip to the centre
    assert td_gradient(weights, features[0], features[6]).tolist() == pytest.approx(
        [2 * expected, 0, 0, 0, 0, 0, 0, expected]
    )
    assert np.linalg.matrix_rank(features) == 7  # all values can be 0, and not only by weights of 0


def test_the_star_stays_small_on_policy_and_grows_off_policy() -> None:
    on_policy, off_policy = StarArm(1.0)(1000, 1_000), StarArm(1 / 7)(1000, 1_000)
    assert on_policy.values.max() <= 10  # never above where it began
    assert off_policy.values[-1] > 100
    assert on_policy.steps.tolist() == off_policy.steps.tolist() == list(range(50, 1_001, 50))


def test_a_loss_without_terminals_bootstraps_everywhere() -> None:
    seen: list[Batch] = []

    def loss(q_network: Any, target_network: Any, next_action: Any, batch: Batch) -> Outcome:
        seen.append(batch)
        return Outcome(torch.zeros(2), torch.zeros(2), {})

    batch = {"discounts": torch.tensor([0.0, 0.99]), "rewards": torch.tensor([1.0, 2.0])}
    network: Any = None
    WithoutTerminals(loss, 0.99)(network, network, network, batch)
    assert seen[0]["discounts"].tolist() == pytest.approx([0.99, 0.99])
    assert seen[0]["rewards"].tolist() == [1, 2]
    assert batch["discounts"].tolist() == pytest.approx([0, 0.99])


# The arms.


@pytest.mark.parametrize("name", WITH_DQN)
def test_the_arms_differ_in_one_thing(name: str) -> None:
    broken, cured = PITFALLS[name].broken, PITFALLS[name].cured
    assert isinstance(broken, DQNArm)
    assert isinstance(cured, DQNArm)
    different = {field.name for field in fields(DQNArm) if getattr(broken, field.name) != getattr(cured, field.name)}
    expected = DIFFERS[name]
    if isinstance(expected, str):
        assert different == {expected}
        return
    assert different == {"settings"}
    keys = broken.settings.keys() | cured.settings.keys()
    pairs = {key: (broken.settings.get(key), cured.settings.get(key)) for key in keys}
    assert {key: pair for key, pair in pairs.items() if pair[0] != pair[1]} == expected


def test_the_arms_of_the_star_differ_in_their_data() -> None:
    assert (PITFALLS["deadly-triad"].broken, PITFALLS["deadly-triad"].cured) == (StarArm(1 / 7), StarArm(1.0))


@pytest.mark.parametrize("side", ["broken", "cured"])
@pytest.mark.parametrize("name", WITH_DQN)
def test_an_arm_learns(name: str, side: str) -> None:
    arm = getattr(PITFALLS[name], side)
    seen: list[tuple[Parts, torch.Tensor]] = []

    def watch(parts: Parts) -> None:
        if arm.patch is not None:
            arm.patch(parts)
        seen.append((parts, parts.agent.learner.theta.clone()))

    trace = replace(arm, patch=watch)(1000, 1_000)
    ((parts, before),) = seen
    assert parts.counters.updates >= 100
    assert not torch.equal(before, parts.agent.learner.theta)
    assert trace.steps.tolist() == list(range(50, 1_001, 50))
    assert trace.values.shape == (20,)
    assert np.isfinite(trace.values).all()


def test_the_broken_loss_is_in_place() -> None:
    seen: list[Any] = []
    arm = PITFALLS["wrong-loss"].broken
    assert isinstance(arm, DQNArm)
    assert arm.patch is not None

    def watch(parts: Parts) -> None:
        before = parts.agent.learner.loss
        assert arm.patch is not None
        arm.patch(parts)
        seen.append((before, parts.agent.learner.loss))

    replace(arm, patch=watch)(1000, 600)
    ((before, after),) = seen
    assert after == WithoutTerminals(before, 0.99)


def test_a_seed_repeats_and_another_differs() -> None:
    first, again, other = (demonstrate("overestimation", [seed], steps=1_000) for seed in (1000, 1000, 1001))
    assert first.cured.tolist() == again.cured.tolist()
    assert first.cured.tolist() != other.cured.tolist()
    assert first.cured.tolist() != first.broken.tolist()


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing() -> None:
    one, two = (demonstrate("overestimation", 2, steps=1_000, processes=processes) for processes in (1, 2))
    assert one.broken.tolist() == two.broken.tolist()
    assert one.cured.tolist() == two.cured.tolist()


def test_an_arm_is_measured_as_soon_as_it_has_come_so_far() -> None:
    arm, seen = PITFALLS["overestimation"].broken, list[Parts]()
    assert isinstance(arm, DQNArm)
    counted = replace(arm, patch=seen.append, measuring=lambda stack: lambda agent: seen[0].counters.steps)
    # Steps come in eights, one for each environment: 50 is reached at 56, 100 at 104, and so on.
    assert counted(1000, 1_000).values.tolist() == [8 * -(-step // 8) for step in range(50, 1_001, 50)]


def test_where_a_trace_is_measured() -> None:
    assert measured_at(1_000).tolist() == list(range(50, 1_001, 50))
    assert measured_at(8_000)[[0, -1]].tolist() == [400, 8_000]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"seeds": 0}, "seeds: needs at least 1"),
        ({"steps": 999}, "steps = 999: needs at least 1000"),
        ({"steps": 100_001}, "steps = 100001: needs at most 100000"),
        ({"processes": 0}, "processes = 0: needs at least 1"),
        ({"name": "wrong-los"}, "no pitfall 'wrong-los'.*did you mean wrong-loss?"),
    ],
)
def test_wrong_numbers_are_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        demonstrate(**{"name": "deadly-triad", **wrong})


# The evidence.


def evidence(broken: list[list[float]], cured: list[list[float]], name: str = "wrong-loss") -> Evidence:
    steps = np.arange(1, len(broken[0]) + 1)
    return Evidence(PITFALLS[name], tuple(range(len(broken))), steps, np.array(broken), np.array(cured))


def test_the_interval_of_two_seeds_by_hand() -> None:
    found = evidence([[9, 9, 9, 1], [9, 9, 9, 3]], [[0, 0, 0, 2], [0, 0, 0, 6]])
    assert found.broken_end.tolist() == [1, 3]  # the last of four points is the last quarter
    assert found.cured_end.tolist() == [2, 6]
    # Differences 1 and 3: a resample of two has the mean 1, 2 or 3, with probability 1/4, 1/2 and 1/4.
    assert found.difference == Estimate(2, 1, 3)
    assert not found.includes_zero
    assert found.verdict == "The interval excludes zero: on these seeds the cure works."


def test_an_interval_with_zero_is_said_to_show_nothing() -> None:
    found = evidence([[0, 0, 0, 3], [0, 0, 0, 3]], [[0, 0, 0, 2], [0, 0, 0, 6]])
    assert found.difference == Estimate(1, -1, 3)
    assert found.includes_zero
    assert found.verdict == "The interval includes zero: these seeds show no effect."


def test_the_seeds_are_paired() -> None:
    found = evidence([[0.0], [100.0]], [[1.0], [101.0]])
    assert found.difference == Estimate(1, 1, 1)  # of unpaired seeds it would include zero
    assert not found.includes_zero


def test_a_cure_that_harms_is_said_to() -> None:
    found = evidence([[2.0], [2.0]], [[1.0], [1.0]])
    assert found.verdict == "The interval excludes zero: on these seeds the cure makes it worse."
    lower_is_better = evidence([[2.0], [2.0]], [[1.0], [1.0]], "overestimation")
    assert lower_is_better.verdict == "The interval excludes zero: on these seeds the cure works."


def test_one_seed_has_no_interval() -> None:
    found = evidence([[1.0]], [[2.0]])
    assert found.includes_zero
    assert found.verdict == "One seed has no interval, so this shows nothing yet."


def test_the_end_is_the_last_quarter() -> None:
    curve = [[0.0] * 15 + [1.0, 2, 3, 4, 5]]
    assert evidence(curve, curve).cured_end.tolist() == [3]


def test_what_was_seen_in_three_sentences() -> None:
    found = evidence([[0.5], [0.7]], [[-0.2], [0.2]], "overestimation")
    assert found.sentences == (
        "At the end the value of going left is 0.600 (0.500 to 0.700) with DQN "
        "and 0.000 (-0.200 to 0.200) with Double DQN; the true value is -0.100.",
        "The difference, cured minus broken, is -0.600 (-0.700 to -0.500), a 95 % bootstrap interval over 2 seeds.",
        "The interval excludes zero: on these seeds the cure works.",
    )


def test_an_estimate_is_the_mean_of_the_seeds() -> None:
    assert estimate_of(np.array([1.0, 1.0, 4.0])).mean == 2


# The page.

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_page_says_what_the_record_does() -> None:
    page = " ".join((DOCS / "pitfalls.md").read_text("utf-8").split())
    record = json.loads((DOCS / "results" / "pitfalls.json").read_text("utf-8"))
    assert [row["name"] for row in record["rows"]] == NAMES
    assert record["seeds"] == list(range(10))
    for row in record["rows"]:
        assert " ".join(row["sentences"]) in page
        assert f"](images/pitfalls/{row['name']}.png)" in page
        assert (DOCS / "images" / "pitfalls" / f"{row['name']}.png").exists()
        assert row["steps"] == PITFALLS[row["name"]].steps
    assert record["commit"] in page
    assert record["command"] in page


def test_the_page_says_what_the_doctor_did() -> None:
    page = " ".join((DOCS / "pitfalls.md").read_text("utf-8").split())
    rows = json.loads((DOCS / "results" / "pitfall_diagnoses.json").read_text("utf-8"))["rows"]
    assert len(rows) == 14, "two arms of all but the linear toy"
    for name in NAMES:
        after = page.partition(f"](images/pitfalls/{name}.png)")[2]
        assert after.partition("**Cure:**")[0].endswith(f"{sentence(rows, name)} ")


# The command.


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["pitfalls", *words]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_the_list_has_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys).splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(pitfall.problem in line for pitfall, line in zip(PITFALLS.values(), lines, strict=True))


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(said(capsys, "--json"))
    assert [each["name"] for each in listed] == NAMES
    assert all(each["problem"] and each["cure"] and "https://" in each["paper"] for each in listed)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["overestimate"], "did you mean overestimation?"),
        (["forgetting"], "did you mean catastrophic-forgetting?"),
        (["deadly-triad", "--seeds", "0"], "seeds: needs at least 1"),
        (["deadly-triad", "--out", "x.gif"], "out = 'x.gif': needs a file name that ends in .png, .pdf, .svg"),
        (["deadly-triad", "--out", "away/x.png"], "can't write away/x.png: there is no folder away"),
        (["deadly-triad", "--seed", "3"], "did you mean --seeds"),
    ],
)
def test_bad_input_is_one_line(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = said(capsys, *words, code=2)
    assert text in error
    assert error.startswith("nexus: error: ")
    assert len(error.splitlines()) == 1


STAR = ("deadly-triad", "--seeds", "3", "--processes", "1")


def test_a_pitfall_is_shown_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    text = said(capsys, *STAR)
    assert all(sentence in text.splitlines() for sentence in demonstrate("deadly-triad", 3).sentences)
    assert text.splitlines()[-1] == "Picture: deadly-triad.png"
    assert Path("deadly-triad.png").read_bytes().startswith(b"\x89PNG")
    assert "Picture: star.svg" in said(capsys, *STAR, "--out", "star.svg")
    assert "<svg" in Path("star.svg").read_text("utf-8")


def test_a_pitfall_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    found = json.loads(said(capsys, *STAR, "--json"))
    assert found["name"] == "deadly-triad"
    assert found["seeds"] == [0, 1, 2]
    assert found["picture"] == "deadly-triad.png"
    ends = {side: found[side]["per_seed"] for side in ("broken", "cured")}
    mean = sum(ends["cured"]) / 3 - sum(ends["broken"]) / 3
    assert found["difference"]["mean"] == pytest.approx(mean)
    assert found["includes_zero"] is False
    assert np.shape(found["broken"]["curves"]) == (3, 20)
    assert found["steps"][-1] == 1_000


def test_without_matplotlib_the_figures_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nexus.cli.pitfalls.find_spec", lambda name: None)
    assert main(["pitfalls", *STAR]) == 0
    captured = capsys.readouterr()
    assert all(sentence in captured.out.splitlines() for sentence in demonstrate("deadly-triad", 3).sentences)
    assert captured.err.splitlines()[-1].endswith(f"get it with: {install_command('plot')}")
    assert not list(Path().glob("*.png"))


def test_the_picture_has_a_band_for_each_arm() -> None:
    pytest.importorskip("matplotlib")
    found = evidence([[0.5, 1], [0.7, 3]], [[-0.2, 2], [0.2, 2]], "overestimation")
    (axes,) = drawn(found).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["DQN (2 seeds, 95 % interval)", "Double DQN (2 seeds, 95 % interval)", "the true value"]
    assert [line.get_ydata().tolist() for line in axes.lines[:2]] == [[0.6, 2], [0.0, 2]]
    corners = axes.collections[0].get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (0.5, 3.0)


def test_a_title_fits_the_picture() -> None:
    assert max(len(f"{pitfall.name}: {pitfall.world}") for pitfall in PITFALLS.values()) <= 70


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_cure_works_as_the_page_says(name: str) -> None:
    found = demonstrate(name, processes=2)
    assert found.verdict == "The interval excludes zero: on these seeds the cure works."
