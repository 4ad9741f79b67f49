"""`nexus study ENV`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import tyro

from nexus.cli.here import look_here
from nexus.cli.parsing import asks_for_help, flags_of, parse, read_keyword, read_object
from nexus.cli.setting_flags import FLAG_ALIASES, SettingFlags, given_settings, own_settings
from nexus.cli.train import algorithm_in, expand
from nexus.core.errors import ConfigError, RunError
from nexus.core.importable import names_in
from nexus.core.installation import nexus_command
from nexus.core.names import current_names
from nexus.training.config import TrainConfig

if TYPE_CHECKING:
    from nexus.studies.studying import StudyResult

__all__ = ["StudyCommand", "run"]


@dataclass(frozen=True)
class StudyCommand:
    """Train with every combination of some settings on several seeds, in several processes, and compare.

    Name the environment first, as in: nexus study CartPole-v1 --seeds 10 --vary n_step=1,3. Stopped or killed, the same
    command goes on: finished runs stay, the others resume exactly where they were. With more seeds or values it
    adds them.
    """

    env: str = ""
    """A Gymnasium id or module:Id; can be given as the first word, without the flag. Also: --env-id."""
    seeds: str | None = None
    """Their number, from 0 on, or the seeds, as in 300-309 or 1,5,7; none for ten, or those of the study."""
    vary: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=VALUE,...")] = ()
    """A setting and its values, as in n_step=1,3,5; can be given several times. Values with commas: a JSON list."""
    study: str | None = None
    """A JSON file with env, seeds, vary, settings and preset; flags override it."""
    folder: str | None = None
    """The study's folder; none for one below studies/. Without an environment, go on with the study there."""
    jobs: int | None = None
    """Runs at the same time, one thread each; none for one per core. Results don't depend on it."""
    retry_failed: bool = False
    """Try failed runs again."""
    preset: str | None = None
    """Named settings, as in nexus train."""
    config: SettingFlags = field(default_factory=TrainConfig)


def run(arguments: list[str]) -> int:
    """Carry out a study; return 0, 1 if a run failed, 130 after Ctrl-C, or 143 after SIGTERM."""
    command, own = read_study(arguments)
    from nexus.cli.study_view import study_view
    from nexus.studies.study_folder import read_plan
    from nexus.studies.studying import asked_of, carried_out

    folder = None if command.folder is None else Path(command.folder)
    entries = file_entries(command.study)
    settings = {**current_names(entries.get("settings", {})), **own}
    vary = {**current_names(entries.get("vary", {})), **current_names(varied_in(command.vary))}
    env = command.env or entries.get("env")
    there = None if folder is None else read_plan(folder)
    if there is not None and env is None:
        look_for_modules(there.env, there.settings, there.vary, folder)
    elif env is None:
        where = "name an environment first" if folder is None else f"{folder} has no study: name an environment"
        raise ConfigError(f"{where}, as in: nexus study CartPole-v1")
    look_for_modules(env or "", settings, vary)
    seeds = entries.get("seeds") if command.seeds is None else command.seeds
    preset = entries.get("preset") if command.preset is None else command.preset
    asked = asked_of(env, seeds, vary, folder, preset, settings)
    with study_view() as view:
        result = carried_out(asked, folder, command.jobs, command.retry_failed, view)
    print_result(result)
    return result.exit_code


def look_for_modules(
    env: str, settings: Mapping[str, Any], vary: Mapping[str, Any], folder: Path | None = None
) -> None:
    """Make Python find the modules that a study names in the current folder.

    Args:
        env: an id.
        settings: of all runs.
        vary: the values of the varied settings.
        folder: the study's folder if its file names them: like a run, it must not supply code.

    Raises:
        RunError: one is in that folder.
    """
    from nexus.own_modules import require_foreign_module

    chosen = [settings, *({name: value} for name, values in vary.items() for value in values)]
    parts = [name for each in chosen for names in names_in(each).values() for name in names]
    look_here(env, parts=parts)
    for name in [env, *parts] if folder is not None else []:
        require_foreign_module(name, cast(Path, folder))


def read_study(arguments: list[str]) -> tuple[StudyCommand, dict[str, Any]]:
    """Parse the command line; return the command and the settings that are given."""
    words = [expand(word) for word in arguments]
    if words and not words[0].startswith("-"):
        words = ["--env", *words]
    algorithm = TrainConfig.algorithm if asks_for_help(words) else algorithm_in(words)
    flags, own_group = flags_of(StudyCommand), own_settings(algorithm)
    flags |= {} if own_group is None else flags_of(own_group)
    default = StudyCommand(config=TrainConfig(algorithm=algorithm))
    command = parse(StudyCommand, words, "nexus study", default, FLAG_ALIASES, flags)
    # The parsed config is still a mapping, see `SettingFlags`.
    return command, given_settings(cast(Mapping[str, Any], command.config), words, flags)


def file_entries(file: str | None) -> dict[str, Any]:
    """Return the entries of a study file; none without one."""
    if file is None:
        return {}
    from nexus.studies.study_folder import STUDY_FILE, plan_in

    path = Path(file, STUDY_FILE) if Path(file).is_dir() else Path(file)
    return plan_in(read_object(str(path)), path)


def varied_in(words: tuple[str, ...]) -> dict[str, list[Any]]:
    """Return the varied settings and their values, given as `n_step=1,3,5`.

    Raises:
        ConfigError: it is not that, or a setting is there twice.
    """
    found: dict[str, list[Any]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not equals or not name.isidentifier() or not text.strip():
            raise ConfigError(f"vary = {word!r}: needs a setting and its values, as in n_step=1,3,5")
        if name in found:
            raise ConfigError(f"vary: {name} is there twice: give all values at once, as in {name}=1,3,5")
        found[name] = values_in(name, text.strip())
    return found


def values_in(name: str, text: str) -> list[Any]:
    """Return values, given with commas between them or as a JSON list."""
    if not text.startswith("["):
        return [read_keyword(f"{name}={part.strip()}")[1] for part in text.split(",")]
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"vary: {name} = {text} is not a JSON list: {error}") from None
    if not isinstance(values, list):
        raise ConfigError(f"vary: {name} = {text}: needs a list")
    return values


def print_result(result: "StudyResult") -> None:
    """Print what a study showed, or how to go on with it."""
    from nexus.studies.studying import command_to_go_on

    for one in result.failed:
        print(f"Failed: {one.name}: {one.error}")
    if result.stopped_by is not None:
        print(f"Stopped and saved. To go on: {command_to_go_on(result.folder)}")
        return
    if any(one.state == "finished" for one in result.runs):
        print_comparison(result.folder)
    if result.failed:
        print(f"To try failed runs again: {command_to_go_on(result.folder)} --retry-failed")


def print_comparison(folder: Path) -> None:
    """Print in short what `nexus compare` says of a study, and the commands that say more."""
    from nexus.comparing import compare
    from nexus.comparing.tables import short_comparison_text

    notes: list[str] = []
    try:
        print(f"\n{short_comparison_text(compare(str(folder), notice=notes.append))}")
    except RunError as error:  # not evaluated
        print(f"\n{error}")
    for line in notes:
        print(f"Note: {line}")
    print(f"\nMore:   {nexus_command('compare', folder)}\nA page: {nexus_command('report', folder)}")
