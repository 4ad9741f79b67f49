"""Atari by ale-py's vector environment: its traps, the protocols, and a run of a few steps."""

import hashlib
import importlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

import nexus
from nexus.api import TrainResult, make_config, resume, train
from nexus.cli.main import main
from nexus.core.errors import ConfigError, EnvError, RunError
from nexus.core.types import Array
from nexus.envs.atari import LIFE_LOST, PROTOCOLS, OneGame, SeededGames, canonical, is_atari, make_atari
from nexus.envs.factory import EnvSpec, make_env, make_vector_env
from nexus.envs.stream import Step, TransitionStream
from nexus.training.evaluation import Evaluation, evaluate_policy
from nexus.training.files import write_json
from nexus.training.presets import PRESETS, resolve_preset
from nexus.training.replays import store_for
from nexus.training.verify import verify
from tests.chaos import Silent, differences, interrupt, interrupted
from tests.test_cli import read_video

pytest.importorskip("ale_py")

PONG, BREAKOUT = "ALE/Pong-v5", "ALE/Breakout-v5"
NATURE, MACHADO = PROTOCOLS["nature"], PROTOCOLS["machado"]


@pytest.mark.parametrize(
    ("source", "name", "atari"),
    [
        ("pong", PONG, True),
        ("space_invaders", "ALE/SpaceInvaders-v5", True),
        ("tic_tac_toe_3d", "ALE/TicTacToe3D-v5", True),
        (PONG, PONG, True),
        ("CartPole-v1", "CartPole-v1", False),
        ("module:pong", "module:pong", False),
    ],
)
def test_a_game_has_a_short_and_a_full_name(source: str, name: str, atari: bool) -> None:
    assert canonical(source) == name
    assert is_atari(source) is atari
    assert EnvSpec(source).source == name


def test_a_function_is_no_game() -> None:
    assert not is_atari(dict)
    assert canonical(dict) is dict


def test_the_protocols_say_what_they_are() -> None:
    assert str(NATURE) == "nature: no sticky actions, up to 30 no-ops, minimal actions, games of at most 18,000 frames"
    assert str(MACHADO) == "machado: sticky 0.25, no no-ops, minimal actions, games of at most 108,000 frames"
    assert (NATURE.life_loss, NATURE.eval_epsilon, NATURE.eval_episodes) == (True, 0.05, 30)
    assert not MACHADO.life_loss


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("ale_py"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    for name, complaint in ((PONG, PONG), ("pong", "no environment 'pong'.*; for an Atari game")):
        with pytest.raises(ConfigError, match=rf'{complaint}: ale-py is not installed; .*install .*\[atari\]"'):
            make_vector_env(EnvSpec(name), 1)


def test_a_protocol_belongs_to_a_game() -> None:
    with pytest.raises(ConfigError, match="protocol = 'nature': CartPole-v1 is not an Atari game"):
        EnvSpec("CartPole-v1", protocol="nature")
    with pytest.raises(ConfigError, match="protocol = 'x': needs one of nature, machado"):
        EnvSpec("pong", protocol="x")
    assert EnvSpec("CartPole-v1").rules is None
    assert EnvSpec("pong").rules is NATURE
    assert EnvSpec("pong", protocol="machado").rules is MACHADO


def test_frames_have_another_size_in_atari_alone() -> None:
    with pytest.raises(ConfigError, match="frame_size = 42: CartPole-v1 is not an Atari game"):
        EnvSpec("CartPole-v1", frame_size=42)
    with pytest.raises(ConfigError, match="frame_size = 19: needs 20 to 210 pixels, or none"):
        make_config("pong", frame_size=19)
    assert EnvSpec("pong", frame_size=84) == EnvSpec("pong")
    large, small = (steps_of(make_atari(PONG, NATURE, 3, frame_size=size), 150) for size in (84, 42))
    for one, other in zip(large, small, strict=True):
        assert (one.states.shape, other.states.shape) == ((3, 4, 84, 84), (3, 4, 42, 42))
        np.testing.assert_array_equal(one.rewards, other.rewards)  # the game is the same
    shrunk = large[-1].states.reshape(3, 4, 42, 2, 42, 2).mean((3, 5))
    assert np.abs(shrunk - small[-1].states).mean() < 3.0  # and so is the picture


def test_a_run_keeps_the_size_of_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "nature", type(NATURE)(**{**NATURE.to_mapping(), "eval_frames": 400}))
    result = nexus.train("breakout", run_dir=tmp_path, frame_size=42, torso="nips_cnn", **TINY)
    assert result.agent.state_shape == (4, 42, 42)
    assert result.evaluation is not None
    assert str(result.evaluation.protocol).endswith(", 42 x 42 pixels")
    for player, env in ((tmp_path, None), (result.agent, "breakout")):
        assert nexus.evaluate(player, env, episodes=1).protocol.frame_size == 42
    saved = json.loads(json.dumps(result.evaluation.to_mapping()))
    assert Evaluation.from_mapping(saved) == result.evaluation
    del saved["protocol"]["frame_size"]  # written before there was a choice
    assert Evaluation.from_mapping(saved).protocol.frame_size is None
    run = json.loads((tmp_path / "run.json").read_text())
    run["config"]["frame_size"] = 10**9
    del run["sha256"]
    write_json(tmp_path / "run.json", run)
    with pytest.raises(RunError, match="a config that can't be used: frame_size"):
        nexus.evaluate(tmp_path, episodes=1)


def test_atari_has_presets_as_data() -> None:
    assert resolve_preset(None, "pong") == ("fast", PRESETS["fast"]["any Atari game"])
    seed, nature = (resolve_preset(name, PONG)[1] for name in ("seed", "nature"))
    table = {
        "learning_rate": 0.00025,
        "gamma": 0.99,
        "replay_capacity": 1_000_000,
        "batch_size": 32,
        "target_update_every": "10000 steps",
        "epsilon": 1.0,
        "epsilon_min": 0.1,
        "epsilon_steps": 1_000_000,
        "frame_skip": 4,
        "frame_stack": 4,
    }  # the seed's, row by row
    assert table.items() <= seed.items()
    config = make_config(PONG, "seed")
    assert (config.optimizer, config.torso, config.hidden_dim) == ("adam", "nature_cnn", None)
    config = make_config(PONG, "nature")
    assert (config.optimizer, config.max_grad_norm, config.rmsprop_epsilon) == ("rmsprop", None, 0.01 / 1024)
    assert table.items() <= nature.items()
    assert resolve_preset("seed", "CartPole-v1")[1]["num_envs"] == 1
    assert "frame_skip" not in resolve_preset("seed", "CartPole-v1")[1]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("pongg", "no environment 'pongg'; did you mean pong"),
        ("ALE/breakout-v5", "did you mean ALE/Breakout-v5"),
        ("ALE/Pong-v4", "did you mean ALE/Pong-v5"),
    ],
)
def test_a_game_that_does_not_exist_is_refused_with_the_nearest(name: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make_vector_env(EnvSpec(name), 1)


def test_what_atari_can_not_do_is_said() -> None:
    with pytest.raises(ConfigError, match="vectorization = 'sync': Atari games are stepped by ale-py's threads"):
        make_vector_env(EnvSpec("pong"), 1, "sync")


def test_a_rom_folder_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"ALE/Pong-v5 can't be made: ROM directory .* doesn't exist"):
        make_vector_env(EnvSpec("pong"), 1)
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"ALE/Pong-v5 can't be made: .*pong.bin"):
        make_vector_env(EnvSpec("pong"), 1)


def test_making_a_game_leaves_gymnasium_as_it_was() -> None:
    before = dict(VectorEnv.metadata)
    env = make_atari(PONG, MACHADO, 1)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert VectorEnv.metadata == before


def steps_of(env: VectorEnv[Any, Any, Any], count: int, seed: int = 1, action: int | None = None) -> list[Step]:
    stream, rng = TransitionStream(env), np.random.default_rng(seed)
    stream.reset(seed)
    taken = []
    for _ in range(count):
        actions = rng.integers(0, 4, env.num_envs) if action is None else np.full(env.num_envs, action)
        taken.append(stream.step(actions))
    env.close()
    return taken


def test_games_are_bytes_stacked_with_black_before_their_start() -> None:
    env = make_atari(PONG, NATURE, 3)
    states = TransitionStream(env).reset(0)
    assert states.shape == (3, 4, 84, 84)
    assert states.dtype == np.uint8
    assert not states[:, :-1].any()
    assert states[:, -1].any()
    assert env.single_action_space == spaces.Discrete(6)  # minimal


def test_a_lost_life_ends_learning_and_never_the_game() -> None:
    steps = steps_of(make_atari(BREAKOUT, NATURE, 2), 700)
    lost = np.array([step.life_lost for step in steps])
    ended = np.array([step.terminated | step.truncated for step in steps])
    for env in range(2):
        games = np.flatnonzero(ended[:, env])
        assert len(games) >= 2
        for first, last in itertools.pairwise(games):
            assert lost[first + 1 : last + 1, env].sum() == 4  # of five lives; with the fifth the game ends
    for step, after in itertools.pairwise(steps):
        assert step.life_lost is not None
        assert not (step.life_lost & (step.terminated | step.truncated)).any()
        np.testing.assert_array_equal(step.terminal, step.terminated | step.life_lost)
        np.testing.assert_array_equal(after.begins, step.terminated | step.truncated)
        going = ~after.begins  # also where a life was lost
        np.testing.assert_array_equal(after.states[going], step.next_states[going])
        np.testing.assert_array_equal(step.states[:, 1:], step.next_states[:, :-1])
        assert not after.states[after.begins][:, :-1].any()


class Lives(VectorEnv[Any, Any, Any]):
    """One game: 6 lives, then 5, then cut off and begun anew with 3."""

    num_envs = 1

    def __init__(self) -> None:
        self.script = iter([(6, False), (5, False), (5, False), (3, True), (3, False)])

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(1), {"lives": np.array([next(self.script)[0]])}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        lives, truncated = next(self.script)
        last = {"final_obs": np.array([9.0])} if truncated else {}
        return np.zeros(1), np.zeros(1), np.zeros(1, bool), np.array([truncated]), {"lives": np.array([lives]), **last}


def test_a_new_game_with_fewer_lives_is_no_lost_life() -> None:
    env = SeededGames(Lives(), life_loss=True)
    env.reset()
    told = [env.step(None) for _ in range(4)]
    assert [bool(info[LIFE_LOST][0]) for *_, info in told] == [True, False, False, False]
    assert [float(shown[0]) for shown, *_ in told] == [0.0, 0.0, 9.0, 0.0]  # what ended shows its own end


def test_a_game_that_has_begun_by_itself_waits_until_it_is_asked_for() -> None:
    env = SeededGames(Lives(), life_loss=True)
    env.reset()
    for _ in range(3):
        env.step(None)
    shown, info = env.reset()  # no other game is begun: the script would have none
    assert (float(shown[0]), int(info["lives"][0])) == (0.0, 3)


def test_machado_has_no_life_signal() -> None:
    env = make_atari(BREAKOUT, MACHADO, 2)
    assert all(step.life_lost is None for step in steps_of(env, 40))


def test_sticky_actions_are_the_difference_between_two_seeds() -> None:
    def final(protocol: Any, seed: int) -> Array:
        env = make_atari(PONG, protocol, 1)
        stream = TransitionStream(env)
        stream.reset(seed)
        for action in np.random.default_rng(5).integers(0, 6, 120):
            stream.step(np.array([action]))
        return stream.states

    no_noise = {"name": "none", "sticky": 0.0, "no_ops": 0}
    plain = type(MACHADO)(**{**MACHADO.to_mapping(), **no_noise})
    assert np.array_equal(final(plain, 1), final(plain, 2))
    assert not np.array_equal(final(MACHADO, 1), final(MACHADO, 2))
    assert np.array_equal(final(MACHADO, 1), final(MACHADO, 1))
    assert not np.array_equal(final(NATURE, 1), final(NATURE, 3))  # other numbers of no-ops


def test_rewards_are_never_clipped_by_the_environment() -> None:
    steps = steps_of(make_atari("ALE/SpaceInvaders-v5", NATURE, 4), 200)
    rewards = np.array([step.rewards for step in steps])
    assert rewards.max() >= 5


def played(stream: TransitionStream, seed: int, count: int) -> tuple[str, int]:
    """A checksum of all that so many steps after a reset show, and how many games they ended."""
    digest, rng, games = hashlib.sha256(stream.reset(seed).tobytes()), np.random.default_rng(5), 0
    for _ in range(count):
        step = stream.step(rng.integers(0, stream.action_dim, stream.num_envs))
        games += int((step.terminated | step.truncated).sum())
        for part in (step.next_states, stream.states, step.rewards, step.terminal, step.truncated):
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest(), games


@pytest.mark.parametrize("game", ["breakout", "pong", "seaquest"])
@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_a_reset_makes_the_same_games_whatever_came_before(game: str, sticky: float) -> None:
    """Exact resume relies on it: no-ops, sticky actions and later games of a sub-environment come from its seed."""
    protocol = type(NATURE)(**{**NATURE.to_mapping(), "sticky": sticky, "train_frames": 600})
    env, fresh = (make_atari(canonical(game), protocol, 2) for _ in range(2))
    stream = TransitionStream(env)
    first, games = played(stream, 99, 320)
    assert games >= 4  # two of each: the second begins without a seed of its own
    assert played(stream, 99, 320)[0] == first
    played(stream, 7, 57)  # stops in the middle of a game
    assert played(stream, 99, 320)[0] == first
    assert played(TransitionStream(fresh), 99, 320)[0] == first
    assert played(stream, 100, 320)[0] != first
    env.close()
    fresh.close()


class Still:
    """Acts always alike."""

    def act(self, states: Array, epsilon: float, training: bool, action_masks: Array | None) -> Array:
        self.epsilon = epsilon
        return np.zeros(len(states), np.int64)


def test_an_evaluation_follows_the_protocol_and_says_it() -> None:
    still = Still()
    short = type(NATURE)(**{**NATURE.to_mapping(), "eval_frames": 400, "eval_episodes": 3})
    PROTOCOLS["short"] = short
    try:
        result = evaluate_policy(still, EnvSpec("breakout", 4, 4, protocol="short"))
    finally:
        del PROTOCOLS["short"]
    assert still.epsilon == 0.0  # the coins are the evaluation's
    assert (result.episodes, result.mean_length) == (3, 100)  # 400 frames
    assert result.protocol.rules == short
    assert "no sticky actions, up to 30 no-ops" in str(result.protocol)
    assert "ε = 0.05" in str(result.protocol)
    assert Evaluation.from_mapping(json.loads(json.dumps(result.to_mapping()))) == result


def test_one_game_has_the_interface_of_one_environment() -> None:
    env = make_env(EnvSpec("breakout", 4, 4))
    state, _ = env.reset(seed=1)
    assert state.shape == (4, 84, 84)
    before, ended = state, False
    for _ in range(1000):
        state, reward, terminated, truncated, _ = env.step(1)
        assert isinstance(reward, float)
        np.testing.assert_array_equal(state[:-1], before[1:])
        before, ended = state, terminated or truncated
        if ended:
            break
    assert ended
    assert not env.reset()[0][:-1].any()
    env.close()


TINY: dict[str, Any] = {
    "preset": "nature", "total_steps": 800, "num_envs": 4, "replay_capacity": 600, "learning_starts": 200,
    "update_every": "60 steps", "hidden_dim": 16, "eval_episodes": 1, "log_every": "200 steps",
}  # fmt: skip


@pytest.mark.parametrize("preset", ["seed", "nature"])
def test_a_run_learns_and_reports_full_unclipped_games(
    tmp_path: Path, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROTOCOLS, "nature", type(NATURE)(**{**NATURE.to_mapping(), "eval_frames": 400}))
    result = nexus.train("breakout", run_dir=tmp_path, **TINY | {"preset": preset})
    assert result.counters.updates == 10
    episodes = (tmp_path / "episodes.csv").read_text().splitlines()[1:]
    lengths = [int(row.split(",")[3]) for row in episodes]
    assert lengths
    assert min(lengths) > 100  # five lives; a single one takes some 25 steps
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["env"] == BREAKOUT
    saved = json.loads((tmp_path / "evaluation.json").read_text())
    assert saved["protocol"]["rules"]["name"] == "nature"
    again = nexus.evaluate(tmp_path, episodes=1)
    assert again.protocol.rules is not None
    assert again.protocol.epsilon == 0.05
    assert nexus.evaluate(result.agent, "breakout", episodes=1, epsilon=0.0).protocol.epsilon == 0.0


@pytest.mark.parametrize("preset", ["seed", "nature", "paper"])
def test_frames_of_a_run_are_compressed_and_saved_every_quarter_of_a_million_steps(preset: str) -> None:
    config = make_config("pong", preset, algorithm="rainbow" if preset == "paper" else "dqn")
    assert store_for(config, (4, 84, 84), np.uint8) == "compressed"
    assert str(config.checkpoint_every) == "250000 steps"


def test_rewards_are_clipped_for_learning_only(tmp_path: Path) -> None:
    result = nexus.train(
        "space_invaders", run_dir=tmp_path, **TINY | {"total_steps": 2_000, "update_every": "400 steps"}
    )
    episodes = (tmp_path / "episodes.csv").read_text().splitlines()[1:]
    returns = [float(row.split(",")[2]) for row in episodes]
    assert max(returns) >= 50  # a ship is worth 5 to 30
    rewards = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {row.get("replay/reward_max") for row in rewards if "replay/reward_max" in row} <= {0.0, 1.0}
    assert all(torch.isfinite(weights).all() for weights in result.agent.q_network.state_dict().values())


def stopped_and_whole(tmp_path: Path, env: str, at_step: int, **settings: Any) -> TrainResult:
    """Train twice, once to the end and once in two parts, compare all that is left, and return the second."""
    config = make_config(env, **TINY | settings)
    train(env, config=config, run_dir=tmp_path / "whole", listener=Silent())
    stop = Silent(at_step, interrupt)
    broken = interrupted(lambda: train(env, config=config, run_dir=tmp_path / "broken", listener=stop))
    assert broken.resumes_from == broken.counters.steps >= at_step
    result = resume(tmp_path / "broken", listener=Silent())
    assert differences(tmp_path / "whole", tmp_path / "broken") == []
    assert verify(tmp_path / "broken").whole
    nexus.load_agent(tmp_path / "broken", checkpoint="latest")
    return result


def test_a_game_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "nature", type(NATURE)(**{**NATURE.to_mapping(), "eval_frames": 400}))
    result = stopped_and_whole(tmp_path, "breakout", 700, checkpoint_every="200 steps")
    assert result.counters.updates == 10
    written = sum(path.stat().st_size for path in (tmp_path / "whole" / "replay").glob("frames-*"))
    assert written < 800 * 84 * 84 / 10  # compressed, as they are kept


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["seed", "nature", "paper", "fast"])
def test_pong_goes_on_bit_for_bit_under_every_preset(preset: str, tmp_path: Path) -> None:
    settings = {"algorithm": "rainbow"} if preset == "paper" else {"protocol": "machado"}
    more: dict[str, Any] = {"total_steps": 3_000, "checkpoint_every": "500 steps", "hidden_dim": 32}
    more |= {"replay_capacity": 900} if preset != "fast" else {"rollout_steps": 256, "update_every": None}
    assert stopped_and_whole(tmp_path, "pong", 2_300, preset=preset, **settings, **more).counters.updates > 20


@pytest.mark.parametrize("protocol", ["nature", "machado"])
def test_a_game_that_is_shown_is_the_game_that_is_played(protocol: str) -> None:
    spec = EnvSpec("breakout", 4, 4, protocol=protocol)
    plain, shown = make_env(spec), make_env(spec, render_mode="rgb_array")
    rng, pictures, ends = np.random.default_rng(0), [], 0
    for env in (plain, shown):
        assert env.reset(seed=3)[0].shape == (4, 84, 84)
    for _ in range(400):
        action = rng.integers(0, 4)
        (state, *rest), (seen, *others) = plain.step(action), shown.step(action)
        assert np.array_equal(state, seen)
        assert rest[:3] == others[:3]
        pictures.append(np.asarray(shown.render()))
        if rest[1] or rest[2]:
            ends += 1
            assert np.array_equal(plain.reset(seed=ends)[0], shown.reset(seed=ends)[0])
            first, last, before = shown.render(), pictures[-1], pictures[-2]
            assert np.mean(last != before) < np.mean(last != first)  # of the game that ended, not of the next one
    assert ends > 0
    assert {(picture.shape, picture.dtype) for picture in pictures} == {((420, 320, 3), np.dtype(np.uint8))}
    assert len({picture.tobytes() for picture in pictures}) > 100
    assert (pictures[0][..., 0] != pictures[0][..., 2]).any()  # colours
    for env in (plain, shown):
        env.close()


def test_a_picture_of_another_game_is_an_error() -> None:
    env = make_env(EnvSpec("breakout", 4, 4), render_mode="rgb_array")
    assert isinstance(env, OneGame)
    assert env.screen is not None
    env.reset(seed=3)
    env.screen.reset(seed=9)
    with pytest.raises(EnvError, match="displayed game differs from the one being played"):
        list(map(env.step, [1, 2, 3] * 60))
    env.close()


@pytest.mark.parametrize("window", [True, False])
def test_watch_shows_a_game(
    window: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {"eval_frames": 200, "train_frames": 200}
    monkeypatch.setitem(PROTOCOLS, "nature", type(NATURE)(**{**NATURE.to_mapping(), **short}))
    nexus.train("breakout", run_dir=tmp_path / "run", **TINY | {"total_steps": 240, "learning_starts": 100})
    capsys.readouterr()
    video = [] if window else ["--video", str(tmp_path / "out.mp4")]
    if window:
        pytest.importorskip("pygame")
        monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    else:
        pytest.importorskip("imageio_ffmpeg")
    assert main(["watch", str(tmp_path / "run"), "--episodes", "1", *video]) == 0
    said = capsys.readouterr().out
    assert said.startswith("episode 1: return ")
    assert "50 steps" in said
    if not window:
        assert read_video(tmp_path / "out.mp4") == ((320, 420), 15.0, 51)
