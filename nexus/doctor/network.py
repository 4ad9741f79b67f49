"""The network: units that never react, the rank of its features, weights that hardly move, noise, edges of a range."""

from collections.abc import Mapping
from statistics import median

import numpy as np
import torch
from torch import Tensor

from nexus.doctor.chart import Chart
from nexus.doctor.check import Check
from nexus.doctor.exam import Exam
from nexus.doctor.symptom import Judgement, Unjudged, critical, slight, warning
from nexus.models.layers import noisy_layers

__all__ = ["NETWORK_CHECKS", "network_measures"]

DORMANT = 0.025  # of the mean activation of its layer, as in Sokar et al. 2023


def network_measures(exam: Exam) -> Mapping[str, float]:
    """Return the numbers that describe the network."""
    values = {}
    output = exam.output  # a pass through the network, which fills the activations
    if layers := exam.networks.activations:
        values["dormant_units"] = max(dormant(layer) for layer in layers)
        values["feature_rank"] = rank(layers[-1])
    if len(exam.before.get("theta", ())) == len(exam.theta):
        size = float(np.linalg.norm(exam.theta)) + 1e-12
        values["weight_change"] = float(np.linalg.norm(exam.theta - exam.before["theta"])) / size
    if noisy := noisy_layers(exam.networks.online):
        means = [float(layer.weight_sigma.abs().mean() * layer.in_features**0.5) for layer in noisy]
        values["noise"] = float(np.mean(means))
    if exam.value_range is not None:
        likely = output.distribution.softmax(-1)  # [P, A, N]
        values["edge_mass"] = float(torch.maximum(likely[..., 0], likely[..., -1]).mean())
    return values


def dormant(activations: Tensor) -> float:
    """Return the share of units whose mean activation is at most `DORMANT` of their layer's."""
    units = activations.abs().flatten(2).mean(2) if activations.ndim > 2 else activations.abs()
    mean = units.mean(0)  # [D]
    return float((mean <= DORMANT * mean.mean()).float().mean())


def rank(features: Tensor) -> float:
    """Return how many singular values hold 99 % of their sum, of the features `[P, D]` of at most 64 probes."""
    sizes = torch.linalg.svdvals(features[:64].flatten(1).float()).cumsum(0)
    return float((sizes < 0.99 * sizes[-1]).sum()) + 1


def dead_units(chart: Chart) -> Judgement:
    """Units that hardly react to any probe state."""
    shares = chart.tail("doctor/dormant_units", 3)
    if len(shares) < 3:
        return Unjudged("no layers with ReLU, or too few examinations")
    share = float(shares.min())
    if share <= 0.99:
        return None
    return critical(
        f"{share:.0%} of the units of a layer do not react to any probe state",
        "99 %, three times in a row",
        "the layer is dead: its weights get no gradient",
        dormant_units=share,
        feature_rank=chart.last("doctor/feature_rank"),
    )


def standstill(chart: Chart) -> Judgement:
    """Weights that hardly move although the values do not fit."""
    changes, updates = chart.series("doctor/weight_change"), chart.last("train/n_updates", 0.0)
    if chart.progress < 0.2 or len(changes) < 4 or updates < 500:
        return Unjudged("too few updates")
    moved = float(changes[:10].sum())
    if moved >= 0.02:
        return None
    return warning(
        f"the weights have moved by {moved:.2%} of their size in {min(len(changes), 10)} examinations",
        "2 %",
        "the learning rate is too small for the optimizer, or no gradient arrives",
        weight_change=moved,
        learning_rate=chart.last("train/learning_rate"),
    )


def leaps(chart: Chart) -> Judgement:
    """Weights that move too far in one stretch, late in the run."""
    changes = chart.tail("doctor/weight_change", 4)
    if chart.progress < 0.3 or len(changes) < 4:
        return Unjudged("too early")
    if float(median(changes)) <= 0.8:
        return None
    return warning(
        f"the weights change by {median(changes):.0%} of their size between two examinations",
        "80 %, median of four after 30 % of the run",
        "the learning rate is too large",
        weight_change=float(median(changes)),
        learning_rate=chart.last("train/learning_rate"),
    )


def noise(chart: Chart) -> Judgement:
    """The noise of noisy nets, relative to what they began with."""
    config = chart.config
    sizes = chart.series("doctor/noise")[chart.steps("doctor/noise") <= config.total_steps / 2]
    if not config.noisy or not sizes.size:
        return Unjudged("no noisy layers")
    lowest = config.epsilon if config.epsilon_schedule == "constant" else config.epsilon_min
    start = max(float(sizes[0]), 1e-12)
    gone = sizes[-1] < 0.1 * start or sizes[0] < 0.01
    if not gone or max(lowest, chart.last("rollout/exploration_rate", 0.0)) > 0.01:
        return None
    return warning(
        f"the noise of the weights fell from {sizes[0]:.2g} to {sizes[-1]:.2g} in the first half of the run",
        "a tenth of the first, in the first half of the run",
        "nothing explores any more",
        noise=float(sizes[-1]),
        first=float(sizes[0]),
    )


def edges(chart: Chart) -> Judgement:
    """The returns so far, and the probability on the first and last atom, against the range."""
    masses, returns = chart.tail("doctor/edge_mass", 3), chart.series("doctor/realised_start")
    if not chart.holds("doctor/edge_mass"):
        return Unjudged("no atoms")
    low, high = chart.config.v_min, chart.config.v_max
    if returns.size and not chart.config.normalize_rewards and not low <= float(np.median(returns)) <= high:
        return warning(
            f"episodes earn {np.median(returns):.3g}, discounted, and the range is {low:g} to {high:g}",
            "a range that holds the returns",
            "the range of returns is too narrow",
            f"--v-min {min(low, 2 * float(returns.min())):.3g} --v-max {max(high, 2 * float(returns.max())):.3g}",
            realised=float(np.median(returns)),
        )
    if len(masses) < 3:
        return Unjudged("too few examinations")
    if masses.min() <= 0.3:
        return None
    say = warning if masses.min() > 0.6 else slight
    return say(
        f"{masses.min():.0%} of the probability is on the first or last atom of {low:g} to {high:g}",
        "30 %, three times in a row",
        "the range of returns is too narrow",
        f"--v-min {2 * low:g} --v-max {2 * high:g}",
        edge_mass=float(masses.min()),
    )


NETWORK_CHECKS = (
    Check(
        "dead-units",
        dead_units,
        "largest share of a layer's units whose mean activation is at most 0.025 of the layer's, at the probe states",
        "above 99 % three times in a row: critical",
        "dormant units as in Sokar et al. 2023; RLExplorer alarms at 50 %, where sound CartPole has 74 % and RL Zoo's "
        "MountainCar 96 %",
        "networks without ReLU modules; units that are alive but useless",
        "--layer-norm, or a smaller --learning-rate",
    ),
    Check(
        "standstill",
        standstill,
        "sum of ‖Δθ‖ ÷ ‖θ‖ between the first eleven examinations, on at most 10,000 weights",
        "below 2 % after a fifth of the run: warning",
        "a first choice",
        "weights that move in circles",
        "--learning-rate 0.001 --optimizer adam",
    ),
    Check(
        "leaps",
        leaps,
        "‖Δθ‖ ÷ ‖θ‖ between two examinations, on at most 10,000 weights",
        "median of four above 80 % after 30 % of the run: warning",
        "a first choice",
        "a learning rate that is only somewhat too large",
        "--learning-rate 0.0003, or --learning-rate-schedule linear",
    ),
    Check(
        "noise",
        noise,
        "mean |σ| · √inputs of the noisy layers, against that of the first examination",
        "below a tenth in the first half of the run, without ε: warning",
        "Fortunato et al. 2018 show σ over a run; the tenth a first choice",
        "noise that is large but cancels",
        "--noisy-sigma 0.5, or --epsilon-min 0.01",
    ),
    Check(
        "range",
        edges,
        "mean probability of the likelier of the first and the last atom, at the probe states; the median discounted "
        "return of episodes",
        "above 30 % three times in a row: note; above 60 %, or returns outside: warning",
        "Bellemare et al. 2017 clip returns to the range; a first choice",
        "a range that is far too wide",
        "--v-min and --v-max of twice the size",
    ),
)
