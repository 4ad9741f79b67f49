"""Flags from dataclasses, by tyro; what does not parse becomes one line."""

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass
from itertools import dropwhile, takewhile
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from nexus.core.errors import ConfigError, nearest
from nexus.core.period import Period, whole_number

__all__ = ["parse"]

Command = TypeVar("Command")

registry = ConstructorRegistry()


@registry.primitive_rule
def period_number_or_none(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read periods, numbers as people write them, and `none` where a field may be unset.

    Tyro alone would make subcommands of an optional period, and ask for a capital N in None.
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


def read_whole_number(text: str) -> int:
    """Return a whole number, or raise `ConfigError`."""
    value = whole_number(text)
    if value is None:
        raise ConfigError(f"{text!r} is no whole number; needs one as in 8, 100_000 or 1e6")
    return value


def read_number(text: str) -> float:
    """Return a number, or raise `ConfigError`."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no number; needs one as in 0.001 or 1e-3") from None


READERS: Mapping[Any, Callable[[str], Any]] = {Period: Period.parse, int: read_whole_number, float: read_number}


def parse(command: type[Command], arguments: Sequence[str], prog: str, default: Command | None = None) -> Command:
    """Return a filled `command` dataclass.

    Raises:
        ConfigError: an option is unknown or can't be read; one line with the nearest right thing.
        SystemExit: code 0, after printing the help that was asked for.
    """
    said = io.StringIO()
    asked_for_help = any(word in ("-h", "--help") for word in arguments)
    try:
        with redirect_stderr(said), redirect_stdout(sys.stdout if asked_for_help else said):
            parsed, unknown = tyro.cli(
                command,
                args=list(arguments),
                prog=prog,
                registry=registry,
                return_unknown_args=True,
                default=tyro.MISSING_NONPROP if default is None else default,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(f"{first_paragraph(said.getvalue())}; see {prog} --help") from None
    if unknown:
        flags = [f"--{name.replace('_', '-')}" for name in field_names(command)]
        word = unknown[0].split("=")[0].replace("_", "-")
        raise ConfigError(f"unknown option {unknown[0]}{nearest(word, flags)}; see {prog} --help")
    result: Command = parsed
    return result


def field_names(command: Any) -> list[str]:
    """Names of all fields, nested dataclasses included."""
    hints = get_type_hints(command)
    names = []
    for field in fields(command):
        names += field_names(hints[field.name]) if is_dataclass(hints[field.name]) else [field.name]
    return names


def first_paragraph(text: str) -> str:
    """Return what tyro's box says between its title and its next rule, as one line without the frame."""
    rows = [row for line in text.splitlines() if (row := line.strip(" \t│|╭╮╰╯"))]
    below_title = dropwhile(is_rule, rows[1:])
    paragraph = " ".join(takewhile(lambda row: not is_rule(row), below_title))
    return paragraph.removeprefix("Error parsing ").rstrip(".")


def is_rule(row: str) -> bool:
    """True for a row of dashes."""
    return not row.strip("-─ ")
