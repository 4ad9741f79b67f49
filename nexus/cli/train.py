"""`nexus train ENV`."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from nexus.cli.here import look_here
from nexus.cli.parsing import HELP, asks_for_help, flags_of, parse
from nexus.cli.setting_flags import FLAG_ALIASES, SettingFlags, given_settings, own_settings
from nexus.core.errors import ConfigError, NexusError, RunError
from nexus.core.importable import is_import_name, names_in
from nexus.core.names import TrackerName
from nexus.training.config import TrainConfig
from nexus.training.edited import named_now
from nexus.training.run_folder import RUN_FILE

__all__ = ["TrainCommand", "read_as", "run"]


@dataclass(frozen=True)
class TrainCommand:
    """Train an agent, evaluate it, and save the run.

    Name the environment first, as in: nexus train CartPole-v1
    """

    env: str = ""
    """A Gymnasium id or module:Id; can be given as the first word, without the flag. Also: --env-id."""
    preset: str | None = None
    """Named settings: general, plain, seed, nature, fast, paper, tuned. None takes those tuned for the environment, or
    general."""
    config_file: str | None = None
    """Settings from a JSON file, for example a run's run.json. Also: --config."""
    run_dir: str | None = None
    """A new or empty folder for the run; none makes one below runs/."""
    from_run: str | None = None
    """Start with the weights of another run, and with its settings unless you give others. Also: --from."""
    from_checkpoint: str | None = None
    """Which of its weights: best, latest or the step of a checkpoint; none for the last ones."""
    keep: str = ""
    """What else to take over from it, with commas between: replay, optimizer, epsilon."""
    config: SettingFlags = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class RunCommand(TrainCommand):
    """Train an agent, evaluate it, and save the run.

    Name the environment first, as in: nexus train CartPole-v1
    """

    track: TrackerName | None = None
    """Also send the logged numbers to a tracker; configure it as its documentation says."""
    listener: str | None = None
    """Your own nexus.Listener, as module:Class; it is made without arguments."""


def run(arguments: list[str]) -> int:
    """Train; return 0, 130 after Ctrl-C, or 143 after SIGTERM."""
    command = read_command(arguments)
    if command.listener is not None:
        look_here(command.listener)
    from nexus.api import train
    from nexus.cli.own_listeners import with_own
    from nexus.cli.progress import TrainView
    from nexus.core.errors import result_of

    with TrainView() as view:
        listener = with_own(view, command.track, command.listener)
        try:
            result = train(
                command.env,
                preset=command.preset,
                config=command.config,
                run_dir=command.run_dir,
                from_run=command.from_run,
                from_checkpoint=command.from_checkpoint,
                keep=command.keep,
                listener=listener,
            )
        except KeyboardInterrupt as stop:
            result = result_of(stop)
            if result is None:  # a second signal, before everything was saved
                raise
    view.finish(result)
    return result.exit_code


TrainCommandT = TypeVar("TrainCommandT", bound=TrainCommand)


def read_command(arguments: list[str]) -> RunCommand:
    """Parse the command line of `nexus train`."""
    return read_as(RunCommand, arguments, "nexus train")


def read_as(kind: type[TrainCommandT], arguments: list[str], prog: str) -> TrainCommandT:
    """Parse the command line and resolve its settings.

    Args:
        kind: `TrainCommand`, or one with more flags.
        arguments: words of the command line.
        prog: its name in help and errors.
    """
    words = [expand(word) for word in arguments]
    if words and not words[0].startswith("-"):
        words = ["--env", *words]
    if asks_for_help(words):
        parse(kind, words, prog, usual_for([word for word in words if word not in HELP], kind, prog), FLAG_ALIASES)
    command, notes = resolved(kind, words, prog)
    if not command.env:
        raise ConfigError(f"name an environment first, as in: {prog} CartPole-v1")
    for text in notes:
        print(f"Note: {text}")
    return command


def usual_for(words: list[str], kind: type[TrainCommandT], prog: str) -> TrainCommandT:
    """Return the defaults for a help: those resulting from the rest of the command line, if it can be read."""
    with suppress(NexusError):
        return resolved(kind, words, prog)[0]
    return kind()


def resolved(kind: type[TrainCommandT], words: list[str], prog: str) -> tuple[TrainCommandT, tuple[str, ...]]:
    """Parse words; return the command with its environment and all settings, and its notices."""
    from nexus.resolver import resolve

    algorithm = algorithm_in(words)
    flags, own_group = flags_of(kind), own_settings(algorithm)
    flags |= {} if own_group is None else flags_of(own_group)
    command = parse(kind, words, prog, kind(config=TrainConfig(algorithm=algorithm)), FLAG_ALIASES, flags)
    # The parsed config is still a mapping, see `SettingFlags`.
    own = given_settings(cast(Mapping[str, Any], command.config), words, flags)
    env, file = command.env, None
    if command.from_run is not None:
        env, own, file = started(command, own)
    if command.config_file is not None:
        file_env, file = read_config(command.config_file)
        if not env and file_env is not None:
            require_own_module(file_env, command.config_file)
        for setting, names in names_in(named_now(file)).items():
            for name in names if setting not in own else ():
                require_own_module(name, command.config_file, setting)
        env = env or file_env or ""
    look_here(env, parts=[name for names in names_in({**named_now(file or {}), **own}).values() for name in names])
    found = resolve(env, own, command.preset, file)
    return replace(command, env=env, preset=found.preset, config=found.config), found.notes


def started(command: TrainCommand, own: dict[str, Any]) -> tuple[str, dict[str, Any], Mapping[str, Any] | None]:
    """Return the environment, the user's settings and those of the run that a command starts from.

    Raises:
        ConfigError: its environment was a function, or a config file is given as well.
    """
    from nexus.api import inherited

    assert command.from_run is not None
    if command.config_file is not None:
        raise ConfigError("--from and --config both bring all settings: give one of them")
    folder = Path(command.from_run)
    look_here(command.env or None, command.from_run, None)
    start = inherited(folder, command.env or None, command.keep)
    if not isinstance(start.env, str):
        raise ConfigError(f"{folder} was trained on a function: name an environment, as in: nexus train CartPole-v1")
    return start.env, {**start.explored, **own}, None if command.preset else start.settings


def algorithm_in(words: Sequence[str]) -> str:
    """Return the algorithm that a command line names, or its config file; one of the user's own can be imported.

    It decides which flags there are. What is wrong with the rest is said later.
    """
    name, file = value_of("--algorithm", words), value_of("--config-file", words) or value_of("--from-run", words)
    if name is None and file is not None:
        with suppress(NexusError):
            name = named_now(read_config(file)[1]).get("algorithm")
        if is_import_name(name):
            require_own_module(name, file, "algorithm")
    if not is_import_name(name):
        return TrainConfig.algorithm
    look_here(None, parts=[name])
    return name


def value_of(flag: str, words: Sequence[str]) -> str | None:
    """Return what a command line gives a flag the last time, None if it does not."""
    for place, word in reversed(list(enumerate(words))):
        given, equals, value = word.partition("=")
        if given == flag and (equals or place + 1 < len(words)):
            return value if equals else words[place + 1]
    return None


def expand(word: str) -> str:
    """Replace a short or foreign flag with ours, also in `--flag=value` and `--some_flag`."""
    flag, equals, value = word.partition("=")
    flag = flag.replace("_", "-") if flag.startswith("--") else flag
    return FLAG_ALIASES.get(flag, flag) + equals + value


def require_own_module(name: str, file: str, setting: str = "env") -> None:
    """Raise `RunError` if a run's settings name an environment or a wrapper whose module is in its folder."""
    from nexus.own_modules import require_foreign_module

    folder = Path(file) if Path(file).is_dir() else Path(file).parent
    look_here(name)
    if (folder / RUN_FILE).exists():
        require_foreign_module(name, folder, setting)


def read_config(file: str) -> tuple[str | None, dict[str, Any]]:
    """Return environment and settings of a JSON file: a `run.json`, or plain settings."""
    path = Path(file, RUN_FILE) if Path(file).is_dir() else Path(file)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"can't read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}: needs an object of settings")
    if isinstance(values.get("config"), dict):
        return values.get("env"), values["config"]
    env = values.pop("env", None)
    return env, values
