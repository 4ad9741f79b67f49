"""The benchmarks: the page of results, and what they replace to measure without it."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_page_is_what_the_records_say_and_needs_no_package_of_a_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("lz4", "minatar", "stable_baselines3"):  # benchmarks/requirements.txt
        monkeypatch.setitem(sys.modules, name, None)  # an import of it raises ImportError
    from benchmarks import learning_sections, report

    drawn: list[str] = []
    monkeypatch.setattr(learning_sections, "save", lambda figure, name: drawn.append(name))
    assert report.page() == (ROOT / "docs" / "results.md").read_text("utf-8"), "run python -m benchmarks.report"
    assert drawn == ["cartpole", "lunarlander", "acrobot", "minatar_family", "atari"]
