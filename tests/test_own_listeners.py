"""Listeners that the command line names."""

from pathlib import Path

import pytest

from nexus.cli.main import main

QUICK = [
    *("--total-steps", "300", "--num-envs", "1", "--eval-episodes", "1", "--eval-every", "none"),
    *("--target-return", "none", "--checkpoint-every", "none", "--hidden-dim", "8", "--learning-starts", "50"),
]
MINE = """
import nexus
from nexus.core.period import Period


class Stops(nexus.Listener):
    every = Period.parse("50 steps")
    looks = 0

    def on_start(self, plan):
        self.live = plan.live

    def on_step(self, progress, episodes):
        self.looks += 1
        self.live.log({"mine/looks": self.looks})
        if progress.counters.steps == 100:
            self.live.stop("mine said so")

    def get_state(self):
        return {"looks": self.looks}

    def set_state(self, state):
        self.looks = state.get("looks", 0)


class Needs(nexus.Listener):
    def __init__(self, size):
        self.size = size


class Other:
    pass
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_of_this_test.py").write_text(MINE)
    return tmp_path


def test_a_listener_of_the_command_line_logs_stops_and_goes_on(here: Path) -> None:
    words = ["--listener", "mine_of_this_test:Stops"]
    assert main(["train", "CartPole-v1", *QUICK, "--run-dir", "run", *words]) == 0
    lines = (here / "run" / "metrics.jsonl").read_text()
    assert '{"step": 100, "mine/looks": 2}' in lines
    assert '"step": 300' not in lines
    assert main(["resume", "run", "--total-steps", "150", *words]) == 0
    assert '{"step": 150, "mine/looks": 3}' in (here / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Stops", "listener = 'Stops': needs module:Class, as in my_listeners:StopWhenGood"),
        ("mine_of_this_test:Stop", "there is no 'Stop' in 'mine_of_this_test'; did you mean Stops?"),
        ("not_there_at_all:Stops", "can't import module 'not_there_at_all'"),
        ("mine_of_this_test:Needs", "listener 'mine_of_this_test:Needs' can't be made without arguments: "),
        ("mine_of_this_test:Other", "listener 'mine_of_this_test:Other' makes a Other: needs a nexus.Listener"),
    ],
)
def test_a_listener_that_can_not_be_made_is_one_line(
    name: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "CartPole-v1", *QUICK, "--run-dir", "run", "--listener", name]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (here / "run").exists()


def test_a_tracker_that_is_not_there_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "CartPole-v1", *QUICK, "--run-dir", "run", "--track", "wanb"]) == 2
    assert "wandb" in capsys.readouterr().err
    assert not (here / "run").exists()
