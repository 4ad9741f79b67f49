"""The statistics of `nexus compare`: numbers by hand, every resample counted out, and rliable where it is installed."""

from collections import Counter
from itertools import product
from math import inf

import numpy as np
import pytest

from nexus.comparing.resampling import (
    RESAMPLES,
    Statistic,
    band_of_curves,
    band_of_profile,
    counts_of,
    detectable_difference,
    difference_of_iqms,
    draws_of_iqm,
    iqm_of,
    median_time,
    order_of_times,
    probability_of_improvement,
    runs_needed,
    share_above,
    spread_of_iqm,
    t_quantile,
)
from nexus.comparing.sentences import COVERAGE
from nexus.core.types import Floats
from nexus.training.statistics import interquartile_mean

EIGHT = np.array([1000.0, 1.0, 40.0, 10.0, 2.0, 30.0, 20.0, 100.0])


def floats(*values: float) -> Floats:
    return np.array(values, float)


def test_the_iqm_of_eight_scores_is_the_mean_of_the_middle_four() -> None:
    assert iqm_of([EIGHT]).value == (10 + 20 + 30 + 40) / 4


def test_a_difference_is_the_first_minus_the_second() -> None:
    assert difference_of_iqms([EIGHT], [floats(1, 2, 3, 100)]).value == 25 - 2.5


def test_a_tie_is_half_an_improvement() -> None:
    # 3 > 2, 3 > 1, 2 = 2, 2 > 1
    assert probability_of_improvement([floats(2, 3)], [floats(1, 2)]).value == 3.5 / 4
    # Two environments count equally, whatever their numbers of runs: 0 and 3.5 / 4.
    assert probability_of_improvement([floats(0), floats(2, 3)], [floats(1), floats(1, 2)]).value == 3.5 / 8


def test_a_run_that_did_not_come_has_not_come_by_then() -> None:
    # 3 of 4 left after 10; 20 is where one was last seen; of the two left one came at 30: 3/4 * 1/2 is less than half
    assert median_time(floats(40, 30, 20, 10), floats(1, 1, 0, 1)).value == 30
    # dropped instead of censored, it would be 30 of (10, 30, 40) as well; here it would be 10
    assert median_time(floats(10, 50, 50), floats(1, 0, 0)).value == inf
    assert median_time(floats(10, 20, 50, 50), floats(1, 1, 0, 0)).value == 20


def test_of_two_times_the_order_counts_where_it_is_known() -> None:
    first = floats(10, 50), floats(1, 0)
    second = floats(20, 15), floats(1, 0)
    # 10 before 20; 10 before anything after 15; 50 or later after 20; unknown
    assert order_of_times(first, second).value == (1 + 1 + 0 + 0.5) / 4
    assert order_of_times((floats(10), floats(1)), (floats(10), floats(1))).value == 0.5
    assert order_of_times((floats(10), floats(1)), (floats(10), floats(0))).value == 1  # the other one came later
    assert order_of_times((floats(10), floats(0)), (floats(10), floats(1))).value == 0
    assert order_of_times((floats(10), floats(0)), (floats(20), floats(1))).value == 0.5
    assert order_of_times((floats(20), floats(1)), (floats(10), floats(0))).value == 0.5


def test_a_profile_is_the_share_of_runs_above_each_level() -> None:
    levels = floats(0, 1, 2, 3)
    assert share_above([floats(1, 2, 3, 3)], levels).tolist() == [1, 0.75, 0.5, 0]
    assert share_above([floats(1, 2, 3, 3), floats(0)], levels).tolist() == [0.5, 0.375, 0.25, 0]


def test_a_band_is_the_iqm_of_each_point_and_its_interval() -> None:
    curves = np.stack([EIGHT, EIGHT[::-1] + 1], axis=1)
    mean, low, high = band_of_curves(curves)
    assert low is not None
    assert high is not None
    assert mean.tolist() == [25, 26]
    interval = iqm_of([EIGHT])
    assert low[0] == pytest.approx(interval.low)
    assert high[0] == pytest.approx(interval.high)
    assert low[1] == pytest.approx(low[0] + 1)  # the order of the runs does not matter


# Every resample, counted out.


def every_resample(scores: Floats) -> list[Floats]:
    return [np.array(picked) for picked in product(scores, repeat=len(scores))]


def shares(values: list[float]) -> dict[float, float]:
    return {value: count / len(values) for value, count in Counter(np.round(values, 9).tolist()).items()}


def require_equal_shares(drawn: Floats, exact: dict[float, float]) -> None:
    """Four standard errors of a share of the draws: one of 15,000 would be further off."""
    found = shares(drawn.tolist())
    assert found.keys() <= exact.keys()
    for value, share in exact.items():
        assert found.get(value, 0.0) == pytest.approx(share, abs=4 * np.sqrt(share / RESAMPLES) + 1e-12)


def test_the_draws_of_an_iqm_are_those_of_every_resample() -> None:
    scores = floats(1, 5, 12)
    exact = shares([interquartile_mean(each) for each in every_resample(scores)])
    assert len(exact) == 10
    require_equal_shares(draws_of_iqm([scores], 0), exact)


def test_strata_are_resampled_within_themselves() -> None:
    first, second = floats(1, 5), floats(100, 107)
    both = [np.concatenate(pair) for pair in product(every_resample(first), every_resample(second))]
    exact = shares([interquartile_mean(each) for each in both])
    require_equal_shares(draws_of_iqm([first, second], 0), exact)


def test_the_interval_of_a_difference_is_that_of_every_pair_of_resamples() -> None:
    first, second = floats(1, 5, 12), floats(2, 3, 7)
    exact = [
        interquartile_mean(mine) - interquartile_mean(other)
        for mine, other in product(every_resample(first), every_resample(second))
    ]
    found = difference_of_iqms([first], [second])
    low, high = np.percentile(exact, (2.5, 97.5), method="inverted_cdf")
    around = np.unique(np.round(exact, 9))  # one step of the discrete distribution at most

    def place(value: float | None) -> int:
        assert value is not None
        return int(np.flatnonzero(around == round(float(value), 9))[0])

    assert len(around) > 30
    assert abs(place(found.low) - place(low)) <= 1
    assert abs(place(found.high) - place(high)) <= 1


def test_the_interval_of_a_probability_is_that_of_every_pair_of_resamples() -> None:
    first, second = floats(1, 5, 12), floats(2, 5, 7)

    def better(mine: Floats, other: Floats) -> float:
        return float(np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in product(mine, other)]))

    exact = [better(*pair) for pair in product(every_resample(first), every_resample(second))]
    low, high = np.percentile(exact, (2.5, 97.5), method="inverted_cdf")
    found = probability_of_improvement([first], [second])
    assert found.value == better(first, second)
    assert found.low == pytest.approx(low, abs=1 / 18 + 1e-9)  # half a pair
    assert found.high == pytest.approx(high, abs=1 / 18 + 1e-9)


def test_a_band_of_a_profile_is_binomial() -> None:
    scores = np.arange(10.0)
    ends = band_of_profile([scores], floats(-1, 4.5, 9, 1.5))
    assert ends is not None
    # Of 10 runs, each above 4.5 with probability 1/2: at most 1 in 11 of 1024, at most 2 in 56 of 1024.
    # With probability 8/10 each: at most 4 in 0.6 %, at most 5 in 3.3 %, at most 6 in 12.1 %.
    assert ends[0].tolist() == pytest.approx([1, 0.2, 0, 0.5])
    assert ends[1].tolist()[:3] == pytest.approx([1, 0.8, 0])


def test_each_resample_has_as_many_runs() -> None:
    (counts,) = counts_of([floats(1, 2, 3)], 0)
    assert counts.shape == (RESAMPLES, 3)
    assert set(counts.sum(1)) == {3}


# Properties.


def test_the_order_of_runs_changes_nothing() -> None:
    other = EIGHT * 0.9 + 3
    for order in (np.arange(8)[::-1], np.random.default_rng(1).permutation(8)):
        assert iqm_of([EIGHT[order]]) == iqm_of([EIGHT])
        assert difference_of_iqms([EIGHT[order]], [other]) == difference_of_iqms([EIGHT], [other])
        assert probability_of_improvement([EIGHT], [other[order]]) == probability_of_improvement([EIGHT], [other])
        came = (EIGHT > 5).astype(float)
        assert median_time(EIGHT[order], came[order]) == median_time(EIGHT, came)


@pytest.mark.parametrize("seed", range(5))
def test_identical_groups_do_not_differ(seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=7)
    found = difference_of_iqms([scores], [scores.copy()])
    assert found.value == 0
    assert not found.excludes(0)
    better = probability_of_improvement([scores], [scores.copy()])
    assert better.value == 0.5
    assert not better.excludes(0.5)


@pytest.mark.parametrize("score", [500.0, 0.1, -1e5 / 3])
def test_equal_scores_leave_nothing_to_rounding(score: float) -> None:
    some, more = np.full(5, score), np.full(11, score)
    assert iqm_of([more]) == Statistic(score, score, score)
    assert difference_of_iqms([some], [more]) == Statistic(0, 0, 0)
    mean, low, high = band_of_curves(more[:, None])
    assert low is not None
    assert high is not None
    assert [*mean, *low, *high] == [score, score, score]


def test_groups_far_apart_differ() -> None:
    low, high = floats(1, 2, 3, 4), floats(11, 12, 13, 14)
    assert difference_of_iqms([high], [low]).excludes(0)
    assert probability_of_improvement([high], [low]) == Statistic(1, 1, 1)
    assert difference_of_iqms([low], [high]).value == -10


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_runs_have_no_interval(count: int) -> None:
    few, many = np.arange(count, dtype=float), np.arange(9.0)
    for found in (
        iqm_of([few]),
        iqm_of([many, few]),
        difference_of_iqms([many], [few]),
        probability_of_improvement([few], [many]),
        median_time(few, np.ones(count)),
    ):
        assert found.low is None
        assert not found.excludes(-1e9)
    assert band_of_profile([few], floats(0)) is None
    assert band_of_curves(few[:, None])[1:] == (None, None)


# Seeds needed.


@pytest.mark.parametrize(("freedom", "quantile"), [(4, 2.776), (8, 2.306), (10, 2.228), (30, 2.042)])
def test_quantiles_of_student_are_those_of_a_table(freedom: int, quantile: float) -> None:
    assert t_quantile(1.959964, freedom) == pytest.approx(quantile, rel=0.02)
    assert t_quantile(0, freedom) == 0


def test_seventeen_runs_see_one_standard_deviation_four_times_in_five() -> None:
    # Any table of sample sizes of the t-test: 17 per group for a difference of one deviation, 5 %, 80 %.
    assert runs_needed(10, (10.0, 10.0), 0.8416) == 17
    assert runs_needed(-10, (10.0, 10.0), 0.8416) == 17
    assert runs_needed(1e-6, (10.0, 10.0), 0.8416) is None
    assert detectable_difference((10.0, 10.0), (17, 17), 0.8416) == pytest.approx(9.9, abs=0.1)
    assert detectable_difference((3.0, 4.0), (25, 25), 0.0) == pytest.approx(2.011, abs=5e-4)  # t at 48 degrees


@pytest.mark.slow
def test_the_number_of_runs_needed_sees_the_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    spread = spread_of_iqm(rng.normal(size=2_000))
    needed = runs_needed(1.0, (spread, spread), 0.8416)
    assert needed is not None
    seen = [difference_of_iqms([rng.normal(1, 1, needed)], [rng.normal(0, 1, needed)]).excludes(0) for _ in range(300)]
    assert 0.74 < np.mean(seen) < 0.92  # the bootstrap's interval is a little narrower than Welch's


@pytest.mark.slow
@pytest.mark.parametrize(("count", "covered"), [*COVERAGE.items(), (10, (93, 95)), (20, (94, 95))])
def test_intervals_cover_the_truth_as_often_as_they_say(count: int, covered: tuple[int, int]) -> None:
    """The true interquartile mean of a normal distribution is its mean."""
    rng = np.random.default_rng(count)
    studies = [(rng.normal(size=count), rng.normal(size=count)) for _ in range(800)]
    alone = 100 * np.mean([not iqm_of([first]).excludes(0) for first, _ in studies])
    differences = 100 * np.mean([not difference_of_iqms([first], [second]).excludes(0) for first, second in studies])
    assert (alone, differences) == pytest.approx(covered, abs=4)  # three to four standard errors


# rliable.


def test_numbers_are_those_of_rliable() -> None:
    """Its interquartile mean drops whole runs, so it is ours where a quarter of them is a whole number."""
    metrics = pytest.importorskip("rliable.metrics", reason="needs pip install rliable")
    library = pytest.importorskip("rliable.library")
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, (8, 3)), rng.normal(0, 1, (12, 3))
    strata, others = list(first.T), list(second.T)
    assert iqm_of(strata).value == pytest.approx(metrics.aggregate_iqm(first))
    ours = probability_of_improvement(strata, others)
    assert ours.value == pytest.approx(metrics.probability_of_improvement(first, second))
    levels = np.linspace(-2, 3, 11)
    theirs, bands = library.create_performance_profile({"first": first}, levels, reps=2_000)
    assert share_above(strata, levels) == pytest.approx(theirs["first"])
    band = band_of_profile(strata, levels)
    assert band is not None
    assert np.stack(band) == pytest.approx(bands["first"], abs=0.07)  # about one run of 24, and a half
    _, ends = library.get_interval_estimates(
        {"first": first},
        lambda scores: np.array([metrics.aggregate_iqm(scores)]),
        reps=5_000,
        random_state=np.random.RandomState(1),
    )
    found = iqm_of(strata)
    assert [found.low, found.high] == pytest.approx(ends["first"].ravel(), abs=0.03)
    _, ends = library.get_interval_estimates(
        {"pair": (first, second)},
        lambda *pair: np.array([metrics.probability_of_improvement(*pair)]),
        reps=2_000,
        random_state=np.random.RandomState(1),
    )
    assert [ours.low, ours.high] == pytest.approx(ends["pair"].ravel(), abs=0.02)
