"""Console output during training: first the plan, then a bar with a live table, then the result."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table
from torch import nn

from nexus.checking.first_steps import FirstSteps
from nexus.cli.encoding import printable
from nexus.cli.live_table import live_lines, plain_line
from nexus.cli.standing import Gauge, Standing
from nexus.core.importable import is_import_name
from nexus.core.installation import nexus_command, tensorboard_command
from nexus.core.state import State
from nexus.lineage import lineage_text
from nexus.listener import Listener, Listeners, Plan, TrainResult
from nexus.models.rl.dqn.c51 import CategoricalReadout
from nexus.training.config import TrainConfig
from nexus.training.evaluation import Evaluation
from nexus.training.logs import EpisodeTracker
from nexus.training.loop import Progress

__all__ = [
    "EvaluationView",
    "TrainView",
    "algorithm_line",
    "environment",
    "evaluating",
    "plan_rows",
    "two_columns",
    "watching",
]

REFRESH = 0.5  # seconds between refreshes; only then does the table read numbers from the device
RARELY = 5.0  # seconds, the most between refreshes
MOST_SHARE = 0.01  # of the time that drawing takes: on a busy machine the table is drawn less often
SECONDS_BETWEEN_LINES = 30.0  # seconds between lines during an evaluation without a terminal
PROGRESS_LINES = 10  # progress lines of a run without a terminal,
SILENCE = 60.0  # and one more after so many seconds without any
UNTUNED = "No settings were tuned for {}: the preset general is used. --preset plain is DQN as published."


class TrainView(Listener):
    """Shows a run on the console. Use as a context manager.

    In a terminal it draws a bar and a small table in place; else it prints a line now and then, without control codes.

    Args:
        commands: whether to end with suggested commands, which are useless to a program.
    """

    def __init__(self, commands: bool = True) -> None:
        self.console = Console(highlight=False, force_jupyter=False)
        self.commands = commands
        self.standing: Standing | None = None  # as shown last
        self.evaluating: str | None = None
        self.cost = 0.0  # seconds that the last drawing took
        self.live = Live(get_renderable=self.look, console=self.console, auto_refresh=False, transient=True)
        self.is_live = is_live(self.console)
        self.stack = ExitStack()
        self.started = False
        self.notices: list[str] = []
        self.first_steps = FirstSteps(self.on_notice)

    def __enter__(self) -> Self:
        self.stack.enter_context(printable())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.live.stop()
        self.say_notices()  # for a run that did not start
        self.stack.close()

    def on_start(self, plan: Plan) -> None:
        """Print the plan and start the table."""
        self.console.print(plan_table(plan))
        if plan.first_step:
            self.console.print(f"Continuing from step {plan.first_step:,}, {plan.seconds:.1f} s into the run.")
        if plan.preset == "general" and not plan.first_step:
            self.console.print(UNTUNED.format(plan.env), markup=False)
        self.started = True
        self.say_notices()
        self.config, self.total = plan.config, plan.config.total_steps
        self.gauge = Gauge(plan)
        self.shown_at = time.perf_counter()
        self.shown_steps = plan.first_step
        self.logged = False  # since the last line
        self.reached_target = False
        if self.is_live:
            self.live.start()
        self.first_steps.on_start(plan)

    def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
        """Draw the table about twice a second; without a terminal print an occasional line."""
        self.first_steps.on_step(progress, episodes)
        self.gauge.follow(progress, episodes)
        if not (self.refresh_due() if self.is_live else self.line_due(progress)):
            return
        self.shown_at, self.shown_steps, self.logged = time.perf_counter(), progress.counters.steps, False
        self.standing, self.evaluating = self.gauge.standing(progress, episodes), None
        if self.is_live:
            self.draw()
        else:
            self.console.print(plain_line(self.standing), soft_wrap=True, markup=False)

    def refresh_due(self) -> bool:
        """True twice a second, or if drawing is slow less often, down to once in five seconds."""
        return time.perf_counter() - self.shown_at >= min(max(REFRESH, self.cost / MOST_SHARE), RARELY)

    def draw(self) -> None:
        """Draw the table again."""
        self.live.refresh()
        self.cost = time.perf_counter() - self.shown_at

    def line_due(self, progress: Progress) -> bool:
        """True at each tenth of the run and after a minute without a line, but once per log period at most."""
        self.logged |= progress.due(self.config.log_every)
        steps = progress.counters.steps
        return self.logged and (
            (steps * PROGRESS_LINES) // self.total != (self.shown_steps * PROGRESS_LINES) // self.total
            or time.perf_counter() - self.shown_at >= SILENCE
        )

    def look(self) -> Group:
        """Return the table as it is drawn."""
        if self.standing is None:
            return Group(*([] if self.evaluating is None else [self.evaluating]))
        ascii_only = self.console.options.ascii_only
        return Group(*live_lines(self.standing, self.console.width, ascii_only, self.evaluating))

    def on_scalars(self, steps: int, values: Mapping[str, float]) -> None:
        """Keep what the doctor measured."""
        self.gauge.note(values)

    def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
        """Show the progress of an evaluation; without a terminal only if it takes long."""
        silent = time.perf_counter() - self.shown_at < SECONDS_BETWEEN_LINES
        if not self.refresh_due() if self.is_live else silent:
            return
        self.shown_at = time.perf_counter()
        said = evaluating(steps, ended, episodes)
        if self.is_live:
            self.evaluating = said
            self.draw()
        else:
            self.console.print(said, soft_wrap=True)

    def on_evaluation(self, steps: int, evaluation: Evaluation) -> None:
        """Print each evaluation above the table, and if it reached the target, why another one follows."""
        which = ", on different episodes" if self.reached_target else ""
        self.evaluating = None
        self.console.print(f"evaluation after {steps:,} steps{which}: {evaluation}", soft_wrap=True)
        target = self.config.target_return
        if target is not None and evaluation.mean >= target and steps < self.total and not self.reached_target:
            self.reached_target = True
            self.console.print(
                f"That reaches the target return of {target:g}, which ends the run. Its score is that of a second "
                "evaluation, on different episodes: the first one was selected for being high.",
                soft_wrap=True,
            )

    def on_event(self, steps: int, text: str) -> None:
        """Print it above the bar."""
        self.console.print(f"step {steps:,}: {text}", soft_wrap=True, markup=False)

    def on_notice(self, text: str) -> None:
        """Print a notice above the live table, but below the plan."""
        self.notices.append(text)
        if self.started:
            self.say_notices()

    def say_notices(self) -> None:
        """Print the notices not yet printed."""
        for text in self.notices:
            self.console.print(f"Note: {text}", soft_wrap=True, markup=False)
        self.notices.clear()

    def finish(self, result: TrainResult) -> None:
        """Print how the run ended and where its files are."""
        self.live.stop()
        counters = result.counters
        verb = "Interrupted" if result.interrupted else "Trained"
        self.console.print(
            f"{verb} after {counters.steps:,} steps, {counters.episodes:,} episodes, {counters.updates:,} updates, "
            f"{result.seconds:.1f} s",
            soft_wrap=True,
        )
        if result.reached_target and not self.reached_target:  # at the last step
            self.console.print(
                f"The target return of {self.config.target_return:g} was reached. The last score is that of a second "
                "evaluation, on different episodes: the first one was selected for being high.",
                soft_wrap=True,
            )
        if result.evaluation is not None:
            self.console.print(f"Protocol: {result.evaluation.protocol}", soft_wrap=True, markup=False)
        self.console.print(f"Run saved in {result.run_dir}", soft_wrap=True, markup=False)
        if self.commands:
            self.say_commands(result)

    def say_commands(self, result: TrainResult) -> None:
        """Print suggested commands."""
        if result.interrupted:
            where = "over: there is no checkpoint yet" if result.resumes_from is None else f"at {result.resumes_from:,}"
            resume = nexus_command("resume", result.run_dir)
            self.console.print(f"{resume} starts {where}", soft_wrap=True, markup=False)
        commands = [*(nexus_command(verb, result.run_dir) for verb in ("watch", "plot"))]
        commands.append(tensorboard_command(result.run_dir))
        self.console.print("Next: " + "\n      ".join(commands), soft_wrap=True, markup=False)


class EvaluationView(Listener):
    """Shows the progress of an evaluation on stderr: in a terminal on one temporary line, else on occasional lines.

    Use as a context manager.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.shown_at = time.perf_counter()
        self.status = self.console.status("evaluating") if self.console.is_terminal else None

    def __enter__(self) -> Self:
        if self.status is not None:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is not None:
            self.status.stop()

    def on_evaluation_step(self, steps: int, ended: int, episodes: int) -> None:
        """Show the evaluation's progress."""
        if time.perf_counter() - self.shown_at < (SECONDS_BETWEEN_LINES if self.status is None else REFRESH):
            return
        self.shown_at = time.perf_counter()
        said = evaluating(steps, ended, episodes)
        if self.status is None:
            self.console.print(said, soft_wrap=True)
        else:
            self.status.update(said)

    def on_notice(self, text: str) -> None:
        """Print a notice above the line."""
        self.console.print(f"Note: {text}", soft_wrap=True, markup=False)


class Both(Listeners):
    """A program's listener and the view of the run; only the listener's state is saved in checkpoints."""

    def __init__(self, own: Listener, view: Listener) -> None:
        super().__init__(own, view)
        self.own = own

    def get_state(self) -> State:
        """Return the state of the program's listener."""
        return self.own.get_state()

    def set_state(self, state: State) -> None:
        """Restore the state of the program's listener."""
        self.own.set_state(state)


@contextmanager
def watching(
    listener: Listener | None, verbose: bool | None
) -> Iterator[tuple[Listener, Callable[[TrainResult], None]]]:
    """Yield the listener of a run started by a program, and a function to call with its result.

    Args:
        listener: the program's listener.
        verbose: whether to also show the run, in a notebook's output or on the console; None shows it in a terminal
            or a notebook, unless there is a listener.
    """
    from nexus.cli.notebook import NotebookView, kernel_display  # which imports this module

    own = Listener() if listener is None else listener
    if not (somebody_looks_on() and listener is None if verbose is None else verbose):
        yield own, lambda result: None
        return
    display = kernel_display()
    with TrainView(commands=False) if display is None else NotebookView(display) as view:
        yield (view if listener is None else Both(own, view)), view.finish


def somebody_looks_on() -> bool:
    """True in a terminal and in a notebook."""
    from nexus.cli.notebook import kernel_display

    return Console(force_jupyter=False).is_terminal or kernel_display() is not None


def is_live(console: Console) -> bool:
    """True if a console is a terminal in which lines can be drawn again; FORCE_COLOR alone asks for colours only."""
    return console.is_terminal and not console.is_dumb_terminal and console.file.isatty()


def evaluating(steps: int, ended: int, episodes: int) -> str:
    """Return text on the progress of an evaluation."""
    return f"evaluating: {ended} of {episodes} episodes, step {steps:,}"


def plan_table(plan: Plan) -> Table:
    """Return the plan of a run as a table."""
    return two_columns(plan_rows(plan))


def plan_rows(plan: Plan) -> dict[str, str]:
    """Return the plan of a run by name, with units."""
    config, network = plan.config, plan.agent.q_network
    linear = [layer.out_features for layer in network.torso.modules() if isinstance(layer, nn.Linear)]
    torsos = [torso for torso in plan.agent.states.torsos(config) if torso != "mlp"]
    start = lineage_text(plan.lineage)
    layers = [plan.agent.states, *torsos, *linear, plan.agent.action_dim]
    rows = {
        "environment": f"{environment(plan.env, config)}, {plan.agent.action_dim} actions",
        "algorithm": algorithm_line(plan.config),
        **({} if start is None else {"starts with": start}),
        **curriculum_row(config),
        "settings": f"preset {plan.preset}" if plan.preset else "as given" if start is None else "of that run",
        "training": f"{config.total_steps:,} steps (decisions, all environments together)",
        "network": f"{'-'.join(map(str, layers))}, {network.num_parameters:,} parameters"
        + (", states scaled by their bounds" if config.scale_observations else "")
        + (", images standardized" if config.standardize_images else ""),
        **replay_rows(plan),
        "learning": f"{config.gradient_steps} update(s) of {config.batch_size} every {config.update_period}, "
        f"learning rate {config.learning_rate:g} ({config.learning_rate_schedule})"
        + ("" if config.actor_sync_every is None else ", concurrent with acting"),
        "target network": f"τ = {config.tau:g} every {config.target_update_every}",
        "exploration": exploration(plan),
        "device, seed": f"{plan.agent.device}, {config.seed}",
        "run folder": str(plan.run_dir),
    }
    if plan.rules is not None:
        rows["protocol"] = str(plan.rules)
    if has_atoms(plan):
        rows["returns"] = f"{config.v_min:g} to {config.v_max:g}, {config.atoms} atoms"
    return rows


def environment(name: str, config: TrainConfig) -> str:
    """Return text on an environment, its keyword arguments and its number of sub-environments."""
    told = "".join(f", {word}={value}" for word, value in config.env_kwargs.items())
    around = f", in {', '.join(config.wrappers)}" if config.wrappers else ""
    return f"{name}{told}{around}, {config.num_envs} in parallel"


def curriculum_row(config: TrainConfig) -> dict[str, str]:
    """Return a row on the stages of a curriculum, if there is one."""
    if config.curriculum is None:
        return {}
    return {"curriculum": f"{len(config.curriculum['stages'])} stages; evaluations are of the last one"}


def two_columns(rows: Mapping[str, str]) -> Table:
    """Return a table of names and untruncated values."""
    table = Table("", Column(overflow="fold"), show_header=False, box=None, padding=(0, 1))
    for name, value in rows.items():
        table.add_row(f"[bold]{name}", escape(value))
    return table


def replay_rows(plan: Plan) -> dict[str, str]:
    """Return rows on the replay or rollout: its size and the length of its returns."""
    config = plan.config
    size = f"{config.kept_transitions:,} transitions, {plan.replay_bytes / 1e6:,.1f} MB"
    if config.trace_lambda is None:
        return {"replay": f"{size}, {config.n_step}-step"}
    return {"rollout": f"{size}, λ = {config.trace_lambda:g}"}


def algorithm_line(config: TrainConfig) -> str:
    """Return text on the algorithm and the parts that are switched on."""
    parts = [name for name in ("munchausen", "double", "dueling", "noisy", "prioritized") if getattr(config, name)]
    own = [f"{name}={value}" for name, value in config.algorithm_settings.items()]
    return ", ".join([config.algorithm, *own, *(part for part in parts if part != config.algorithm)])


def has_atoms(plan: Plan) -> bool:
    """True if the values are distributions on atoms, which need a range."""
    return isinstance(plan.agent.q_network.readout, CategoricalReadout)


def exploration(plan: Plan) -> str:
    """Return the schedule of ε or of the temperature in words."""
    config = plan.config
    what, start, end = "ε", config.epsilon, config.epsilon_min
    if config.exploration == "boltzmann":
        what, start, end = "Boltzmann, temperature", config.temperature, config.temperature_min
    if is_import_name(config.epsilon_schedule):
        return f"{what} by {config.epsilon_schedule}"
    if config.epsilon_schedule == "constant":
        return f"{what} {start:g}"
    if config.epsilon_schedule == "linear":
        return f"{what} {start:g} to {end:g} over {config.epsilon_steps:,} steps"
    how = config.epsilon_schedule.replace("_", " ")
    return f"{what} {start:g} x {config.epsilon_decay:g} {how}, at least {end:g}"
