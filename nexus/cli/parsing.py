"""Flags from dataclasses, by tyro; parse errors become one line."""

import ast
import inspect
import io
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from itertools import dropwhile, takewhile
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from nexus.core.checked import JsonObject, Keywords, convert, keyword
from nexus.core.errors import ConfigError
from nexus.core.importable import ImportName, ImportNames, import_names
from nexus.core.period import Period, whole_number

__all__ = ["HELP", "asks_for_help", "flag_of", "flags_of", "parse", "registry"]

Command = TypeVar("Command")
NO_ALIASES: Mapping[str, str] = {}
NO_FLAG = "algorithm_settings"  # a setting of which each entry is a flag instead
HELP = ("-h", "--help")
WIDEST = 100  # columns of a text above the flags
SUGGESTION_CUTOFF = 0.6  # similarity from which a flag is suggested, from 0 to 1

registry = ConstructorRegistry()


@registry.primitive_rule
def period_number_or_none(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read periods, numbers as people write them, and `none` for optional fields.

    Tyro itself would make subcommands of an optional period, and require a capital N in None.
    """
    options = get_args(info.type) if get_origin(info.type) in (Union, UnionType) else (info.type,)
    kinds = [option for option in options if option is not NoneType]
    may_be_none = NoneType in options
    if len(kinds) != 1 or not (may_be_none or kinds[0] in READERS) or get_origin(kinds[0]) is Literal:
        return None
    kind = kinds[0]

    def read(texts: list[str]) -> Any:
        if may_be_none and texts[0].lower() == "none":
            return None
        return READERS.get(kind, kind)(texts[0])

    name = '"N UNIT"' if kind is Period else kind.__name__.upper()
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{name}|none" if may_be_none else name,
        instance_from_str=read,
        is_instance=lambda value: value is None if may_be_none and value is None else isinstance(value, kind),
        str_from_instance=lambda value: ["none" if value is None else str(value)],
    )


@registry.primitive_rule
def keywords(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read keyword arguments as `name=value name=value`."""
    options = get_args(info.type) if get_origin(info.type) in (Union, UnionType) else (info.type,)
    if Keywords not in options:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE ...",
        instance_from_str=lambda texts: dict(map(read_keyword, texts)),
        is_instance=lambda value: isinstance(value, Mapping) or (value is None and NoneType in options),
        str_from_instance=lambda value: [f"{word}={given}" for word, given in (value or {}).items()],
    )


@registry.primitive_rule
def json_file(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read the object in a JSON file, and `none`."""
    options = get_args(info.type) if get_origin(info.type) in (Union, UnionType) else (info.type,)
    if JsonObject not in options:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="FILE|none",
        instance_from_str=lambda texts: None if texts[0].lower() == "none" else read_object(texts[0]),
        is_instance=lambda value: value is None or isinstance(value, JsonObject),
        str_from_instance=lambda value: ["none" if value is None else "as in the file"],
    )


def read_object(file: str) -> JsonObject:
    """Return the object in a JSON file.

    Raises:
        ConfigError: it can't be read, or has something else.
    """
    try:
        values = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds a {type(values).__name__}: needs an object")
    return JsonObject(values)


@registry.primitive_rule
def names_to_import(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read names of classes and functions as `module:Name,module:Name`."""
    options = get_args(info.type) if get_origin(info.type) in (Union, UnionType) else (info.type,)
    if ImportNames not in options:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="MODULE:NAME,...|none",
        instance_from_str=lambda texts: import_names("it", texts[0]),
        is_instance=lambda value: isinstance(value, tuple) or (value is None and NoneType in options),
        str_from_instance=lambda value: [",".join(value) if value else "none"],
    )


@registry.primitive_rule
def choice_or_name_to_import(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read one of several words, or the name of a class or function as `module:Name`."""
    options = get_args(info.type) if get_origin(info.type) in (Union, UnionType) else ()
    if ImportName not in options:
        return None
    choices = [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(choices)},MODULE:NAME}}",
        instance_from_str=lambda texts: read_choice(texts[0], info.type),
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
    )


def read_choice(text: str, kind: Any) -> Any:
    """Return a word or a name to import, or raise `ConfigError` with those that there are."""
    try:
        return convert("it", text, kind)
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix("it = ")) from None


def read_keyword(text: str) -> tuple[str, Any]:
    """Return name and value of `name=value`; what is neither JSON nor Python is text.

    Raises:
        ConfigError: it is not such a pair.
    """
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise ConfigError(f"{text!r} is not a keyword argument; needs name=value, as in is_slippery=False")
    if value.lower() == "none":  # as in all other flags
        return name, None
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return name, keyword("it", name, read(value))
    return name, value


def read_whole_number(text: str) -> int:
    """Return a whole number, or raise `ConfigError`."""
    value = whole_number(text)
    if value is None:
        raise ConfigError(f"{text!r} is not a whole number; needs one as in 8, 100_000 or 1e6")
    return value


def read_number(text: str) -> float:
    """Return a number, or raise `ConfigError`."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a number; needs one as in 0.001 or 1e-3") from None


READERS: Mapping[Any, Callable[[str], Any]] = {Period: Period.parse, int: read_whole_number, float: read_number}


def parse(
    command: type[Command],
    arguments: Sequence[str],
    prog: str,
    default: Command | None = None,
    aliases: Mapping[str, str] = NO_ALIASES,
    flags: Mapping[str, bool] | None = None,
) -> Command:
    """Return a filled `command` dataclass.

    Args:
        command: the dataclass; each field is a flag.
        arguments: words of the command line.
        prog: its name in help and errors.
        default: values of the fields without a flag.
        aliases: other names of flags, which the caller has replaced; listed in errors.
        flags: all flags, and whether each is a switch; None for those of the fields.

    Raises:
        ConfigError: an option is unknown or can't be read; one line with the nearest valid one.
        SystemExit: code 0, after printing the requested help.
    """
    said = io.StringIO()
    asked_for_help = asks_for_help(arguments)
    flags = flags_of(command) if flags is None else flags
    if not asked_for_help:
        require_known(arguments, flags, aliases, prog)
    else:
        print(about(command), end="\n\n")
    try:
        with redirect_stderr(said), redirect_stdout(sys.stdout if asked_for_help else said):
            parsed, left = tyro.cli(
                command,
                args=list(arguments),
                prog=prog,
                description="",  # tyro does not wrap it
                registry=registry,
                return_unknown_args=True,
                default=tyro.MISSING_NONPROP if default is None else default,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(f"{first_paragraph(said.getvalue())}; see {prog} --help") from None
    if left:
        raise ConfigError(f"{stray(left[0], arguments, flags)}; see {prog} --help")
    result: Command = parsed
    return result


def asks_for_help(arguments: Sequence[str]) -> bool:
    """True if a command line asks for help."""
    return any(word in HELP for word in arguments)


def about(command: type) -> str:
    """Return what a command does, from its docstring, in lines that fit the terminal."""
    width = min(WIDEST, shutil.get_terminal_size().columns)
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(text.split()), width) for text in paragraphs)


def require_known(arguments: Sequence[str], flags: Mapping[str, bool], aliases: Mapping[str, str], prog: str) -> None:
    """Raise `ConfigError` for an unknown flag, before tyro blames another one."""
    known = [*flags, *(f"--no-{name[2:]}" for name, switch in flags.items() if switch), *aliases]
    for word in arguments:
        flag = word.split("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in known and not flag.startswith("--tyro-"):
            # Without the dashes, which would make any two short words similar.
            close = get_close_matches(flag.strip("-"), [name.strip("-") for name in known], cutoff=SUGGESTION_CUTOFF)
            meant = f"; did you mean {', '.join(f'--{name}' for name in close)}?" if close else ""
            raise ConfigError(f"unknown option {word.split('=')[0]}{meant}; see {prog} --help")


def stray(word: str, arguments: Sequence[str], flags: Mapping[str, bool]) -> str:
    """Return why a word is left over: an unknown short flag, a value for a switch, or an extra word."""
    if word.startswith("-"):
        return f"unknown option {word}"
    before = arguments[arguments.index(word) - 1] if word in arguments[1:] else ""
    if flags.get(before.replace("_", "-")):
        return f"{before} takes no value, got {word!r}: {before} turns it on, --no-{before[2:]} off"
    return f"{word!r} does not belong to any option"


def flags_of(command: Any) -> dict[str, bool]:
    """Return the flags of all fields, nested dataclasses included, and whether each is a switch."""
    hints = get_type_hints(command)
    flags: dict[str, bool] = {}
    for field in fields(command):
        kind = hints[field.name]
        if field.name == NO_FLAG:
            continue
        if kind is not Period and is_dataclass(kind):
            flags |= flags_of(kind)
        else:
            flags[flag_of(field.name)] = kind is bool
    return flags


def flag_of(name: str) -> str:
    """Return the flag of a field."""
    return f"--{name.replace('_', '-')}"


def first_paragraph(text: str) -> str:
    """Return the text of tyro's box between its title and its next rule, as one line."""
    rows = [row for line in text.splitlines() if (row := line.strip(" \t│|╭╮╰╯"))]
    below_title = dropwhile(is_rule, rows[1:])
    paragraph = " ".join(takewhile(lambda row: not is_rule(row), below_title))
    return paragraph.removeprefix("Error parsing ").rstrip(".")


def is_rule(row: str) -> bool:
    """True for a row of dashes."""
    return not row.strip("-─ ")
