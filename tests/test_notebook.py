"""What a notebook shows of a run: one display that updates itself, and the result."""

import sys
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import nexus
from nexus.cli import notebook
from nexus.cli.notebook import kernel_display, picture_of_returns, run_html
from nexus.cli.progress import somebody_looks_on
from nexus.listener import Listener
from tests.test_progress import HALFWAY, TINY

CIRCLE = '<circle cx="{}" cy="{}" r="3" fill="none" stroke="#d97706" stroke-width="2"/>'


class Shell:
    """As in a terminal."""


class ZMQInteractiveShell(Shell):
    """As in a kernel."""


class OfACompany(ZMQInteractiveShell):
    """As in a notebook of somebody else's."""


class Displays:
    """Stands for IPython: keeps what was displayed, and each update."""

    def __init__(self) -> None:
        self.made = 0
        self.shown: list[str] = []

    def display(self, thing: Any, *, display_id: bool) -> "Displays":
        assert display_id
        self.made += 1
        self.update(thing)
        return self

    def update(self, thing: Any) -> None:
        self.shown.append(thing._repr_html_())
        assert "<" not in repr(thing)


def pretend(monkeypatch: pytest.MonkeyPatch, shell: Any) -> Displays:
    """Put modules in the place of IPython's."""
    displays = Displays()
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    display.display = displays.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return displays


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Displays:
    monkeypatch.setattr(notebook, "SECONDS_BETWEEN_UPDATES", 0.0)
    monkeypatch.setattr(notebook, "MOST_SHARE", float("inf"))
    return pretend(monkeypatch, OfACompany())


class Cells(HTMLParser):
    """Reads the rows of the tables, and checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[Any] = []  # [name, text] each

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        assert tag in ("circle", "polyline")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data


def rows_in(html: str) -> dict[str, str]:
    cells = Cells()
    cells.feed(html)
    assert not cells.open
    return dict(cells.rows)


def test_only_a_kernel_has_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert kernel_display() is None
    assert "IPython" not in sys.modules
    for shell in (None, Shell(), SimpleNamespace(kernel=1)):
        pretend(monkeypatch, shell)
        assert kernel_display() is None
        assert not somebody_looks_on()
    displays = pretend(monkeypatch, ZMQInteractiveShell())
    assert kernel_display() == displays.display
    assert somebody_looks_on()


def test_a_run_is_one_display_that_ends_with_the_score(
    kernel: Displays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = nexus.train("CartPole-v1", run_dir=tmp_path / "<b>run", **TINY)
    assert capsys.readouterr() == ("", "")
    assert kernel.made == 1
    assert len(kernel.shown) > 100
    assert any("evaluating" in rows_in(html) for html in kernel.shown)
    rows = rows_in(kernel.shown[-1])
    assert rows["status"].startswith(f"finished after {result.counters.steps} steps, ")
    assert rows["steps"].startswith("400 of 400, ")
    assert rows["score"] == rows[f"evaluation, step {result.counters.steps}"] == str(result.evaluation)
    assert rows["folder"] == str(tmp_path / "<b>run")
    assert rows["environment"] == "CartPole-v1, 2 in parallel, 2 actions"
    assert "time left" not in rows
    assert "evaluating" not in rows
    assert kernel.shown[-1].count("<circle") == 1
    assert "<polyline" in kernel.shown[-1]


def test_a_listener_of_the_program_silences_it(kernel: Displays, tmp_path: Path) -> None:
    nexus.train("CartPole-v1", run_dir=tmp_path / "a", listener=Listener(), **TINY)
    nexus.train("CartPole-v1", run_dir=tmp_path / "b", verbose=False, **TINY)
    assert kernel.made == 0
    nexus.train("CartPole-v1", run_dir=tmp_path / "c", listener=Listener(), verbose=True, **TINY)
    assert kernel.made == 1


def test_updates_are_at_least_a_second_apart(kernel: Displays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "SECONDS_BETWEEN_UPDATES", 3600.0)
    nexus.train("CartPole-v1", run_dir=tmp_path / "run", **TINY)
    assert len(kernel.shown) == 4  # the start, the evaluation, the end, the result


def test_a_run_that_fails_says_so(kernel: Displays, tmp_path: Path) -> None:
    class Failing(Listener):
        def on_step(self, progress: Any, episodes: Any) -> None:
            if progress.counters.steps >= 100:
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        nexus.train("CartPole-v1", run_dir=tmp_path / "run", listener=Failing(), verbose=True, **TINY)
    assert rows_in(kernel.shown[-1])["status"] == "failed"


def test_numbers_and_text_in_the_display() -> None:
    notes = ["<script>alert(1)</script> & more", *(f"note {number}" for number in range(20))]
    html = run_html(None, HALFWAY, {"status": "running"}, [], notes)
    assert rows_in(html) == {
        "status": "running",
        "steps": "45,840 of 100,000, 2,060 per second",
        "time left": "0:00:26",
        "return": "71.8 (mean of the last training episodes)",
        "Q(s₀)": "54.0 predicted, 61.2 realised (discounted, from first states)",
        "learning": "ε 0.02  loss 55.306  Q 54.3",
        "critical": "target: the targets are off by the reward of a step",
        "warning": "fit: the network fits its targets worse than their mean would",
        "note": "note 19",
        "": "2 more of the doctor's findings",
    }
    old = rows_in(run_html(None, replace(HALFWAY, age=30_000), {"status": "running"}, [], []))
    assert old["return"] == "71.8 (30,000 steps ago) (mean of the last training episodes)"
    assert "<script>" not in html
    assert "<script>" not in run_html(None, None, {"status": "starting"}, [], notes[:1])
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in run_html(None, None, {}, [], notes[:1])
    wild = replace(HALFWAY.symptoms[0], text="<img src=x>")
    assert "<img" not in run_html(None, replace(HALFWAY, symptoms=(wild,)), {"status": "running"}, [], [])


def test_the_picture_has_each_point_where_it_belongs() -> None:
    html = picture_of_returns([0, 50, 100], [10.0, 20.0, 30.0], [(100, 50.0)])
    # 480 x 120 pixels within a margin of 8; the highest value, 50, is at the top.
    assert 'points="8.0,128.0 248.0,98.0 488.0,68.0"' in html
    assert CIRCLE.format("488.0", "8.0") in html
    assert "returns over 100 steps, from 10.0 to 50.0" in html
    level = picture_of_returns([1, 2], [5.0, 5.0], [])
    assert 'points="248.0,68.0 488.0,68.0"' in level
    assert "circle" not in level
    assert picture_of_returns([1], [5.0], []) == ""


def test_a_result_shows_its_curve_score_and_folder(tmp_path: Path) -> None:
    result = nexus.train("CartPole-v1", run_dir=tmp_path / "<i>", **TINY)
    html = result._repr_html_()
    rows = rows_in(html)
    assert html.startswith("<div><strong>CartPole-v1</strong><div><svg ")
    assert rows["score"] == str(result.evaluation)
    assert rows["folder"] == str(tmp_path / "<i>")
    assert "<i>" not in html
    for name in ("run.json", "episodes.csv"):
        (tmp_path / "<i>" / name).unlink()
    html = result._repr_html_()  # of a folder that was cleared
    assert rows_in(html) == rows
    assert "<svg" not in html


def test_a_real_notebook_keeps_the_final_display(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel", reason="a notebook needs ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="running a notebook needs nbclient")
    nbformat = pytest.importorskip("nbformat", reason="reading a notebook needs nbformat")
    cell = f'import nexus\nresult = nexus.train("CartPole-v1", run_dir={str(tmp_path / "run")!r}, **{TINY!r})'
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of these packages
        new = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in (cell, "result")])
        nbclient.NotebookClient(new, timeout=120, kernel_name="python3").execute()
        saved = nbformat.reads(nbformat.writes(new), 4)
    training, shown = (each.outputs for each in saved.cells)
    assert [output.output_type for output in training] == ["display_data"]
    rows = rows_in(training[0].data["text/html"])
    assert rows["status"].startswith("finished after 400 steps, ")
    assert rows["folder"] == str(tmp_path / "run")
    assert rows_in(shown[0].data["text/html"])["score"] == rows["score"]
    assert "\x1b" not in str(saved)
