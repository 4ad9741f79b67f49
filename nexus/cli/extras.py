"""Packages that only some verbs need, with the command that installs them."""

from importlib import import_module
from typing import Any

from nexus.core.errors import NexusError
from nexus.core.installation import not_installed

__all__ = ["load"]


def load(module: str, extra: str) -> Any:
    """Import a module of one of the extras in `pyproject.toml`.

    Raises:
        NexusError: it isn't installed; the message names the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError:
        raise NexusError(not_installed(module.partition(".")[0], extra)) from None
