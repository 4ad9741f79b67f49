"""What the dashboard answers to a browser. It reads, and nothing else."""

import ipaddress
import json
import os
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nexus.core.errors import one_line
from nexus.dashboard.listing import RunList, path_text
from nexus.dashboard.opened import LIVE_RULES, LIVE_SCRIPTS, OpenedRuns, problem_page, tag_of
from nexus.reporting.page import STYLE_SHEETS, html_of, policy_for, shipped

__all__ = ["Guard", "app_for"]

LIST_SCRIPTS = ("dashboard/list.js",)
METHODS = ("GET", "HEAD")
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
FRAMING = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
NO_SOURCES = f"default-src 'none'; {FRAMING}"


class Guard:
    """Refuses what does not come from a page of this server, and what would change anything.

    A name that an attacker's page resolves to this machine's address reaches this server, but under that name. The port
    is not compared: it does not protect, and a tunnel changes it.

    Args:
        app: what answers the rest.
        host: the address that is served.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.names = {"localhost", "127.0.0.1", "::1", host.lower(), socket.gethostname().lower()}
        if is_loopback(host):
            self.names -= {socket.gethostname().lower()}
        self.any_address = host in ("0.0.0.0", "::")  # of this machine's, which no name stands for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                given = {name.lower() for name, _ in headers}
                usual = {**SAFE, "Content-Security-Policy": NO_SOURCES, "Cache-Control": "no-store"}
                headers += [
                    (name.lower().encode(), value.encode())
                    for name, value in usual.items()
                    if name.lower().encode() not in given
                ]
                message = {**message, "headers": headers}
            await send(message)

        if not self.is_ours(Headers(scope=scope).getlist("host")):
            refused = PlainTextResponse("This address is served under another name.\n", 400)
            await refused(scope, receive, safely)
        elif scope["method"] not in METHODS:
            await PlainTextResponse("Only reading.\n", 405, {"Allow": ", ".join(METHODS)})(scope, receive, safely)
        else:
            await self.answer(scope, receive, safely)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; a fault of this program is one line, in the browser."""
        started = False

        async def noticing(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noticing)
        except Exception as error:
            if not started:
                text = f"The dashboard failed at this: {type(error).__name__}: {one_line(error)}\n"
                await PlainTextResponse(text, 500)(scope, receive, send)

    def is_ours(self, hosts: list[str]) -> bool:
        """True if a request names this server."""
        if len(hosts) != 1 or "@" in hosts[0]:
            return False
        try:
            parts = urlsplit(f"//{hosts[0]}")
            name = parts.hostname
            _ = parts.port
        except ValueError:
            return False
        return name is not None and (name in self.names or (self.any_address and is_address(name)))


def is_address(name: str) -> bool:
    """True for a numeric address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """True if only this machine reaches an address."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def app_for(root: Path, host: str = "127.0.0.1") -> Starlette:
    """Return the application that shows the runs below a folder.

    Args:
        root: the folder; it need not exist yet.
        host: the address that is served.
    """
    runs, opened = RunList(root), OpenedRuns()

    def index(request: Request) -> Response:
        values = runs.to_mapping()
        data = {"tag": tag_of(values), "list": values}
        text = html_of({"folder": path_text(root)}, data, LIST_SCRIPTS, STYLE_SHEETS, "dashboard/list.html", LIVE_RULES)
        return page_response(text)

    def listed(request: Request) -> Response:
        values = runs.to_mapping()
        return unless_known(request, tag_of(values), lambda: json_text(values))

    def shown(request: Request) -> Response:
        found = runs.at(path_of(request, "/run/"))
        if found is None:
            return page_response(problem_page("No such run", "There is no such folder among the runs."), 404)
        return page_response(opened.at(found).page())

    def changed(request: Request) -> Response:
        found = runs.at(path_of(request, "/api/run/"))
        if found is None:
            return Response(json_text({"gone": True}), 404, media_type="application/json")
        run = opened.at(found)
        return unless_known(request, run.look().tag, run.answer)

    def read(request: Request) -> Response:
        found = runs.at(path_of(request, "/api/replay/"))
        if found is None:
            return Response(json_text({"gone": True}), 404, media_type="application/json")
        return Response(opened.at(found).replay(), media_type="application/json")

    routes = [
        Route("/", index, methods=["GET"]),
        Route("/api/runs", listed, methods=["GET"]),
        Route("/api/run/{path:path}", changed, methods=["GET"]),
        Route("/api/replay/{path:path}", read, methods=["GET"]),
        Route("/run/{path:path}", shown, methods=["GET"]),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, host=host)])
    app.router.redirect_slashes = False
    return app


def path_of(request: Request, before: str) -> str:
    """Return the path of a run that a request names. Its bytes count: names of folders need not be text."""
    raw = request.scope.get("raw_path") or request.scope["path"].encode()
    return os.fsdecode(unquote_to_bytes(raw.partition(b"?")[0].removeprefix(before.encode())))


def page_response(text: str, status: int = 200) -> Response:
    """Return a page. A name of a folder may have bytes that are not text."""
    headers = {"Content-Security-Policy": policy_of_pages()}
    content = text.encode("utf-8", "replace")
    return Response(content, status, headers, media_type="text/html; charset=utf-8")


@cache
def policy_of_pages() -> str:
    """Return what pages may do; the policy in the head of each one allows only its scripts."""
    scripts = dict.fromkeys([*LIVE_SCRIPTS, *LIST_SCRIPTS])
    own = policy_for([shipped(name) for name in scripts], [shipped(name) for name in STYLE_SHEETS], LIVE_RULES)
    return f"{own}; {FRAMING}"


def unless_known(request: Request, tag: str, body: Callable[[], str]) -> Response:
    """Return JSON, or 304 if the browser has it."""
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if tag in [given.strip() for given in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(body(), 200, headers, media_type="application/json")


def json_text(values: Any) -> str:
    """Return plain values as JSON."""
    return json.dumps(values, allow_nan=False)
