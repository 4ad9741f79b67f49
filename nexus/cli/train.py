"""`nexus train ENV`."""

import json
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from nexus.cli.here import look_here
from nexus.cli.parsing import parse
from nexus.core.errors import ConfigError, RunError
from nexus.core.names import ALIASES, algorithm_name, current_names
from nexus.training.config import TrainConfig
from nexus.training.presets import algorithm_preset, resolve_preset, settled
from nexus.training.run_folder import RUN_FILE

__all__ = ["TrainCommand", "read_as", "run"]


def flag_of(name: str) -> str:
    """Return the flag of a setting or a field."""
    return f"--{name.replace('_', '-')}"


# Short forms of flags, and what people bring from other libraries.
FLAG_ALIASES = {
    "-n": "--total-steps",
    "--config": "--config-file",
    "--env-id": "--env",
    **{flag_of(alias): flag_of(name) for alias, name in ALIASES.items()},
}

# Flags that decide over other settings.
SETTLING = (
    "eval_every",
    "eval_episodes",
    "target_return",
    "epsilon_schedule",
    "epsilon_steps",
    "total_steps",
    "learning_starts",
    "rollout_steps",
    "target_update_every",
)


@dataclass(frozen=True)
class TrainCommand:
    """Train an agent, evaluate it, and save the run. Name the environment first: nexus train CartPole-v1."""

    env: str = ""
    """A Gymnasium id or module:Id; may stand alone as the first word."""
    preset: str | None = None
    """Named settings: seed, nature, fast, paper, tuned. None takes those for the environment, if there are any."""
    config_file: str | None = None
    """Settings from a JSON file, for example a run's run.json."""
    run_dir: str | None = None
    """A new or empty folder for the run; none makes one below runs/."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def run(arguments: list[str]) -> int:
    """Train; return 0, 130 after Ctrl-C, or 143 after SIGTERM."""
    command = read_command(arguments)
    look_here(command.env)
    from nexus.api import train
    from nexus.cli.progress import TrainView
    from nexus.core.errors import result_of

    with TrainView() as view:
        try:
            result = train(
                command.env, preset=command.preset, config=command.config, run_dir=command.run_dir, listener=view
            )
        except KeyboardInterrupt as stop:
            result = result_of(stop)
            if result is None:  # a second signal, before all was saved
                raise
    view.finish(result)
    return result.exit_code


Command = TypeVar("Command", bound=TrainCommand)


def read_command(arguments: list[str]) -> TrainCommand:
    """Parse the command line of `nexus train`."""
    return read_as(TrainCommand, arguments, "nexus train")


def read_as(kind: type[Command], arguments: list[str], prog: str) -> Command:
    """Parse the command line over the defaults that its environment, preset or file give.

    Args:
        kind: `TrainCommand`, or one with more flags.
        arguments: of the command line.
        prog: what help and errors call it.
    """
    words = [expand(word) for word in arguments]
    if words and not words[0].startswith("-"):
        words = ["--env", *words]
    env, preset, file = (option(words, name) for name in ("--env", "--preset", "--config-file"))
    values: dict[str, Any] = {}
    if file is not None and preset is not None:
        raise ConfigError("--preset and --config both bring all settings: give one of them")
    if file is not None:
        file_env, values = read_config(file)
        if env is None and file_env is not None:
            require_own_module(file_env, file)
        env = env or file_env
    elif env is not None:
        preset, values = resolve_preset(preset, env)
    from nexus.models.rl.dqn.rainbow import algorithm_named

    algorithm = algorithm_name(option(words, "--algorithm") or values.get("algorithm", "dqn"))
    if file is None or option(words, "--algorithm") is not None:
        values |= {**algorithm_named(algorithm).settings, **algorithm_preset(preset, env or "", algorithm)}
        values["algorithm"] = algorithm
    flags = {name: text for name in SETTLING if (text := option(words, f"--{name.replace('_', '-')}")) is not None}
    values, said = settled(values, flags)
    default = kind(env or "", preset, file, config=TrainConfig.from_mapping(values))
    command = parse(kind, words, prog, default, FLAG_ALIASES)
    if not command.env:
        raise ConfigError(f"name an environment first, as in: {prog} CartPole-v1")
    for text in said:
        print(f"Note: {text}")
    return replace(command, preset=preset)


def expand(word: str) -> str:
    """Replace a short or foreign flag by ours; `--flag=value` and `--some_flag` too."""
    flag, equals, value = word.partition("=")
    flag = flag.replace("_", "-") if flag.startswith("--") else flag
    return FLAG_ALIASES.get(flag, flag) + equals + value


def option(words: list[str], name: str) -> str | None:
    """Find one option's value before the parser that needs it is made."""
    for word, following in zip_longest(words, words[1:]):
        if word == name:
            return following
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return None


def require_own_module(env: str, file: str) -> None:
    """Raise `RunError` if a run's settings name an environment whose module lies in its folder."""
    from nexus.api import require_foreign_module

    folder = Path(file) if Path(file).is_dir() else Path(file).parent
    look_here(env)
    if (folder / RUN_FILE).exists():
        require_foreign_module(env, folder)


def read_config(file: str) -> tuple[str | None, dict[str, Any]]:
    """Return environment and settings of a JSON file: a `run.json`, or plain settings."""
    path = Path(file, RUN_FILE) if Path(file).is_dir() else Path(file)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"can't read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}: needs an object of settings")
    if isinstance(values.get("config"), dict):
        return values.get("env"), current_names(values["config"])
    env = values.pop("env", None)
    return env, current_names(values)
