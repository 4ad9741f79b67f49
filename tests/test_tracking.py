"""Trackers: the packages themselves, offline, hold the numbers of `metrics.jsonl`."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

import nexus
from nexus.core.errors import ConfigError, NexusError
from nexus.core.names import TrackerName
from nexus.listener import Listeners, Plan
from nexus.tracking import TRACKERS, Tracker, tracker
from nexus.training.config import TrainConfig
from tests.chaos import SETTINGS, Silent, interrupt, interrupted, match_reward

Lines = dict[int, dict[str, float]]  # by step

CONFIG = TrainConfig.from_mapping(
    SETTINGS | {"total_steps": 300, "eval_every": "140 steps", "checkpoint_every": "100 steps"}
)


def written(run: Path) -> Lines:
    """The lines of `metrics.jsonl`, those of one step as one."""
    found: Lines = {}
    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        found.setdefault(line.pop("step"), {}).update(line)
    return found


def records_of(path: Path) -> Iterator[bytes]:
    """The records of a `.wandb` file: a header of 7 bytes, then LevelDB's log format in blocks of 32 KiB."""
    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := -at % 32_768) and left < 7:  # padding at the end of a block
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def wandb_lines(folder: Path) -> Iterator[tuple[int, str, float]]:
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # its process writes the file to the end
    (path,) = folder.rglob("run-*.wandb")
    for data in records_of(path):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            step = record.history.step.num
            yield from ((step, name, value) for name, value in items.items() if not name.startswith("_"))


def mlflow_lines() -> Iterator[tuple[int, str, float]]:
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("nexus")
    for run in client.search_runs([experiment.experiment_id]):
        for name in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, name):
                yield metric.step, name, metric.value


def trackio_lines(folder: Path) -> Iterator[tuple[int, str, float]]:
    with sqlite3.connect(folder / "nexus.db") as database:
        for step, text in database.execute("select step, metrics from metrics"):
            yield from ((step, name, value) for name, value in json.loads(text).items())


def tracked(name: str, folder: Path) -> Lines:
    """What a package has, by its own files."""
    if name == "wandb":
        lines = wandb_lines(folder / "run")
    else:
        lines = mlflow_lines() if name == "mlflow" else trackio_lines(folder / "trackio")
    found: Lines = {}
    for step, key, value in lines:
        found.setdefault(step, {})[key] = value
    return found


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlflow'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_tracker_holds_the_numbers_of_the_log(name: str, offline: Path) -> None:
    pytest.importorskip(name)
    mine = tracker(name)
    nexus.train(match_reward, config=CONFIG, run_dir=offline / "run", listener=Listeners(mine, Silent()))
    assert mine.service is not None  # it never failed
    expected = written(offline / "run")
    assert len(expected) > 3
    assert {"train/loss", "eval/mean_reward"} <= {key for line in expected.values() for key in line}
    found = tracked(name, offline)
    assert found.keys() == expected.keys()
    for step, values in expected.items():
        assert found[step] == pytest.approx(values), step


class Notes:
    """A service that writes down what it is asked."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.calls: list[Any] = []

    def start(self, plan: Plan, run: str | None) -> str:
        self.calls.append(("start", run))
        return "seventh" if run is None else run

    def log(self, steps: int, values: Mapping[str, float]) -> None:
        if steps == self.fails_at:
            raise ConnectionError("no such\nhost")
        self.calls.append(steps)

    def finish(self, status: str) -> None:
        self.calls.append(("finish", status))


def test_a_resumed_run_goes_on_in_the_tracked_one(tmp_path: Path) -> None:
    first, second = Notes(), Notes()
    stop = Listeners(Tracker("notes", first), Silent(210, interrupt))
    interrupted(lambda: nexus.train(match_reward, config=CONFIG, run_dir=tmp_path / "run", listener=stop))
    nexus.resume(tmp_path / "run", env=match_reward, listener=Listeners(Tracker("notes", second), Silent()))
    assert first.calls[0] == ("start", None)
    assert first.calls[-1] == ("finish", "interrupted")
    assert second.calls[0] == ("start", "seventh")
    assert second.calls[-1] == ("finish", "finished")


def test_a_tracker_that_fails_says_so_once_and_the_run_goes_on(tmp_path: Path) -> None:
    notes = Notes(fails_at=140)
    silent = Silent()
    listener = Listeners(Tracker("notes", notes), silent)
    result = nexus.train(match_reward, config=CONFIG, run_dir=tmp_path / "run", listener=listener)
    assert silent.notices == ["notes failed (no such host); the run continues without it"]
    assert result.counters.steps == 300
    assert notes.calls[0] == ("start", None)
    assert max(step for step in notes.calls[1:]) < 140


def test_the_command_line_offers_every_tracker() -> None:
    assert get_args(TrackerName) == tuple(TRACKERS)


def test_a_name_that_is_not_there_and_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"^track = 'wanb': needs one of wandb, mlflow, trackio; did you mean wandb\?$"
    ):
        tracker("wanb")
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(NexusError, match=r"^wandb is not installed; get it with: .*\[wandb\]"):
        tracker("wandb")
