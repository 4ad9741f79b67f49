"""The command line, end to end and in process: what it writes, what it prints, and how it takes bad input."""

import builtins
import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from nexus.api import Listener, agent_for, load_agent
from nexus.cli.main import main
from nexus.cli.progress import TrainView
from nexus.core.errors import ConfigError
from nexus.core.installation import install_command, nexus_command
from nexus.envs.atari import PROTOCOLS
from nexus.training import curves
from nexus.training.config import TrainConfig
from nexus.training.files import write_json
from nexus.training.statistics import bootstrap_interval

# As short as a run can be that still learns, evaluates and logs.
TINY = "--total-steps 400 --num-envs 2 --learning-starts 64 --hidden-dim 16 --eval-episodes 2"
TRAIN = ["train", "CartPole-v1", *TINY.split(), "--log-every", "100 steps"]

# Environments that DQN can't use, or that play badly; a test puts this module on the path.
ODD_ENVS = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces

class Odd(gym.Env):
    metadata = {"render_modes": []}
    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)
    def __init__(self, render_mode=None):
        self.render_mode = render_mode
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.observation_space.sample(), {}
    def step(self, action):
        self.count += 1
        return self.observation_space.sample(), 1.0, self.count >= 5, False, {}

class Words(Odd):
    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "said": spaces.Text(5)})

class ManyActions(Odd):
    action_space = spaces.MultiDiscrete([2, 3])

class OddFrames(Odd):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    def render(self):
        return np.full((33, 47, 3), 40 * self.count, np.uint8)

class NoFrames(Odd):
    metadata = {"render_modes": ["rgb_array"]}
    def render(self):
        return None

for kind in (Odd, Words, ManyActions, OddFrames, NoFrames):
    gym.register(f"{kind.__name__}-v0", entry_point=kind)
"""


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "agent.safetensors")


def about(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "run.json").read_text())
    return read


def rewrite(run: Path, values: dict[str, Any]) -> None:
    """Change `run.json` as somebody would who knows of its checksum."""
    write_json(run / "run.json", values)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny run, shared by all tests that only read it."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert main([*TRAIN, "--run-dir", str(run), "--seed", "1"]) == 0
    return run


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run, to damage."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


@pytest.fixture
def odd_envs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `odd_envs:...` ids importable."""
    (tmp_path / "odd_envs.py").write_text(ODD_ENVS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail as a user's mistake does; return its one line."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert said.startswith("nexus: error: ")
        assert said.endswith("\n")
        assert said.count("\n") == 1, said
        return said

    return run


# Training.


def test_a_run_writes_all_its_files_and_has_learned(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "run.json",
        "agent.safetensors",
        "metrics.jsonl",
        "episodes.csv",
        "evaluation.json",
        "findings.json",
        "tensorboard",
        "checkpoints",
        "replay",
        "best",
        ".lock",
    }
    assert list((trained / "tensorboard").glob("events.*"))
    run = about(trained)
    assert run["status"] == "finished"
    assert run["progress"]["updates"] > 0
    assert 400 <= run["progress"]["steps"] < 400 + 16  # the last vector step may go beyond
    untrained = agent_for((4,), 2, TrainConfig.from_mapping(run["config"]))
    before = untrained.q_network.state_dict()
    after = {
        name.removeprefix("q_network."): value for name, value in weights(trained).items() if name.startswith("q_")
    }
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_run_json_says_what_ran_on_what(trained: Path) -> None:
    run = about(trained)
    assert run["env"] == "CartPole-v1"
    assert {"python", "platform", "nexus", "torch", "numpy", "gymnasium"} <= run["versions"].keys()
    assert run["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(run["config"]) == {field.name for field in fields(TrainConfig)}
    assert run["config"]["hidden_dim"] == 16
    assert run["config"]["log_every"] == "100 steps"


def test_metrics_and_episodes_are_numbers_in_order(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] // 100 for line in lines][:4] == [1, 2, 3, 4]
    assert lines[1]["train/loss"] >= 0
    episodes = curves.read_episodes(trained)
    assert (np.diff(episodes["step"]) >= 0).all()
    assert np.array_equal(episodes["return"], episodes["length"])  # CartPole pays 1 a step


def test_a_config_file_repeats_the_run_bit_for_bit(trained: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    assert main(["train", "--config", str(trained / "run.json"), "--run-dir", str(again)]) == 0
    assert about(again)["config"] == about(trained)["config"]
    assert same(weights(again), weights(trained))
    assert main(["train", "--config", str(trained), "--run-dir", str(other), "--seed", "2"]) == 0
    assert about(other)["config"] == {**about(trained)["config"], "seed": 2}
    assert not same(weights(other), weights(trained))


def test_the_same_flags_give_the_same_weights(trained: Path, tmp_path: Path) -> None:
    assert main([*TRAIN, "--run-dir", str(tmp_path / "again"), "--seed", "1"]) == 0
    assert same(weights(tmp_path / "again"), weights(trained))


def test_every_setting_is_a_flag_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert not stopped.value.code
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    docs = field_docs()
    for field in fields(TrainConfig):
        if field.name == "algorithm_settings":  # of which each entry is a flag
            continue
        assert f"--{field.name.replace('_', '-')}" in shown
        assert docs[field.name].rstrip(".") in shown


def field_docs() -> dict[str, str]:
    """The string below each field of the configs, from their source."""
    import ast
    import inspect

    docs: dict[str, str] = {}
    for kind in TrainConfig.__mro__[:-2]:
        body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
        for line, following in pairwise(body):
            if isinstance(line, ast.AnnAssign) and isinstance(following, ast.Expr):
                docs[ast.unparse(line.target)] = " ".join(ast.literal_eval(following.value).split())
    return docs


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("-n 2000 --seed 3", {"total_steps": 2000, "seed": 3}),
        ("--total-timesteps 2000", {"total_steps": 2000}),
        ("--total-steps=2000 --lr=0.002", {"total_steps": 2000, "learning_rate": 0.002}),
        ("--total_steps 2000 --lr 3e-4", {"total_steps": 2000, "learning_rate": 3e-4}),
        ("--max-grad-norm none --reward-clip 1", {"max_grad_norm": None, "reward_clip": 1.0}),
        ("--buffer-size 500 --preset seed", {"replay_capacity": 500, "epsilon_schedule": "per_episode"}),
    ],
)
def test_flags_reach_the_config(flags: str, expected: dict[str, Any]) -> None:
    from nexus.cli.train import read_command

    config = read_command(["CartPole-v1", *flags.split()]).config.to_mapping()
    assert {name: config[name] for name in expected} == expected


@pytest.mark.parametrize("form", ["CartPole-v1", "--env CartPole-v1", "--env=CartPole-v1", "--env-id CartPole-v1"])
def test_the_environment_may_be_named_in_any_form(form: str) -> None:
    from nexus.cli.train import read_command

    assert read_command([*form.split(), "--seed", "4"]).env == "CartPole-v1"


def test_a_run_without_a_folder_goes_below_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(TRAIN) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("CartPole-v1-seed0-")


def test_the_output_says_settings_result_and_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--run-dir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    for part in ("CartPole-v1", "400 steps", "4-16-16-2", "updates", nexus_command("watch", tmp_path / "run")):
        assert part in said


def test_ctrl_c_saves_everything_and_exits_with_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(view: Listener, progress: Any, episodes: Any) -> None:
        if progress.counters.steps >= 200:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainView, "on_step", stop)
    run = tmp_path / "run"
    assert main([*TRAIN, "--run-dir", str(run)]) == 130
    assert about(run)["status"] == "interrupted"
    assert about(run)["progress"]["steps"] in (200, 201)  # two environments, which need not both step
    assert about(run)["progress"]["updates"] > 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) >= 1
    assert curves.read_episodes(run)["return"].size == about(run)["progress"]["episodes"]
    load_agent(run)


# Evaluating, plotting, watching.


def test_evaluate_prints_a_score_with_its_protocol(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(trained), "--episodes", "3"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"mean return +\d+\.\d\d\n", said)
    assert "greedy, 3 full episodes" in said


def test_evaluate_as_json_never_uses_the_epsilon_of_training(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert about(trained)["config"]["epsilon"] == 1.0
    assert main(["evaluate", str(trained), "--episodes", "3", "--json"]) == 0
    greedy = json.loads(capsys.readouterr().out)
    assert greedy["protocol"]["epsilon"] == 0.0
    assert greedy["mean"] == np.mean(greedy["returns"])
    assert len(greedy["returns"]) == 3
    assert main(["evaluate", str(trained), "--episodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == greedy
    assert main(["evaluate", str(trained), "--episodes", "3", "--json", "--epsilon", "1.0"]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] != greedy["returns"]


@pytest.mark.parametrize("axis", ["steps", "episodes", "seconds"])
def test_plot_makes_a_picture(
    axis: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["plot", str(trained), "--x", axis]) == 0
    assert "curves.png" in capsys.readouterr().out
    picture = (tmp_path / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


def test_plot_groups_runs_that_differ_in_their_seed_only(trained: Path, tmp_path: Path) -> None:
    from nexus.cli.plot import draw

    runs = [seeded(trained, tmp_path / "a", seed=2), seeded(trained, tmp_path / "b", gamma=0.5)]
    figure = draw(curves.read_runs([str(trained), f"{trained}/", *map(str, runs)]), "steps", 5)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels[:2] == ["gamma = 0.995 (2 runs, 95 % interval)", "gamma = 0.5 (1 run)"]
    assert figure.axes[0].get_title(loc="left") == "CartPole-v1"
    assert figure.axes[0].get_xlabel() == "steps (decisions)"


def seeded(run: Path, to: Path, **changes: Any) -> Path:
    """Copy a run with other settings."""
    shutil.copytree(run, to)
    values = about(to)
    values["config"] |= changes
    rewrite(to, values)
    return to


def test_running_means_look_back_and_start_short() -> None:
    assert curves.running_mean(np.array([4.0, 0.0, 2.0, 6.0]), 2).tolist() == [4.0, 2.0, 1.0, 4.0]
    assert curves.running_mean(np.array([4.0, 0.0]), 9).tolist() == [4.0, 2.0]


def test_the_mean_of_runs_is_taken_where_all_of_them_are() -> None:
    def run(steps: list[float], returns: list[float]) -> curves.ScoredRun:
        return curves.ScoredRun(Path(), "E", {}, {"step": np.array(steps), "return": np.array(returns)})

    lines = [one.training("steps", 1) for one in (run([10, 20, 30], [0, 10, 20]), run([20, 40], [30, 30]))]
    curve = curves.mean_of(lines, curves.grid_of(lines))
    assert (curve.x[0], curve.x[-1]) == (20, 30)
    assert curve.mean[0] == pytest.approx(20.0)  # of 10 and 30
    assert curve.mean[-1] == pytest.approx(25.0)  # of 20 and 30
    assert (curve.low[0], curve.high[0]) == pytest.approx((10.0, 30.0))  # two runs: the interval is their range


def test_the_interval_of_many_points_is_that_of_each() -> None:
    values = np.random.default_rng(3).normal(size=(7, 2))
    low, high = bootstrap_interval(values)
    for column in range(2):
        np.testing.assert_allclose((low[column], high[column]), bootstrap_interval(values[:, column]))


def test_half_a_last_line_is_left_out(copy: Path) -> None:
    before = curves.read_episodes(copy)["return"]
    with (copy / "episodes.csv").open("a") as file:
        file.write("420,99,1")
    assert np.array_equal(curves.read_episodes(copy)["return"], before)


needs_imageio = pytest.mark.skipif(
    find_spec("imageio") is None or find_spec("imageio_ffmpeg") is None,
    reason='imageio is not installed; the extra "video" brings it',
)


@needs_imageio
def test_watch_writes_a_video(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = tmp_path / "out.mp4"
    capsys.readouterr()
    assert main(["watch", str(trained), "--video", str(video), "--episodes", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["episode 1", "episode 2", "Video"]
    steps = sum(int(re.findall(r"(\d+) steps", line)[0]) for line in said[:2])
    assert read_video(video) == ((600, 400), 50.0, steps + 2)  # a frame before each episode's first step


@needs_imageio
def test_watch_keeps_odd_frames_as_they_are_but_for_an_even_edge(odd_envs: None, tmp_path: Path) -> None:
    run, video = tmp_path / "run", tmp_path / "out.mp4"
    assert main([*TRAIN[:1], "odd_envs:OddFrames-v0", *TRAIN[2:], "--run-dir", str(run)]) == 0
    assert main(["watch", str(run), "--video", str(video), "--episodes", "1"]) == 0
    assert read_video(video) == ((48, 34), 10.0, 6)


def read_video(path: Path) -> tuple[tuple[int, int], float, int]:
    """Size, frames per second and number of frames, as ffmpeg decodes them."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    width, height = re.findall(r"Video: h264.*? (\d+)x(\d+)[ ,]", said)[0]
    return (
        (int(width), int(height)),
        float(re.findall(r"([\d.]+) fps", said)[0]),
        int(re.findall(r"frame= *(\d+)", said)[-1]),
    )


def test_watch_needs_a_display_or_a_video(
    trained: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    assert "--video out.mp4" in refused("watch", str(trained))
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    assert "--video out.mp4" in refused("watch", str(trained))


@pytest.mark.parametrize("video", [["--video", "out.mp4"], []])
def test_watch_looks_for_what_shows_it_before_it_looks_for_the_run(
    video: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    def without(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("nexus.cli.extras.import_module", without)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    said = refused("watch", "missing", "--checkpoint", "best", *video)
    assert ("imageio_ffmpeg is not installed" if video else "there is no display") in said
    assert video or "watch missing --checkpoint best --video out.mp4" in said


def test_watch_plays_a_checkpoint(trained: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    said = refused("watch", str(trained), "--checkpoint", "77")
    assert f"{trained} has no checkpoint" in said


def test_watch_opens_a_window(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    capsys.readouterr()
    assert main(["watch", str(trained), "--episodes", "1"]) == 0
    assert capsys.readouterr().out.startswith("episode 1: return ")


@pytest.mark.parametrize(("video", "part"), [("out.avi", ".mp4"), ("missing/out.mp4", "no folder"), ("d.mp4", "d.mp4")])
def test_a_bad_video_path_is_refused_before_anything_is_played(
    video: str,
    part: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.mp4").mkdir()
    assert part in refused("watch", str(trained), "--video", video)


@pytest.mark.parametrize(
    ("arguments", "extra"), [(["watch", "RUN", "--video", "out.mp4"], "video"), (["plot", "RUN"], "plot")]
)
def test_a_missing_extra_names_the_command_that_installs_it(
    arguments: list[str],
    extra: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
) -> None:
    def without(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nexus.cli.extras.import_module", without)
    said = refused(*[str(trained) if word == "RUN" else word for word in arguments])
    assert install_command(extra) in said


@pytest.mark.parametrize(("env", "part"), [("Odd-v0", "render"), ("NoFrames-v0", "render")])
@needs_imageio
def test_an_environment_without_pictures_is_refused(
    env: str, part: str, odd_envs: None, tmp_path: Path, refused: Callable[..., str]
) -> None:
    run = tmp_path / "run"
    assert main([*TRAIN[:1], f"odd_envs:{env}", *TRAIN[2:], "--run-dir", str(run)]) == 0
    assert part in refused("watch", str(run), "--video", str(tmp_path / "out.mp4"))


# Bad input.


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("trian", ["trian", "train"]),
        ("train", ["name an environment"]),
        ("train CartPole-v9", ["CartPole-v9", "CartPole-v1"]),
        ("train cartpole", ["CartPole-v1"]),
        ("train no_such_module:Env-v0", ["no_such_module"]),
        ("train Pendulum-v1", ["Pendulum-v1", "Discrete", "SAC"]),
        ("train odd_envs:Words-v0", ["observation['said']", "FilterObservation"]),
        ("train odd_envs:Words-v0 --frame-stack 4", ["frame_stack", "gymnasium.wrappers.FrameStackObservation"]),
        ("train odd_envs:ManyActions-v0", ["MultiDiscrete", "--flatten-actions", "6 combinations"]),
        ("train CartPole-v1 --learnig-rate 0.1", ["--learnig-rate", "--learning-rate"]),
        ("train CartPole-v1 --learning-rate fast", ["learning-rate", "fast"]),
        ("train CartPole-v1 --num-envs 2.5", ["num-envs", "2.5"]),
        ("train CartPole-v1 --update-every often", ["update-every", "often"]),
        ("train CartPole-v1 --loss cubic", ["loss", "cubic"]),
        ("train CartPole-v1 --gamma 1.5", ["gamma", "1.5"]),
        ("train CartPole-v1 --learning-rate -1", ["learning_rate", "-1"]),
        ("train CartPole-v1 -n 10", ["learning_starts", "10"]),
        ("train CartPole-v1 --eval-every none --target-return 100", ["eval_every"]),
        ("train CartPole-v1 --preset sead", ["sead", "seed"]),
        ("train Taxi-v3 --preset tuned", ["tuned", "Taxi-v3"]),
        ("train CartPole-v1 --device tpu", ["device", "tpu"]),
        ("train CartPole-v1 --config missing.json", ["missing.json"]),
        ("train CartPole-v1 --replay-capacity 100000000000", ["replay_capacity", "fit"]),
        ("train CartPole-v1 --run-dir .", ["not empty"]),
        ("train CartPole-v1 --run-dir odd_envs.py/run", ["odd_envs.py"]),
        ("plan", ["nexus plan CartPole-v1"]),
        ("plan CartPol-v1", ["CartPol-v1", "CartPole-v1"]),
        ("plan CartPole-v1 --gama 0.9", ["--gama", "--gamma", "nexus plan --help"]),
        ("plan CartPole-v1 -n 10", ["learning_starts", "10"]),
        ("plan CartPole-v1 --probe-seconds 0", ["probe_seconds", "0"]),
        ("plan CartPole-v1 --probe-seconds nan", ["probe_seconds", "nan"]),
        ("plan CartPole-v1 --protocol nature", ["protocol", "CartPole-v1"]),
        ("plan CartPole-v1 --replay-capacity 100000000000", ["replay_capacity", "fit"]),
        ("plan CartPole-v1 --run-dir .", ["not empty"]),
        ("plan CartPole-v1 --run-dir odd_envs.py/run", ["odd_envs.py", "not a folder"]),
        ("plan odd_envs:Words-v0", ["FilterObservation"]),
        ("evaluate", ["run"]),
        ("evaluate missing", ["missing", "no such folder"]),
        ("evaluate .", ["run.json"]),
        ("evaluate missing --episodes 0", ["episodes"]),
        ("evaluate missing --epsilon 2", ["epsilon"]),
        ("watch missing --video out.mp4", ["missing"]),
        ("watch missing --episodes 0", ["episodes"]),
        ("plot", ["at least one run"]),
        ("plot missing", ["missing"]),
        ("plot missing --window 0", ["window"]),
        ("plot missing --x frames", ["frames"]),
        ("plot missing --out curves.doc", [".png"]),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    command: str,
    parts: list[str],
    odd_envs: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(*command.split())
    for part in parts:
        assert part in said


def test_another_environment_must_fit_the_agent(trained: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "Acrobot-v1" in refused("evaluate", str(trained), "--env", "Acrobot-v1")
    if find_spec("imageio") is not None:
        assert "Acrobot-v1" in refused(
            "watch", str(trained), "--env", "Acrobot-v1", "--video", str(tmp_path / "out.mp4")
        )


def newer_format(run: Path) -> None:
    rewrite(run, {**about(run), "format": 99})


def no_json(run: Path) -> None:
    (run / "run.json").write_text("{ not json")


def no_text(run: Path) -> None:
    (run / "run.json").write_bytes(b"\xff\xfe\x00")


def a_list(run: Path) -> None:
    (run / "run.json").write_text("[1, 2]")


def no_agent(run: Path) -> None:
    rewrite(run, {**about(run), "agent": None})


def impossible_agent(run: Path) -> None:
    rewrite(run, {**about(run), "agent": {"state_dim": 4, "action_dim": 2, "gama": 1}})


def other_shapes(run: Path) -> None:
    values = about(run)
    values["config"]["hidden_dim"] = 8
    rewrite(run, values)


def cut_weights(run: Path) -> None:
    (run / "agent.safetensors").write_bytes((run / "agent.safetensors").read_bytes()[:-20])


def no_weights(run: Path) -> None:
    (run / "agent.safetensors").unlink()


def noise_for_weights(run: Path) -> None:
    (run / "agent.safetensors").write_bytes(bytes(range(256)))


@pytest.mark.parametrize(
    "damage",
    [
        newer_format,
        no_json,
        no_text,
        a_list,
        no_agent,
        impossible_agent,
        other_shapes,
        cut_weights,
        no_weights,
        noise_for_weights,
    ],
)
def test_a_damaged_run_is_one_line(damage: Callable[[Path], None], copy: Path, refused: Callable[..., str]) -> None:
    damage(copy)
    assert str(copy) in refused("evaluate", str(copy))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "columns"),
        ("step,episode,return,length,seconds\n1,1,x,1,0.1\n", "line 2"),
        ("step,episode,return,length,seconds\n1,1,2,1,0.1\n1,1,nan,1,0.1\n", "line 3"),
        ("step,episode,return,length,seconds\n1,1,2\n", "line 2"),
        ("\x00\x01", "damaged"),
        (None, "can't read"),
    ],
)
def test_damaged_episodes_are_one_line(
    text: str | None, part: str, copy: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    if text is None:
        (copy / "episodes.csv").unlink()
    else:
        (copy / "episodes.csv").write_text(text)
    said = refused("plot", str(copy), "--out", str(tmp_path / "curves.png"))
    assert part in said
    assert "episodes.csv" in said


NATURE, MACHADO = ({**PROTOCOLS[name].to_mapping(), "epsilon": 0.05} for name in ("nature", "machado"))


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        # What each was trained under, and evaluated under; None is a run without an evaluation.
        ((None, NATURE), ("nature", NATURE), None),  # nature is what a game gets that names no protocol
        (("nature", None), ("nature", NATURE), None),
        (("nature", None), ("machado", None), "A was trained under nature, B under machado"),
        ((None, NATURE), ("machado", MACHADO), "A was trained under nature, B under machado"),
        (("nature", NATURE), ("nature", MACHADO), "A was evaluated under nature, B under machado"),
        (
            ("nature", NATURE),
            ("nature", {**NATURE, "eval_frames": 108_000}),
            "A was evaluated under nature (eval_frames 18000), B under nature (eval_frames 108000)",
        ),
        (
            ("machado", {**MACHADO, "epsilon": 0.0}),
            ("machado", MACHADO),
            "A was evaluated under machado (epsilon 0.0), B under machado (epsilon 0.05)",
        ),
    ],
)
def test_runs_under_two_protocols_do_not_share_a_picture(
    ours: tuple[Any, Any], theirs: tuple[Any, Any], says: str | None, trained: Path, tmp_path: Path
) -> None:
    runs = [game(trained, tmp_path / name, *given) for name, given in (("A", ours), ("B", theirs))]
    if says is None:
        curves.read_runs(list(map(str, runs)))
        return
    says = says.replace("A was", f"{runs[0]} was").replace(", B", f", {runs[1]}")
    with pytest.raises(ConfigError, match=re.escape(says) + ": scores under different protocols can't be compared$"):
        curves.read_runs(list(map(str, runs)))


def game(run: Path, to: Path, protocol: str | None, evaluated: dict[str, Any] | None) -> Path:
    """Copy a run as if it had been one of Pong."""
    shutil.copytree(run, to)
    values = about(to)
    values["config"]["protocol"] = protocol
    rewrite(to, {**values, "env": "ALE/Pong-v5"})
    score = json.loads((to / "evaluation.json").read_text())
    if evaluated is None:
        (to / "evaluation.json").unlink()
    else:
        rules = {key: value for key, value in evaluated.items() if key != "epsilon"}
        protocol_there = {**score["protocol"], "rules": rules, "epsilon": evaluated["epsilon"], "seed": len(str(to))}
        write_json(to / "evaluation.json", {**score, "protocol": protocol_there})
    return to


def test_plot_names_runs_and_protocols_in_one_line(
    trained: Path, tmp_path: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = game(trained, tmp_path / "A", None, NATURE), game(trained, tmp_path / "B", "machado", None)
    picture = tmp_path / "curves.png"
    said = refused("plot", str(ours), str(theirs), "--out", str(picture))
    assert f"{ours} was trained under nature, {theirs} under machado" in said
    assert not picture.exists()
    assert main(["plot", str(theirs), "--out", str(picture)]) == 0


def test_a_picture_of_a_game_names_its_protocol(trained: Path, tmp_path: Path) -> None:
    from nexus.cli.plot import draw

    figure = draw(curves.read_runs([str(game(trained, tmp_path / "A", None, None))]), "steps", 5)
    assert figure.axes[0].get_title(loc="left") == "ALE/Pong-v5, protocol nature"


@pytest.mark.parametrize("protocol", [None, {}, {"epsilon": 0.0, "rules": "nature"}, {"rules": None}])
def test_an_evaluation_without_a_protocol_is_one_line(
    protocol: Any, copy: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    score = json.loads((copy / "evaluation.json").read_text())
    write_json(copy / "evaluation.json", {**score, "protocol": protocol})
    said = refused("plot", str(copy), "--out", str(tmp_path / "curves.png"))
    assert f"{copy / 'evaluation.json'} does not name its protocol" in said


def test_a_picture_that_cannot_be_written_is_one_line(
    trained: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "missing" in refused("plot", str(trained), "--out", str(tmp_path / "missing" / "curves.png"))


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("writes", ["pathlib.Path.write_bytes", "pathlib.Path.open", "pathlib.Path.mkdir"])
def test_a_full_disk_is_one_line_before_training(
    writes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.setattr(writes, full_disk)
    assert "No space left" in refused(*TRAIN, "--run-dir", str(tmp_path / "run"))


def test_a_disk_that_fills_up_while_training_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    class Full:
        name = "metrics.jsonl"
        write = flush = full_disk

        def close(self) -> None:
            """Nothing is left to write."""

    def opened(path: Path, *arguments: Any, **settings: Any) -> Any:
        return Full() if path.name == "metrics.jsonl" else builtins.open(path, *arguments, **settings)

    monkeypatch.setattr(Path, "open", opened)
    assert "No space left" in refused(*TRAIN, "--run-dir", str(tmp_path / "run"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["verify", "RUN"], ["plot", "RUN"]])
def test_an_output_that_can_not_be_written_is_one_line(words: list[str], trained: Path, tmp_path: Path) -> None:
    words = [str(trained) if word == "RUN" else word for word in words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nexus", *words], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
    assert done.stderr == "nexus: error: can't write the output: No space left on device\n"
    assert done.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_run_whose_output_can_not_be_written_can_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "nexus", *TRAIN, "--run-dir", str(run)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert main(["resume", str(run)]) == 0
    assert about(run)["status"] == "finished"


# The command itself.


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_lists_every_verb(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    said = capsys.readouterr().out
    assert all(f"nexus {verb}" in said for verb in ("train", "plan", "evaluate", "watch", "plot"))


@pytest.mark.parametrize("verb", ["plan", "evaluate", "watch", "plot"])
def test_each_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert not stopped.value.code
    assert f"usage: nexus {verb}" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    import nexus

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nexus {nexus.__version__}\n"


def test_the_package_is_the_command_too() -> None:
    done = subprocess.run([sys.executable, "-m", "nexus", "train", "CartPol-v1"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "did you mean CartPole-v1" in done.stderr
