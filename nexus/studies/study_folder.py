"""The folder of a study: its runs, what it asks, and why runs failed.

study.json     what is asked: environment, preset, settings, varied settings, seeds, versions
failures.json  the error of each run that failed
NAME/          a run, as `nexus train` writes it
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from nexus.core.checked import config_text
from nexus.core.errors import RunError
from nexus.core.names import current_names
from nexus.studies.plan import PlannedRun, StudyPlan
from nexus.training.checkpoint_writer import Checkpoints
from nexus.training.files import file_in, read_json, remove, write_json
from nexus.training.run_folder import LOCK_FILE, RUN_FILE, read_run, versions

__all__ = [
    "STUDY_FILE",
    "Failures",
    "RunState",
    "plan_in",
    "read_failures",
    "read_plan",
    "require_study_folder",
    "state_of_run",
    "usual_folder",
    "write_failures",
    "write_plan",
]

RunState: TypeAlias = Literal["left", "begun", "running", "finished", "failed"]
Failures: TypeAlias = Mapping[str, str]
"""The error of each run that failed, by the run's name."""

STUDY_FILE, FAILURES_FILE = "study.json", "failures.json"
STUDY_FORMAT = 1
OF_PLAN = ("env", "preset", "settings", "vary", "seeds")
# Settings that differ from the planned ones without the run being another one: `resume` can change them, or they are
# completed when the environment is known.
MAY_DIFFER = frozenset({"total_steps", "on_divergence", "device", "target_return", "doctor", "channels"})


def usual_folder(plan: StudyPlan) -> Path:
    """Return the folder of a study that names none; the same command gives the same one."""
    name = "-".join([plan.env.replace("/", "_").replace(":", "_"), *plan.vary])
    return Path("studies", name)


def plan_in(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the entries of a study file by name, those that are there.

    Raises:
        RunError: an entry has the wrong type, is unknown, or the format is newer.
    """
    found = values.get("format", STUDY_FORMAT)
    if not isinstance(found, int) or found > STUDY_FORMAT:
        raise RunError(f"{path} has format {found}, this nexus reads up to {STUDY_FORMAT}: update nexus")
    for name in values:
        if name not in (*OF_PLAN, "format", "versions", "sha256"):
            raise RunError(f"{path} has an entry {name!r}: a study has {', '.join(OF_PLAN)}; settings go into settings")
    for name, kind, needs in (
        ("env", str, "text"),
        ("preset", str | None, "text or null"),
        ("settings", dict, "an object"),
        ("vary", dict, "an object with a list for each setting"),
        ("seeds", int | list | str, "a number or a list"),
    ):
        if name in values and (not isinstance(values[name], kind) or isinstance(values[name], bool)):
            raise RunError(f"{path} has {name} = {config_text(values[name])}: needs {needs}")
    return {name: values[name] for name in OF_PLAN if name in values}


def read_plan(folder: Path) -> StudyPlan | None:
    """Return what the study in a folder asks, None if there is none.

    Raises:
        RunError: it is damaged, or of a newer format.
    """
    if not (folder / STUDY_FILE).exists():
        return None
    path = file_in(folder, STUDY_FILE)
    entries = plan_in(read_json(path), path)
    match entries:
        case {"env": str(env), "settings": dict(settings), "vary": dict(vary), "seeds": list(seeds)} if seeds and all(
            isinstance(values, list) for values in vary.values()
        ):
            named = {name: tuple(values) for name, values in current_names(vary).items()}
            return StudyPlan(env, tuple(seeds), named, current_names(settings), entries.get("preset"))
    raise RunError(f"{path} is incomplete: it lacks the environment, the settings or the seeds")


def write_plan(folder: Path, plan: StudyPlan) -> None:
    """Write `study.json`, unless it says the same already."""
    if read_plan(folder) != plan:
        write_json(folder / STUDY_FILE, {"format": STUDY_FORMAT, **plan.to_mapping(), "versions": versions()})


def require_study_folder(folder: Path) -> None:
    """Raise `RunError` unless a folder is new, empty or has a study."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: a study needs a folder")
    if not folder.exists() or (folder / STUDY_FILE).exists():
        return
    if {entry.name for entry in folder.iterdir()} - {LOCK_FILE, f"{STUDY_FILE}.tmp"}:
        raise RunError(f"{folder} is not empty and has no study: name a new folder with --folder")


def read_failures(folder: Path) -> dict[str, str]:
    """Return the error of each run that failed, by name; those of a damaged file are not known."""
    try:
        values = read_json(file_in(folder, FAILURES_FILE))
    except RunError:
        return {}
    failed = values.get("failed")
    return {str(name): str(line) for name, line in failed.items()} if isinstance(failed, dict) else {}


def write_failures(folder: Path, failed: Failures) -> None:
    """Write the errors of the runs that failed; no file if there are none."""
    if failed:
        write_json(folder / FAILURES_FILE, {"format": STUDY_FORMAT, "failed": dict(failed)})
    else:
        remove(folder / FAILURES_FILE)


def state_of_run(folder: Path, run: PlannedRun, failed: Failures) -> tuple[RunState, str, int]:
    """Return how a run of a study stands: its state, its error if it failed, and the steps that are saved.

    Raises:
        RunError: the folder of that name has another run.
    """
    path = folder / run.name
    if not (path / RUN_FILE).exists():
        return ("failed", failed[run.name], 0) if run.name in failed else ("left", "", 0)
    try:
        about = read_run(path)
    except RunError as error:
        return "failed", str(error), 0
    require_planned(about, run, path)
    progress, status = about.get("progress"), about.get("status")
    steps = progress.get("steps") if isinstance(progress, Mapping) else None
    if status == "finished":
        return "finished", "", steps if isinstance(steps, int) else 0
    done = next(iter(Checkpoints(path, keep=1).present()), 0)  # where it would go on
    if run.name in failed or status in ("failed", "diverged"):
        known = failed.get(run.name) or about.get("divergence") or f"its {RUN_FILE} says that it {status}"
        return "failed", str(known), done
    return "begun", "", done


def require_planned(about: Mapping[str, Any], run: PlannedRun, path: Path) -> None:
    """Raise `RunError` if a folder has a run with other settings than the planned one."""
    config = about.get("config")
    there = current_names(config) if isinstance(config, Mapping) else {}
    for name, planned in run.config.to_mapping().items():
        if name in there and name not in MAY_DIFFER and there[name] != planned:
            raise RunError(
                f"{path} has another run than the study's: its {name} is {config_text(there[name])}, not "
                f"{config_text(planned)}; move it away, or name another folder with --folder"
            )
