"""The runs that are open in a browser: their pages, made again when their files change."""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any

from nexus.api import config_of
from nexus.core.installation import nexus_command
from nexus.dashboard.kept_logs import KeptLogs
from nexus.dashboard.listing import (
    DAMAGE,
    Found,
    Stamps,
    damage_text,
    path_text,
    require_plausible,
    stamps_of,
    url_path,
)
from nexus.inspection.words import Unknown
from nexus.reporting.page import SCRIPTS, STYLE_SHEETS, Extras, PageContent, content_of, html_of, replay_html
from nexus.reporting.reading import read_contents
from nexus.reporting.replay_panel import panel_of_run
from nexus.training.curves import read_episodes
from nexus.training.edited import read_run_or_copy

__all__ = ["LIVE_RULES", "LIVE_SCRIPTS", "OpenedRun", "OpenedRuns", "problem_page", "tag_of"]

MOST_OPENED = 6  # runs of which the logs are kept
READ_FOR = 0.5  # seconds for which a request reads; the rest is read behind it
SLICE = 0.1  # seconds for which the logs are read behind a request before another one may come in
LARGEST_REPLAY = 64 << 20  # bytes of its files: watching must not take the memory that training needs
READING = Lock()  # one replay is read at a time
LIVE_RULES = {"connect-src": "'self'"}
LIVE_SCRIPTS = (*SCRIPTS, "dashboard/live.js")


@dataclass(frozen=True)
class View:
    """What is shown of a run at one moment, or why that can't be."""

    tag: str
    stamps: Stamps
    content: PageContent | None
    problem: str | None


class OpenedRun:
    """One run: its logs as they grow, and its page.

    Args:
        found: where it is.
    """

    def __init__(self, found: Found) -> None:
        self.found = found
        self.logs = KeptLogs(found.folder)
        self.extras = Extras(film_command=nexus_command("report", path_text(found.folder)), asks_for_replay=True)
        self.lock = Lock()
        self.view: View | None = None
        self.body = ""
        self.reader: Thread | None = None

    def look(self) -> View:
        """Return what is to be shown now."""
        with self.lock:
            stamps = stamps_of(self.found.folder)
            more = self.logs.read_on(READ_FOR)
            if more and self.reader is None:
                self.reader = Thread(target=self.read_all, name="nexus dashboard: reading a log", daemon=True)
                self.reader.start()
            tag = tag_of([stamps, self.logs.version])
            if self.view is None or self.view.tag != tag:
                self.view, self.body = self.viewed(tag, stamps), ""
            return self.view

    def read_all(self) -> None:
        """Read a long log to its end, in slices."""
        more = True
        while more:
            with self.lock:
                more = self.logs.read_on(SLICE)
            time.sleep(0.01)
        with self.lock:
            self.reader = None

    def viewed(self, tag: str, stamps: Stamps) -> View:
        """Return a view of what has been read."""
        if self.found.problem is not None:
            return View(tag, stamps, None, self.found.problem)
        try:
            require_plausible(self.found.folder)
            run = read_contents(self.found.folder, path_text(self.found.folder.resolve().name), self.logs)
            return View(tag, stamps, content_of([run], self.extras), None)
        except DAMAGE as error:
            return View(tag, stamps, None, damage_text(error))

    def page(self) -> str:
        """Return the page as HTML."""
        view = self.look()
        live = self.live(view)
        if view.content is None:
            return problem_page(path_text(self.found.path), str(view.problem), live)
        return html_of(
            view.content.said, {**view.content.data, "live": live}, LIVE_SCRIPTS, STYLE_SHEETS, rules=LIVE_RULES
        )

    def answer(self) -> str:
        """Return the view as JSON; `html` is the page without scripts and data."""
        view = self.look()
        with self.lock:
            if not self.body or self.view is not view:
                self.body = self.written(view)
            return self.body

    def replay(self) -> str:
        """Return the replay of the newest checkpoint as JSON, read now; `html` is what the page shows of it."""
        with READING:
            try:
                require_plausible(self.found.folder)
                about = read_run_or_copy(self.found.folder, str)
                config, episodes = config_of(about, self.found.folder), read_episodes(self.found.folder, str)
                panel = panel_of_run(
                    self.found.folder, about, config, episodes, most_bytes=LARGEST_REPLAY, imports=False
                )
            except DAMAGE as error:
                panel = Unknown(damage_text(error))
        return json.dumps({"html": replay_html(panel)})

    def written(self, view: View) -> str:
        """Return a view as JSON."""
        if view.content is None:
            return json.dumps({"problem": view.problem, "live": self.live(view)})
        html = html_of(view.content.said, None, (), ())
        return json.dumps({"html": html, "data": view.content.data, "live": self.live(view)}, allow_nan=False)

    def live(self, view: View) -> dict[str, Any]:
        """Return what the page's script needs to stay up to date; `files` shows which of them have changed."""
        return {
            "url": f"/api/run/{url_path(self.found.path)}",
            "replay": f"/api/replay/{url_path(self.found.path)}",
            "tag": view.tag,
            "files": {name: [size, changed / 1e9] for name, (size, changed, _) in view.stamps.items()},
            "problem": view.problem,
        }


class OpenedRuns:
    """The runs opened last; those not asked for any more are forgotten."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.runs: OrderedDict[str, OpenedRun] = OrderedDict()

    def at(self, found: Found) -> OpenedRun:
        """Return a run that is open, or open it."""
        with self.lock:
            run = self.runs.get(found.path)
            if run is None or run.found != found:
                run = self.runs[found.path] = OpenedRun(found)
            self.runs.move_to_end(found.path)
            while len(self.runs) > MOST_OPENED:
                self.runs.popitem(last=False)
            return run


def tag_of(values: Any) -> str:
    """Return an ETag for plain values."""
    text = json.dumps(values, sort_keys=True, default=str)
    return f'"{hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]}"'


def problem_page(title: str, problem: str, live: Mapping[str, Any] | None = None) -> str:
    """Return a page that says why a run can't be shown, and that shows it once it can."""
    said = {"title": title, "problem": problem}
    data = {"runs": 0, "charts": [], "live": live}
    return html_of(said, data, ("dashboard/live.js",), STYLE_SHEETS, "dashboard/problem.html", LIVE_RULES)
