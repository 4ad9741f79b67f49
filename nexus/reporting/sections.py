"""The text of a page: what it says of each run, and the table that compares several."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nexus.core.checked import config_text
from nexus.core.figures import figures
from nexus.doctor.diagnosis import Diagnosis
from nexus.reporting.reading import RunContents
from nexus.reporting.repeating import command_to_repeat, limits_of_command
from nexus.training.config import TrainConfig
from nexus.training.curves import ScoredRun, is_number
from nexus.training.edited import named_now

__all__ = ["ComparedRun", "ScoreTable", "SectionsOfRun", "scores_of", "sections_of"]

LONGEST_TEXT = 300  # characters of a value
STATUS_TEXTS = {
    "running": "running, or killed",
    "finished": "finished",
    "interrupted": "interrupted",
    "failed": "failed with an error",
    "diverged": "diverged",
}
UNKNOWN = "unknown"


@dataclass(frozen=True)
class SectionsOfRun:
    """What a page says of one run.

    Args:
        name: what the run is called on the page.
        title: environment and algorithm.
        facts: what and how long was trained, as pairs of a label and a text.
        remarks: what is missing or damaged.
        score: the score with its interval; None if the run was never evaluated.
        score_facts: what the score is of, and how it was played.
        diagnosis: the doctor's; None if it could not judge.
        changed: settings that differ from the defaults: name, value, default.
        usual: the other settings: name and value.
        command: trains the same again; None if no command can.
        limits: what the command does not repeat.
        versions: names and versions of what the run was trained with.
    """

    name: str
    title: str
    facts: Sequence[tuple[str, str]]
    remarks: Sequence[str]
    score: str | None
    score_facts: Sequence[tuple[str, str]]
    diagnosis: Diagnosis | None
    changed: Sequence[tuple[str, str, str]]
    usual: Sequence[tuple[str, str]]
    command: str | None
    limits: Sequence[str]
    versions: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ComparedRun:
    """A row of the table of scores; `run` is the run's place on the page."""

    run: int
    name: str
    differing: Sequence[str]
    seed: str
    status: str
    steps: str
    score: str
    interval: str
    episodes: str
    best: str
    finding: str


@dataclass(frozen=True)
class ScoreTable:
    """The runs of one environment: the settings in which they differ, how they were evaluated, and their scores."""

    env: str
    differing: Sequence[str]
    protocol: str | None
    rows: Sequence[ComparedRun]


def sections_of(run: RunContents) -> SectionsOfRun:
    """Return what a page says of a run."""
    about = run.about
    changed, usual = settings_said(run)
    score, score_facts = score_said(run)
    versions = about.get("versions")
    return SectionsOfRun(
        run.name,
        f"{run.scored.env}, {about.get('algorithm') or UNKNOWN}",
        facts_of(run),
        run.remarks,
        score,
        score_facts,
        run.diagnosis,
        changed,
        usual,
        command_to_repeat(about, run.config, run.folder),
        list(limits_of_command(about)),
        [(str(name), str(value)) for name, value in versions.items()] if isinstance(versions, Mapping) else [],
    )


def facts_of(run: RunContents) -> list[tuple[str, str]]:
    """Return what and how long was trained."""
    about, progress = run.about, run.about.get("progress")
    progress = progress if isinstance(progress, Mapping) else {}
    episodes, updates = run.scored.episodes, run.scalars.get("train/n_updates")
    total = "" if run.config is None else f" of {run.config.total_steps:,}"
    facts = [
        ("status", status_of(run)),
        ("steps", f"{counted(steps_of_run(run))}{total}"),
        ("seed", UNKNOWN if run.scored.seed is None else str(run.scored.seed)),
        ("episodes", counted(latest(progress.get("episodes"), episodes["episode"][-1:]))),
        ("updates", counted(latest(progress.get("updates"), updates.values[-1:] if updates else ()))),
        ("time", f"{counted(latest(about.get('seconds'), episodes['seconds'][-1:]))} s"),
    ]
    if about.get("rollbacks"):
        facts.append(("rollbacks", counted(about["rollbacks"])))
    if isinstance(about.get("divergence"), str):
        facts.append(("divergence", about["divergence"]))
    return [*facts, ("folder", str(run.folder))]


def status_of(run: RunContents) -> str:
    """Return how the run ended, if it did."""
    status = run.about.get("status")
    return STATUS_TEXTS.get(status, UNKNOWN) if isinstance(status, str) else UNKNOWN


def steps_of_run(run: RunContents) -> float | None:
    """Return the last step known."""
    logged = [series.steps[-1] for series in run.scalars.values()]
    return latest(run.scored.end.get("step"), [*logged, *run.scored.episodes["step"][-1:]])


def latest(said: Any, logged: Iterable[float]) -> float | None:
    """Return the larger of what `run.json` says and what was logged: a run in progress rewrites only its logs."""
    known = [value for value in (said, *logged) if is_number(value)]
    return max(known, default=None)


def counted(value: Any) -> str:
    """Return a number for reading."""
    return f"{value:,.0f}" if isinstance(value, int | float) and not isinstance(value, bool) else UNKNOWN


def score_said(run: RunContents) -> tuple[str | None, list[tuple[str, str]]]:
    """Return the score with its interval, and what it is of; None without any evaluation.

    The score is that of the final weights if they were evaluated, else the last one during training.
    """
    scores, final = run.scored.scores, run.evaluation
    facts: list[tuple[str, str]] = []
    if final is not None:
        mean, low, high, std = figures(final.mean, final.low, final.high, final.std)
        said = f"{mean} (95 % interval {low} to {high})"
        facts = [
            (
                "of",
                "the final weights" if run.scored.finished else "the weights of the end of an earlier part of the run",
            ),
            ("returns", f"{final.episodes:,} episodes, standard deviation {std}{final.said_of_cuts}"),
            ("protocol", str(final.protocol)),
        ]
    elif scores:
        step = max(scores)
        mean, low, high = figures(*scores[step])
        said = f"{mean} (95 % interval {low} to {high})"
        episodes = run.scored.settings.get("eval_episodes")
        facts = [
            ("of", f"the last evaluation during training, at step {step:,.0f}: the final weights have none"),
            ("protocol", f"{counted(episodes)} full episodes, as the settings say"),
        ]
    else:
        return None, []
    if len(scores) > 1:
        facts.append(("best", best_said(run)))
    return said, facts


def best_said(run: RunContents) -> str:
    """Return the best evaluation and its step, or nothing."""
    scores = run.scored.scores
    if not scores:
        return "–"
    best = max(scores, key=lambda step: scores[step][0])
    return f"{figures(scores[best][0])[0]} at step {best:,.0f}"


def settings_said(run: RunContents) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    """Return the settings that differ from the defaults, and the others."""
    stored = run.about.get("config")
    settings = (
        run.config.to_mapping() if run.config is not None else named_now(stored) if isinstance(stored, dict) else {}
    )
    usual = TrainConfig().to_mapping()
    changed = [
        (name, value_said(value), value_said(usual[name]) if name in usual else "–")
        for name, value in settings.items()
        if name not in usual or usual[name] != value
    ]
    names = {name for name, _, _ in changed}
    return changed, [(name, value_said(value)) for name, value in settings.items() if name not in names]


def value_said(value: Any) -> str:
    """Return a setting's value as in a config file."""
    text = value if isinstance(value, str) and value else config_text(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def scores_of(env: str, runs: Mapping[int, RunContents]) -> ScoreTable:
    """Return the table that compares the runs of one environment, by their places on the page."""
    scored = [run.scored for run in runs.values()]
    keys = sorted({key for run in scored for key in run.settings} - {"run"})
    differing = [key for key in keys if len({repr(run.settings.get(key)) for run in scored}) > 1]
    rows = [
        ComparedRun(
            place,
            run.name,
            [value_said(run.scored.settings.get(key)) for key in differing],
            UNKNOWN if run.scored.seed is None else str(run.scored.seed),
            status_of(run),
            counted(steps_of_run(run)),
            *score_in_row(run),
            best_said(run),
            finding_in_row(run.diagnosis),
        )
        for place, run in runs.items()
    ]
    return ScoreTable(env, differing, shared_protocol(scored), rows)


def score_in_row(run: RunContents) -> tuple[str, str, str]:
    """Return mean, interval and number of episodes of the score."""
    if run.evaluation is not None:
        mean, low, high = figures(run.evaluation.mean, run.evaluation.low, run.evaluation.high)
        return mean, f"{low} to {high}", counted(run.evaluation.episodes)
    if run.scored.scores:
        step = max(run.scored.scores)
        mean, low, high = figures(*run.scored.scores[step])
        return f"{mean} at step {step:,.0f}", f"{low} to {high}", counted(run.scored.settings.get("eval_episodes"))
    return "not evaluated", "–", "–"


def finding_in_row(diagnosis: Diagnosis | None) -> str:
    """Return the doctor's finding in a few words."""
    if diagnosis is None:
        return UNKNOWN
    return "none" if diagnosis.root is None else f"{diagnosis.root.severity}: {diagnosis.root.check}"


def shared_protocol(runs: Iterable[ScoredRun]) -> str | None:
    """Return how all runs were evaluated; None if none was."""
    protocol = next((run.evaluated for run in runs if run.evaluated is not None), None)
    if protocol is None:
        return None
    policy = "greedy" if protocol["epsilon"] == 0 else f"ε = {protocol['epsilon']:g}"
    name = protocol.get("name")
    return policy if name is None else f"protocol {name}, {policy}"
