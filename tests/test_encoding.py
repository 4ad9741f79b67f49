"""Output where an encoding lacks what is printed, and where the terminal is narrow."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from nexus.cli.encoding import spell
from nexus.cli.main import main
from tests.test_cli import TRAIN

ENCODINGS = ("cp1252", "latin-1", "ascii")
Said = Callable[..., str]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run a command whose output goes to a strict stream of some encoding; return what arrived."""

    def run(encoding: str, *arguments: str) -> str:
        written = BytesIO()
        stream = TextIOWrapper(written, encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        with suppress(SystemExit):  # of a help, with code 0
            assert main(arguments) == 0
        stream.flush()
        assert stream.errors == "strict"  # as it was found
        return written.getvalue().decode(encoding)

    return run


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_command_fails_on_an_encoding(encoding: str, tmp_path: Path, said: Said) -> None:
    run = str(tmp_path / "run")
    trained = said(encoding, *TRAIN, "--run-dir", run)
    assert "epsilon 1 to 0.02" in trained
    assert re.search(r"evaluation after \d+ steps: [\d.]+ (\+-|\xb1) ", trained)
    assert "epsilon = 0.1, 3 full episodes" in said(encoding, "evaluate", run, "--episodes=3", "--epsilon=0.1")
    assert "lambda" in said(encoding, "algorithms")
    assert "gamma" in said(encoding, "train", "--help")
    assert "usage" in said(encoding, "--help")


def test_an_error_is_spelled_too() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "nexus", "tränε"], capture_output=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith(b"nexus: error: no command 'tranepsilon'")


@pytest.mark.parametrize(
    ("character", "text"),
    [("ε", "epsilon"), ("λ", "lambda"), ("±", "+-"), ("×", "x"), ("é", "e"), ("²", "2"), ("語", "?"), ("\udc80", "?")],
)
def test_characters_are_spelled(character: str, text: str) -> None:
    assert spell(character) == text


def test_the_list_of_algorithms_fits_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["algorithms"]) == 0
    said = capsys.readouterr().out
    lines = [line.strip() for line in said.splitlines()]
    assert "arxiv.org/abs/1511.05952, data/prioritized_replay_buffer.py" in lines
    assert "update_every=None, gradient_steps=64" in " ".join(said.split())
