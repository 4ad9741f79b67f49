"""Atari games, stepped by the C++ threads of ale-py, under named protocols (`docs/atari.md`)."""

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
from nexus.envs.episodes import ACTIONS_OPTION, GO_ON_OPTION, RESET_MASK, Seeds, play_aligned, seeds_for

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

LIFE_LOST = "nexus_life_lost"  # in our infos: [E], where a life was lost; the game continues, but learning sees an end
PREFIX, SUFFIX = "ALE/", "-v5"
SCREEN = {"img_height": 210, "img_width": 160, "grayscale": False}  # the console's native image
FRAME_SIZE = 84
FRAMES_PER_SECOND = 60
COUNTS = ("lives", "episode_frame_number")  # entries of an info used to compare two games


@dataclass(frozen=True)
class AtariProtocol:
    """How a game is played; scores under different protocols can't be compared.

    Frames are the console's, 60 a second; a step is `frame_skip` of them.
    """

    name: str
    sticky: float  # probability, at each frame, that the previous action is repeated
    no_ops: int  # a game begins with up to this many no-op frames
    life_loss: bool  # a lost life ends the learning episode, never the game
    train_frames: int  # longest game, in frames
    eval_frames: int  # likewise in evaluations
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
    # Mnih et al. 2015: up to 30 no-ops, minimal actions, games of at most five minutes in evaluations.
    "nature": AtariProtocol("nature", 0.0, 30, True, 108_000, 18_000, 0.05, 30),
    # Machado et al. 2018 (https://arxiv.org/abs/1709.06009): sticky actions, not no-ops, make games random; no life
    # signal. Games of half an hour, as is usual today.
    "machado": AtariProtocol("machado", 0.25, 0, False, 108_000, 108_000, 0.01, 30),
}


def is_atari(source: object) -> bool:
    """True for ids such as `ALE/Pong-v5`, and for a game's short name, such as `pong`."""
    return isinstance(source, str) and (source.startswith(PREFIX) or source in short_names(source))


def canonical(source: Any) -> Any:
    """Return `ALE/SpaceInvaders-v5` for `space_invaders`; everything else unchanged."""
    return full_name(source) if is_atari(source) and not source.startswith(PREFIX) else source


def full_name(rom: str) -> str:
    """Return `ALE/SpaceInvaders-v5` for `space_invaders`."""
    return PREFIX + rom.title().replace("_", "") + SUFFIX


def short_names(word: str) -> list[str]:
    """Return the short names of all games if `word` could be one and ale-py is installed; else none."""
    if not re.fullmatch(r"[a-z0-9_]+", word) or word in gym.registry:
        return []
    try:
        return list(importlib.import_module("ale_py.roms").get_all_rom_ids())
    except ImportError:
        return []


def hint(word: str) -> str:
    """Return how to install Atari games if `word` could be one and ale-py is missing, else an empty text."""
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
    """Return `num_envs` games that step together: grey, maximum over two frames, stacked, rewards unclipped.

    If the protocol wants it, their infos report lost lives. These are derived from the number of lives: of ale-py's two
    signals one resets the game, and the other leaves the last observation uninitialised.

    Args:
        name: as in `canonical`.
        protocol: the protocol to play under.
        num_envs: number of games.
        frame_skip: frames per step.
        frame_stack: frames per state.
        frame_size: pixels on a side of a frame; None for 84.
        picture: overrides ale-py's image settings.

    Raises:
        ConfigError: ale-py is not installed, there is no such game, or its ROM can't be read.
    """
    game, size = rom_of(name), frame_size or FRAME_SIZE
    vector_env = importlib.import_module("ale_py.vector_env").AtariVectorEnv
    # ale-py writes its autoreset mode into the metadata of Gymnasium's base class unless the subclass has metadata.
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
    """Games without autoreset, each of which can be reset with a separate seed.

    ale-py's games reset by themselves: the new game waits here until it is requested. Seeding one takes as long as a
    hundred steps, since its console is rebuilt, so most games continue with the generator of the last one:
    `reseed_after` is the number of steps between two seeds. The seed and all actions since reproduce a game.

    `info[LIFE_LOST]` `[E]` marks where a life was lost and the game continues, if requested.

    Args:
        env: a vector environment with same-step autoreset, whose infos have `lives`.
        life_loss: whether to report lost lives.
    """

    reseed_after = 10_000

    def __init__(self, env: VectorEnv[Any, Any, Any], life_loss: bool) -> None:
        super().__init__(env)
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self.life_loss = life_loss
        self._lives: Array = np.zeros(env.num_envs, np.int64)
        self._shown: tuple[Array, dict[str, Any]] = np.empty(0), {}  # last observations and infos
        self._new = np.zeros(env.num_envs, bool)  # [E], where autoreset has just begun a new game

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Reset the games of the option `RESET_MASK`, or all, and replay their `ACTIONS_OPTION` if given."""
        options = options or {}
        which = options.get(RESET_MASK, np.ones(self.num_envs, bool))
        seeds = seeds_for(seed, self.num_envs)
        self._begin(which, seeds)
        # After the reset: ale-py can reset some of its games only after all were reset once.
        if ACTIONS_OPTION in options:
            play_aligned(options[ACTIONS_OPTION], seeds, self._begin, self.step)
        self._lives = self._shown[1]["lives"]
        return self._shown

    def _begin(self, which: Array, seeds: Seeds) -> None:
        """Reset games, except those without a seed that autoreset has already begun."""
        seeded = np.array([seed is not None for seed in seeds])
        asked = which & (seeded | ~self._new)
        if asked.any():
            given: Any = np.array([-1 if seed is None else seed for seed in seeds])[asked]  # -1: no seed
            self._shown = self.env.reset(seed=given, **({} if asked.all() else {"options": {RESET_MASK: asked}}))
        self._new[which] = False

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step, and check the lives."""
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

    For display it plays the same game a second time in colour, apart from the agent's observations.

    Args:
        games: a vector of one game.
        screen: a second vector of the same game and protocol, whose observations are single colour images.
    """

    def __init__(self, games: VectorEnv[Any, Any, Any], screen: VectorEnv[Any, Any, Any] | None = None) -> None:
        self.metadata = {"render_modes": ["human", "rgb_array"], "render_fps": FRAMES_PER_SECOND}
        self.games = games
        self.screen = screen
        self.render_mode = None if screen is None else "rgb_array"
        self.picture: Array = np.empty(0)  # [210, 160, 3]
        self.observation_space, self.action_space = games.single_observation_space, games.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a game; without a seed, both emulators get the same random seed.

        With `GO_ON_OPTION` the generators continue instead, as they do in training.
        """
        super().reset(seed=seed)
        if seed is None and self.screen is not None and not (options or {}).get(GO_ON_OPTION):
            seed = int(self.np_random.integers(2**31 - 1))
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
        """Take the same step in the second emulator.

        Raises:
            EnvError: the two games differ.
        """
        pictures, *flags, info = screen.step(np.array([action]))
        if not all(
            np.array_equal(one, two) for one, two in zip(seen, [*flags, *(info[name] for name in COUNTS)], strict=True)
        ):
            raise EnvError("the displayed game differs from the one being played: ale-py did not reproduce its seed")
        self.picture = pictures[0, -1]

    def render(self) -> Any:
        """Return the image `[420, 320, 3]`: each of the console's pixels becomes four."""
        return self.picture.repeat(2, axis=0).repeat(2, axis=1)

    def get_action_meanings(self) -> list[str]:
        """Return the name of each action, such as FIRE."""
        return [action.name for action in self.games.unwrapped.ale.get_action_set()]  # type: ignore[attr-defined]

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
    """Return one game; see `make_atari`. A render mode displays it: `rgb_array`, or `human` for a window."""
    games = make_atari(name, protocol, 1, frame_skip, frame_stack, frame_size)
    if render_mode is None:
        return OneGame(games)
    game = OneGame(games, make_atari(name, protocol, 1, frame_skip, 1, **SCREEN))
    if render_mode != "human":
        return game
    window = HumanRendering(game)
    window.metadata = {**game.metadata, "render_fps": FRAMES_PER_SECOND / frame_skip}  # one image per step
    return window


def rom_of(name: str) -> str:
    """Return the ROM of `ALE/Pong-v5`.

    Raises:
        ConfigError: ale-py is not installed, or there is no such game; the message suggests the nearest.
    """
    try:
        roms = importlib.import_module("ale_py.roms")
    except ImportError:
        raise ConfigError(f"{name}: {not_installed('ale-py', 'atari')}") from None
    known = {full_name(rom): str(rom) for rom in roms.get_all_rom_ids()}
    if canonical(name) not in known:
        raise ConfigError(f"no Atari game {name!r}{nearest(name, known)}")
    return known[canonical(name)]
