"""Packages that only some verbs need, and the command that installs them."""

from importlib import import_module
from typing import Any

from nexus.core.errors import NexusError

__all__ = ["load"]


def load(module: str, extra: str) -> Any:
    """Import a module of one of the extras in `pyproject.toml`.

    Raises:
        NexusError: it isn't installed; says which command installs it.
    """
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        # Double quotes are right in every shell; without any, zsh takes the brackets for a pattern.
        raise NexusError(f'{package} is not installed; get it with: pip install "nexus[{extra}]"') from None
