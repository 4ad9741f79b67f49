"""The replay on a page: the numbers of the checkpoint, a choice of transitions taken apart, and why there is none."""

import base64
import io
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nexus
from nexus.api import config_of
from nexus.cli.main import main
from nexus.core.types import Array
from nexus.inspection.histograms import binned
from nexus.inspection.rows import ReplayRows, rows_of_run
from nexus.inspection.words import Unknown
from nexus.reporting import replay_panel
from nexus.reporting.page import replay_html
from nexus.reporting.replay_panel import Histogram, ReplayPanel, panel_of_run
from nexus.training.curves import read_episodes
from tests.chaos import FRAMES, SETTINGS, Silent

FORMATS = Path(__file__).parent


def trained(folder: Path, env: str, **settings: Any) -> Path:
    """The folder of a finished run."""
    nexus.train(env, run_dir=folder / "run", listener=Silent(), **{"preset": "plain", **settings})
    return folder / "run"


@pytest.fixture(scope="module")
def prioritized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("panel"), "CartPole-v1", **SETTINGS, prioritized=True, n_step=2)


@pytest.fixture(scope="module")
def of_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images of 3 by 5 pixels, three of which are a state."""
    return trained(tmp_path_factory.mktemp("panel"), **FRAMES)


def panel_at(run: Path, **how: Any) -> ReplayPanel | Unknown:
    about = json.loads((run / "run.json").read_text())
    return panel_of_run(run, about, config_of(about, run), read_episodes(run, str), **how)


def shown(run: Path, **how: Any) -> ReplayPanel:
    found = panel_at(run, **how)
    assert isinstance(found, ReplayPanel)
    return found


def rows_at(run: Path) -> ReplayRows:
    return rows_of_run(run, Silent())


# Bins.


def test_few_values_have_a_bin_each() -> None:
    labels, places = binned(np.array([2.5, -1.0, 2.5, 0.0]))
    assert labels == ["-1", "0", "2.5"]
    assert places.tolist() == [2, 0, 2, 1]


def test_many_values_share_ten_bins_and_the_last_has_its_end() -> None:
    labels, places = binned(np.arange(20))
    assert labels[0] == "0 to 1"
    assert labels[-1] == "18 to 19"
    assert places.tolist() == [number // 2 for number in range(20)]
    labels, places = binned(np.arange(11.0))
    assert labels[-1] == "9 to 10"
    assert places.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]


def test_bins_count_as_numpy_does() -> None:
    values = np.random.default_rng(0).normal(size=1_000).astype(np.float32)
    labels, places = binned(values)
    expected, _ = np.histogram(values.astype(np.float64), np.linspace(float(values.min()), float(values.max()), 11))
    assert np.bincount(places, minlength=len(labels)).tolist() == expected.tolist()


def test_a_bar_is_as_long_as_its_count_is_to_the_largest() -> None:
    assert Histogram("x", ["a", "b"], [50, 200]).bars == [("a", 50, 25.0), ("b", 200, 100.0)]


# The numbers of a checkpoint.


def test_histograms_are_of_the_columns(prioritized: Path) -> None:
    rows, panel = rows_at(prioritized), shown(prioritized)
    assert "At step 600 the replay held 250 transitions and had room for 250. " in panel.about
    assert panel.about.endswith("Transitions are drawn by their priority.")
    found = {histogram.title: histogram for histogram in panel.histograms}
    assert list(found) == ["stored reward", "age", "priority", "episode length"]
    rewards = rows.columns["reward"]
    expected = {f"{value:.4g}": int((rewards == value).sum()) for value in np.unique(rewards)}
    assert dict(zip(found["stored reward"].labels, found["stored reward"].counts, strict=True)) == expected
    assert list(found["age"].counts) == [25] * 10
    assert sum(found["priority"].counts) == 250
    episodes = read_episodes(prioritized, str)
    ended = [step for step in episodes["step"].tolist() if 350 < step <= 600]
    assert sum(found["episode length"].counts) == len(ended) > 0
    assert found["episode length"].counted == "episodes"
    actions = rows.columns["action"]
    for row in panel.actions:
        mine = actions == row.action
        assert row.count == mine.sum()
        assert row.mean == f"{rewards[mine].mean(dtype=np.float64):.4g}"
        assert list(row.by_reward) == [int((mine & (rewards == value)).sum()) for value in np.unique(rewards)]


def test_the_rows_are_those_of_extreme_priorities_the_latest_and_terminal_ones(prioritized: Path) -> None:
    rows, panel = rows_at(prioritized), shown(prioritized)
    picked = {row.number: row.picked for row in panel.rows}
    assert list(picked) == sorted(picked, reverse=True)
    assert len(picked) <= 40
    numbers, priorities = rows.columns["row"], rows.columns["priority"]

    def shown_because(why: str) -> list[int]:
        return sorted(number for number, reasons in picked.items() if why in reasons)

    assert shown_because("latest") == numbers[-10:].tolist()
    assert shown_because("terminal") == numbers[rows.columns["discount"] == 0][-10:].tolist()
    ordered = np.sort(priorities)
    at = dict(zip(numbers.tolist(), priorities.tolist(), strict=True))
    assert sorted(at[number] for number in shown_because("most likely to be drawn")) == ordered[-10:].tolist()
    assert sorted(at[number] for number in shown_because("least likely")) == ordered[:10].tolist()


def test_a_row_is_taken_apart_as_in_the_terminal(prioritized: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for row in shown(prioritized).rows[::8]:
        assert main(["replay", str(prioritized), "--row", str(row.number)]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        terms = dict(row.terms)
        assert {"reward", "discount", "target", "Q(s, a)", "TD error", "loss", "new priority"} <= terms.keys()
        for title, text in row.terms:
            if "state" not in title:  # the page has more room for these
                assert " ".join(f"{title} {text}".split()) in printed


def test_a_uniform_replay_has_no_more_and_less_likely_rows(of_frames: Path, tmp_path: Path) -> None:
    panel = shown(trained(tmp_path, "CartPole-v1", **SETTINGS))
    assert panel.about.endswith("All transitions are equally likely to be drawn.")
    assert {why for row in panel.rows for why in row.picked} == {"latest", "terminal"}
    assert "priority" not in panel.columns


def pixels(url: str) -> Array:
    """An image read by another program."""
    png = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return np.asarray(pytest.importorskip("PIL.Image").open(io.BytesIO(png)))


def test_states_that_are_images_are_shown_as_such(of_frames: Path) -> None:
    rows, panel = rows_at(of_frames), shown(of_frames)
    for row in panel.rows[::5]:
        batch = rows.batch_at(np.array([rows.place_of(row.number)]))
        for url, name in zip(row.pictures, ("states", "next_states"), strict=True):
            newest = batch[name][0].numpy()[-1]
            np.testing.assert_array_equal(pixels(url), newest)


def test_pictures_end_where_the_room_does(of_frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_panel, "PICTURES_BYTES", 1_000)
    panel = shown(of_frames)
    assert panel.rows[0].pictures
    assert not panel.rows[-1].pictures
    assert panel.remarks == ["There is no room for the pictures of all of these transitions."]


def test_of_many_actions_the_most_common_are_shown(prioritized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_panel, "ACTIONS_SHOWN", 1)
    rows, panel = rows_at(prioritized), shown(prioritized)
    assert [row.action for row in panel.actions] == [int(np.bincount(rows.columns["action"]).argmax())]
    assert "Of 2 actions the 1 most common are shown." in panel.remarks


# Where there is none.


def test_a_large_replay_is_not_read(prioritized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_panel, "saved_replay", None)
    found = panel_at(prioritized, most_bytes=1_000)
    assert isinstance(found, Unknown)
    assert str(found).startswith("The replay of step 600 has 0 MB, and a page reads at most 0 MB; in the terminal: ")
    assert f"replay {prioritized}" in str(found)


def test_a_run_without_a_replay_says_why(prioritized: Path, tmp_path: Path) -> None:
    about = json.loads((prioritized / "run.json").read_text())
    config, episodes = config_of(about, prioritized), read_episodes(prioritized, str)
    assert str(panel_of_run(tmp_path, about, config, episodes)) == "No replay was saved: the run has no checkpoint."
    pqn = FORMATS / "runs_of_format_3" / "pqn-interrupted"
    assert "pqn learns from each rollout once and keeps none" in str(panel_at(pqn))
    assert "the settings can't be read" in str(panel_of_run(prioritized, about, None, episodes))


def test_without_imports_own_parts_are_not_loaded(prioritized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        replay_panel, "names_in", lambda config: {"torso": ["mine:torso"], "wrappers": ["mine:Wrapper"]}
    )
    monkeypatch.setattr(replay_panel, "learner_in_run", None)
    closed = shown(prioritized, imports=False)
    assert "would import torso of the user's own" in closed.remarks[0]
    assert all(not row.terms for row in closed.rows)


# The page.


def test_the_page_has_the_rows_and_escapes_all_text(prioritized: Path, tmp_path: Path) -> None:
    html = nexus.report(prioritized, tmp_path / "page.html", film=False).read_text("utf-8")
    section = html[html.index('<section id="replay">') :].partition("</section>")[0]
    panel = shown(prioritized)
    for row in panel.rows:
        assert f'href="#row-{row.number}"' in section
        assert f'id="row-{row.number}"' in section
    text = " ".join(unescape(re.sub("<[^>]*>", " ", section)).split())
    for title, said in panel.rows[0].terms:
        assert f"{title} {said}" in text
    hostile = "<script>alert(1)</script>"
    panel = ReplayPanel(hostile, [hostile], [Histogram(hostile, [hostile], [1])], [hostile], [], [hostile], [])
    assert "<script" not in replay_html(panel)
    assert "<script" not in replay_html(Unknown(hostile))


def test_several_runs_have_no_replay_on_their_page(prioritized: Path, of_frames: Path, tmp_path: Path) -> None:
    html = nexus.report([prioritized, of_frames], tmp_path / "page.html").read_text("utf-8")
    assert 'id="replay"' not in html


COUNTING: dict[str, Any] = {
    "total_steps": 300,
    "num_envs": 2,
    "learning_starts": 40,
    "hidden_dim": 8,
    "batch_size": 16,
    "eval_episodes": 0,
    "checkpoint_every": "300 steps",
    "keep_episodes": True,
}


@pytest.mark.parametrize("settings", [{}, {"n_step": 3}, {"bonus": "counts", "n_step": 3}])
def test_transitions_of_kept_episodes_are_drawn_as_they_were_seen(settings: Any, tmp_path: Path) -> None:
    """The frame has a white column of two pixels for each step that the episode had taken: the state's first number."""
    run = trained(tmp_path / "run", "tests.counting:Counting-v0", **COUNTING | settings)
    rows = shown(run, plays=True).rows
    assert len(rows) >= 10
    columns = rows_at(run)
    for row in rows:
        (picture,) = row.pictures
        state = columns.batch_at(np.array([columns.place_of(row.number)]))["states"][0]
        white = (pixels(picture)[..., 0] == 255).mean(0)
        assert white.tolist() == [1.0] * 2 * int(state[0]) + [0.0] * (30 - 2 * int(state[0]))
    assert all(not row.pictures for row in shown(run).rows), "without playing"


def test_where_an_episode_cannot_be_played_again_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path / "run", "tests.counting:Counting-v0", **COUNTING)
    monkeypatch.setattr("nexus.reporting.replay_panel.LONGEST_DRAWING", -1.0)
    panel = shown(run, plays=True)
    assert not any(row.pictures for row in panel.rows)
    said = "playing the episodes of all of these transitions again would take too long"
    assert panel.remarks == [f"The other transitions are not drawn: {said}."]
