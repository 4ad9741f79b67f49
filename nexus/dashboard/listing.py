"""The runs below a folder, and a line about each."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote_from_bytes

from nexus.core.errors import RunError, one_line
from nexus.dashboard.growing import read_end
from nexus.reporting.reading import scalars_in
from nexus.training.curves import SCORE
from nexus.training.files import file_in, read_json
from nexus.training.run_folder import EPISODES_FILE, EVALUATION_FILE, FINDINGS_FILE, METRICS_FILE, RUN_FILE, read_run

__all__ = [
    "DAMAGE",
    "RUN_FILES",
    "Found",
    "RunList",
    "Stamps",
    "damage_text",
    "path_text",
    "require_plausible",
    "stamps_of",
    "url_path",
]

RUN_FILES = (RUN_FILE, METRICS_FILE, EPISODES_FILE, EVALUATION_FILE, FINDINGS_FILE)
MADE_BY_A_RUN = (RUN_FILE, METRICS_FILE, EPISODES_FILE)
MOST_FOLDERS = 20_000  # that are looked into
DEEPEST = 8  # folders within folders
FRESH = 0.5  # seconds for which a look at the folders holds
END = 256 << 10  # bytes of a log that a line about its run is made from
PLAUSIBLE = 8 << 20  # bytes of a JSON file; a million evaluated episodes need more
SILENT = 60.0  # seconds without a word, after which a run may have been killed

DAMAGE = (RunError, OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
Stamps: TypeAlias = Mapping[str, tuple[int, int, int]]
"""Of each of a run's files: size, time of the last change in nanoseconds, inode."""


@dataclass(frozen=True)
class Found:
    """A folder that is shown, with its path below the folder of runs; `problem` says why it is not a run."""

    path: str
    folder: Path
    problem: str | None = None


@dataclass
class RunList:
    """The runs below a folder, newest first.

    Args:
        root: the folder.
    """

    root: Path
    found: dict[str, Found] = field(default_factory=dict)
    looked: float = float("-inf")
    lines: dict[str, tuple[Stamps, dict[str, Any]]] = field(default_factory=dict)

    def look(self, fresh: float | None = None) -> Mapping[str, Found]:
        """Return what is below the folder, by path, at most so many seconds old; None for `FRESH`."""
        if time.monotonic() - self.looked > (FRESH if fresh is None else fresh):
            self.found = {each.path: each for each in found_below(self.root)}
            self.looked = time.monotonic()
            self.lines = {path: line for path, line in self.lines.items() if path in self.found}
        return self.found

    def at(self, path: str) -> Found | None:
        """Return a folder that is shown, given its path; None if there is none now, or a link leads out."""
        there = self.look().get(path) or self.look(0).get(path)
        home = self.root.resolve()
        try:
            inside = there is not None and there.folder.is_dir() and there.folder.resolve().is_relative_to(home)
        except (OSError, RuntimeError):
            return None
        return there if inside else None

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON: a line about each folder."""
        lines = [self.line_about(each) for each in self.look().values()]
        lines.sort(key=lambda line: (-line["written"], line["path"]))
        return {"folder": path_text(self.root), "exists": self.root.is_dir(), "runs": lines}

    def line_about(self, found: Found) -> dict[str, Any]:
        """Return what the list says of a folder; files that have not changed are not read again."""
        stamps = stamps_of(found.folder)
        known = self.lines.get(found.path)
        if known is None or known[0] != stamps:
            self.lines[found.path] = known = stamps, line_of(found, stamps)
        return {**known[1], "silent": silence(known[1])}


def path_text(path: str | os.PathLike[str]) -> str:
    """Return a path as text, whatever bytes its names have."""
    return os.fsencode(path).decode("utf-8", "replace")


def silence(line: Mapping[str, Any]) -> int | None:
    """Return for how many minutes a run in progress has written nothing; None if that is not remarkable."""
    passed = time.time() - line["written"]
    return int(passed // 60) if line["status"] == "running" and passed >= SILENT else None


def stamps_of(folder: Path) -> Stamps:
    """Return sizes and times of a run's files."""
    stamps = {}
    for name in RUN_FILES:
        try:
            about = os.lstat(folder / name)
        except OSError:
            continue
        stamps[name] = about.st_size, about.st_mtime_ns, about.st_ino
    return stamps


def found_below(root: Path) -> Iterator[Found]:
    """Yield the runs below a folder, and the folders in it that have none."""
    if is_run(root):
        yield Found(".", root)
        return
    budget = [MOST_FOLDERS]
    for entry in folders_in(root):
        path = entry.name
        if entry.is_symlink():
            yield from linked(root, Path(entry.path), path)
            continue
        runs = list(runs_below(Path(entry.path), path, DEEPEST, budget))
        yield from runs
        if not runs and not path.startswith("."):  # such as .git
            yield Found(path, Path(entry.path), problem_of(Path(entry.path)))


def linked(root: Path, folder: Path, path: str) -> Iterator[Found]:
    """Yield a link that leads out of the folder of runs; what one within it leads to is shown where it is."""
    try:
        inside = folder.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        inside = False
    if not inside:
        yield Found(path, folder, "a link that leads out of the folder of runs: it is not followed")


def runs_below(folder: Path, path: str, depth: int, budget: list[int]) -> Iterator[Found]:
    """Yield a folder if it is a run, else the runs below it, without following links."""
    budget[0] -= 1
    if is_run(folder):
        yield Found(path, folder)
    elif depth and budget[0] > 0:
        for entry in folders_in(folder):
            if not entry.is_symlink():
                yield from runs_below(Path(entry.path), f"{path}/{entry.name}", depth - 1, budget)


def is_run(folder: Path) -> bool:
    """True if a folder has a file that runs write."""
    return any(os.path.lexists(folder / name) for name in MADE_BY_A_RUN)


def folders_in(folder: Path) -> list[os.DirEntry[str]]:
    """Return the folders in a folder, links to folders included, by name; none if it can't be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if is_folder(entry)), key=lambda entry: entry.name)
    except OSError:
        return []


def is_folder(entry: os.DirEntry[str]) -> bool:
    """True if an entry is a folder, or leads to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def problem_of(folder: Path) -> str:
    """Return why a folder without a run is not one."""
    try:
        empty = not any(folder.iterdir())
    except OSError as error:
        return f"can't be read: {error.strerror or error}"
    return "empty" if empty else f"not a run: it has no {RUN_FILE}"


def line_of(found: Found, stamps: Stamps) -> dict[str, Any]:
    """Return what the list says of a folder, from the ends of its logs."""
    newest = max((changed for _, changed, _ in stamps.values()), default=0) / 1e9
    line: dict[str, Any] = dict.fromkeys(("env", "algorithm", "steps", "total", "rate", "left", "score", "finding"))
    line |= {"path": url_path(found.path), "name": path_text(found.path), "problem": found.problem}
    line |= {"status": "unknown" if found.problem is None else "", "written": newest or written(found.folder)}
    if found.problem is not None:
        return line
    try:
        require_plausible(found.folder)
        about = read_run(found.folder)
        line |= settings_in_line(about)
    except DAMAGE as error:
        return {**line, "problem": damage_text(error)}
    for add in (add_progress, add_score, add_finding):
        try:
            add(line, found.folder, about)
        except DAMAGE:
            continue  # what is damaged is said on the run's page
    if line["status"] == "running" and line["total"] and line["rate"] and line["steps"] is not None:
        line["left"] = max(0.0, (line["total"] - line["steps"]) / line["rate"])
    return line


def damage_text(error: Exception) -> str:
    """Return why a folder can't be shown. What its reader did not expect is named with its kind."""
    return str(error) if isinstance(error, RunError) else f"can't be read: {type(error).__name__}: {one_line(error)}"


def written(folder: Path) -> float:
    """Return when a folder was changed, 0 if unknown."""
    try:
        return folder.lstat().st_mtime
    except OSError:
        return 0.0


def url_path(path: str) -> str:
    """Return a path for a URL: its bytes quoted, but for slashes."""
    return quote_from_bytes(os.fsencode(path))


def require_plausible(folder: Path) -> None:
    """Raise `RunError` if a run's JSON file is far larger than nexus writes it."""
    for name in (RUN_FILE, EVALUATION_FILE, FINDINGS_FILE):
        try:
            size = (folder / name).stat().st_size
        except OSError:
            continue
        if size > PLAUSIBLE:
            raise RunError(f"{name} has {size:,} bytes: at most {PLAUSIBLE:,} are plausible, so it is not read")


def settings_in_line(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was trained and how it ended."""
    config, progress = mapping_in(about, "config"), mapping_in(about, "progress")
    return {
        "env": str(about.get("env"))[:200],
        "algorithm": str(about.get("algorithm"))[:200],
        "status": str(about.get("status"))[:50],
        "steps": finite(progress.get("steps")),
        "total": finite(config.get("total_steps")),
    }


def mapping_in(about: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an entry of `run.json`, empty if it is not what it should be."""
    value = about.get(name)
    return value if isinstance(value, dict) else {}


def finite(value: Any) -> float | int | None:
    """Return a number, None for anything else."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None


def add_progress(line: dict[str, Any], folder: Path, about: Mapping[str, Any]) -> None:
    """Add how far the run is and how fast, from the ends of its logs."""
    lines = read_end(folder, METRICS_FILE, END)
    logged = [values for text in lines[-20:] if (values := scalars_in(text.decode("utf-8", "replace"))) is not None]
    ended = [text.partition(b",")[0] for text in read_end(folder, EPISODES_FILE, 4_096)[-1:]]
    steps = [values["step"] for values in logged] + [float(step) for step in ended if step.isdigit()]
    line["steps"] = max([*steps, line["steps"] or 0])
    line["rate"] = next(
        (rate for values in reversed(logged) if isfinite(rate := values.get("time/fps", float("nan")))), None
    )


def add_score(line: dict[str, Any], folder: Path, about: Mapping[str, Any]) -> None:
    """Add the final evaluation, or the last one in the log."""
    if os.path.lexists(folder / EVALUATION_FILE):
        final = read_json(file_in(folder, EVALUATION_FILE), must_carry=about["format"] > 1)
        mean, low, high = (finite(final[name]) for name in ("mean", "low", "high"))
        if None not in (mean, low, high):
            line["score"] = {"mean": mean, "low": low, "high": high}
            return
    for text in reversed(read_end(folder, METRICS_FILE, END)):
        if SCORE.encode() in text and (mean := finite(json.loads(text).get(SCORE))) is not None:
            line["score"] = {"mean": mean}
            return


def add_finding(line: dict[str, Any], folder: Path, about: Mapping[str, Any]) -> None:
    """Add the doctor's first finding that is more than a note."""
    if isinstance(about.get("divergence"), str):
        line["finding"] = f"critical: diverged: {about['divergence']}"[:300]
    elif os.path.lexists(folder / FINDINGS_FILE):
        found = read_json(file_in(folder, FINDINGS_FILE))
        alarms = [each for each in found["findings"] if each["severity"] != "note"]
        said = f"{alarms[0]['severity']}: {alarms[0]['check']}: {alarms[0]['text']}" if alarms else "none"
        line["finding"] = said[:300]
