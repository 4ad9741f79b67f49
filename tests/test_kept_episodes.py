"""Training episodes kept as seed and actions: the file, its resumption, and playing one again."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nexus
from nexus.core.errors import ConfigError, EnvError, RunError
from nexus.envs.episodes import EndedEpisode
from nexus.envs.factory import make_env
from nexus.inspection.training_episode import TrainingEpisode, played_again, training_episode
from nexus.training.kept_episodes import KeptEpisode, actions_line, read_kept_episode
from nexus.training.run_folder import read_run
from nexus.training.verify import verify
from tests.chaos import Silent, differences, run_child
from tests.counting import Counting, Recording

TINY: dict[str, Any] = {
    "total_steps": 600,
    "num_envs": 3,
    "learning_starts": 40,
    "hidden_dim": 8,
    "batch_size": 16,
    "n_step": 2,
    "log_every": "100 steps",
    "eval_episodes": 1,
    "checkpoint_every": "90 steps",
    "keep_episodes": True,
}
COUNTING = "tests.counting:Counting-v0"


def trained(env: Any, folder: Path, **settings: Any) -> Path:
    nexus.train(env, run_dir=folder, listener=Silent(), **TINY | settings)
    return folder


def lines_of(run: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (run / "actions.jsonl").read_text().splitlines()]


def rows_of(run: Path) -> list[list[str]]:
    return [row.split(",") for row in (run / "episodes.csv").read_text().splitlines()[1:]]


def again(run: Path, number: int) -> tuple[float, int]:
    """Return and length of a training episode that is played again."""
    about = read_run(run)
    spec = nexus.api.env_of_run(run)
    env = make_env(spec)
    *_, last = played_again(env, training_episode(run, about, number), about["env"])
    env.close()
    return last.episode_return, last.length


# The file.


@pytest.mark.parametrize(
    ("action_dim", "actions", "text"),
    [
        (2, [0, 1, 1, 0], "0110"),
        (18, [9, 10, 17], "9AH"),
        (64, [35, 36, 61, 62, 63], "Zaz-_"),
        (65, [0, 63, 64], "000_10"),  # two letters each, as 1 * 64 + 0
        (4_097, [4_096, 65], "100011"),
    ],
)
def test_each_action_is_a_letter_or_as_few_as_it_takes(
    action_dim: int, actions: list[int], text: str, tmp_path: Path
) -> None:
    line = actions_line(1, EndedEpisode(3, 17, np.array(actions), {}), action_dim)
    assert line == f'[1,3,17,"{text}"]\n'
    (tmp_path / "actions.jsonl").write_text(line)
    assert read_kept_episode(tmp_path, 1, action_dim).actions.tolist() == actions


@pytest.mark.parametrize("settings", [{"num_envs": 1}, {}, {"actor_sync_every": "16 steps"}], ids=str)
def test_the_file_has_what_each_episode_was_played_with(settings: dict[str, Any], tmp_path: Path) -> None:
    Recording.ended.clear()
    run = trained(lambda: Recording(), tmp_path / "run", eval_episodes=0, **settings)
    lines, rows = lines_of(run), rows_of(run)
    assert len(lines) == len(rows) > 90
    assert [line[0] for line in lines] == [int(row[1]) for row in rows] == list(range(1, len(rows) + 1))
    assert [len(line[3]) for line in lines] == [int(row[3]) for row in rows]
    assert sorted((seed, text) for _, _, seed, text in lines) == sorted(
        (seed, "".join(map(str, actions))) for seed, actions in Recording.ended[: len(lines)]
    )
    assert {line[1] for line in lines} == set(range(settings.get("num_envs", 3)))
    assert len({line[3] for line in lines}) > 40


def test_a_million_steps_of_short_episodes_take_a_few_megabytes(tmp_path: Path) -> None:
    run = trained(COUNTING, tmp_path / "run", total_steps=2_000)
    size = (run / "actions.jsonl").stat().st_size
    assert size / 2_000 < 6.5  # episodes of five steps; of 200 it is 1.1
    episode = EndedEpisode(7, 1_839_758_865, np.zeros(200, np.int64), {})
    assert len(actions_line(4_812, episode, 2)) == 200 + 23


def test_off_by_default_nothing_is_written_and_no_bit_changes(tmp_path: Path) -> None:
    kept = trained(COUNTING, tmp_path / "kept")
    plain = trained(COUNTING, tmp_path / "plain", keep_episodes=False)
    default = {name: value for name, value in TINY.items() if name != "keep_episodes"}
    nexus.train(COUNTING, run_dir=tmp_path / "default", listener=Silent(), **default)
    assert not (plain / "actions.jsonl").exists()
    assert not (tmp_path / "default" / "actions.jsonl").exists()
    assert differences(kept, plain, COUNTING) == []
    assert differences(kept, tmp_path / "default", COUNTING) == []


def test_evaluations_in_the_same_environment_are_not_kept(tmp_path: Path) -> None:
    alone: dict[str, Any] = {"num_envs": 1, "total_steps": 300}  # a function may not allow a second environment
    seldom = trained(lambda: Counting(), tmp_path / "seldom", **alone)
    often = trained(lambda: Counting(), tmp_path / "often", **alone, eval_every="20 steps", eval_episodes=2)
    assert (often / "actions.jsonl").read_bytes() == (seldom / "actions.jsonl").read_bytes()
    assert len(lines_of(often)) == len(rows_of(often)) > 45


# Killed and resumed.


@pytest.mark.parametrize(
    ("settings", "kills"),
    [
        ({}, [("step", 100), ("step", 333), ("file", 60)]),
        ({"num_envs": 1, "actor_sync_every": "16 steps"}, [("step", 250), ("torn", 7)]),
        ({"vectorization": "async"}, [("step", 301)]),
        ({"wrappers": ["gymnasium.wrappers:NormalizeReward"]}, [("step", 188)]),
    ],
    ids=str,
)
def test_after_kills_the_file_has_each_episode_once_and_in_order(
    settings: dict[str, Any], kills: list[tuple[str, int]], tmp_path: Path
) -> None:
    settings = TINY | {"env": COUNTING, "log_every": "10 steps"} | settings
    assert run_child(tmp_path / "whole", settings) == 0
    for kill in kills:
        assert run_child(tmp_path / "broken", settings, kill) == -signal.SIGKILL
    assert run_child(tmp_path / "broken", settings) == 0
    assert (tmp_path / "broken" / "actions.jsonl").read_bytes() == (tmp_path / "whole" / "actions.jsonl").read_bytes()
    assert len(lines_of(tmp_path / "broken")) == len(rows_of(tmp_path / "broken")) > 90
    assert verify(tmp_path / "broken").whole


def test_a_damaged_file_is_named_by_verify_and_cut_at_resume(tmp_path: Path) -> None:
    run = trained(COUNTING, tmp_path / "run")
    file = run / "actions.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert any("actions.jsonl has lost 9 of" in text for text in verify(run).damage)
    with pytest.raises(ConfigError, match=r"^episode = 999: the run has kept episodes 1 to \d+$"):
        training_episode(run, read_run(run), 999)
    listener = Silent()
    nexus.resume(run, total_steps=700, listener=listener)
    assert any("actions.jsonl has lost 9 of" in text for text in listener.notices)
    text = file.read_text()
    with pytest.raises(RunError, match=r"actions.jsonl is damaged: after episode \d+ comes \d+$"):
        read_kept_episode(run, len(rows_of(run)), 3)
    assert read_kept_episode(run, 5, 3).number == 5
    assert text.endswith("\n")


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '[2,0,5,"01"',
        '[2,0,5,""]',
        '[2,0,5,"03"]',
        '[2,0,5,"0 1"]',
        '[2,0,-5,"01"]',
        '[2,0,5,"01",{"rm":[1.0]}]',
        '[2,0,5,"01",{"0.return_rms.var":-1.0}]',
        '[2,0,null,"01"]',
        '[3,0,5,"01"]',
        "[" * 100_000,
    ],
)
def test_a_bad_line_is_refused_in_one(line: str, tmp_path: Path) -> None:
    (tmp_path / "actions.jsonl").write_text(f'[1,1,4,"012"]\n{line}\n')
    with pytest.raises(RunError, match="is damaged") as refused:
        read_kept_episode(tmp_path, 2, 3)
    assert "\n" not in str(refused.value)
    assert read_kept_episode(tmp_path, 1, 3).actions.tolist() == [0, 1, 2]  # those before it can be read


# Playing one again.


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        (COUNTING, {}),
        (COUNTING, {"num_envs": 1, "vectorization": "sync"}),
        (COUNTING, {"vectorization": "async"}),
        (COUNTING, {"actor_sync_every": "16 steps"}),
        (COUNTING, {"frame_skip": 2, "frame_stack": 2}),
        (COUNTING, {"algorithm": "pqn", "trace_lambda": 0.9, "rollout_steps": 20, "n_step": 1, "num_envs": 2}),
        (COUNTING, {"wrappers": ["gymnasium.wrappers:NormalizeReward", "gymnasium.wrappers:NormalizeObservation"]}),
        ("CartPole-v1", {}),
        ("CartPole-v1", {"vectorization": "sync"}),
        ("FrozenLake-v1", {"total_steps": 1_500}),
    ],
    ids=str,
)
def test_an_episode_played_again_is_the_one_of_the_training(env: str, settings: dict[str, Any], tmp_path: Path) -> None:
    run = trained(env, tmp_path / "run", **settings)
    rows = rows_of(run)
    assert len(rows) > 10
    for row in rows[:: max(1, len(rows) // 12)]:
        assert again(run, int(row[1])) == (float(row[2]), int(row[3]))


def test_rewards_are_scaled_by_what_scaled_them_then(tmp_path: Path) -> None:
    run = trained(COUNTING, tmp_path / "run", wrappers=["gymnasium.wrappers:NormalizeReward"], total_steps=200)
    lines = lines_of(run)
    names = {"0.return_rms.mean", "0.return_rms.var", "0.return_rms.count", "0.discounted_reward"}
    assert all(line[4].keys() == names for line in lines)
    assert lines[-1][4]["0.return_rms.count"] > lines[0][4]["0.return_rms.count"]
    unscaled = trained(COUNTING, tmp_path / "unscaled", wrappers=["gymnasium.wrappers:NormalizeObservation"])
    assert {len(line) for line in lines_of(unscaled)} == {4}  # what the agent saw does not matter: its actions are kept


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"return": 3.0}, "had 3 steps and return 3.0 in training; played again it had 3 steps and return 7.0"),
        ({"length": 4}, "had 4 steps and return 7.0 in training; played again it had 3 steps and return 7.0"),
        ({"actions": [0, 1, 0, 0]}, "had 3 steps and return 7.0 in training; played again it ended after 3 steps"),
        ({"actions": [0, 1]}, "had 3 steps and return 7.0 in training; played again it did not end there"),
        ({"actions": [0, 2, 0]}, "had 3 steps and return 7.0 in training; played again it failed: no such door"),
    ],
    ids=str,
)
def test_an_environment_that_plays_otherwise_is_called_not_reproducible(change: dict[str, Any], what: str) -> None:
    class Three(Counting):
        def reset(self, **options: Any) -> Any:
            self.at = 0
            return self.state(0), {}

        def step(self, action: Any) -> Any:
            if action == 2:
                raise ValueError("no such\ndoor")
            self.at += 1
            return self.state(0), self.at + float(action), self.at == 3, False, {}

    played: dict[str, Any] = {"actions": [0, 1, 0], "return": 7.0, "length": 3} | change
    kept = KeptEpisode(8, 0, 5, np.array(played["actions"]))
    episode = TrainingEpisode(kept, played["return"], played["length"])
    with pytest.raises(EnvError) as refused:
        list(played_again(Three(), episode, "Three"))
    assert str(refused.value).replace("'", "") == f"Three isnt reproducible: episode 8 {what}"
    good = list(played_again(Three(), TrainingEpisode(KeptEpisode(8, 0, 5, np.array([0, 1, 0])), 7.0, 3), "Three"))
    assert [(moment.episode_return, moment.length) for moment in good] == [(0.0, 0), (1.0, 1), (4.0, 2), (7.0, 3)]
    with pytest.raises(ConfigError, match=r"^Three has 3 actions: episode 8 has action 3$"):
        list(played_again(Three(), TrainingEpisode(KeptEpisode(8, 0, 5, np.array([0, 3])), 1, 2), "Three"))


def test_games_that_go_on_without_a_seed_are_played_from_the_last_one(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    settings: dict[str, Any] = {"preset": "nature", "total_steps": 2_400, "num_envs": 2, "replay_capacity": 600}
    settings |= {"learning_starts": 200, "update_every": "800 steps", "hidden_dim": 16, "eval_episodes": 0}
    nexus.train("breakout", run_dir=tmp_path, listener=Silent(), keep_episodes=True, **settings)
    lines, rows = lines_of(tmp_path), rows_of(tmp_path)
    assert len(lines) == len(rows) > 6
    assert [line[2] is not None for line in lines].count(True) == 2  # the first game of each
    assert max(float(row[2]) for row in rows[2:]) > 0
    about = read_run(tmp_path)
    env = make_env(nexus.api.env_of_run(tmp_path), render_mode="rgb_array")
    for number in (1, len(rows) // 2, len(rows)):
        episode = training_episode(tmp_path, about, number)
        first, *_, last = played_again(env, episode, "Breakout")
        assert (last.episode_return, last.length) == (float(rows[number - 1][2]), int(rows[number - 1][3]))
        assert first.state[:-1].max() == 0 < first.state[-1].max()  # a stack with one frame
    env.close()
