"""Listeners named on the command line: a tracker, and a user's class."""

from nexus.cli.progress import Both, TrainView
from nexus.core.errors import ConfigError, one_line
from nexus.core.importable import FORM, import_object
from nexus.core.names import TrackerName
from nexus.listener import Listener, Listeners

__all__ = ["with_own"]


def with_own(view: TrainView, track: TrackerName | None, listener: str | None) -> Listener:
    """Return the console's listener, or one that also calls a tracker and the user's listener.

    Args:
        view: the console's listener.
        track: name of a tracker.
        listener: the user's listener, as `module:Class`; made without arguments.

    Raises:
        ConfigError: the class can't be imported or made, or is not a listener.
        NexusError: the tracker is not installed.
    """
    own: list[Listener] = []
    if listener is not None:
        own.append(made(listener))
    if track is not None:
        from nexus.tracking import tracker

        own.append(tracker(track))
    return view if not own else Both(own[0] if len(own) == 1 else Listeners(*own), view)


def made(name: str) -> Listener:
    """Make a listener from its name.

    Raises:
        ConfigError: it can't be imported or made, or is not a listener.
    """
    if not FORM.fullmatch(name):
        raise ConfigError(f"listener = {name!r}: needs module:Class, as in my_listeners:StopWhenGood")
    kind = import_object(name, "listener")
    try:
        listener = kind()
    except Exception as error:  # the class's own code can raise anything
        raise ConfigError(f"listener {name!r} can't be made without arguments: {one_line(error)}") from error
    if not isinstance(listener, Listener):
        raise ConfigError(f"listener {name!r} makes a {type(listener).__name__}: needs a nexus.Listener")
    return listener
