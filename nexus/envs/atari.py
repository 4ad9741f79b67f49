"""Atari games, stepped by the C++ threads of ale-py, under protocols that have a name (`docs/atari.md`)."""

import importlib
import re
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.wrappers import HumanRendering

from nexus.core.errors import ConfigError, EnvError, nearest, one_line
from nexus.core.installation import not_installed
from nexus.core.types import Array
from nexus.envs.episodes import ACTIONS, RESET_MASK, Seeds, play_aligned, seeds_for

__all__ = [
    "LIFE_LOST",
    "PROTOCOLS",
    "AtariProtocol",
    "canonical",
    "hint",
    "is_atari",
    "make_atari",
    "make_one_atari",
    "short_names",
]

LIFE_LOST = "nexus_life_lost"  # in our infos: [E], where a life was lost, the game goes on, and learning sees an end
PREFIX, SUFFIX = "ALE/", "-v5"
SCREEN = {"img_height": 210, "img_width": 160, "grayscale": False}  # the console's own picture
FRAME_SIZE = 84
FRAMES_PER_SECOND = 60
COUNTS = ("lives", "episode_frame_number")  # of an info, by which two games are told apart


@dataclass(frozen=True)
class AtariProtocol:
    """How a game is played; scores under different protocols can't be compared.

    Frames are the console's, 60 a second; a step is `frame_skip` of them.
    """

    name: str
    sticky: float  # probability, at each frame, that the action before is repeated in place of the chosen one
    no_ops: int  # at most so many frames without an action begin a game
    life_loss: bool  # a lost life ends what is learned from, never the game
    train_frames: int  # a longer game is cut off
    eval_frames: int  # likewise in an evaluation
    eval_epsilon: float
    eval_episodes: int
    minimal_actions: bool = True

    def __str__(self) -> str:
        return (
            f"{self.name}: {f'sticky {self.sticky:g}' if self.sticky else 'no sticky actions'}, "
            f"{f'up to {self.no_ops} no-ops' if self.no_ops else 'no no-ops'}, "
            f"{'minimal' if self.minimal_actions else 'all'} actions, games of at most {self.eval_frames:,} frames"
        )

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


PROTOCOLS = {
    # Mnih et al. 2015: up to 30 no-ops, minimal actions, a game of at most five minutes when evaluated.
    "nature": AtariProtocol("nature", 0.0, 30, True, 108_000, 18_000, 0.05, 30),
    # Machado et al. 2018 (https://arxiv.org/abs/1709.06009): sticky actions make the game random, so no no-ops; no life
    # signal. Games of half an hour, as is usual since.
    "machado": AtariProtocol("machado", 0.25, 0, False, 108_000, 108_000, 0.01, 30),
}


def is_atari(source: object) -> bool:
    """True for `ALE/Pong-v5` and all of that form, and for a game's short name, such as `pong`."""
    return isinstance(source, str) and (source.startswith(PREFIX) or source in short_names(source))


def canonical(source: Any) -> Any:
    """Return `ALE/SpaceInvaders-v5` for `space_invaders`; everything else as it is."""
    return full_name(source) if is_atari(source) and not source.startswith(PREFIX) else source


def full_name(rom: str) -> str:
    """Return `ALE/SpaceInvaders-v5` for `space_invaders`."""
    return PREFIX + rom.title().replace("_", "") + SUFFIX


def short_names(word: str) -> list[str]:
    """Return the short names of all games if `word` could be one, and ale-py is there to know them; else none."""
    if not re.fullmatch(r"[a-z0-9_]+", word) or word in gym.registry:
        return []
    try:
        return list(importlib.import_module("ale_py.roms").get_all_rom_ids())
    except ImportError:
        return []


def hint(word: str) -> str:
    """Return how to get Atari games where `word` could be one and ale-py is missing, else an empty text."""
    bare = re.fullmatch(r"[a-z0-9_]+", word) is not None
    return f"; for an Atari game: {not_installed('ale-py', 'atari')}" if bare and not short_names(word) else ""


def make_atari(
    name: str,
    protocol: AtariProtocol,
    num_envs: int,
    frame_skip: int = 4,
    frame_stack: int = 4,
    frame_size: int | None = None,
    **picture: Any,
) -> VectorEnv[Any, Any, Any]:
    """Return `num_envs` games that step together: grey, maximum over two frames, stacked, rewards as they are.

    Where the protocol has it, their infos tell of lost lives. That is taken from the number of lives: of the two
    signals of ale-py one resets the game, and the other leaves the last observation unwritten.

    Args:
        name: as in `canonical`.
        protocol: how it is played.
        num_envs: copies.
        frame_skip: frames to a step.
        frame_stack: frames shown at once.
        frame_size: pixels on a side of a frame; None takes 84.
        picture: how ale-py is to show a frame, where that is not to be as said.

    Raises:
        ConfigError: ale-py is not installed, there is no such game, or its ROM can't be read.
    """
    game, size = rom_of(name), frame_size or FRAME_SIZE
    vector_env = importlib.import_module("ale_py.vector_env").AtariVectorEnv
    # It writes its autoreset mode into the metadata of Gymnasium's base class unless it has its own.
    kind = type("AtariVectorEnv", (vector_env,), {"metadata": {}})
    try:
        env: VectorEnv[Any, Any, Any] = kind(
            game,
            num_envs,
            max_num_frames_per_episode=protocol.train_frames,
            repeat_action_probability=protocol.sticky,
            full_action_space=not protocol.minimal_actions,
            autoreset_mode=AutoresetMode.SAME_STEP,
            stack_num=frame_stack,
            frameskip=frame_skip,
            maxpool=frame_skip > 1,
            noop_max=protocol.no_ops,
            reward_clipping=False,  # reported returns are never clipped
            use_fire_reset=False,
            **{"img_height": size, "img_width": size, **picture},
        )
    except Exception as error:
        raise ConfigError(f"{name} can't be made: {one_line(error)}") from error
    return SeededGames(env, protocol.life_loss)


class SeededGames(VectorWrapper[Any, Any, Any, Any]):
    """Games of which none resets by itself, and each can be reset with a seed of its own.

    ale-py's games do reset by themselves: the new game waits here until it is asked for. Seeding one takes as long as
    a hundred steps, since its console is built again, so most games go on with the generator of the one before:
    `reseed_after` says how many steps lie between two seeds. The seed and all actions since bring a game back.

    `info[LIFE_LOST]` `[E]` tells where a life was lost and the game goes on, if that is wanted.

    Args:
        env: that resets in the same step, and whose infos count `lives`.
        life_loss: whether to tell of lost lives.
    """

    reseed_after = 10_000

    def __init__(self, env: VectorEnv[Any, Any, Any], life_loss: bool) -> None:
        super().__init__(env)
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self.life_loss = life_loss
        self._lives: Array = np.zeros(env.num_envs, np.int64)
        self._shown: tuple[Array, dict[str, Any]] = np.empty(0), {}  # by all games, the new ones included
        self._new = np.zeros(env.num_envs, bool)  # [E], where a game has just begun by itself

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Reset the games of the option `RESET_MASK`, or all, and play their `ACTIONS` if there are any."""
        options = options or {}
        which = options.get(RESET_MASK, np.ones(self.num_envs, bool))
        seeds = seeds_for(seed, self.num_envs)
        self._begin(which, seeds)
        if ACTIONS in options:  # after the reset, since ale-py resets a part of its games only once all were
            play_aligned(options[ACTIONS], seeds, self._begin, self.step)
        self._lives = self._shown[1]["lives"]
        return self._shown

    def _begin(self, which: Array, seeds: Seeds) -> None:
        """Reset games, but for those without a seed that have begun by themselves."""
        seeded = np.array([seed is not None for seed in seeds])
        asked = which & (seeded | ~self._new)
        if asked.any():
            given: Any = np.array([-1 if seed is None else seed for seed in seeds])[asked]  # -1: none
            self._shown = self.env.reset(seed=given, **({} if asked.all() else {"options": {RESET_MASK: asked}}))
        self._new[which] = False

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step, and look at the lives."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        done = terminated | truncated
        self._shown, self._new = (observations, info), done
        if done.any():
            observations, info = observations.copy(), dict(info)
            observations[done] = info.pop("final_obs")[done]
        lives = info["lives"]
        lost = (lives < self._lives) & ~done
        self._lives = lives
        return observations, rewards, terminated, truncated, {**info, LIFE_LOST: lost} if self.life_loss else info


class OneGame(gym.Env[Any, Any]):
    """One game with Gymnasium's interface for one environment.

    To be shown, it plays the same game a second time, in colour: what the agent sees stays what its protocol says.

    Args:
        games: a vector of one.
        screen: another, of the same game and protocol, whose observations are single pictures in colour.
    """

    def __init__(self, games: VectorEnv[Any, Any, Any], screen: VectorEnv[Any, Any, Any] | None = None) -> None:
        self.metadata = {"render_modes": ["human", "rgb_array"], "render_fps": FRAMES_PER_SECOND}
        self.games = games
        self.screen = screen
        self.render_mode = None if screen is None else "rgb_array"
        self.picture: Array = np.empty(0)  # [210, 160, 3]
        self.observation_space, self.action_space = games.single_observation_space, games.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a game; without a seed both take the same one."""
        super().reset(seed=seed)
        seed = int(self.np_random.integers(2**31 - 1)) if seed is None and self.screen is not None else seed
        observations, info = self.games.reset(seed=seed)
        if self.screen is not None:
            self.picture = self.screen.reset(seed=seed)[0][0, -1]
        return observations[0], {name: values[0] for name, values in info.items()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step."""
        observations, rewards, terminated, truncated, info = self.games.step(np.array([action]))
        if self.screen is not None:
            self.follow(self.screen, action, (rewards, terminated, truncated, *(info[name] for name in COUNTS)))
        info = {name: values[0] for name, values in info.items()}
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def follow(self, screen: VectorEnv[Any, Any, Any], action: Any, seen: tuple[Array, ...]) -> None:
        """Take the same step on the screen.

        Raises:
            EnvError: it shows another game than the one that is played.
        """
        pictures, *flags, info = screen.step(np.array([action]))
        if not all(
            np.array_equal(one, two) for one, two in zip(seen, [*flags, *(info[name] for name in COUNTS)], strict=True)
        ):
            raise EnvError(
                "the picture shows another game than the one that is played: ale-py does not keep to its seed"
            )
        self.picture = pictures[0, -1]

    def render(self) -> Any:
        """Return the picture `[420, 320, 3]`: each point of the console's own is four."""
        return self.picture.repeat(2, axis=0).repeat(2, axis=1)

    def close(self) -> None:
        """Close the vector."""
        self.games.close()
        if self.screen is not None:
            self.screen.close()


def make_one_atari(
    name: str,
    protocol: AtariProtocol,
    frame_skip: int,
    frame_stack: int,
    frame_size: int | None = None,
    render_mode: str | None = None,
) -> gym.Env[Any, Any]:
    """Return one game; see `make_atari`. With a render mode it can be shown: `rgb_array`, or `human` for a window."""
    games = make_atari(name, protocol, 1, frame_skip, frame_stack, frame_size)
    if render_mode is None:
        return OneGame(games)
    game = OneGame(games, make_atari(name, protocol, 1, frame_skip, 1, **SCREEN))
    if render_mode != "human":
        return game
    window = HumanRendering(game)
    window.metadata = {**game.metadata, "render_fps": FRAMES_PER_SECOND / frame_skip}  # a picture for each step
    return window


def rom_of(name: str) -> str:
    """Return the ROM of `ALE/Pong-v5`.

    Raises:
        ConfigError: ale-py is not installed, or there is no such game; says the nearest.
    """
    try:
        roms = importlib.import_module("ale_py.roms")
    except ImportError:
        raise ConfigError(f"{name}: {not_installed('ale-py', 'atari')}") from None
    known = {full_name(rom): str(rom) for rom in roms.get_all_rom_ids()}
    if canonical(name) not in known:
        raise ConfigError(f"no Atari game {name!r}{nearest(name, known)}")
    return known[canonical(name)]
