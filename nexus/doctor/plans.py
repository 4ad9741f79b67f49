"""What the settings alone show, before a step is taken."""

from nexus.doctor.chart import Chart
from nexus.doctor.check import Check
from nexus.doctor.symptom import Judgement, Unjudged, slight, warning
from nexus.training.config import TrainConfig

__all__ = ["PLAN_CHECKS"]

NO_HORIZON = 1e9  # steps that γ = 1 looks ahead


def updates_in(config: TrainConfig) -> float:
    """Return how many updates the run will take; NaN if it depends on the episodes."""
    if config.update_period.unit != "steps":
        return float("nan")
    return (config.total_steps - config.learning_starts) / config.update_period.count * config.gradient_steps


def target_updates_in(config: TrainConfig) -> float:
    """Return how often the run will update its target network; NaN if it depends on the episodes."""
    period = config.target_update_every
    total = {"updates": updates_in(config), "steps": config.total_steps}.get(period.unit, float("nan"))
    return total / period.count


def updates_between(config: TrainConfig) -> float:
    """Return how many updates use the same target network; NaN if it depends on the episodes."""
    period, learning = config.target_update_every, config.update_period
    if period.unit == "updates":
        return period.count
    if period.unit == "episodes" or learning.unit != "steps":
        return float("nan")
    return config.gradient_steps * max(1.0, period.count / learning.count)


def start(chart: Chart) -> Judgement:
    """How much of the run is left when learning starts."""
    config = chart.config
    waited = config.learning_starts / config.total_steps
    if waited <= 0.25:
        return None
    say = warning if waited > 0.4 else slight
    return say(
        f"learning starts after {config.learning_starts:,} of {config.total_steps:,} steps",
        "a quarter of the run: note; 40 %: warning",
        "little of the run is left to learn in",
        f"--learning-starts {max(1, config.total_steps // 50)}",
        share=waited,
    )


def target_period(chart: Chart) -> Judgement:
    """How often the target network follows during the run, and whether it is one at all."""
    config, count = chart.config, target_updates_in(chart.config)
    if config.trace_lambda is not None or count != count:
        return Unjudged("no target network, or its period depends on the episodes")
    if config.tau > 0.5 and updates_between(config) <= 2 and not config.layer_norm:
        return warning(
            f"the target network is copied after every {updates_between(config):.0f} update(s)",
            "three updates, τ of at most 0.5, or layer norm",
            "each target moves with the update that it causes",
            updates_between=updates_between(config),
        )
    followed = count * config.tau
    if followed >= 10:
        return None
    say = warning if followed < 4 else slight
    return say(
        f"the target network is updated {count:,.0f} times with τ = {config.tau:g}",
        "τ times the number of its updates at least 10: note below, warning below 4",
        "the targets stay those of a network that has learned little",
        "--target-update-every '500 updates', or a larger --tau",
        target_updates=count,
        tau=config.tau,
    )


def horizon(chart: Chart) -> Judgement:
    """How far γ looks ahead, against the length of the episodes."""
    gamma, length = chart.config.gamma, chart.last("rollout/ep_len_mean")
    ahead = 1 / (1 - gamma) if gamma < 1 else NO_HORIZON
    if length != length:
        return Unjudged("no episode has ended yet")
    if ahead >= 10 or ahead >= 0.5 * length:
        return None
    say = warning if ahead < 5 and ahead < 0.25 * length else slight
    return say(
        f"γ = {gamma:g} looks {ahead:.1f} steps ahead, episodes last {length:.0f}",
        "10 steps, or half of an episode: note; 5 steps and a quarter: warning",
        "what comes later does not count",
        horizon=ahead,
        ep_len_mean=length,
    )


def exploration_plan(chart: Chart) -> Judgement:
    """Whether ε reaches its end within the run, and not at once."""
    config = chart.config
    if config.exploration != "epsilon_greedy" or config.noisy:
        return Unjudged("ε is not what explores")
    if config.said_of_exploration is not None:
        return slight(
            config.said_of_exploration,
            "a tenth of the fall left at the end of the run",
            "the run ends while it still explores",
            f"--epsilon-steps {max(1, config.total_steps // 2)}",
            epsilon_steps=config.epsilon_steps,
        )
    if config.epsilon_min >= 0.3:
        return warning(
            f"ε never falls below {config.epsilon_min:g}",
            "0.3",
            "the policy that is learned is hardly ever played",
            "--epsilon-min 0.01",
            epsilon_min=config.epsilon_min,
        )
    return None


def step_size(chart: Chart) -> Judgement:
    """The learning rate against the range that is known to work."""
    rate = chart.config.learning_rate
    high, low = rate > 0.01, rate < 3e-6
    rates = chart.series("train/learning_rate")
    if rates.size and chart.progress < 0.6 and rates[-1] < 0.05 * rates.max():
        return warning(
            f"the learning rate fell from {rates.max():.2g} to {rates[-1]:.2g} in {chart.progress:.0%} of the run",
            "a twentieth of it, in the last 40 % of the run",
            "little is learned from here on",
            "--learning-rate-schedule linear",
            learning_rate=float(rates[-1]),
        )
    if not high and not low:
        return None
    return warning(
        f"the learning rate is {rate:g}",
        "0.000003 to 0.01",
        f"it is too {'large' if high else 'small'} for {chart.config.optimizer}",
        learning_rate=rate,
    )


def reuse(chart: Chart) -> Judgement:
    """How often each step is learned from on average."""
    config = chart.config
    if config.update_period.unit != "steps" or config.trace_lambda is not None:
        return Unjudged("it depends on the episodes, or there is no replay")
    times = config.gradient_steps * config.batch_size / config.update_period.count
    if 0.5 <= times <= 512:
        return None
    return slight(
        f"each step is learned from {times:.3g} times on average",
        "0.5 to 512",
        "learning is slow" if times < 0.5 else "it fits early steps too closely",
        times=times,
    )


def capacity(chart: Chart) -> Judgement:
    """The replay against a batch."""
    config = chart.config
    batches = config.replay_capacity / config.batch_size
    if config.trace_lambda is not None or batches >= 10:
        return None
    return warning(
        f"the replay holds {config.replay_capacity:,} transitions, {batches:.1f} batches",
        "10 batches",
        "a batch is mostly what was played just now, so its rows are correlated",
        batches=batches,
    )


PLAN_CHECKS = (
    Check(
        "learning-start",
        start,
        "learning_starts ÷ total_steps",
        "above 25 %: note; above 40 %: warning",
        "muPRL's mutants use up to 50 %; a first choice",
        "a start that is too early",
        "--learning-starts of a fiftieth of the run",
    ),
    Check(
        "target-period",
        target_period,
        "τ · number of target updates in the run, and the number of updates between two of them",
        "below 10: note; below 4: warning; a copy at least every two updates without layer norm: warning",
        "muPRL's mutants update after up to 30 % of the run; a first choice",
        "a period in episodes",
        "--target-update-every '500 updates', or --tau 0.005 with '1 updates'",
    ),
    Check(
        "learning-rate",
        step_size,
        "learning_rate",
        "outside 0.000003 to 0.01, or below a twentieth of its start before 60 % of the run: warning",
        "settings published for DQN on small environments lie between 0.00005 and 0.004; the twentieth a first choice",
        "a rate that is wrong for this environment alone",
        "--learning-rate 0.001",
    ),
    Check(
        "exploration-plan",
        exploration_plan,
        "ε at the end of the run, from the settings",
        "more than a tenth of its fall left: note; an ε_min of 0.3 or more: warning",
        "DRLinter's programs; a first choice",
        "own schedules",
        "--epsilon-min 0.01, and --epsilon-steps of half of the run",
    ),
    Check(
        "horizon",
        horizon,
        "1 / (1 - γ) against the mean episode length",
        "below 10 steps and half an episode: note; below 5 and a quarter: warning",
        "a program on Stack Overflow (51425688) with γ = 0.3; a first choice",
        "rewards that come at once, for which a small γ is right",
        "--gamma 0.99",
    ),
    Check(
        "reuse",
        reuse,
        "gradient_steps · batch_size ÷ steps between updates",
        "outside 0.5 to 512: note",
        "RL Zoo's settings are between 4 and 64, data-efficient DQN up to 256",
        "own update schedules",
        "--update-every '4 steps' --gradient-steps 1 --batch-size 64",
    ),
    Check(
        "replay-batches",
        capacity,
        "replay_capacity ÷ batch_size",
        "below 10: warning",
        "a first choice",
        "episodes that are much longer than the replay",
        "--replay-capacity 100_000",
    ),
)
