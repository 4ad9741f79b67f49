"""The settings of a run as flags: in groups, under all their names, and only those given.

Tyro gives each group of `GROUPS` a box in the help. The result stays a mapping: a config can be made, and checked,
only after the user's settings have overridden the preset's and the algorithm's.
"""

import ast
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache, partial
from itertools import pairwise
from typing import Annotated, Any, cast

import tyro
from tyro.constructors import StructConstructorSpec, StructFieldSpec, StructTypeInfo

from nexus.cli.parsing import flag_of, registry
from nexus.core.checked import CheckedConfig, Settings, annotations_of
from nexus.core.importable import is_import_name
from nexus.core.names import ALIASES
from nexus.training.config import GROUPS, TrainConfig

__all__ = ["FLAG_ALIASES", "SettingFlags", "given_settings", "own_settings"]

FLAG_ALIASES = {
    "-n": "--total-steps",
    "--config": "--config-file",
    "--env-id": "--env",
    "--from": "--from-run",
    **{flag_of(alias): flag_of(name) for alias, name in ALIASES.items()},
}
"""Short flags, and other libraries' names of flags."""

SettingFlags = Annotated[TrainConfig, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]
"""The type of a command's field that holds the settings of a run."""


def own_settings(algorithm: str) -> type[Settings] | None:
    """Return the settings that only this algorithm has, None if there are none.

    Raises:
        ConfigError: an algorithm of the user's own can't be imported.
    """
    if not is_import_name(algorithm):
        return None
    from nexus.models.rl.dqn.rainbow import algorithm_named  # only here: it takes time

    return algorithm_named(algorithm).own


def given_settings(values: Mapping[str, Any], words: Sequence[str], switches: Mapping[str, bool]) -> dict[str, Any]:
    """Return the parsed settings whose flags are on the command line.

    Args:
        values: the parsed settings.
        words: of the command line.
        switches: all flags, and whether each is a switch.
    """
    on = {word.partition("=")[0].replace("_", "-") for word in words}
    off = {f"--{word.removeprefix('--no-')}" for word in on if word.startswith("--no-")}
    flags = on | {flag for flag in off if switches.get(flag)}
    return {name: value for name, value in values.items() if flag_of(name) in flags}


@registry.struct_rule
def in_groups(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Show a `TrainConfig` as its groups, and read it as one mapping."""
    if info.type is not TrainConfig:
        return None
    default = info.default if isinstance(info.default, TrainConfig) else TrainConfig()
    groups = [
        StructFieldSpec(
            name=group.__name__,
            type=cast(Any, Annotated[group, tyro.conf.arg(name=title, help="")]),
            default=group(**{field.name: getattr(default, field.name) for field in fields(group)}),
        )
        for title, members in GROUPS.items()
        for group in members
    ]
    own = own_settings(default.algorithm)
    if own is not None:
        kind = cast(Any, Annotated[own, tyro.conf.arg(name=default.algorithm.partition(":")[2], help="")])
        groups.append(StructFieldSpec(own.__name__, kind, own.from_mapping(default.algorithm_settings)))
    return StructConstructorSpec(
        instantiate=lambda **read: {name: value for group in read.values() for name, value in group.items()},
        fields=tuple(groups),
    )


@registry.struct_rule
def of_a_group(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Read a group of settings as a mapping, unchecked, and list each one's other names in its help."""
    group: Any = info.type
    is_own = isinstance(group, type) and issubclass(group, Settings)
    if not is_own and not any(group in members for members in GROUPS.values()):
        return None
    own = [
        StructFieldSpec(name, kind, getattr(info.default, name), helptext=partial(text_of, group, name))
        for name, kind in annotations_of(group).items()
    ]
    return StructConstructorSpec(instantiate=dict, fields=tuple(own))


def text_of(group: type[CheckedConfig], name: str) -> str:
    """Return the help of a setting: its meaning, and its other flags."""
    return descriptions(group.__module__).get(group.__name__, {}).get(name, "") + also(name)


def also(name: str) -> str:
    """Return the sentence of a setting's help that names its other flags."""
    others = [alias for alias, flag in FLAG_ALIASES.items() if flag == flag_of(name)]
    return f" Also: {', '.join(others)}." if others else ""


@cache
def descriptions(module: str) -> dict[str, dict[str, str]]:
    """Return the text below each field of each class of a module, from its source; nothing if that is missing."""
    try:
        source = inspect.getsource(sys.modules[module])
    except OSError:
        return {}
    return {
        definition.name: {
            node.target.id: " ".join(text.split())
            for node, below in pairwise(definition.body)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(text := below.value.value, str)
        }
        for definition in ast.parse(source).body
        if isinstance(definition, ast.ClassDef)
    }
