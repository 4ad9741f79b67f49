"""What a person sees while training: a table first, a bar with live numbers, the result."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from torch import nn

from nexus.api import Listener, Plan, TrainResult
from nexus.core.config import AgentConfig
from nexus.core.installation import nexus_command, tensorboard_command
from nexus.models.rl.dqn.c51 import CategoricalReadout
from nexus.models.torsos import torso_of
from nexus.training.config import TrainConfig
from nexus.training.evaluation import Evaluation
from nexus.training.logs import EpisodeTracker, Rate
from nexus.training.loop import Progress
from nexus.training.presets import RETURNS

__all__ = ["TrainView", "algorithm_line"]

REFRESH = 0.25  # seconds; the only moments at which the bar asks the device for numbers
LINES = 10  # progress lines of a whole run where the output is no terminal


class TrainView(Listener):
    """Follows a run on the console."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.bar = Bar(
            TextColumn("[bold]training"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()

    def on_start(self, plan: Plan) -> None:
        """Print what is about to happen and start the bar."""
        self.console.print(plan_table(plan))
        if plan.first_step:
            self.console.print(f"Going on from step {plan.first_step:,}, {plan.seconds:.1f} s into the run.")
        if plan.preset is None:
            self.console.print(
                f"No settings were tuned for {plan.env}: these are general ones. Change any by its flag."
            )
        if range_is_assumed(plan):
            low, high = plan.config.v_min, plan.config.v_max
            self.console.print(
                f"No range of returns is known for {plan.env}: {low:g} to {high:g} is assumed, and what lies beyond "
                "can't be told from its ends. Set --v-min and --v-max to what a discounted return can be."
            )
        self.total = plan.config.total_steps
        self.by_temperature = plan.config.exploration == "boltzmann"
        self.shown_at = time.perf_counter()
        self.rate = Rate(plan.first_step, self.shown_at)
        self.shown_steps = plan.first_step
        self.task = self.bar.add_task("train", total=self.total, completed=plan.first_step, numbers="")
        self.bar.start()

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Refresh the bar a few times a second; without a terminal print a line now and then."""
        steps = progress.counters.steps
        if self.console.is_terminal:
            if time.perf_counter() - self.shown_at < REFRESH:
                return
        elif (steps * LINES) // self.total == (self.shown_steps * LINES) // self.total:
            return
        numbers = live_numbers(progress, episodes, self.rate.at(steps, time.perf_counter()), self.by_temperature)
        if self.console.is_terminal:
            self.bar.update(self.task, completed=min(steps, self.total), numbers=numbers)
        else:
            self.console.print(f"step {steps:>9,} of {self.total:,}  {numbers}", soft_wrap=True)
        self.shown_at, self.shown_steps = time.perf_counter(), steps

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        """Print each evaluation above the bar."""
        self.console.print(f"evaluation after {steps:,} steps: {evaluation}", soft_wrap=True)

    def on_notice(self, text: str) -> None:
        """Print it above the bar."""
        self.console.print(f"Note: {text}", soft_wrap=True, markup=False)

    def finish(self, result: TrainResult) -> None:
        """Say how it ended and where everything is."""
        counters = result.counters
        verb = "Interrupted" if result.interrupted else "Trained"
        self.console.print(
            f"{verb} after {counters.steps:,} steps, {counters.episodes:,} episodes, {counters.updates:,} updates, "
            f"{result.seconds:.1f} s",
            soft_wrap=True,
        )
        if result.evaluation is not None:
            self.console.print(f"Protocol: {result.evaluation.protocol}", soft_wrap=True)
        self.console.print(f"Run saved in {result.run_dir}", soft_wrap=True)
        if result.interrupted:
            where = "anew: no checkpoint was due yet" if result.resumes_from is None else f"at {result.resumes_from:,}"
            self.console.print(f"{nexus_command('resume', result.run_dir)} begins {where}", soft_wrap=True)
        commands = [*(nexus_command(verb, result.run_dir) for verb in ("watch", "plot"))]
        commands.append(tensorboard_command(result.run_dir))
        self.console.print(f"Next: {'   '.join(commands)}", soft_wrap=True, markup=False)


def live_numbers(progress: Progress, episodes: EpisodeTracker, rate: float, by_temperature: bool = False) -> str:
    """The figures behind the bar."""
    parts = [f"{rate:,.0f} steps/s"]
    if episodes.mean_return is not None:
        parts.append(f"return {episodes.mean_return:.1f}")
    parts.append(f"temperature {progress.temperature:.3g}" if by_temperature else f"ε {progress.epsilon:.2f}")
    if progress.update is not None:
        metrics = dict(progress.update.items())
        parts += [f"loss {float(metrics['loss']):.3f}", f"Q {float(metrics['q_mean']):.1f}"]
    return "  ".join(parts)


def plan_table(plan: Plan) -> Table:
    """What a run is about to do, units spelled out."""
    config, network = plan.config, plan.agent.q_network
    shape = "x".join(map(str, plan.agent.state_shape)) or "1"
    linear = [layer.out_features for layer in network.torso.modules() if isinstance(layer, nn.Linear)]
    torso = torso_of(config, plan.agent.state_shape)
    layers = [shape, *([] if torso == "mlp" else [torso]), *linear, plan.agent.action_dim]
    rows = {
        "environment": f"{plan.env}, {config.num_envs} in parallel, {plan.agent.action_dim} actions",
        "algorithm": algorithm_line(plan.config),
        "settings": f"preset {plan.preset}" if plan.preset else "general",
        "training": f"{config.total_steps:,} steps (decisions, all environments together)",
        "network": f"{'-'.join(map(str, layers))}, {network.num_parameters:,} parameters"
        + (", states scaled by their bounds" if config.scale_observations else "")
        + (", images standardized" if config.standardize_images else ""),
        **memory(plan),
        "learning": f"{config.updates_each} update(s) of {config.batch_size} every {config.update_every}, "
        f"learning rate {config.learning_rate:g} ({config.learning_rate_schedule})"
        + ("" if config.actor_sync_every is None else ", beside the acting"),
        "target network": f"τ = {config.tau:g} every {config.target_update_every}",
        "exploration": exploration(plan),
        "device, seed": f"{plan.agent.device}, {config.seed}",
        "run folder": str(plan.run_dir),
    }
    if plan.rules is not None:
        rows["protocol"] = str(plan.rules)
    if has_atoms(plan):
        rows["returns"] = f"{config.v_min:g} to {config.v_max:g}, {config.atoms} atoms"
    table = Table(show_header=False, box=None, padding=(0, 1))
    for name, value in rows.items():
        table.add_row(f"[bold]{name}", value)
    return table


def memory(plan: Plan) -> dict[str, str]:
    """Name what is learned from; say how large it is and how far its returns look ahead."""
    config = plan.config
    size = f"{config.replay_capacity:,} transitions, {plan.replay_bytes / 1e6:,.1f} MB"
    if config.trace_decay is None:
        return {"replay": f"{size}, {config.n_step}-step"}
    return {"rollout": f"{size}, λ = {config.trace_decay:g}"}


def algorithm_line(config: TrainConfig) -> str:
    """Name the algorithm and the parts that are switched on."""
    parts = [name for name in ("munchausen", "double", "dueling", "noisy", "prioritized") if getattr(config, name)]
    return ", ".join([config.algorithm, *(part for part in parts if part != config.algorithm)])


def has_atoms(plan: Plan) -> bool:
    """True if the values are distributions on atoms, which need a range."""
    return isinstance(plan.agent.q_network.readout, CategoricalReadout)


def range_is_assumed(plan: Plan) -> bool:
    """True if atoms lie where the defaults put them, and nothing is known of this environment's returns."""
    at_defaults = (plan.config.v_min, plan.config.v_max) == (AgentConfig.v_min, AgentConfig.v_max)
    return has_atoms(plan) and at_defaults and plan.env not in RETURNS


def exploration(plan: Plan) -> str:
    """Say the schedule of ε or of the temperature in words."""
    config = plan.config
    what, start, end = "ε", config.epsilon, config.epsilon_min
    if config.exploration == "boltzmann":
        what, start, end = "Boltzmann, temperature", config.temperature, config.temperature_min
    if config.epsilon_schedule == "constant":
        return f"{what} {start:g}"
    if config.epsilon_schedule == "linear":
        return f"{what} {start:g} to {end:g} over {config.epsilon_steps:,} steps"
    how = config.epsilon_schedule.replace("_", " ")
    return f"{what} {start:g} x {config.epsilon_decay:g} {how}, at least {end:g}"
