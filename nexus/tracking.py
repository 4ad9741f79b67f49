"""Trackers as listeners: the scalars of `metrics.jsonl` in Weights & Biases, MLflow or Trackio.

Each package is an extra, imported when its tracker is made. Where the numbers go (a server, a
local folder, offline) is configured as the package documents.
"""

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from math import isfinite
from typing import Any, Protocol

from nexus.core.errors import ConfigError, NexusError, nearest, one_line
from nexus.core.installation import not_installed
from nexus.core.state import State, value_from
from nexus.listener import Listener, Plan

__all__ = ["TRACKERS", "MLflow", "Service", "Tracker", "Trackio", "WandB", "tracker"]

STATUS = {"finished": "FINISHED", "interrupted": "KILLED"}  # MLflow's names; any other status is FAILED
LONGEST_SETTING = 500  # characters of a setting; older MLflow servers accept no more


class Service(Protocol):
    """The interface that a tracker needs from a tracking package."""

    def start(self, plan: Plan, run: str | None) -> str:
        """Begin a run for this plan, or continue the one with this id; return its id."""

    def log(self, steps: int, values: Mapping[str, float]) -> None:
        """Send numbers at a step."""

    def finish(self, status: str) -> None:
        """End the run: `finished`, `interrupted`, `failed` or `diverged`."""


class Tracker(Listener):
    """Sends each line of scalars to a tracking package.

    A failure there never ends the training: it is reported once, and the run continues without the tracker. A resumed
    run continues the tracked run; the lines since its checkpoint, which it repeats, then appear twice or, if the
    package accepts only increasing steps, as first sent.

    Args:
        name: the package's name, for messages.
        service: the package.
    """

    def __init__(self, name: str, service: Service) -> None:
        self.name = name
        self.service: Service | None = service
        self.run: str | None = None
        self.notice: Callable[[str], None] = super().on_notice

    def on_start(self, plan: Plan) -> None:
        """Begin or continue the tracked run."""
        if plan.live is not None:
            self.notice = plan.live.notice
        self.run = self._asked(lambda service: service.start(plan, self.run))

    def on_scalars(self, steps: int, values: Mapping[str, float]) -> None:
        """Send a line."""
        finite = {name: value for name, value in values.items() if isfinite(value)}
        self._asked(lambda service: service.log(steps, finite))

    def on_end(self, status: str) -> None:
        """End the tracked run."""
        self._asked(lambda service: service.finish(status))

    def on_notice(self, text: str) -> None:
        """Leave notices to other listeners."""

    def get_state(self) -> State:
        """Return the id of the tracked run."""
        return {"run": self.run}

    def set_state(self, state: State) -> None:
        """Continue the tracked run that a checkpoint names."""
        self.run = None if state.get("run") is None else value_from(state, "run", str)

    def _asked(self, ask: Callable[[Service], Any]) -> Any:
        """Return the service's answer; after its first failure it is not called again."""
        if self.service is None:
            return self.run
        try:
            return ask(self.service)
        except Exception as error:
            self.service = None
            self.notice(f"{self.name} failed ({one_line(error)}); the run continues without it")
            return self.run


class WandB:
    """Weights & Biases (https://docs.wandb.ai). `WANDB_MODE=offline` writes files that `wandb sync` sends later.

    Args:
        project: the project that runs are listed under.
    """

    def __init__(self, project: str) -> None:
        self.project = project
        self.run: Any = None

    def start(self, plan: Plan, run: str | None) -> str:
        """Begin or continue a run, with its files in the run's folder."""
        wandb = import_tracker("wandb")
        self.run = wandb.init(
            project=self.project,
            name=plan.run_dir.name,
            config=settings_of(plan),
            dir=str(plan.run_dir),
            id=run,
            resume=None if run is None else "allow",
        )
        return str(self.run.id)

    def log(self, steps: int, values: Mapping[str, float]) -> None:
        """Send numbers."""
        self.run.log(dict(values), step=steps)

    def finish(self, status: str) -> None:
        """End the run, and wait until all is sent."""
        self.run.finish(exit_code=0 if status in ("finished", "interrupted") else 1)


class MLflow:
    """MLflow (https://mlflow.org/docs/latest). `MLFLOW_TRACKING_URI` names the server or the folder.

    Args:
        project: the experiment that runs are listed under.
    """

    def __init__(self, project: str) -> None:
        self.project = project
        self.run = ""
        self.client: Any = None

    def start(self, plan: Plan, run: str | None) -> str:
        """Begin or continue a run."""
        mlflow = import_tracker("mlflow")
        self.client = mlflow.MlflowClient()
        if run is not None:
            self.run = run
            self.client.update_run(run, status="RUNNING")
            return run
        experiment = self.client.get_experiment_by_name(self.project)
        number = self.client.create_experiment(self.project) if experiment is None else experiment.experiment_id
        self.run = self.client.create_run(number, run_name=plan.run_dir.name).info.run_id
        settings = [
            mlflow.entities.Param(key, str(value)[:LONGEST_SETTING]) for key, value in settings_of(plan).items()
        ]
        for first in range(0, len(settings), 100):  # the most that one request may have
            self.client.log_batch(self.run, params=settings[first : first + 100])
        return self.run

    def log(self, steps: int, values: Mapping[str, float]) -> None:
        """Send numbers."""
        entities, now = import_tracker("mlflow.entities"), int(1000 * time.time())
        metrics = [entities.Metric(name, value, now, steps) for name, value in values.items()]
        self.client.log_batch(self.run, metrics=metrics)

    def finish(self, status: str) -> None:
        """End the run."""
        self.client.set_terminated(self.run, STATUS.get(status, "FAILED"))


class Trackio:
    """Trackio (https://github.com/gradio-app/trackio): a local database, and a page that `trackio show` opens.

    Args:
        project: the project that runs are listed under.
    """

    def __init__(self, project: str) -> None:
        self.project = project
        self.run: Any = None

    def start(self, plan: Plan, run: str | None) -> str:
        """Begin or continue a run; Trackio identifies runs by name."""
        name = plan.run_dir.name if run is None else run
        self.run = import_tracker("trackio").init(
            project=self.project,
            name=name,
            config=settings_of(plan),
            resume="never" if run is None else "allow",
            embed=False,  # no picture in a notebook
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return str(self.run.name)

    def log(self, steps: int, values: Mapping[str, float]) -> None:
        """Send numbers."""
        self.run.log(dict(values), step=steps)

    def finish(self, status: str) -> None:
        """End the run."""
        self.run.finish()


TRACKERS: Mapping[str, Callable[[str], Service]] = {"wandb": WandB, "mlflow": MLflow, "trackio": Trackio}
"""The trackers by their `--track` names."""


def tracker(name: str, project: str = "nexus") -> Tracker:
    """Return a listener that sends a run's numbers to a tracking package.

    Args:
        name: `wandb`, `mlflow` or `trackio`.
        project: the project that runs are listed under.

    Raises:
        ConfigError: there is no tracker of this name.
        NexusError: the package is not installed; the message gives the command that installs it.
    """
    if name not in TRACKERS:
        raise ConfigError(f"track = {name!r}: needs one of {', '.join(TRACKERS)}{nearest(name, TRACKERS)}")
    import_tracker(name)  # now, before the run starts writing its folder
    return Tracker(name, TRACKERS[name](project))


def settings_of(plan: Plan) -> dict[str, Any]:
    """Return the description of a tracked run."""
    return {"env": plan.env, "preset": plan.preset, **plan.config.to_mapping()}


def import_tracker(module: str) -> Any:
    """Import a tracking package.

    Raises:
        NexusError: it is not installed; the message gives the command that installs it.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ImportError:
        raise NexusError(not_installed(package, package)) from None
