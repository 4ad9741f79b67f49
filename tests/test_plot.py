"""What `nexus plot` draws: evaluations in front, training behind, and which runs share a mean or a panel."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexus.cli.main import main
from nexus.cli.plot import draw
from nexus.core.errors import RunError
from nexus.training import curves
from nexus.training.files import write_json

pytest.importorskip("matplotlib")

HEADER = "step,episode,return,length,seconds\n"
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write the folder of a run that ended after 300 steps, 3 episodes and 30 seconds."""

    def run(
        name: str,
        *,
        env: str = "CartPole-v1",
        episodes: str = "100,1,10,100,10\n200,2,20,100,20\n300,3,30,100,30\n",
        scores: Mapping[int, float] = {100: 50.0, 200: 60.0, 300: 70.0},
        status: str = "finished",
        env_is_id: bool = True,
        **config: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        values = {"eval_episodes": 100, "seed": 1, **config}
        progress = {"steps": 300, "episodes": 3, "updates": 1}
        about = {"env": env, "env_is_id": env_is_id, "algorithm": "dqn", "config": values, "progress": progress}
        write_json(folder / "run.json", {"format": 2, "status": status, "seconds": 30.0, **about})
        (folder / "episodes.csv").write_text(HEADER + episodes)
        lines = [{"step": 150, "train/loss": float("nan")}]
        lines += [{"step": step, "eval/mean_reward": mean, "eval/std_reward": 10.0} for step, mean in scores.items()]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if status == "finished" and scores:
            final = {"mean": scores[300], "low": 65.0, "high": 80.0, "protocol": {"epsilon": 0.0, "rules": None}}
            write_json(folder / "evaluation.json", final)
        return folder

    return run


def read(*folders: Path, **how: Any) -> list[curves.ScoredRun]:
    return curves.read_runs(list(map(str, folders)), **how)


def lines_of(axes: Any) -> list[Any]:
    """Lines of more than one point."""
    return [line for line in axes.get_lines() if len(line.get_xdata()) > 1]


def test_evaluations_are_in_front_of_the_returns_of_training(make: Make) -> None:
    (axes,) = draw(read(make("a")), "steps", 1).axes
    front, back = (
        next(line for line in lines_of(axes) if list(line.get_ydata()) == values and line.get_linestyle() == "-")
        for values in ([50, 60, 70], [10, 20, 30])
    )
    assert list(front.get_xdata()) == [100, 200, 300]
    assert front.get_zorder() > back.get_zorder()
    assert front.get_alpha() is None
    assert back.get_alpha() < 0.5
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0].startswith("evaluations")
    assert "evaluation of the final weights" in labels


def test_an_evaluation_has_its_interval_and_the_last_is_the_one_of_the_final_weights(make: Make) -> None:
    (run,) = read(make("a"))
    curve = run.evaluations("steps")
    assert curve.low.tolist() == pytest.approx([50 - 1.96, 60 - 1.96, 65.0])  # 10 / sqrt(100) is a standard error
    assert curve.high.tolist() == pytest.approx([50 + 1.96, 60 + 1.96, 80.0])
    assert run.finished


def test_of_two_evaluations_at_a_step_the_last_counts(make: Make) -> None:
    folder = make("a", status="interrupted")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 300, "eval/mean_reward": 7.0, "eval/std_reward": 0.0}\n{"step": 400, "eval/mean_rew')
    (run,) = read(folder)
    assert run.evaluations("steps").mean.tolist() == [50.0, 60.0, 7.0]
    assert not run.finished


@pytest.mark.parametrize(
    ("axis", "expected"), [("steps", [50, 150, 300]), ("episodes", [0.5, 1.5, 3]), ("seconds", [5, 15, 30])]
)
def test_evaluations_lie_on_each_axis_where_the_run_was_then(
    axis: curves.Axis, expected: list[float], make: Make
) -> None:
    episodes = "100,1,10,100,10\n200,2,20,100,20\n"  # the third had not ended by the last step of an episode
    (run,) = read(make("a", episodes=episodes, scores={50: 1, 150: 2, 300: 3}))
    assert run.evaluations(axis).x.tolist() == expected


def test_a_run_without_finished_episodes_shows_its_evaluations(make: Make) -> None:
    (axes,) = draw(read(make("a", episodes="")), "seconds", 20).axes
    assert [list(line.get_xdata()) for line in lines_of(axes)] == [[10, 20, 30]]


def test_a_run_with_nothing_to_draw_says_so(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make("a", episodes="", scores={}, status="running")
    assert main(["plot", str(folder)]) == 2
    said = capsys.readouterr().err
    assert (
        said == f"nexus: error: {folder} has nothing to draw yet: no episode has ended, and there was no evaluation\n"
    )


def test_each_environment_gets_a_panel(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [make("a"), make("b", env="Acrobot-v1"), make("c", env="Acrobot-v1", seed=2)]
    figure = draw(read(*folders), "steps", 20)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["CartPole-v1", "Acrobot-v1"]
    assert main(["plot", *map(str, folders), "--out", str(tmp_path / "p.png")]) == 0
    assert "of 3 run(s) of CartPole-v1, Acrobot-v1" in capsys.readouterr().out


def test_functions_of_one_name_are_not_one_environment_unless_that_is_said(make: Make) -> None:
    folders = [make(name, env="<lambda>", env_is_id=False, seed=seed) for name, seed in (("a", 1), ("b", 2))]
    assert list(curves.same_settings(read(*folders))) == [f"run = {folder}" for folder in folders]
    assert [len(group) for group in curves.same_settings(read(*folders, same_env=True)).values()] == [2]


def test_runs_from_before_settings_had_other_names_share_a_mean_with_those_of_now(make: Make) -> None:
    old = make("old", seed=1, updates_each=3, update_every="4 steps")
    new = make("new", seed=2, gradient_steps=3, update_every=None, rollout_steps=2048)
    other = make("other", seed=3, gradient_steps=4)
    assert [len(group) for group in curves.same_settings(read(old, new)).values()] == [2]
    assert list(curves.same_settings(read(old, other))) == ["gradient_steps = 3", "gradient_steps = 4"]
    before = {"trace_decay": 0.5, "replay_capacity": 64, "update_every": "64 steps"}
    old = make("old pqn", seed=1, algorithm="pqn", **before)
    new = make("new pqn", seed=2, algorithm="pqn", trace_lambda=0.5, rollout_steps=64, update_every=None)
    assert [len(group) for group in curves.same_settings(read(old, new)).values()] == [2]


def test_a_seed_counts_once(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, other = make("a"), make("c", seed=2)
    again = Path(shutil.copytree(first, tmp_path / "b"))
    kept, said = curves.different_seeds(read(first, again, other))
    assert [run.folder for run in kept] == [first, other]
    assert said == [f"{again} is skipped: it has the same seed 1 and settings as {first}"]
    assert main(["plot", *map(str, (first, again, other)), "--out", str(tmp_path / "p.png")]) == 0
    printed = capsys.readouterr().out
    assert f"Note: {said[0]}\n" in printed
    assert "of 2 run(s)" in printed


def test_of_a_seed_that_was_trained_twice_the_longer_run_is_drawn(make: Make) -> None:
    short, long = make("a", status="interrupted"), make("b")
    write_json(
        short / "run.json", {**json.loads((short / "run.json").read_text()), "progress": {"steps": 100, "episodes": 1}}
    )
    kept, _ = curves.different_seeds(read(short, long))
    assert [run.folder for run in kept] == [long]


def test_the_evaluations_of_seeds_share_a_mean_though_they_lie_some_steps_apart(make: Make) -> None:
    folders = [make("a"), make("b", seed=2, scores={103: 150.0, 203: 160.0, 300: 170.0})]
    lines = [run.evaluations("steps") for run in read(*folders)]
    x = curves.points_of(lines)
    assert x.tolist() == [103, 200, 300]
    assert curves.mean_of(lines, x).mean == pytest.approx([100.15, 109.85, 120.0], abs=0.01)
    (axes,) = draw(read(*folders), "steps", 1).axes
    assert any(np.array_equal(line.get_xdata(), x) for line in lines_of(axes))


def test_runs_that_share_no_range_are_drawn_one_by_one(make: Make) -> None:
    early = make("a", episodes="10,1,5,10,1\n20,2,6,10,2\n", scores={}, status="interrupted")
    late = make("b", seed=2, episodes="200,1,7,200,9\n300,2,8,100,10\n", scores={}, status="interrupted")
    (axes,) = draw(read(early, late), "steps", 1).axes
    assert [list(line.get_xdata()) for line in lines_of(axes)] == [[10, 20], [200, 300]]


@pytest.mark.parametrize(
    "line",
    ['{"step": 1, "eval/mean_reward": "x", "eval/std_reward": 1}', '{"eval/mean_reward": 1', '{"eval/mean_reward": 1}'],
)
def test_a_damaged_evaluation_is_named_with_its_line(line: str, make: Make) -> None:
    folder = make("a")
    (folder / "metrics.jsonl").write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(RunError, match=re.escape(f"{folder / 'metrics.jsonl'} is damaged: line 2 needs numbers")):
        read(folder)


def test_names_with_dollar_signs_are_no_formulas(make: Make, tmp_path: Path) -> None:
    folders = [make(name, env="$\\frac$", env_is_id=False) for name in ("a$x$", "b")]
    draw(read(*folders), "steps", 1).savefig(tmp_path / "p.png")
