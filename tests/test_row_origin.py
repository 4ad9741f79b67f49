"""Which episode and step of the training a stored transition is from, and what was to be seen there."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import nexus
from nexus.cli.main import main
from nexus.core.errors import EnvError
from nexus.inspection.row_origin import RowOrigin, frame_of_row, image_in, origin_of_row, place_in_order
from nexus.inspection.rows import ReplayRows, rows_of_run
from nexus.training.config import TrainConfig
from nexus.training.kept_episodes import read_kept_episode
from nexus.training.run_folder import read_run
from tests.chaos import Silent, interrupt, interrupted
from tests.test_cli import refused

__all__ = ["refused"]

COUNTING = "tests.counting:Counting-v0"
TINY: dict[str, Any] = {
    "total_steps": 601,
    "num_envs": 3,
    "learning_starts": 40,
    "hidden_dim": 8,
    "batch_size": 16,
    "replay_capacity": 300,
    "eval_episodes": 0,
    "checkpoint_every": "100 steps",
    "keep_episodes": True,
}


def trained(folder: Path, env: str = COUNTING, **settings: Any) -> Path:
    nexus.train(env, run_dir=folder, listener=Silent(), **TINY | settings)
    return folder


def opened(run: Path) -> ReplayRows:
    return rows_of_run(run, Silent())


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("counted") / "run", n_step=3)


# Three steps are folded. The first environment's episodes end after 2 and 5 vector steps, the second one's after 4.
# (vector step, environment) as they are stored: after the second step (0, 0) and (1, 0), which the end closes early,
# after the third (0, 1), after the fourth what the end of the second environment's episode closes, and so on.
STORED = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (3, 1), (2, 0), (3, 0), (4, 0), (4, 1)]


def test_transitions_are_found_in_the_order_in_which_they_are_stored() -> None:
    ends = [np.array([2, 5]), np.array([4])]
    assert [place_in_order(row, ends, 3) for row in range(10)] == STORED
    assert [place_in_order(row, ends, 1) for row in range(4)] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [place_in_order(row, ends[:1], 4) for row in range(7)] == [(at, 0) for at in range(7)]
    assert place_in_order(20_000_001, [np.array([], np.int64)] * 2, 1) == (10_000_000, 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_step": 1},
        {"n_step": 3},
        {"n_step": 5, "num_envs": 1},
        {"n_step": 2, "actor_sync_every": "30 steps"},
        {"n_step": 10, "replay_capacity": 2_000},
    ],
    ids=str,
)
def test_each_row_is_of_the_step_that_its_state_says(settings: dict[str, Any], tmp_path: Path) -> None:
    """The first number of a state is how many steps its episode has taken."""
    run = trained(tmp_path / "run", **settings)
    rows = opened(run)
    ended = 0
    for place in [*range(0, len(rows.numbers), 7), len(rows.numbers) - 1]:
        origin = origin_of_row(rows, int(rows.numbers[place]))
        assert origin is not None
        assert origin.step == rows.batch_at(np.array([place]))["states"][0, 0]
        if origin.episode is not None:
            kept = read_kept_episode(run, origin.episode, 3)
            assert (kept.env, kept.actions[origin.step]) == (origin.env, rows.columns["action"][place])
            ended += 1
    assert ended > 35


def test_a_run_that_was_stopped_and_resumed_knows_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    stop = Silent(250, interrupt)
    interrupted(lambda: nexus.train(COUNTING, run_dir=run, listener=stop, **TINY | {"n_step": 3}))
    nexus.resume(run, listener=Silent())
    rows = opened(run)
    for place in range(0, 300, 30):
        origin = origin_of_row(rows, int(rows.numbers[place]))
        assert origin is not None
        assert origin.step == rows.batch_at(np.array([place]))["states"][0, 0]


def test_rows_of_another_run_are_from_no_episode_of_this_one(counted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    nexus.train(from_run=counted, run_dir=run, listener=Silent(), keep=["replay"], total_steps=120)
    rows = opened(run)
    at = rows.saved.replay.added - 120  # some of these steps are in windows that are still open
    assert origin_of_row(rows, at - 10) is None
    origin = origin_of_row(rows, at + 20)
    assert origin is not None
    assert origin.step == rows.batch_at(np.array([rows.place_of(at + 20)]))["states"][0, 0]


def test_where_an_episode_was_lost_nothing_is_claimed(counted: Path) -> None:
    rows = opened(counted)
    state = rows.saved.state
    lengths = state["stream.episode_lengths"] + np.array([0, 1, 0])
    state["stream.episode_lengths"] = lengths
    assert origin_of_row(rows, int(rows.numbers[0])) is None


# What was to be seen.


def test_the_frame_of_a_row_is_that_of_its_step(
    counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    rows, unfinished, steps_drawn = opened(counted), 0, set[int]()
    for place in (0, 17, 140, -1, -3, -5):
        number, step = int(rows.numbers[place]), int(rows.batch_at(np.array([place]))["states"][0, 0])
        origin = origin_of_row(rows, number)
        assert origin is not None
        unfinished += origin.episode is None
        steps_drawn.add(step)
        capsys.readouterr()
        path = tmp_path / f"{place}.png"
        assert main(["replay", str(counted), "--row", str(number), "--frame", str(path)]) == 0
        said = capsys.readouterr().out.splitlines()
        episode = "an episode that had not ended" if origin.episode is None else f"training episode {origin.episode}"
        assert said[1] == f"From {episode}, after {step} steps of it; sub-environment {origin.env}"
        assert said[-1] == f"Frame: {path}"
        frame = np.asarray(image.open(path))
        assert frame.shape == (20, 30, 3)
        assert (frame[:, : 2 * step] == 255).all()
        assert (frame[:, 2 * step :] == 0).all()
    assert unfinished > 0
    assert len(steps_drawn) > 2


def test_another_state_at_that_step_is_refused(counted: Path) -> None:
    rows = opened(counted)
    number = int(rows.numbers[30])
    origin = origin_of_row(rows, number)
    assert origin is not None
    spec = nexus.api.env_of_run(counted)
    other = RowOrigin(origin.env, origin.step + (1 if origin.step == 0 else -1), origin.episode)
    with pytest.raises(EnvError, match=f"again it shows another state after {other.step} steps than"):
        frame_of_row(rows, number, other, spec)


def test_without_an_episode_the_state_is_drawn_or_it_is_said_why_not(
    tmp_path: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    path = str(tmp_path / "out.png")
    run = trained(tmp_path / "plain", keep_episodes=False, total_steps=200)
    said = refused("replay", str(run), "--row", "5", "--frame", path)
    assert "row 5 can't be drawn: its episode is not kept, and its state is not an image" in said
    assert "frame = 'x.gif': needs a file name that ends in .png" in refused(
        "replay", str(run), "--row", "5", "--frame", "x.gif"
    )
    assert "needs --row" in refused("replay", str(run), "--frame", path)
    capsys.readouterr()
    run = trained(tmp_path / "images", "tests.probes:Flicker-v0", frame_stack=3, total_steps=200)
    rows = opened(run)
    number = int(rows.numbers[40])
    assert main(["replay", str(run), "--row", str(number), "--frame", path]) == 0
    state = rows.batch_at(np.array([40]))["states"][0].numpy()
    assert np.asarray(image.open(path)).tolist() == state[-1].tolist()


def test_the_newest_image_of_a_state_is_drawn() -> None:
    def rows(frame_stack: int = 1, are_packed: bool = False, channels: str = "auto") -> ReplayRows:
        config = TrainConfig(frame_stack=frame_stack, channels=cast(Any, channels))
        return cast(ReplayRows, SimpleNamespace(config=config, are_packed=are_packed))

    def shape(state: Any, of: ReplayRows) -> Any:
        image = image_in(state, of)
        return None if image is None else image.shape

    byte = np.uint8
    assert shape(np.zeros((84, 84, 3), byte), rows()) == (84, 84, 3)
    assert shape(np.zeros((3, 84, 84), byte), rows()) == (84, 84, 3)
    assert shape(np.zeros((3, 84, 84), byte), rows(3)) == (84, 84)
    assert shape(np.zeros((84, 84, 1), byte), rows()) == (84, 84)
    assert shape(np.zeros((5, 6), byte), rows()) == (5, 6)
    assert shape(np.zeros((84, 84, 3), np.float32), rows()) is None
    assert shape(np.zeros(84, byte), rows()) is None
    assert shape(np.zeros((4, 8, 3), byte), rows(are_packed=True)) is None
    stack = np.arange(4 * 2 * 3, dtype=byte).reshape(4, 2, 3)
    image = image_in(stack, rows(4, channels="first"))
    assert image is not None
    assert image.tolist() == [[18, 19, 20], [21, 22, 23]]


def test_damage_of_the_episodes_hides_no_transition(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path / "run", total_steps=200)
    (run / "actions.jsonl").write_text("?\n")
    capsys.readouterr()
    assert main(["replay", str(run), "--row", "5"]) == 0
    said = capsys.readouterr()
    assert "Note: where the transition is from is not known: " in said.err
    assert "From " not in said.out
    assert read_run(run)["status"] == "finished"
