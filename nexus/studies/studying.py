"""A study, from what is asked to the runs in its folder."""

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nexus.core.checked import convert
from nexus.core.errors import ConfigError, NexusError, RunError, interrupted
from nexus.core.installation import nexus_command
from nexus.core.names import current_names
from nexus.parts import Parts
from nexus.pitfalls.running import usable_cores
from nexus.studies.crew import Crew, StudyRun, StudyView
from nexus.studies.plan import StudyPlan, plan_of, planned_runs, said_with_setting, setting_label
from nexus.studies.processes import RunPlace, ThisMachine
from nexus.studies.study_folder import (
    STUDY_FILE,
    read_failures,
    read_plan,
    require_study_folder,
    state_of_run,
    usual_folder,
    write_failures,
    write_plan,
)
from nexus.training.run_folder import locked
from nexus.training.signals import stop_requests

__all__ = ["StudyResult", "asked_of", "carried_out", "command_to_go_on", "study"]


@dataclass(frozen=True)
class StudyResult:
    """The outcome of a study.

    Args:
        folder: its folder.
        runs: its runs in their order.
        stopped_by: the signal that stopped it; None if it came to its end.
    """

    folder: Path
    runs: Sequence[StudyRun]
    stopped_by: signal.Signals | None = None

    @property
    def failed(self) -> list[StudyRun]:
        """The runs that failed."""
        return [run for run in self.runs if run.state == "failed"]

    @property
    def exit_code(self) -> int:
        """0; 1 if a run failed; the shell's exit code for a signal."""
        return int(bool(self.failed)) if self.stopped_by is None else 128 + self.stopped_by


def study(
    env: str | None = None,
    *,
    seeds: int | str | Sequence[int] | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None,
    folder: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    retry_failed: bool = False,
    preset: str | None = None,
    verbose: bool | None = None,
    **settings: Any,
) -> StudyResult:
    """Train with every combination of some settings on several seeds, in processes.

    Each run is an ordinary one, with the same bits as by `train`. Called again, a study goes on: finished runs stay,
    those that were stopped or killed resume exactly where they were, and seeds and values that are new are added.

    Args:
        env: a Gymnasium id or a `module:Id`; None goes on with the study in `folder`.
        seeds: their number, from 0 on, or the seeds themselves; None for ten, or those of the study in `folder`.
        vary: the values of each varied setting; the runs have all combinations.
        folder: of the study; None for one below `studies/`, named by the environment and the varied settings.
        jobs: runs at the same time; None for one per core. Their results don't depend on it.
        retry_failed: whether to try failed runs again.
        preset: as in `train`.
        verbose: whether to show how it stands; None shows it in a terminal.
        settings: of all runs: any field of `TrainConfig` but the seed.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM stopped it. Everything is saved; the same call goes on. The exception's
            `result` is the usual return value.
        ConfigError: a combination of settings or the environment can't be used, or contradicts the study in the folder.
            Nothing was written then.
        RunError: the folder can't be used, or another study runs in it.
    """
    from nexus.cli.study_view import study_view  # imports rich

    where = None if folder is None else Path(folder)
    asked = asked_of(env, seeds, vary, where, preset, settings)
    with study_view(verbose) as view:
        result = carried_out(asked, where, jobs, retry_failed, view)
    if result.stopped_by is not None:
        raise interrupted(f"stopped and saved: {command_to_go_on(result.folder)} goes on", result)
    return result


def asked_of(
    env: Any,
    seeds: Any,
    vary: Mapping[str, Any] | None,
    folder: Path | None,
    preset: str | None,
    settings: Mapping[str, Any],
) -> StudyPlan:
    """Return what is asked, with what the folder's study has where nothing is said.

    Raises:
        ConfigError: as in `plan_of`; there is neither an environment nor a study.
    """
    there = None if folder is None else read_plan(folder)
    if env is None and folder is not None:
        if there is None:
            raise ConfigError(f"{folder} has no {STUDY_FILE}: name an environment, as in: nexus study CartPole-v1")
        vary = {**there.vary, **current_names(vary or {})}
        settings = {**there.settings, **current_names(settings)}
        env, preset = there.env, there.preset if preset is None else preset
    plan = plan_of(env, seeds, vary, settings, preset)
    if seeds is None:
        there = read_plan(usual_folder(plan) if folder is None else folder)
    return plan if seeds is not None or there is None else replace(plan, seeds=there.seeds)


def carried_out(
    asked: StudyPlan,
    folder: Path | None,
    jobs: int | None,
    retry_failed: bool,
    view: StudyView,
    place: RunPlace | None = None,
) -> StudyResult:
    """Do the work of `study`, and return the result even if a signal stopped it.

    Args:
        asked: what is asked in this call.
        folder: as in `study`.
        jobs: as in `study`.
        retry_failed: as in `study`.
        view: shows how it stands.
        place: where the runs run; None for this machine.
    """
    count = usable_cores() if jobs is None else convert("jobs", jobs, int)
    if count < 1:
        raise ConfigError(f"jobs = {count}: needs at least 1")
    where = usual_folder(asked) if folder is None else folder
    require_study_folder(where)
    there = read_plan(where)
    plan = asked if there is None else there.with_more(asked, str(where))
    require_usable_settings(plan, where)
    with ExitStack() as stack:
        try:
            where.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"can't write a study to {where}: {error.strerror or error}") from None
        stack.enter_context(locked(where))
        if read_plan(where) != there:
            raise RunError(f"another study was begun in {where} just now: start this one again")
        write_plan(where, plan)
        runs = runs_of(plan, where, retry_failed)
        failed = {run.name: run.error for run in runs if run.state == "failed"}

        def keep(run: StudyRun) -> None:
            known = dict(failed)
            failed.pop(run.name, None)
            if run.state == "failed":
                failed[run.name] = run.error
            if failed != known:
                write_failures(where, failed)

        if retry_failed:
            write_failures(where, failed)
        crew = Crew(plan.env, runs, count, ThisMachine() if place is None else place, view, keep)
        view.on_begin(crew.progress(), where, crew.jobs)
        with stop_requests() as stop:
            crew.work(stop)
    return StudyResult(where, runs, stop.signal)


def runs_of(plan: StudyPlan, folder: Path, retry_failed: bool = False) -> list[StudyRun]:
    """Return the runs of a study and how they stand.

    Raises:
        ConfigError: a combination of settings can't be used any more.
        RunError: a folder has another run.
    """
    known = read_failures(folder)
    runs = []
    for planned in planned_runs(plan):
        state, error, steps = state_of_run(folder, planned, known)
        if state == "failed" and retry_failed:
            state, error = "begun", ""
        runs.append(StudyRun(planned, folder / planned.name, state, error, steps))
    return runs


def require_usable_settings(plan: StudyPlan, folder: Path) -> None:
    """Build the parts of a run for each combination of settings that is still to run, so that none fails at once.

    Raises:
        NexusError: the environment or a setting can't be used; the message says with which combination.
    """
    tried: set[str] = set()
    for run in runs_of(plan, folder):
        label = setting_label(run.planned.values)
        if run.state not in ("left", "begun") or label in tried:
            continue
        tried.add(label)
        try:
            with ExitStack() as stack:
                Parts(plan.env, run.planned.config, stack)
        except NexusError as error:
            raise type(error)(said_with_setting(str(error), run.planned.values)) from None


def command_to_go_on(folder: Path) -> str:
    """Return the command that goes on with a study."""
    return nexus_command("study", "--folder", str(folder))
