"""Serving the dashboard until Ctrl-C."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from nexus.core.errors import ConfigError, RunError
from nexus.core.installation import nexus_command
from nexus.dashboard.app import app_for, is_loopback

__all__ = ["address_of", "bound", "serve"]

HIGHEST_PORT = 65_535
TRIED = 100  # ports after one that is taken


def serve(root: Path, host: str, port: int, started: Callable[[str, bool], object]) -> None:
    """Serve the runs below a folder until Ctrl-C.

    Args:
        root: the folder; it need not exist yet.
        host: the address to listen on.
        port: 0 for any that is free.
        started: called once with the URL, and with whether other machines reach it.

    Raises:
        ConfigError: the port is not one or is taken, or the address is not one of this machine.
        RunError: `root` is a file.
    """
    if root.exists() and not root.is_dir():
        raise RunError(f"{root} is a file: needs a folder of runs")
    listener = bound(host, port)
    with listener:
        config = uvicorn.Config(
            app_for(root, host),
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        started(address_of(listener, host), not is_loopback(host))
        uvicorn.Server(config).run(sockets=[listener])


def address_of(listener: socket.socket, host: str) -> str:
    """Return the URL of a server."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        ConfigError: the port is not one or is taken, or the address is not one of this machine.
    """
    if not 0 <= port <= HIGHEST_PORT:
        raise ConfigError(f"port = {port}: needs a number from 0 to {HIGHEST_PORT}; 0 for any that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return listening(family, kind, protocol, address)
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is taken{next_free(host, port)}") from None
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"can't serve on {host!r}, port {port}: {reason}") from None


def listening(family: int, kind: int, protocol: int, address: object) -> socket.socket:
    """Return a listening socket, closed again if that fails."""
    made = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere this would let two servers have one port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)  # type: ignore[arg-type]
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def next_free(host: str, port: int) -> str:
    """Return text on the next port that is free, if there is one nearby."""
    for other in range(port + 1, min(port + TRIED, HIGHEST_PORT) + 1):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, other, type=socket.SOCK_STREAM)[0]
            listening(family, kind, protocol, address).close()
        except OSError:
            continue
        return f"; the next free one: {nexus_command('dashboard', '--port', str(other))}"
    return ""
