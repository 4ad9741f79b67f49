"""Environments in a module of the current folder, as every tutorial has them; a run's folder brings no code."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest

from nexus.cli.main import main
from nexus.training.files import write_json

MODULE = """
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv
gym.register("OwnPole-v0", entry_point=CartPoleEnv, max_episode_steps=50)
"""
TINY = [*("--total-steps", "300", "--num-envs", "2", "--learning-starts", "64"), "--hidden-dim=8", "--eval-episodes=2"]
COMMAND = ["-P", "-c", "from nexus.cli.main import main; raise SystemExit(main())"]
MODULE_OF_PYTHON = ["-m", "nexus"]
HOSTILE = "open({witness!r}, 'w').close()\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module of one's own, and the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_envs.py").write_text(MODULE)
    yield tmp_path
    forget()


def forget() -> None:
    """As a new process begins."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("own_envs", "brought", "run")]:
        del sys.modules[name]
    gym.registry.pop("OwnPole-v0", None)


def test_a_module_of_the_current_folder_is_found_by_every_command(here: Path) -> None:
    before = list(sys.path)
    for words in (
        ["train", "own_envs:OwnPole-v0", *TINY, "--run-dir", "first"],
        ["evaluate", "first", "--episodes", "2"],
        ["evaluate", "first", "--episodes", "2", "--env", "own_envs:OwnPole-v0"],
        ["resume", "first", "--total-steps", "400"],
        ["train", "--config", "first", "--run-dir", "second"],
        ["plan", "own_envs:OwnPole-v0", *TINY, "--probe-seconds", "0.2"],
    ):
        assert main(words) == 0, words
        assert sys.path == before
        forget()


def test_a_video_of_it_can_be_watched(here: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    assert main(["train", "own_envs:OwnPole-v0", *TINY, "--run-dir", "first"]) == 0
    forget()
    assert main(["watch", "first", "--episodes", "1", "--video", "out.mp4"]) == 0


@pytest.mark.parametrize("start", [COMMAND, MODULE_OF_PYTHON])
def test_it_is_found_by_the_command_and_by_python_m(start: list[str], here: Path) -> None:
    words = ["train", "own_envs:OwnPole-v0", *TINY, "--run-dir", "first", "--vectorization", "async"]
    done = subprocess.run([sys.executable, *start, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (here / "first" / "agent.safetensors").exists()


@pytest.fixture
def run(here: Path) -> Path:
    """The folder `run` of a run, which says that its environment is in `brought`, and has such a module."""
    assert main(["train", "own_envs:OwnPole-v0", *TINY, "--run-dir", "run"]) == 0
    forget()
    (here / "run" / "brought.py").write_text(HOSTILE.format(witness=str(here / "witness")) + MODULE)
    rename(here / "run", "brought:OwnPole-v0")
    return here / "run"


def rename(run: Path, env: str) -> None:
    """Change the environment as somebody would who knows of the checksum."""
    write_json(run / "run.json", {**json.loads((run / "run.json").read_text()), "env": env})


VERBS = [
    ["evaluate", "RUN"],
    ["resume", "RUN", "--total-steps", "400"],
    ["watch", "RUN", "--video", "out.mp4"],
    ["train", "--config", "RUN"],
    ["train", "--config", "RUN/run.json"],
    ["plan", "--config", "RUN"],
]


@pytest.mark.parametrize("words", VERBS)
def test_a_run_brings_no_code_from_within_its_folder(
    words: list[str], run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.chdir(run)
    assert main([word.replace("RUN", ".") for word in words]) == 2
    assert "brought" in capsys.readouterr().err
    assert not (run.parent / "witness").exists()
    (run / "below").mkdir()
    (run / "brought.py").rename(run / "below" / "brought.py")
    monkeypatch.chdir(run / "below")
    assert main([word.replace("RUN", "..") for word in words]) == 2
    assert not (run.parent / "witness").exists()


@pytest.mark.parametrize("words", VERBS)
def test_nor_as_a_package_of_the_folder_around_it(
    words: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    rename(run, "run.brought:OwnPole-v0")
    assert main([word.replace("RUN", "run") for word in words]) == 2
    assert "names a module in its folder, run.brought" in capsys.readouterr().err
    assert not (run.parent / "witness").exists()


@pytest.mark.parametrize("start", [COMMAND, MODULE_OF_PYTHON])
def test_nothing_is_imported_from_the_folder_of_a_run_that_is_the_current_one(start: list[str], run: Path) -> None:
    rename(run, "gymnasium.envs:CartPole-v1")
    for name in ("torch", "safetensors", "gymnasium", "pygame"):
        (run / f"{name}.py").write_text(HOSTILE.format(witness=str(run.parent / "witness")))
    words = [*start, "evaluate", ".", "--episodes", "2"]
    done = subprocess.run([sys.executable, *words], cwd=run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (run.parent / "witness").exists()
