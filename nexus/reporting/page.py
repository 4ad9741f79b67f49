"""The page: text and charts put into one HTML file that loads nothing else."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from nexus import __version__
from nexus.inspection.words import Unknown
from nexus.reporting.charts import (
    POINTS_OF_COMPARISON,
    POINTS_OF_MAIN,
    POINTS_OF_OTHERS,
    ChartOnPage,
    charts_of,
    most_points,
    other_charts,
    with_room,
)
from nexus.reporting.compared import comparison_on_page
from nexus.reporting.film import EpisodeFilm
from nexus.reporting.reading import RunContents, by_environment
from nexus.reporting.replay_panel import ReplayPanel
from nexus.reporting.sections import scores_of, sections_of

__all__ = [
    "NO_EXTRAS",
    "SCRIPTS",
    "SIGNATURE",
    "STYLE_SHEETS",
    "Extras",
    "PageContent",
    "content_of",
    "html_of",
    "page_of",
    "policy_for",
    "replay_html",
    "shipped",
]

SIGNATURE = '<meta name="generator" content="nexus report'
SCRIPTS = ("reporting/vendor/uplot/uPlot.iife.min.js", "reporting/report.js", "reporting/film.js")
STYLE_SHEETS = ("reporting/vendor/uplot/uPlot.min.css", "reporting/report.css")
TEMPLATE, OF_COMPARISON = "reporting/page.html", "reporting/compared.html"
NO_RULES: Mapping[str, str] = {}
# Inside a script element HTML knows no escapes: `</script>` would end it, and old engines end a line at U+2028.
UNSAFE_IN_SCRIPT = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


@dataclass(frozen=True)
class PageContent:
    """What a page says and draws.

    Args:
        said: the variables of the template.
        data: what the charts draw, as plain values for JSON.
    """

    said: Mapping[str, Any]
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Extras:
    """What a page of a single run shows besides its logs; each is None to leave it out.

    Args:
        film: a greedy episode, or why there is none.
        film_command: a command that makes a page with a film, on a page that plays none.
        replay: the newest checkpoint's replay, or why there is none.
        asks_for_replay: whether the page has a button that reads it.
    """

    film: EpisodeFilm | Unknown | None = None
    film_command: str | None = None
    replay: ReplayPanel | Unknown | None = None
    asks_for_replay: bool = False


NO_EXTRAS = Extras()
READ_BUTTON = Markup('<p><button type="button" class="read">Read the replay</button> <span role="status"></span></p>')


@dataclass(frozen=True)
class ChartsOfGroup:
    """The charts of one environment's runs with their places in the page's data, and how many had no room."""

    env: str
    main: Sequence[tuple[int, ChartOnPage]]
    others: Sequence[tuple[int, ChartOnPage]]
    left_out: int


def page_of(runs: Sequence[RunContents], more: Extras = NO_EXTRAS) -> str:
    """Return the page about some runs as HTML, which loads nothing else."""
    content = content_of(runs, more)
    return html_of(content.said, content.data, SCRIPTS, STYLE_SHEETS)


def content_of(runs: Sequence[RunContents], more: Extras = NO_EXTRAS) -> PageContent:
    """Return what a page about some runs says and draws."""
    groups = by_environment(runs)
    main = [charts_of(group, len(runs) == 1) for group in groups.values()]
    others = [other_charts(group, len(runs) == 1) for group in groups.values()]
    kept = with_room(others)
    data: list[dict[str, Any]] = []
    drawn = [
        ChartsOfGroup(
            env,
            numbered(charts, data, points_per_line(main, POINTS_OF_MAIN)),
            numbered(more, data, points_per_line(kept, POINTS_OF_OTHERS)),
            len(of_group) - len(more),
        )
        for env, charts, of_group, more in zip(groups, main, others, kept, strict=True)
    ]
    sections = [sections_of(run) for run in runs]
    said = {
        "title": sections[0].title if len(runs) == 1 else f"{len(runs)} runs of {', '.join(groups)}",
        "runs": sections,
        "scores": [scores_of(env, group) for env, group in groups.items()],
        "groups": drawn,
        "film": more.film,
        "no_film": str(more.film) if isinstance(more.film, Unknown) else None,
        "film_command": more.film_command,
        "replay": READ_BUTTON if more.asks_for_replay else None if more.replay is None else replay_html(more.replay),
        "comparison": comparison_in(runs, data),
    }
    film = {"film": more.film.to_mapping()} if isinstance(more.film, EpisodeFilm) else {}
    return PageContent(said, {"runs": len(runs), "charts": data, **film})


def replay_html(panel: ReplayPanel | Unknown) -> Markup:
    """Return what a page says of a replay, or why there is none, as HTML."""
    if isinstance(panel, Unknown):
        return Markup("<p>{}</p>").format(str(panel))
    return Markup(template_of("reporting/replay.html").render(panel=panel))


def comparison_in(runs: Sequence[RunContents], data: list[dict[str, Any]]) -> Markup | None:
    """Return the section that compares groups of runs, None if there is none; its charts are added to the data."""
    parts, notes = comparison_on_page([run.scored for run in runs])
    if not parts:
        return None
    most = most_points([chart for part in parts for chart in part.charts], POINTS_OF_COMPARISON)
    drawn = [numbered(part.charts, data, most) for part in parts]
    return Markup(template_of(OF_COMPARISON).render(parts=list(zip(parts, drawn, strict=True)), notes=notes))


def html_of(
    said: Mapping[str, Any],
    data: Any,
    scripts: Sequence[str],
    styles: Sequence[str],
    template: str = TEMPLATE,
    rules: Mapping[str, str] = NO_RULES,
) -> str:
    """Return a page as HTML.

    Args:
        said: the variables of its template.
        data: plain values for its scripts, in an element `report-data`.
        scripts: files of nexus, which it runs in this order.
        styles: likewise.
        template: its template, likewise.
        rules: more rules of its content security policy, by name.
    """
    loaded = [shipped(name) for name in scripts]
    looks = [shipped(name) for name in styles]
    return template_of(template).render(
        version=__version__,
        **said,
        data=Markup(json_in_script(data)),
        scripts=[Markup(script) for script in loaded],
        styles=[Markup(style) for style in looks],
        policy=policy_for(loaded, looks, rules),
    )


@cache
def template_of(name: str) -> Template:
    """Return a template of nexus, given its path there."""
    how = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    how.filters["with_code"] = with_code
    return how.from_string(shipped(name))


def with_code(text: str) -> Markup:
    """Return a text as HTML, what stands between backticks as code."""
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(text.split("`"))
    )


def points_per_line(groups: Sequence[Sequence[ChartOnPage]], of_all: int) -> int:
    """Return how many points each line of some charts may have."""
    return most_points([chart for charts in groups for chart in charts], of_all)


def numbered(charts: Sequence[ChartOnPage], data: list[dict[str, Any]], most: int) -> list[tuple[int, ChartOnPage]]:
    """Return charts with their places in the page's data, to which they are added."""
    first = len(data)
    data += [chart.to_mapping(most) for chart in charts]
    return list(enumerate(charts, first))


def json_in_script(values: Any) -> str:
    """Return JSON that is safe inside a script element, whatever its texts are."""
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(UNSAFE_IN_SCRIPT)


def policy_for(scripts: Sequence[str], styles: Sequence[str], more: Mapping[str, str] = NO_RULES) -> str:
    """Return a content security policy: the page runs these scripts, uses these styles, shows the images that it
    holds, and loads nothing.

    `more` has further rules, by name.
    """
    rules = {
        "default-src": ["'none'"],
        "script-src": [source_of(script) for script in scripts],
        "style-src": [source_of(style) for style in styles],
        "img-src": ["data:"],
        **{name: [source] for name, source in more.items()},
    }
    return "; ".join(f"{name} {' '.join(sources)}" for name, sources in rules.items())


def source_of(content: str) -> str:
    """Return how a content security policy names an inline script or style."""
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@cache
def shipped(name: str) -> str:
    """Return a file of nexus as text, given its path there."""
    return files("nexus").joinpath(name).read_text(encoding="utf-8")
