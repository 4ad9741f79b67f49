"""Train, evaluate and load agents from Python, on top of all other parts."""

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import gymnasium as gym
import torch

from nexus.core.checked import convert
from nexus.core.config import AgentConfig
from nexus.core.errors import ConfigError, RunError, interrupted, one_line
from nexus.core.importable import import_names, is_import_name, names_in
from nexus.core.period import whole_number
from nexus.core.state import part
from nexus.envs.atari import canonical, is_atari
from nexus.envs.factory import EnvSource, EnvSpec, composition, describe_spaces, make_env, name_of
from nexus.envs.settings import LEAST_FRAME, MOST_FRAME
from nexus.envs.statistics import Running, Statistics, merged, require_statistics
from nexus.envs.stream import LONGEST_EPISODE, STATISTICS_BEGUN, STATISTICS_NOW
from nexus.lineage import Origin, kept_names
from nexus.listener import Listener, Plan, TrainResult
from nexus.models.layers import in_mode
from nexus.models.normalization import require_positive
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.c51 import CategoricalReadout
from nexus.models.rl.dqn.rainbow import network_bytes
from nexus.models.setup import resolve_device
from nexus.models.torsos import channels_before
from nexus.own_modules import require_foreign_module, require_present, said_of_programs
from nexus.parts import require_shapes_of
from nexus.resolver import resolve, whole_or_resolved
from nexus.runner import Run, agent_for, agent_from, replay_for
from nexus.training.best import BEST, BestWeights
from nexus.training.checkpoint import read_checkpoint
from nexus.training.checkpoint_writer import Checkpoints, best_of
from nexus.training.config import TrainConfig, kwargs_for
from nexus.training.edited import read_run_or_copy, read_unedited_run
from nexus.training.evaluation import Evaluation, evaluate_policy, long_evaluation, said_of_gathering
from nexus.training.files import file_in, read_json
from nexus.training.loop import Counters
from nexus.training.presets import RETURN_RANGES
from nexus.training.replays import AnyReplay
from nexus.training.run_folder import (
    AGENT_FILE,
    EVALUATION_FILE,
    RUN_FILE,
    fill_networks,
    fill_with_statistics,
    load_weights,
    most_bytes,
)
from nexus.training.same_run import has_final_weights, mark_of_weights, require_same_run

__all__ = [
    "Listener",
    "Plan",
    "TrainResult",
    "agent_for",
    "evaluate",
    "load_agent",
    "make_config",
    "replay_for",
    "resume",
    "train",
]

OF_EVALUATION = frozenset(one.name for one in fields(Evaluation))
SEEN = "seen"  # the attribute of an agent that holds its `Seen`
END_STATES, MOST_AT_END = 512, 0.05  # states to check; the largest probability allowed on one end
LARGEST_STACK_OR_SKIP = 1_000  # upper limit for a stack or a skip read from a run's file
MOST_THREADS = 8  # for torch: a batch of 32 images gains nothing from more
LARGE_TORSOS = (
    "nature_cnn",
    "nips_cnn",
    "impala_cnn",
)  # torsos whose updates take tens of milliseconds and tens of megabytes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def make_config(env: EnvSource, preset: str | None = None, **settings: Any) -> TrainConfig:
    """Return the settings of a run on `env`, as `resolve` combines them.

    Raises:
        ConfigError: the preset or a setting is unknown, or a value is invalid.
    """
    return resolve(env, settings, preset).config


def train(
    env: EnvSource | None = None,
    *,
    preset: str | None = None,
    config: TrainConfig | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    from_run: str | os.PathLike[str] | TrainResult | None = None,
    from_checkpoint: str | int | None = None,
    keep: str | Sequence[str] = (),
    listener: Listener | None = None,
    verbose: bool | None = None,
    **settings: Any,
) -> TrainResult:
    """Train an agent and save its run.

    Args:
        env: a Gymnasium id, a `module:Id`, or a function that makes an environment; with `from_run`, None for its own.
        preset: named settings; None for those tuned for `env`, if any, else `general`, or for those of `from_run`.
        config: all settings at once, instead of `preset` and `settings`.
        run_dir: a new or empty folder for the run; None makes one below `runs/`.
        from_run: another run, by its folder or its result, to start with the weights of. Its settings are taken
            over, except those that are given. Its states and actions must have the same shapes.
        from_checkpoint: which of its weights, as `checkpoint` of `load_agent`.
        keep: what else to take over from it: any of "replay", "optimizer", and "epsilon", to explore as it did last.
        listener: called at the start, at each step and at each evaluation.
        verbose: whether to show progress, on the console or as a notebook's display; None shows it in a terminal or
            notebook, unless a listener is given.
        settings: any field of `TrainConfig`.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM stopped it; this also ends a loop over seeds.
            Everything is saved, and `resume` continues. The exception's `result` holds the usual return value.
        ConfigError: the environment or a setting can't be used.
        RunError: the folder can't be written to.
        EnvError: the environment failed.
        DivergenceError: a loss or gradient is not finite, and `on_divergence` is "stop" or did not help.
    """
    from nexus.cli.progress import watching  # imports rich, which loading an agent does not need

    run_dir = None if run_dir is None else folder_of(run_dir, "run_dir")
    with watching(listener, verbose) as (told, finish):
        start = None
        if from_run is not None:
            start = inherited(folder_of(from_run, "from_run"), env, keep, told.on_notice)
            env = start.env
        elif keep or from_checkpoint is not None:
            raise ConfigError(f"{'keep' if keep else 'from_checkpoint'}: needs from_run, the run to start from")
        if env is None:
            raise ConfigError("name an environment: a Gymnasium id, a module:Id or a function that makes one")
        if start is None:
            resolved, origin = whole_or_resolved(env, preset, config, settings), None
        else:
            own = settings if config is not None else {**start.explored, **settings}
            resolved = whole_or_resolved(env, preset, config, own, None if preset else start.settings)
            origin = origin_of(start, from_checkpoint, told)
        config = resolved.config
        lineage, fill = (None, None) if origin is None else (origin.lineage, origin.hand_over)
        with (
            Run(env, resolved.preset, config, run_dir, told, lineage=lineage, fill=fill) as run,
            process_for(run.parts.agent, config.threads),
        ):
            remember(run.parts.agent, Seen(run.parts.spec, config.eval_max_steps))
            for text in [*resolved.notes, *setting_notices(run.plan)]:
                told.on_notice(text)
            result = run.run()
            remember(run.parts.agent, Seen(run.parts.spec, config.eval_max_steps, run.parts.statistics()))
            if result.stopped_by is None and range_is_assumed(run.plan):
                for text in said_of_ends(result.agent, run.parts.replay):
                    told.on_notice(text)
        finish(result)
    return unless_interrupted(result)


@dataclass(frozen=True)
class Start:
    """The run that another one starts from, before its weights are read."""

    run: Path
    about: Mapping[str, Any]
    config: TrainConfig
    keep: tuple[str, ...]
    env: EnvSource  # of the new run
    settings: Mapping[str, Any]  # for the new run, unless a preset replaces them
    explored: Mapping[str, Any]  # settings of the exploration at its end, if they are kept


def inherited(
    run: Path, env: EnvSource | None, keep: str | Sequence[str], notice: Callable[[str], object] = lambda text: None
) -> Start:
    """Return what a new run takes over from another one.

    Args:
        run: the folder of the other one.
        env: the environment of the new one; None for the same.
        keep: as in `train`.
        notice: called with what is odd about the folder.

    Raises:
        RunError: the folder is not a run, or can't be read.
        ConfigError: `keep` has something else than it can have.
    """
    kept = kept_names(keep)
    about = read_run_or_copy(run, notice)
    config = config_of(about, run)
    seen, settings = seen_by_run(run, about).spec, config.to_mapping()
    if env is None and isinstance(seen.source, Lost):
        seen.source()
    source = seen.source if env is None else canonical(env)
    if name_of(source) != name_of(seen.source):
        settings["env_kwargs"] = {}  # they are arguments of the other environment
        settings["curriculum"] = None  # its last stage is the other environment
    explored: dict[str, Any] = {}
    if "epsilon" in kept and is_import_name(config.epsilon_schedule):
        raise ConfigError(f"keep = epsilon: {config.epsilon_schedule} sets ε at every step of a run; leave it out")
    match about.get("progress"):
        case {"steps": int(steps), "episodes": int(episodes)} if steps >= 0 and episodes >= 0 and "epsilon" in kept:
            explored["epsilon"] = config.epsilon_at(steps, episodes)
            explored["temperature"] = config.temperature_at(steps, episodes)
    return Start(run, about, config, kept, source, settings, explored)


def origin_of(start: Start, checkpoint: str | int | None, listener: Listener) -> Origin:
    """Return the run that another one starts from, with its weights.

    Raises:
        RunError: it has no such checkpoint, or its files are damaged.
        ConfigError: the checkpoint has only weights, and more is to be kept.
    """
    run, about = start.run, start.about
    needed = [name for name in start.keep if name != "epsilon"]
    if needed and checkpoint == "best":
        raise ConfigError(
            f"keep = {', '.join(needed)}: the best checkpoint has only weights; name another one, or none"
        )
    if needed and checkpoint is None:
        checkpoint = "latest"
    agent = agent_of(about, run, checkpoint, "cpu", listener)
    mark, best = None, BestWeights(run, about)
    scored = next(iter(best.present()), None) if checkpoint == "best" else None
    if checkpoint is None and has_final_weights(about, run):
        steps, mark = int(about["progress"]["steps"]), mark_of_weights(about)
    else:
        steps = steps_of(run, "latest" if checkpoint is None else checkpoint) if scored is None else scored.steps
    evaluation = best.evaluation(steps) if scored is not None else evaluation_at(run, steps)
    # The best weights have no checkpoint; what a reward counts changes little from one to the next.
    of_unit = steps if scored is None else steps_of(run, "latest")
    source = read_checkpoint(run, of_unit) if needed or start.config.normalize_rewards else None
    return Origin(run, about, start.config, agent, statistics_of(agent), steps, mark, evaluation, source, start.keep)


def evaluation_at(run: Path, steps: int) -> Evaluation | None:
    """Return the final evaluation of a run if it is of the weights of this step."""
    with suppress(RunError):
        said = read_json(file_in(run, EVALUATION_FILE))
        if said.get("steps") == steps:
            return Evaluation.from_mapping({name: said[name] for name in said.keys() & OF_EVALUATION})
    return None


def folder_of(run: Any, name: str = "run") -> Path:
    """Return the folder of a run given as a path or as its result.

    Raises:
        ConfigError: `run` is neither.
    """
    if isinstance(run, TrainResult):
        return run.run_dir
    try:
        return Path(os.fsdecode(run))
    except TypeError:
        raise ConfigError(f"{name} = {run!r}: needs the path of a folder") from None


def setting_notices(plan: Plan) -> list[str]:
    """Return notices on settings that are probably unintended."""
    said = [] if plan.config.said_of_exploration is None else [plan.config.said_of_exploration]
    said += said_of_programs(plan.config.to_mapping())
    if range_is_assumed(plan):
        what = "normalised rewards" if plan.config.normalize_rewards else plan.env
        said.append(
            f"the range of returns of {what} is unknown: assuming {plan.config.v_min:g} to {plan.config.v_max:g}, "
            "with returns beyond it clipped; set v_min and v_max to the range of discounted returns"
        )
    return said


def range_is_assumed(plan: Plan) -> bool:
    """True if values are distributions on the default atoms and the range of returns is unknown."""
    at_defaults = (plan.config.v_min, plan.config.v_max) == (AgentConfig.v_min, AgentConfig.v_max)
    known = plan.env in RETURN_RANGES and not plan.config.normalize_rewards
    return isinstance(plan.agent.q_network.readout, CategoricalReadout) and at_defaults and not known


def said_of_ends(agent: DQNAgent, replay: AnyReplay) -> list[str]:
    """Return notices if the returns of replayed states pile up on the first or last atom, so probably lie beyond it."""
    network, count = agent.q_network, min(len(replay), END_STATES)
    if not count:
        return []
    states = replay.sample(count)["states"].to(agent.device)
    with in_mode(network.modules(), False), torch.inference_mode():
        output = network.output(states)
        rows = torch.arange(count, device=agent.device), output.q_values.argmax(1)
        mass = output.distribution[rows].softmax(-1).mean(0)  # [N]
    ends = (("v_min", agent.settings.v_min, float(mass[0])), ("v_max", agent.settings.v_max, float(mass[-1])))
    return [
        f"{share:.0%} of the return probability lies on the assumed {name} = {end:g} after training: returns "
        f"probably exceed it; train again with v_min and v_max set to the range of discounted returns"
        for name, end, share in ends
        if share > MOST_AT_END
    ]


def unless_interrupted(result: TrainResult) -> TrainResult:
    """Return the result of a run, or raise `KeyboardInterrupt` with it if a signal ended the run."""
    if result.stopped_by is None:
        return result
    where = f"stopped at step {result.counters.steps} and saved: resume {result.run_dir} to continue"
    raise interrupted(where, result)


def resume(
    run: str | os.PathLike[str] | TrainResult,
    *,
    env: EnvSource | None = None,
    total_steps: int | None = None,
    on_divergence: Literal["stop", "rollback"] | None = None,
    device: str | None = None,
    listener: Listener | None = None,
    verbose: bool | None = None,
) -> TrainResult:
    """Continue a stopped or killed run exactly where it was, or train a finished one further.

    On the CPU, with the same versions and number of threads, the result equals an uninterrupted run's bit for bit. It
    continues from the newest undamaged checkpoint. A run starts over only if it stopped before its first checkpoint,
    with nothing learned.

    Args:
        run: its folder, or its result.
        env: the function that makes its environment, if it was trained on a function.
        total_steps: train to this step instead of the planned one; a target return already reached no longer counts.
        on_divergence: what to do on divergence, if different from the run's setting.
        device: device to continue on, instead of the run's; another type of device changes the last bits.
        listener: called at the start, at each step, at each evaluation, and with notices.
        verbose: whether to show the run on the console, as in `train`.

    Raises:
        RunError: the folder is not a run, is damaged, is in use, or has nothing to continue from.
        ConfigError: the run is finished, or is already past `total_steps`.
        KeyboardInterrupt: as in `train`.
    """
    from nexus.cli.progress import watching

    with watching(listener, verbose) as (told, finish):
        result = resumed(folder_of(run), env, total_steps, on_divergence, device, told)
        finish(result)
    return unless_interrupted(result)


def resumed(
    run: str | os.PathLike[str],
    env: EnvSource | None,
    total_steps: int | None,
    on_divergence: Literal["stop", "rollback"] | None,
    device: str | None,
    listener: Listener,
) -> TrainResult:
    """Do the work of `resume`, and return the result even if a signal stopped the run."""
    about = read_unedited_run(run)
    config = config_of(about, run)
    planned, target = config.total_steps, config.target_return
    if total_steps is not None:
        config = replace(config, total_steps=total_steps)
    if on_divergence is not None:
        config = replace(config, on_divergence=on_divergence)
    further = config.total_steps != planned
    if about.get("status") == "finished" and not further:
        raise ConfigError(f"{run} is finished: to train further, set total_steps to more than {planned}")
    require_checkpoint(about, Path(run))
    require_present(about.get("config"), Path(run))
    source = spec_on(seen_by_run(run, about).spec, env, None, None, listener).source
    settings = agent_settings(about, run)
    config = on_device(config, device, state_shape_of(settings), run, listener)
    settings["device"] = config.device
    if about.get("status") == "diverged" and config.on_divergence == "stop":
        listener.on_notice("the run diverged and will diverge again with the same settings: try on_divergence rollback")
    if further and target is not None and about.get("status") == "finished":
        config = replace(config, target_return=None)
        listener.on_notice(f"the run trains to step {config.total_steps}, even if it reaches its target of {target:g}")
    lineage = about.get("from")
    with Run(source, about.get("preset"), config, run, listener, True, agent_from(settings), lineage) as again:
        if again.parts.agent.device.type != "cpu":
            listener.on_notice(f"on {again.parts.agent.device} the last bits may differ from an uninterrupted run's")
        again.course.reached_target = again.course.reached_target and not further  # the user asked for more
        for text in stretched(config, planned, again.parts.counters):
            listener.on_notice(text)
        remember(again.parts.agent, Seen(again.parts.spec, config.eval_max_steps))
        with process_for(again.parts.agent, config.threads):
            result = again.run()
        remember(again.parts.agent, Seen(again.parts.spec, config.eval_max_steps, again.parts.statistics()))
        return result


def state_shape_of(settings: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the state shape in the settings of an agent that was built."""
    given = settings["state_dim"]
    return tuple(given) if isinstance(given, list) else (given,)


def on_device(
    config: TrainConfig,
    device: str | None,
    state_shape: tuple[int, ...],
    run: str | os.PathLike[str],
    listener: Listener,
) -> TrainConfig:
    """Return the settings to resume a run with, on a device that is available here.

    Raises:
        ConfigError: the run's device is not available here, and `device` names no other.
    """
    trained = config.device
    if device is None:
        if is_lacking(trained):
            way = "cuda" if trained.startswith("cuda:") and not is_lacking("cuda") else "cpu"
            raise ConfigError(
                f'{run} was trained on {trained}, which is not available here: add --device {way} (device="{way}" in '
                "Python) to continue on another device; from then on the last bits differ"
            )
        return config
    config = replace(config, device=device)
    now = resolve_device(config.device, state_shape)
    if is_lacking(trained) or now != resolve_device(trained, state_shape):
        listener.on_notice(
            f"the run was trained on {trained} and continues on {now}: its numbers may differ "
            "from those of an uninterrupted run"
        )
    return config


def is_lacking(device: Any) -> bool:
    """True for a valid device, such as a GPU, that is not available here."""
    try:
        lacking = torch.device(device).type != "cpu"
        resolve_device(device, ())
    except (RuntimeError, TypeError):
        return False
    except ConfigError:
        return lacking
    return False


def require_checkpoint(about: Mapping[str, Any], run: Path) -> None:
    """Raise `RunError` if a run has learned something but has no checkpoint: what it learned would be lost."""
    progress = about.get("progress")
    begun = progress.get("steps") != 0 if isinstance(progress, Mapping) else True
    if begun and about.get("status") != "running" and not Checkpoints(run, keep=1).present():
        raise RunError(
            f"{run} has no checkpoint, so it can't continue, and starting over would discard what it learned: train "
            f"again in another folder, with: nexus train --config {run}"
        )


def stretched(config: TrainConfig, planned: int, counters: Counters) -> list[str]:
    """Return a notice on schedules that jump because the run's last step was changed."""
    if config.total_steps == planned:
        return []
    said = []
    moment = counters.steps, counters.updates
    old = replace(config, total_steps=planned)
    before, now = old.learning_rate_at(*moment), config.learning_rate_at(*moment)
    if before != now:
        said.append(f"the learning rate goes from {before:g} to {now:g}")
    if is_import_name(config.epsilon_schedule):
        name = "epsilon" if config.exploration == "epsilon_greedy" else "temperature"
        before, now = (getattr(each, f"{name}_at")(counters.steps, counters.episodes) for each in (old, config))
        said += [f"the {name} goes from {before:g} to {now:g}"] if before != now else []
    if config.prioritized:
        start = config.importance_exponent
        before, now = (start + (1 - start) * min(1.0, counters.steps / end) for end in (planned, config.total_steps))
        said += [f"the importance exponent β goes from {before:.3g} to {now:.3g}"] if before != now else []
    ends = f"schedules that ended with step {planned} now end with step {config.total_steps}"
    return [f"{' and '.join(said)}: {ends}"] if said else []


def config_of(about: Mapping[str, Any], run: str | os.PathLike[str]) -> TrainConfig:
    """Return the settings of a run.

    Raises:
        RunError: the run has no settings, some that this version does not know, or one that names a module in its
            folder.
    """
    values = about.get("config")
    for setting, names in names_in(values).items():
        for name in names:
            require_foreign_module(name, Path(run), setting)
    try:
        return TrainConfig.from_mapping(
            {**read_before(about), **values} if isinstance(values, Mapping) else {"config": values}
        )
    except (ConfigError, TypeError) as error:
        raise RunError(f"{Path(run) / RUN_FILE} has a config that can't be used: {one_line(error)}") from None


def agent_settings(about: Mapping[str, Any], run: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of a run's agent if they match the size of its weights; allocate nothing.

    They are the run's config plus the shapes of states and actions. Before format 3 a run stored the agent's
    settings twice; both must agree.

    Raises:
        RunError: the settings are missing, invalid, or describe an agent of another size.
    """
    path = Path(run) / RUN_FILE
    described = about.get("agent")
    if not isinstance(described, Mapping):
        raise RunError(f"{path} does not describe its agent")
    config = config_of(about, run)
    require_present(about.get("config"), Path(run), ("algorithm", "torso"))
    own = {field.name: getattr(config, field.name) for field in fields(AgentConfig)}
    settings = {**described, **own}
    there = largest_weights(Path(run))
    state_dim = settings.get("state_dim")
    sizes = [settings.get(name) for name in ("hidden_dim", "hidden_layers", "atoms", "quantiles", "action_dim")]
    sizes += state_dim if isinstance(state_dim, list) else [state_dim]
    try:
        if any(size is not None and size > there for size in sizes) or own_bytes(settings) > there:
            raise RunError(f"{path} describes an agent whose size differs from its weights")
    except (ConfigError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise RunError(f"{path} describes an agent that can't be made: {one_line(error)}") from None
    stacked = config.frame_stack == 1 or (isinstance(state_dim, list) and state_dim[:1] == [config.frame_stack])
    other = [name for name in own if name in described and described[name] != own[name]]
    parts = [settings, *settings.get("state_parts", [])]
    normalized = any(part.get("state_normalized") is True for part in parts)
    scaled = config.scale_observations != any("state_bounds" in part for part in parts)
    other += ["normalize_observations"] * (config.normalize_observations != normalized)
    other += ["scale_observations"] * (scaled and not normalized)
    other += ["normalize_rewards"] * (config.normalize_rewards != settings.get("normalize_rewards", False))
    if other or not stacked:
        raise RunError(f"{path}: config and agent differ in {', '.join(other) or 'frame_stack'}")
    return settings


def read_before(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return a setting that older runs left implicit: the position of an image's channels."""
    agent = about.get("agent")
    state_dim = agent.get("state_dim") if isinstance(agent, Mapping) else None
    match state_dim:
        case [int(), *rest] if all(isinstance(size, int) for size in rest):
            return {"channels": channels_before(tuple(state_dim))}
    return {}


def largest_weights(run: Path) -> int:
    """Return the size in bytes of the largest file that can hold a run's weights.

    Raises:
        RunError: there is no such file.
    """
    names = [AGENT_FILE, *(str(path.relative_to(run)) for path in run.glob("checkpoints/*/state.safetensors"))]
    files = [file_in(run, name) for name in names if (run / name).exists()]
    if not files:
        raise RunError(f"{run} has no {AGENT_FILE} and no checkpoint: it was stopped too early; train it again")
    return max(path.stat().st_size for path in files)


def own_bytes(settings: Mapping[str, Any]) -> int:
    """Return the bytes of one network of an agent with these settings."""
    return network_bytes(settings.get("algorithm", "dqn"), **{k: v for k, v in settings.items() if k != "algorithm"})


def load_agent(
    run: str | os.PathLike[str] | TrainResult,
    *,
    checkpoint: str | int | None = None,
    device: str | None = None,
    listener: Listener | None = None,
) -> DQNAgent:
    """Load the agent of a run, with its weights.

    Args:
        run: the folder or the result of the run.
        checkpoint: "best" for the weights with the best evaluation, "latest", or the steps of a checkpoint; None for
            the final weights, or those of the latest checkpoint if the run has not ended.
        device: device to load it on; None takes the one it was trained on, or the CPU if that is not available here.
        listener: called with notices.

    Raises:
        RunError: the folder is not a run, has no such checkpoint, or its files are damaged or don't match.
        ConfigError: the device is not available here.
    """
    listener, run = Listener() if listener is None else listener, folder_of(run)
    return agent_of(read_run_or_copy(run, listener.on_notice), run, checkpoint, device, listener)


def agent_of(
    about: Mapping[str, Any],
    run: str | os.PathLike[str],
    checkpoint: str | int | None,
    device: str | None,
    listener: Listener,
) -> DQNAgent:
    """Do the work of `load_agent` for a run whose `run.json` was already read."""
    settings = agent_settings(about, run) | {"compile": False}
    if device is not None:
        settings["device"] = convert("device", device, str)
        resolve_device(settings["device"], ())
    elif is_lacking(settings.get("device", "auto")):
        listener.on_notice(
            f"{run} was trained on {settings['device']}, which is not available here: its agent is loaded on the CPU"
        )
        settings["device"] = "cpu"
    try:
        agent = agent_from(settings)
    except (ConfigError, TypeError, ValueError) as error:
        raise RunError(f"{Path(run) / RUN_FILE} describes an agent that can't be made: {one_line(error)}") from None
    best = BestWeights(Path(run), about)
    scored = next(iter(best.present()), None)
    if checkpoint is None and not has_final_weights(about, Path(run)):
        checkpoint = "latest"
    if checkpoint is None:
        mark, must_carry = mark_of_weights(about), about["format"] > 1
        statistics = load_weights(Path(run), agent.networks, agent.state_shape, mark, must_carry=must_carry)
    elif checkpoint == "best" and scored is not None:
        statistics = load_best(best, agent, scored.steps)
    else:
        statistics = load_checkpoint(Path(run), agent, steps_of(Path(run), checkpoint), about)
    require_positive(agent.networks.values(), str(run))
    explore_as_trained(agent, about, run, listener)
    with suppress(RunError):  # it needs no environment to act
        remember(agent, replace(seen_by_run(run, about), statistics=statistics))
    return agent


def explore_as_trained(
    agent: DQNAgent, about: Mapping[str, Any], run: str | os.PathLike[str], listener: Listener
) -> None:
    """Set ε and the temperature to their values at the end of training."""
    match about.get("progress"):
        case {"steps": int(steps), "episodes": int(episodes)} if steps >= 0 and episodes >= 0:
            try:
                config = config_of(about, run)
                agent.epsilon = config.epsilon_at(steps, episodes)
                agent.temperature = config.temperature_at(steps, episodes)
            except RunError:
                pass  # acting greedily needs only the agent's settings
            except ConfigError as error:
                listener.on_notice(f"its exploration at the end of the training is not known: {error}")


def load_best(best: BestWeights, agent: DQNAgent, steps: int) -> Statistics:
    """Load the best weights into an agent's networks; return the running statistics saved with them."""
    limit = 2 * most_bytes(agent.networks, agent.state_shape)
    return fill_with_statistics(agent.networks, best.read(steps, limit), best.run / BEST / f"{steps}.safetensors")


def load_checkpoint(run: Path, agent: DQNAgent, steps: int, about: Mapping[str, Any]) -> Statistics:
    """Load a checkpoint into an agent's networks; return the running statistics of its environments.

    Raises:
        RunError: it belongs to another run than `about` describes, or a file is missing or damaged.
    """
    checkpoint = read_checkpoint(run, steps)
    require_same_run(about, checkpoint.about, f"{run}: checkpoint {steps}")
    state = checkpoint.read_state(limit=checkpoint.arrays.bytes)
    arrays = part(state, "agent")
    weights = {name: value for name, value in arrays.items() if name.partition(".")[0] in agent.networks}
    path = run / checkpoint.arrays_name
    fill_networks(agent.networks, weights, path)
    stream = part(state, "stream")
    now = part(stream, STATISTICS_NOW) or part(stream, STATISTICS_BEGUN)
    return merged(require_statistics(now, str(path)))


def steps_of(run: Path, checkpoint: str | int) -> int:
    """Return the steps of a checkpoint, named as in `load_agent`.

    Raises:
        RunError: there is no such checkpoint, or one needed for comparison is damaged.
    """
    present = Checkpoints(run, keep=1).present()
    if checkpoint == "best":  # in a run of format 2; later formats keep the weights themselves
        best = best_of(read_checkpoint(run, steps) for steps in present)
        if best is None:
            raise RunError(f"{run} was never evaluated, so it has no best weights: use latest")
        return best
    if not present:
        raise RunError(f"{run} has no checkpoint")
    if checkpoint == "latest":
        return present[0]
    steps = whole_number(str(checkpoint))
    if steps not in present:
        raise RunError(f"{run} has no checkpoint {str(checkpoint)!r}: needs best, latest or one of {present}")
    return steps


def evaluate(
    agent: DQNAgent | TrainResult | str | os.PathLike[str],
    env: EnvSource | None = None,
    episodes: int | None = None,
    *,
    epsilon: float | None = None,
    seed: int = 0,
    max_steps: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    wrappers: Any = None,
    checkpoint: str | int | None = None,
    device: str | None = None,
    listener: Listener | None = None,
) -> Evaluation:
    """Play full episodes with an agent, given as such, as a result or as a run folder.

    An agent that was trained or loaded in this process sees the environment as in training: `frame_skip`,
    `frame_stack`, `env_kwargs`, `wrappers` and an Atari game's protocol carry over.

    Args:
        agent: the agent, the result of a training, or the folder of a run.
        env: an id or a function; None for the agent's training environment.
        episodes: number of episodes; None for 100, or the number in an Atari game's protocol.
        epsilon: probability of a random action, independent of training; None for 0, or the protocol's ε.
        seed: seed of the environments.
        max_steps: steps after which an episode is cut off; None for the training's setting, by default 100,000.
        env_kwargs: arguments of the environment; None for those of the training, if the environment is the same.
        wrappers: wrappers around the environment, as in `TrainConfig`; None for those of the training.
        checkpoint: checkpoint of the run folder, as in `load_agent`.
        device: device to load the agent on, as in `load_agent`.
        listener: called at each step, and with notices.

    Raises:
        RunError: the folder is not a run, has no such checkpoint, or was trained on a function, which a
            folder can't store.
        ConfigError: the environment does not fit the agent, or an argument is out of range.
    """
    episodes, epsilon = convert("episodes", episodes, int | None), convert("epsilon", epsilon, float | None)
    seed, max_steps = convert("seed", seed, int), convert("max_steps", max_steps, int | None)
    if episodes is not None and episodes < 1:
        raise ConfigError(f"episodes = {episodes}: needs at least 1")
    if epsilon is not None and not 0 <= epsilon <= 1:
        raise ConfigError(f"epsilon = {epsilon}: needs a probability in [0, 1]")
    if seed < 0:
        raise ConfigError(f"seed = {seed}: needs a whole number from 0")
    if max_steps is not None and max_steps < 1:
        raise ConfigError(f"max_steps = {max_steps}: needs at least 1")
    listener = Listener() if listener is None else listener
    agent = agent.agent if isinstance(agent, TrainResult) else agent
    if isinstance(agent, DQNAgent):
        for name, value in (("checkpoint", checkpoint), ("device", device)):
            if value is not None:
                raise ConfigError(f"{name} = {value!r}: needs the folder of a run instead of an agent")
        player, seen = agent, seen_by(agent, env)
    else:
        folder = folder_of(agent)
        about = read_run_or_copy(folder, listener.on_notice)
        player = agent_of(about, folder, checkpoint, device, listener)
        seen = replace(seen_by_run(folder, about), statistics=statistics_of(player))
    spec = spec_on(seen.spec, env, env_kwargs, wrappers, listener)
    if env is not None:
        with closing(make_env(spec)) as one:
            require_fitting_env(player, one)
    longest = seen.eval_max_steps if max_steps is None else max_steps
    count = episodes or (100 if spec.rules is None else spec.rules.eval_episodes)

    def watch(steps: int, ended: int) -> None:
        listener.on_evaluation_step(steps, ended, count)
        text = long_evaluation(spec, steps, ended, count, longest, "max_steps")
        if text is not None:
            listener.on_notice(text)

    return evaluate_policy(
        player,
        spec,
        count,
        epsilon=epsilon,
        seed=seed,
        max_episode_steps=longest,
        watch=watch,
        notice=listener.on_notice,
        statistics=seen.statistics,
    )


def require_fitting_env(agent: DQNAgent, env: gym.Env[Any, Any]) -> None:
    """Raise `ConfigError` unless the environment has the agent's states and actions."""
    name = type(env.unwrapped).__name__ if env.spec is None else env.spec.id
    _, _, action_dim = describe_spaces(env.observation_space, env.action_space, name)
    require_shapes_of(agent, composition(env.observation_space), action_dim, name, "the agent was made for")


@dataclass(frozen=True)
class Seen:
    """How an agent saw its training environment, and the step limit of its evaluations."""

    spec: EnvSpec
    eval_max_steps: int = LONGEST_EPISODE
    statistics: Statistics = field(default_factory=dict)  # what wrappers scaled its last observations by

    def __deepcopy__(self, memo: object) -> Self:
        return self  # shared with copies of the agent


class Lost:
    """Stands for the function that a run was trained on, which a folder can't store."""

    def __init__(self, name: str, run: str | os.PathLike[str]) -> None:
        self.__name__ = name
        self.run = run

    def __call__(self) -> gym.Env[Any, Any]:
        raise RunError(
            f"{self.run} was trained on the function {self.__name__}, which a folder can't store: "
            "pass env=, or use module:Id"
        )


def remember(agent: DQNAgent, seen: Seen) -> None:
    """Record on an agent how it saw its environment, for `evaluate`."""
    vars(agent)[SEEN] = seen


def statistics_of(agent: DQNAgent) -> Statistics:
    """Return the running statistics its wrappers scaled by, if the agent was trained or loaded in this process."""
    known = vars(agent).get(SEEN)
    return known.statistics if isinstance(known, Seen) else {}


def scaled_as_trained(env: gym.Env[Any, Any], agent: DQNAgent, name: str) -> list[str]:
    """Make an environment's wrappers scale as in training; return a notice for each kind that can't."""
    running = Running(env)
    running.freeze(statistics_of(agent))
    return [said_of_gathering(name, wrapper) for wrapper in running.kinds("observation")]


def seen_by(agent: DQNAgent, env: EnvSource | None) -> Seen:
    """Return how an agent saw its environment, guessed from its state shape if unknown in this process."""
    known = vars(agent).get(SEEN)
    if isinstance(known, Seen):
        return known
    if env is None:
        raise ConfigError("evaluating this agent needs env=: an id or a function")
    if is_atari(env) and len(agent.state_shape) == 3:
        return Seen(EnvSpec(env, 4, agent.state_shape[0], frame_size=agent.state_shape[-1]))
    return Seen(EnvSpec(env))


def seen_by_run(run: str | os.PathLike[str], about: Mapping[str, Any]) -> Seen:
    """Return how a run saw its environment.

    Raises:
        RunError: its `run.json` does not say, or names a module in the run's own folder.
    """
    path, config = Path(run) / RUN_FILE, about.get("config")
    config = config if isinstance(config, Mapping) else {}
    name = str(about.get("env"))
    source: EnvSource = name if about.get("env_is_id") else Lost(name, run)
    if isinstance(source, str):
        require_foreign_module(source, Path(run))
    skip, stack, longest = (
        config.get(name, usual)
        for name, usual in (("frame_skip", 1), ("frame_stack", 1), ("eval_max_steps", LONGEST_EPISODE))
    )
    if not all(is_count(size, LARGEST_STACK_OR_SKIP) for size in (skip, stack)) or not is_count(
        longest, LONGEST_EPISODE
    ):
        raise RunError(f"{path} does not say how its environment was wrapped")
    protocol, size = (config.get(name) if is_atari(source) else None for name in ("protocol", "frame_size"))
    flatten = config.get("flatten_actions", False)
    if not isinstance(flatten, bool):
        raise RunError(f"{path} does not say how its environment was wrapped")
    if not (size is None or (isinstance(size, int) and LEAST_FRAME <= size <= MOST_FRAME)):
        raise RunError(f"{path} does not say how its environment was wrapped")
    try:
        kwargs = kwargs_for(source, config.get("env_kwargs", {}))
        wrappers = import_names("wrappers", config.get("wrappers", []))
        seen = Seen(EnvSpec(source, skip, stack, kwargs, protocol, size, flatten, wrappers), longest)
    except (ConfigError, TypeError) as error:
        raise RunError(f"{path} does not say how its environment was made: {one_line(error)}") from None
    for wrapper in wrappers:
        require_foreign_module(wrapper, Path(run), "wrappers")
    return seen


def is_count(value: Any, most: int) -> bool:
    """True for a whole number from 1 to `most`."""
    return isinstance(value, int) and 1 <= value <= most


def spec_on(
    seen: EnvSpec, env: EnvSource | None, env_kwargs: Mapping[str, Any] | None, wrappers: Any, listener: Listener
) -> EnvSpec:
    """Return the environment to play, wrapped for an agent that was trained on it or on another one.

    Args:
        seen: the agent's training environment.
        env: the environment; None for that of the training.
        env_kwargs: arguments of `env`; None for those of the training, if it is the same environment.
        wrappers: wrappers around `env`; None for those of the training.
        listener: called with a notice of what carries over to another environment.

    Raises:
        RunError: the training environment was a function, which a folder can't store.
        ConfigError: `env` does not accept these `env_kwargs` or `wrappers`.
    """
    if env is None and isinstance(seen.source, Lost):
        seen.source()
    source = seen.source if env is None else canonical(env)
    around = seen.wrappers if wrappers is None else import_names("wrappers", wrappers)
    if name_of(source) == name_of(seen.source):
        kwargs = seen.kwargs if env_kwargs is None else kwargs_for(source, env_kwargs)
        return replace(seen, source=source, kwargs=kwargs, wrappers=around)
    frames = ("frame_skip", seen.frame_skip), ("frame_stack", seen.frame_stack)
    carried = [f"{name} = {count}" for name, count in frames if count > 1]
    carried += [f"wrappers {', '.join(seen.wrappers)}"] if seen.wrappers and wrappers is None else []
    kept = f"with {', '.join(carried)} as in training" if carried else ""
    dropped = "without the env_kwargs of the training" if seen.kwargs and env_kwargs is None else ""
    if kept or dropped:
        how = " and ".join(filter(None, (kept, dropped)))
        listener.on_notice(f"the agent was trained on {name_of(seen.source)}; playing {name_of(source)} {how}")
    protocol, size = (seen.protocol, seen.frame_size) if is_atari(source) else (None, None)
    kwargs = kwargs_for(source, env_kwargs or {})
    return EnvSpec(source, seen.frame_skip, seen.frame_stack, kwargs, protocol, size, seen.flatten_actions, around)


def env_of_run(
    run: str | os.PathLike[str],
    env: EnvSource | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    wrappers: Any = None,
    listener: Listener | None = None,
) -> EnvSpec:
    """Return the environment that a run was trained on, or another one, wrapped as in training."""
    listener = Listener() if listener is None else listener
    return spec_on(
        seen_by_run(run, read_run_or_copy(run, listener.on_notice)).spec, env, env_kwargs, wrappers, listener
    )


class ProcessThreads:
    """The number of torch threads in this process, which several runs may set differently."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs = 0
        self._before = 0

    @contextmanager
    def set_to(self, threads: int | None, most: int) -> Iterator[None]:
        """Set the number for one run, or cap it at `most`; the last run to end restores the original."""
        with self._lock:
            self._before = self._before if self._runs else torch.get_num_threads()
            self._runs += 1
            torch.set_num_threads(threads or min(self._before, most))
        try:
            yield
        finally:
            with self._lock:
                self._runs -= 1
                if not self._runs:
                    torch.set_num_threads(self._before)


PROCESS_THREADS = ProcessThreads()


@contextmanager
def process_for(agent: DQNAgent, threads: int | None) -> Iterator[None]:
    """Tune the process for training this agent: torch's threads until the end, glibc's memory for good."""
    torsos = agent.states.torsos(agent.settings)
    large = agent.device.type == "cpu" and any(torso in LARGE_TORSOS for torso in torsos)
    if large and sys.platform == "linux":
        keep_freed_memory()
    # One, since small networks lose more than they gain with two. The environments' threads work while torch's wait.
    with PROCESS_THREADS.set_to(threads, MOST_THREADS if large else 1):
        yield


def keep_freed_memory() -> None:
    """Let glibc keep up to 128 MB of freed memory; do nothing without glibc.

    Otherwise each update of a large network returns its memory and requests it again page by page: 5 % of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 128 << 20)
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest value it accepts
