"""`nexus train ENV`."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from nexus.cli.here import look_here, wrappers_in
from nexus.cli.parsing import HELP, asks_for_help, parse
from nexus.cli.setting_flags import FLAG_ALIASES, SettingFlags, given_settings
from nexus.core.errors import ConfigError, NexusError, RunError
from nexus.core.names import TrackerName
from nexus.training.config import TrainConfig
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
    """Named settings: seed, nature, fast, paper, tuned. None takes those for the environment, if any."""
    config_file: str | None = None
    """Settings from a JSON file, for example a run's run.json. Also: --config."""
    run_dir: str | None = None
    """A new or empty folder for the run; none makes one below runs/."""
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
    look_here(command.env, wrappers=[*command.config.wrappers, *([command.listener] if command.listener else [])])
    from nexus.api import train
    from nexus.cli.own_listeners import with_own
    from nexus.cli.progress import TrainView
    from nexus.core.errors import result_of

    with TrainView() as view:
        listener = with_own(view, command.track, command.listener)
        try:
            result = train(
                command.env, preset=command.preset, config=command.config, run_dir=command.run_dir, listener=listener
            )
        except KeyboardInterrupt as stop:
            result = result_of(stop)
            if result is None:  # a second signal, before everything was saved
                raise
    view.finish(result)
    return result.exit_code


Command = TypeVar("Command", bound=TrainCommand)


def read_command(arguments: list[str]) -> RunCommand:
    """Parse the command line of `nexus train`."""
    return read_as(RunCommand, arguments, "nexus train")


def read_as(kind: type[Command], arguments: list[str], prog: str) -> Command:
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
    command, notes = resolved(parse(kind, words, prog, kind(), FLAG_ALIASES), words)
    if not command.env:
        raise ConfigError(f"name an environment first, as in: {prog} CartPole-v1")
    for text in notes:
        print(f"Note: {text}")
    return command


def usual_for(words: list[str], kind: type[Command], prog: str) -> Command:
    """Return the defaults for a help: those resulting from the rest of the command line, if it can be read."""
    with suppress(NexusError):
        return resolved(parse(kind, words, prog, kind(), FLAG_ALIASES), words)[0]
    return kind()


def resolved(command: Command, words: list[str]) -> tuple[Command, tuple[str, ...]]:
    """Return a parsed command with its environment and all settings, and its notices."""
    from nexus.resolver import resolve

    # The parsed config is still a mapping, see `SettingFlags`.
    own = given_settings(cast(Mapping[str, Any], command.config), words)
    env, file = command.env, None
    if command.config_file is not None:
        file_env, file = read_config(command.config_file)
        if not env and file_env is not None:
            require_own_module(file_env, command.config_file)
        if "wrappers" not in own:
            for name in wrappers_in({"config": file}):
                require_own_module(name, command.config_file, "wrappers")
        env = env or file_env or ""
    found = resolve(env, own, command.preset, file)
    return replace(command, env=env, preset=found.preset, config=found.config), found.notes


def expand(word: str) -> str:
    """Replace a short or foreign flag with ours, also in `--flag=value` and `--some_flag`."""
    flag, equals, value = word.partition("=")
    flag = flag.replace("_", "-") if flag.startswith("--") else flag
    return FLAG_ALIASES.get(flag, flag) + equals + value


def require_own_module(name: str, file: str, setting: str = "env") -> None:
    """Raise `RunError` if a run's settings name an environment or a wrapper whose module is in its folder."""
    from nexus.api import require_foreign_module

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
