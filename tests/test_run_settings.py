"""Settings of a run's environment and evaluations, from the flag to the files that they leave."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import nexus
from nexus.cli.main import main
from nexus.cli.progress import TrainView
from nexus.core.errors import ConfigError
from nexus.listener import Listener
from tests.test_long_evaluations import Sometimes

TINY = ["--total-steps", "1100", "--hidden-dim", "8", "--eval-episodes", "4"]


def about(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "run.json").read_text())
    return read


def test_a_lake_that_does_not_slip_is_trained_and_evaluated_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[dict[str, Any]] = []
    make = gym.make

    def noted(*given: Any, **settings: Any) -> Any:
        made.append({name: value for name, value in settings.items() if name in ("is_slippery", "map_name")})
        return make(*given, **settings)

    monkeypatch.setattr(gym, "make", noted)
    run, again = tmp_path / "run", tmp_path / "again"
    words = ["train", "FrozenLake-v1", "--env-kwargs", "is_slippery=False", "map_name=8x8", *TINY]
    assert main([*words, "--run-dir", str(run)]) == 0
    said = capsys.readouterr().out
    said += " ".join(said.split())
    assert "FrozenLake-v1, is_slippery=False, map_name=8x8, 8 in parallel, 4 actions" in said
    assert "is_slippery=False, map_name=8x8\n" in said.partition("Protocol: ")[2]
    assert about(run)["config"]["env_kwargs"] == {"is_slippery": False, "map_name": "8x8"}
    assert about(run)["agent"]["state_dim"] == [64]
    assert main(["train", "--config", str(run), "--run-dir", str(again)]) == 0
    assert main(["resume", str(run), "--total-steps", "1200"]) == 0
    assert main(["evaluate", str(run), "--episodes", "2"]) == 0
    if find_spec("imageio_ffmpeg") is not None:
        assert main(["watch", str(run), "--episodes", "1", "--video", str(tmp_path / "out.mp4")]) == 0
    assert main(["plan", *words[1:], "--probe-seconds", "0.2"]) == 0
    assert "FrozenLake-v1, is_slippery=False, map_name=8x8, 8 in parallel" in " ".join(capsys.readouterr().out.split())
    assert len(made) > 30
    assert all(settings == {"is_slippery": False, "map_name": "8x8"} for settings in made)


def test_python_takes_them_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"total_steps": 1100, "hidden_dim": 8, "eval_episodes": 4}
    result = nexus.train("FrozenLake-v1", env_kwargs={"is_slippery": False}, run_dir=tmp_path / "run", **settings)
    assert result.evaluation is not None
    assert result.evaluation.protocol.env_kwargs == {"is_slippery": False}
    assert nexus.evaluate(result, episodes=4, seed=result.evaluation.protocol.seed) == result.evaluation
    with pytest.raises(ConfigError, match="is a function: set them in it"):
        nexus.train(Sometimes, env_kwargs={"a": 1}, run_dir=tmp_path / "other", **settings)


def test_a_time_limit_is_one_of_them(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"total_steps": 1100, "hidden_dim": 8, "eval_episodes": 4}
    result = nexus.train("FrozenLake-v1", env_kwargs={"max_episode_steps": 2}, run_dir=tmp_path / "run", **settings)
    assert result.evaluation is not None
    assert (result.evaluation.mean_length, result.evaluation.cut) == (2.0, 0)


def test_episodes_of_an_evaluation_are_cut_off_where_a_setting_says(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"total_steps": 1100, "hidden_dim": 8, "eval_episodes": 30, "eval_every": "500 steps"}
    result = nexus.train(Sometimes, eval_max_steps=20, run_dir=tmp_path / "run", **settings)
    assert result.evaluation is not None
    assert result.evaluation.cut > 5
    assert max(result.evaluation.returns) == 20
    assert about(tmp_path / "run")["config"]["eval_max_steps"] == 20
    assert nexus.evaluate(result, episodes=5).protocol.max_episode_steps == 20
    assert nexus.evaluate(result.run_dir, Sometimes, 5).protocol.max_episode_steps == 20
    saved = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert saved["cut"] == result.evaluation.cut


def test_a_long_evaluation_of_a_training_is_said_once(tmp_path: Path) -> None:
    class Heard(Listener):
        def __init__(self) -> None:
            self.said: list[str] = []

        def on_notice(self, text: str) -> None:
            self.said.append(text)

    settings: dict[str, Any] = {"total_steps": 1100, "hidden_dim": 8, "eval_episodes": 4}
    heard = Heard()
    nexus.train(Sometimes, eval_max_steps=10_050, run_dir=tmp_path / "run", listener=heard, **settings)
    long = [text for text in heard.said if "eval_max_steps" in text]
    assert len(long) == 1
    assert "has taken 10,000 steps" in long[0]


def test_no_episodes_are_no_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["FrozenLake-v1", "--total-steps", "1100", "--eval-episodes", "0"]
    assert main(["train", *words, "--run-dir", str(run)]) == 0
    said = capsys.readouterr().out
    assert "evaluation" not in said
    assert "Protocol" not in said
    assert about(run)["status"] == "finished"
    assert not (run / "evaluation.json").exists()
    assert main(["resume", str(run), "--total-steps", "1200"]) == 0
    assert main(["plot", str(run), "--out", str(tmp_path / "curves.png")]) == 0
    assert main(["verify", str(run)]) == 0
    assert main(["plan", *words, "--probe-seconds", "0.3"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "evaluating" not in said.partition("of which")[2].partition("speed")[0]
    assert nexus.load_agent(run).action_dim == 4
    with TrainView() as view:
        result = nexus.train("FrozenLake-v1", total_steps=1100, eval_episodes=0, run_dir=tmp_path / "b", listener=view)
    assert result.evaluation is None
    assert not result.interrupted
