"""`nexus dashboard [RUNS]`."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nexus.cli.extras import load
from nexus.cli.parsing import parse

__all__ = ["DashboardCommand", "run"]


@dataclass(frozen=True)
class DashboardCommand:
    """Show a folder of runs in a browser, live: a list of them, and of each one the page of `nexus report`, which
    follows the run. Reads the files that runs write anyway, so it also shows runs of other processes, and those that
    were killed. Ends with Ctrl-C.
    """

    runs: Annotated[str, tyro.conf.Positional] = "runs"
    """The folder of runs."""
    port: int = 8765
    """The port to listen on; 0 for any that is free."""
    host: str = "127.0.0.1"
    """The address to listen on. With the default only this machine reaches it; there is no password."""
    open: bool = False
    """Open it in a browser."""


def run(arguments: list[str]) -> int:
    """Serve until Ctrl-C."""
    command = parse(DashboardCommand, arguments, "nexus dashboard")
    for module in ("starlette", "uvicorn"):
        load(module, "dashboard")
    from nexus.dashboard.serving import serve

    def started(url: str, reached: bool) -> None:
        print(f"Dashboard of {command.runs}: {url} (Ctrl-C ends it)", flush=True)
        if reached:
            print("Note: everybody who reaches this machine on that port can read these runs", flush=True)
        if command.open:
            import webbrowser

            webbrowser.open(url)

    with suppress(KeyboardInterrupt):
        serve(Path(command.runs), command.host, command.port, started)
    print("Dashboard ended")
    return 0
