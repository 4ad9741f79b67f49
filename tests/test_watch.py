"""Films of a run: all its checkpoints on the same episode, and an episode of the training again."""

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nexus
from nexus.cli.film import grid, labelled, together
from nexus.cli.main import main
from nexus.core.types import Array
from tests.chaos import Silent
from tests.test_cli import refused

pytest.importorskip("imageio_ffmpeg", reason='imageio is not installed; the extra "video" brings it')

COUNTING = "tests.counting:Counting-v0"
TINY: dict[str, Any] = {
    "total_steps": 300,
    "num_envs": 2,
    "learning_starts": 40,
    "hidden_dim": 8,
    "batch_size": 16,
    "eval_episodes": 0,
    "checkpoint_every": "100 steps",
}
BAR = 44  # pixels above a labelled frame: two lines of 16, and 4 around them
__all__ = ["refused"]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the checkpoints 100, 200 and 300, and its episodes kept."""
    run = tmp_path_factory.mktemp("counted") / "run"
    nexus.train(COUNTING, run_dir=run, listener=Silent(), keep_episodes=True, keep_checkpoints=3, **TINY)
    return run


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which no episode ends but by being cut off."""
    run = tmp_path_factory.mktemp("endless") / "run"
    nexus.train("CartPole-v1", run_dir=run, listener=Silent(), keep_checkpoints=1, **TINY)
    return run


def frames_of(video: Path) -> list[Array]:
    """The frames `[H, W, 3]` of a video. imageio writes it but leaves its pipes open when it reads one."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(video), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    width, height = map(int, re.findall(rb"Video: h264.*? (\d+)x(\d+)[ ,]", done.stderr)[0])
    return list(np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3))


def counts_in(frame: Array, scale: int) -> int:
    """The steps that a frame of `Counting` shows: white columns of two pixels."""
    row = frame[len(frame) // 2 :, :, 0].mean(0)  # below the label
    return round(int((row > 128).sum()) / (2 * scale))


def lengths_said(said: str) -> list[int]:
    return [int(found) for found in re.findall(r"(\d+) steps", said)]


# What is drawn.


def test_a_label_stands_above_a_frame_that_is_enlarged_without_blur() -> None:
    frame = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    shown = labelled(frame, ("step 1,000", "return -3"))
    assert shown.shape == (BAR + 240, 360, 3)
    assert (shown[BAR:][::12, ::12] == frame).all()
    assert (shown[BAR:][11::12, 11::12] == frame).all()
    text = shown[:BAR, :, 0] > 128
    assert text[4:20].any()
    assert text[24:40].any()
    assert not text[:, :6].any()
    assert not text[20:24].any()
    other = labelled(frame, ("step 2,000", "return -3"))
    assert (other[:BAR] != shown[:BAR]).any(axis=(1, 2)).nonzero()[0].max() < 24  # the first line alone
    assert labelled(np.zeros((400, 600, 3), np.uint8), ("a", "b")).shape == (400 + 52, 600, 3)  # letters of 20
    assert labelled(np.zeros((60, 8, 3), np.uint8), ("a", "b")).shape[1] == 240  # readable though it is narrow


def test_films_run_together_until_the_last_has_ended() -> None:
    def film(*numbers: int) -> Any:
        return iter([np.full((2, 2, 3), number, np.uint8) for number in numbers])

    def shown(frames: Sequence[Array]) -> list[int]:
        return [int(frame[0, 0, 0]) for frame in frames]

    films = [film(1, 2), film(7), film(4, 5, 6)]
    assert [shown(frames) for frames in together(films)] == [[1, 7, 4], [2, 7, 5], [2, 7, 6]]


def test_a_grid_is_square_and_its_free_places_are_black() -> None:
    tiles = [np.full((2, 4, 3), number, np.uint8) for number in (1, 2, 3)]
    assert grid(tiles)[:, :, 0].tolist() == [[1] * 4 + [2] * 4] * 2 + [[3] * 4 + [0] * 4] * 2
    assert grid(tiles[:1]).shape == (2, 4, 3)
    assert grid(tiles[:2]).shape == (2, 8, 3)
    assert grid([*tiles, *tiles[:2]]).shape == (4, 12, 3)


# All checkpoints.


def test_each_checkpoint_plays_the_same_episode_in_turn(
    counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "out.mp4"
    capsys.readouterr()
    assert main(["watch", str(counted), "--all-checkpoints", "--video", str(video), "--seed", "4"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    *played, last = said.out.splitlines()
    assert [line.split(":")[0] for line in played] == ["step 100", "step 200", "step 300"]
    assert last == f"Video: {video}"
    (length,) = set(lengths_said(said.out))  # the length depends on the seed alone
    frames = frames_of(video)
    assert frames[0].shape == (BAR + 240, 360, 3)
    assert [counts_in(frame, 12) for frame in frames] == [*range(length + 1)] * 3
    labels = [frame[:BAR].astype(int) for frame in frames]
    start = length + 1
    assert np.abs(labels[0] - labels[start])[:24].max() > 100  # another step
    assert np.abs(labels[0] - labels[start])[24:].max() < 60  # the same return, 0
    assert np.abs(labels[0] - labels[1])[:24].max() < 60  # the same step
    assert np.abs(labels[0] - labels[length])[24:].max() > 100  # another return


def test_the_returns_written_are_those_of_the_checkpoints_agents(
    counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[tuple[str, ...]] = []
    draw = labelled

    def noted(frame: Array, lines: tuple[str, ...]) -> Array:
        written.append(lines)
        return draw(frame, lines)

    monkeypatch.setattr("nexus.cli.watch.labelled", noted)
    capsys.readouterr()
    video = str(tmp_path / "out.mp4")
    assert main(["watch", str(counted), "--all-checkpoints", "--episodes", "2", "--video", video]) == 0
    said = capsys.readouterr().out.splitlines()
    expected: list[tuple[str, str]] = []
    for steps in (100, 200, 300):
        agent = nexus.load_agent(counted, checkpoint=steps)
        for seed in (0, 1):
            env = nexus.envs.factory.make_env(nexus.api.env_of_run(counted))
            state, _ = env.reset(seed=seed)
            total, done = 0.0, False
            expected.append((f"step {steps}", "return 0"))
            while not done:
                state, reward, done, _, _ = env.step(agent.select_action(state, training=False))
                total += float(reward)
                expected.append((f"step {steps}", f"return {total:g}"))
            assert said.pop(0).startswith(f"step {steps}, episode {seed + 1}: return {total:g}, ")
    assert written == expected


def test_side_by_side_all_are_in_each_frame(counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = tmp_path / "out.mp4"
    capsys.readouterr()
    words = ["--all-checkpoints", "--side-by-side", "--video", str(video)]
    assert main(["watch", str(counted), *words]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^step (\d+): ", said, re.MULTILINE) == ["100", "200", "300"]
    frames = frames_of(video)
    assert len(frames) == lengths_said(said)[0] + 1
    assert frames[0].shape == (2 * (BAR + 240), 720, 3)
    for place, frame in enumerate(frames):
        tiles = frame[:284, :360], frame[:284, 360:], frame[284:, :360]
        assert [counts_in(tile, 12) for tile in tiles] == [place] * 3
        assert frame[284 + 8 :, 360 + 8 :].max() < 40


def test_long_episodes_are_cut_off_and_say_so(
    endless: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "out.mp4"
    capsys.readouterr()
    words = ["--all-checkpoints", "--max-steps", "3", "--video", str(video)]
    assert main(["watch", str(endless), *words]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "step 300: return 3, 3 steps, cut off there"
    assert (
        said.err == f"Note: {endless} has one checkpoint, of step 300; train with --keep-checkpoints 10 to keep more\n"
    )
    assert len(frames_of(video)) == 4
    assert main(["watch", str(endless), "--max-steps", "2", "--video", str(video)]) == 0
    assert lengths_said(capsys.readouterr().out) == [2, 2, 2]


def test_a_film_of_all_checkpoints_is_bounded() -> None:
    from nexus.cli.watch import WatchCommand

    assert (WatchCommand("run").most_steps, WatchCommand("run").count) == (100_000, 3)
    every = WatchCommand("run", all_checkpoints=True)
    assert (every.most_steps, every.count) == (2_000, 1)
    assert WatchCommand("run", all_checkpoints=True, max_steps=7, episodes=5).count == 5


# An episode of the training.


@pytest.mark.parametrize("number", [1, 7, -1])
def test_a_training_episode_is_shown_step_by_step(
    number: int, counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row.split(",") for row in (counted / "episodes.csv").read_text().splitlines()[1:]]
    row = rows[number - 1 if number > 0 else number]
    video = tmp_path / "out.mp4"
    capsys.readouterr()
    assert main(["watch", str(counted), "--episode", row[1], "--video", str(video)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [f"training episode {row[1]}: return {float(row[2]):g}, {row[3]} steps", f"Video: {video}"]
    frames = frames_of(video)
    assert frames[0].shape == (20, 30, 3)
    assert [counts_in(frame, 1) for frame in frames] == list(range(int(row[3]) + 1))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--episode 0", "episode = 0: the run has kept episodes 1 to {last}"),
        ("--episode 9999", "episode = 9999: the run has kept episodes 1 to {last}"),
        ("--episode -3", "episode = -3: the run has kept episodes 1 to {last}"),
        ("--episode 1 --all-checkpoints", "episode = 1: plays it as the training did; leave out all_checkpoints"),
        ("--episode 1 --seed 3 --episodes 2", "leave out seed, episodes"),
        ("--episode 1 --checkpoint best", "leave out checkpoint"),
        ("--all-checkpoints --checkpoint best", "all_checkpoints: plays each of them; leave out checkpoint = best"),
        ("--side-by-side", "side_by_side: needs --all-checkpoints and --video"),
        ("--max-steps 0", "max_steps = 0: needs at least 1"),
    ],
)
def test_what_can_not_be_shown_is_refused(
    words: str, text: str, counted: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    last = len((counted / "episodes.csv").read_text().splitlines()) - 1
    said = refused("watch", str(counted), *words.split(), "--video", str(tmp_path / "out.mp4"))
    assert text.format(last=last) in said


def test_a_run_that_keeps_no_episodes_names_the_setting(
    endless: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    said = refused("watch", str(endless), "--episode", "1", "--video", str(tmp_path / "out.mp4"))
    assert said == f"nexus: error: {endless} has not kept its training episodes: train with --keep-episodes\n"


def test_an_environment_that_is_not_reproducible_is_refused(
    counted: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    video = str(tmp_path / "out.mp4")
    said = refused("watch", str(counted), "--episode", "2", "--env", "tests.counting:Unlike-v0", "--video", video)
    assert "tests.counting:Unlike-v0 isn't reproducible: episode 2 had" in said


@pytest.mark.parametrize("words", [["--all-checkpoints"], ["--episode", "3"]])
def test_without_a_display_a_video_is_suggested(
    words: list[str], counted: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    said = refused("watch", str(counted), *words)
    assert "there is no display; try: " in said
    assert f"watch {counted} {' '.join(words)} --video out.mp4" in said


def test_both_open_a_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    nexus.train("CartPole-v1", run_dir=run, listener=Silent(), keep_episodes=True, **TINY)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    capsys.readouterr()
    assert main(["watch", str(run), "--all-checkpoints", "--max-steps", "3"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"step {steps}: return 3, 3 steps, cut off there" for steps in (200, 300)
    ]
    assert main(["watch", str(run), "--episode", "1"]) == 0
    row = (run / "episodes.csv").read_text().splitlines()[1].split(",")
    assert capsys.readouterr().out == f"training episode 1: return {float(row[2]):g}, {row[3]} steps\n"
