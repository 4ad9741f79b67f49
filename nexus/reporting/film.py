"""A film of one greedy episode: played once in the run's own environment, with what the agent sees, values and gets."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import EnumMeta
from math import nan
from pathlib import Path
from typing import Any, Literal, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from nexus.api import PROCESS_THREADS, agent_of, require_fitting_env, scaled_as_trained, seen_by_run, steps_of
from nexus.core.errors import NexusError, one_line
from nexus.core.figures import figures
from nexus.core.types import Array, Floats
from nexus.envs.atari import LIFE_LOST
from nexus.envs.factory import make_env, name_of
from nexus.inspection.state_values import QValues, values_at
from nexus.inspection.words import Unknown
from nexus.listener import Listener
from nexus.models.layers import in_mode
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.dqn import GREEDY, Bootstrap, DQNLoss, greedy_on_target, td_target
from nexus.models.rl.dqn.iqn import IQNLoss
from nexus.models.rl.dqn.qr_dqn import QuantileLoss
from nexus.reporting.charts import plain
from nexus.reporting.downsampling import points_to_draw
from nexus.reporting.pictures import data_url, picture_of, png_of, shrunk
from nexus.training.config import TrainConfig
from nexus.training.same_run import has_final_weights

__all__ = ["Collected", "EpisodeFilm", "Scene", "film_of_run"]

End: TypeAlias = Literal["terminated", "truncated", "cut off"]

LONGEST_FILM = 5_000  # of an episode; a longer one is cut off
MOST_SECONDS = 60.0  # likewise
MOST_FRAMES = 300
MOST_STOPS = 1_000  # where the film can be stopped, without frames
FRAME_BYTES = 1_100_000  # of all frames; a third more in the page
MOST_BARS = 20  # actions whose values are shown
POINTS_OF_FILM = 500  # of a line of the curve
LONGEST_ACTION = 40  # characters of an action's name


@dataclass(frozen=True)
class Scene:
    """One step of a film.

    Args:
        values: Q(s, ·), and which actions are legal in s.
        reward: as the environment paid it.
        learned: the reward in the unit of the Q-values; None if that is not known.
        discount: γ, or 0 where learning sees the end of an episode.
        td_error: r + γ V(s') - Q(s, a), r as learned; None if r is not known.
    """

    values: QValues
    reward: float
    learned: float | None
    discount: float
    td_error: float | None

    @property
    def taken(self) -> float:
        """Q(s, a)."""
        return self.values.values[self.values.greedy]


@dataclass(frozen=True)
class EpisodeFilm:
    """One greedy episode of `T` steps.

    Args:
        env: name of the environment.
        weights: which weights played, in words.
        seed: of the environment.
        gamma: γ of the run.
        td_text: what the TD errors are, in words.
        scenes: `[T]`, its steps.
        last: the values of the state after them; None if it is terminal.
        end: how it ended.
        frames: PNG files by the step before which they show the environment; the last one after step T.
        pictures: what the frames show, or why there are none.
        names: what the actions are called; empty if the environment does not say.
        notices: on how the episode differs from those of the training.
    """

    env: str
    weights: str
    seed: int
    gamma: float
    td_text: str
    scenes: Sequence[Scene]
    last: QValues | None
    end: End
    frames: Mapping[int, bytes]
    pictures: str
    names: Sequence[str] = ()
    notices: Sequence[str] = ()

    @property
    def episode_return(self) -> float:
        """The undiscounted sum of the rewards as the environment paid them."""
        return sum(scene.reward for scene in self.scenes)

    @property
    def realised(self) -> Floats:
        """`[T]`, the discounted return that followed each step, in the unit of the Q-values; nan if not known."""
        returns, after = np.full(len(self.scenes), nan), 0.0
        for step in range(len(self.scenes) - 1, -1, -1):
            scene = self.scenes[step]
            after = nan if scene.learned is None else scene.learned + scene.discount * after
            returns[step] = after
        return returns

    @property
    def places(self) -> list[int]:
        """The steps at which it can be stopped: those with frames, or evenly spread ones; `T` is after the last one."""
        if self.frames:
            return sorted(self.frames)
        every = -(-len(self.scenes) // MOST_STOPS)
        return [*range(0, len(self.scenes), every), len(self.scenes)]

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What was played, as pairs of a label and a text."""
        ends = {
            "terminated": "terminated",
            "truncated": "truncated by the environment",
            "cut off": "cut off here: a film has a limited length",
        }
        shown = [place for place in self.places if place < len(self.scenes)]
        return [
            ("weights", self.weights),
            ("seed", str(self.seed)),
            ("steps", f"{len(self.scenes):,}"),
            ("return", figures(self.episode_return)[0]),
            ("end", ends[self.end]),
            ("shown", "every step" if len(shown) == len(self.scenes) else f"{len(shown):,} steps, evenly spread"),
        ]

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        columns = {
            "taken": np.array([scene.taken for scene in self.scenes]),
            "realised": self.realised,
        }
        drawn = sorted(
            {place for values in columns.values() for place in points_to_draw(values, POINTS_OF_FILM).tolist()}
        )
        return {
            "places": self.places,
            "frames": [data_url(self.frames[place]) if place in self.frames else None for place in self.places],
            "names": [name[:LONGEST_ACTION] for name in self.names],
            "end": self.end,
            "scenes": [self.scene_at(place) for place in self.places],
            "range": self.span,
            "curve": {"x": drawn, **{name: plain(values[drawn]) for name, values in columns.items()}},
        }

    def scene_at(self, place: int) -> dict[str, Any]:
        """Return what is shown at a place; after the last step there is no action."""
        if place == len(self.scenes):
            bars = [] if self.last is None else bars_of(self.last)
            return {"bars": bars, "greedy": None, "reward": None, "error": None}
        scene = self.scenes[place]
        reward, error = plain(np.array([scene.reward, nan if scene.td_error is None else scene.td_error]))
        return {"bars": bars_of(scene.values), "greedy": scene.values.greedy, "reward": reward, "error": error}

    @property
    def span(self) -> list[float]:
        """The lowest and the highest value of a legal action."""
        values = [value for scene in self.scenes for value in scene.values.of_legal if np.isfinite(value)]
        return [min(values, default=0.0), max(values, default=1.0)]


def bars_of(values: QValues) -> list[list[Any]]:
    """Return action, value and whether it is legal, by action; of many the ones with the highest values."""
    shown = np.arange(len(values.values))
    if len(shown) > MOST_BARS:
        ranked = np.where(values.legal, values.values, -np.inf)
        shown = np.sort(np.argsort(-ranked, kind="stable")[:MOST_BARS])
    numbers = plain(np.array(values.values))
    return [[action, numbers[action], bool(values.legal[action])] for action in shown.tolist()]


@dataclass
class Reel:
    """Keeps frames of an episode of unknown length, evenly spread: whenever there are too many, every second one goes.

    Args:
        most: frames.
    """

    most: int
    stride: int = 1
    frames: dict[int, bytes] = field(default_factory=dict)

    def wants(self, step: int) -> bool:
        """Whether the frame before a step is to be kept."""
        return step % self.stride == 0

    def add(self, step: int, frame: bytes) -> None:
        """Keep a frame."""
        self.frames[step] = frame
        if len(self.frames) > self.most:
            self.thin()

    def thin(self) -> None:
        """Drop every second frame."""
        self.stride *= 2
        self.frames = {step: frame for step, frame in self.frames.items() if self.wants(step)}

    def within(self, most_bytes: int) -> dict[int, bytes]:
        """Return as many frames as fit."""
        while len(self.frames) > 1 and sum(map(len, self.frames.values())) > most_bytes:
            self.thin()
        return self.frames


class Collected(Listener):
    """Collects notices."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def on_notice(self, text: str) -> None:
        """Keep the notice."""
        self.notices.append(text)


def film_of_run(
    run: Path, about: Mapping[str, Any], config: TrainConfig | None, seed: int = 0
) -> EpisodeFilm | Unknown:
    """Play one greedy episode with the weights that `nexus watch` takes; or say why that can't be.

    Args:
        run: the run's folder.
        about: the contents of its `run.json`.
        config: its settings; None if they can't be read.
        seed: of the environment.
    """
    if config is None:
        return Unknown("there is no film, since the settings can't be read")
    try:
        return film_played(run, about, config, seed)
    except NexusError as error:
        return Unknown(f"there is no film: {one_line(error)}")
    except Exception as error:  # the environment's code can raise anything
        return Unknown(f"there is no film: {about.get('env')} failed: {type(error).__name__}: {one_line(error)}")


def film_played(run: Path, about: Mapping[str, Any], config: TrainConfig, seed: int) -> EpisodeFilm:
    """Play an episode.

    Raises:
        NexusError: the agent can't be loaded, or the environment can't be made, does not fit it, or failed.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    notes = Collected()
    agent = agent_of(about, run, None, "cpu", notes)
    seen = seen_by_run(run, about)
    name = name_of(seen.spec.source)
    final = has_final_weights(about, run)
    weights = "the final ones" if final else f"those of checkpoint {steps_of(run, 'latest'):,}, the latest"
    with closing(make_env(seen.spec)) as plain_env:
        require_fitting_env(agent, plain_env)
        renders = "rgb_array" in (plain_env.metadata.get("render_modes") or [])
    one_thread = PROCESS_THREADS.set_to(1, 1)  # for single states more only get in each other's way
    with one_thread, closing(make_env(seen.spec, render_mode="rgb_array" if renders else None)) as env:
        notices = [*notes.notices, *scaled_as_trained(env, agent, name)]
        camera = Camera(env, renders, config)
        critic = Critic(agent, config)
        reel = Reel(MOST_FRAMES)
        scenes, last, end = episode(env, agent, critic, camera, reel, seed, min(LONGEST_FILM, seen.eval_max_steps))
        frames = reel.within(FRAME_BYTES)
        if frames and camera.last is not None:
            frames[len(scenes)] = camera.last
        names = names_of_actions(env, agent.action_dim)
    return EpisodeFilm(
        name,
        weights,
        seed,
        config.gamma,
        critic.text,
        scenes,
        last,
        end,
        frames,
        camera.text,
        names,
        notices,
    )


class Camera:
    """Takes pictures of an environment, or of the states if it renders none.

    Args:
        env: the environment.
        renders: whether it renders arrays.
        config: the run's settings.
    """

    def __init__(self, env: gym.Env[Any, Any], renders: bool, config: TrainConfig) -> None:
        self.env, self.renders, self.config = env, renders, config
        self.why = "renders no images"
        self.drawn = False
        self.last: bytes | None = None

    def shoot(self, state: Array) -> bytes | None:
        """Return a picture of now as a PNG file, None if there is none."""
        image = self.rendered() if self.renders else None
        if image is None:
            image = picture_of(state, self.config.frame_stack > 1, self.config.channels)
        self.last = None if image is None else png_of(shrunk(image))
        self.drawn = self.drawn or self.last is not None
        return self.last

    def rendered(self) -> Array | None:
        """Return what the environment renders; if that is no image, it is not asked again."""
        try:
            image = np.asarray(self.env.render())
        except Exception as error:  # the environment's code can raise anything
            self.renders, self.why = False, f"can't be rendered ({type(error).__name__}: {one_line(error)})"
            return None
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
            self.renders, self.why = False, f"renders {image.dtype}{list(image.shape)}, which is no image"
            return None
        return image

    @property
    def text(self) -> str:
        """What the pictures show."""
        if self.renders:
            return "The frames are the environment's own."
        if self.drawn:
            return f"The environment {self.why}; the frames are the newest image in each state, as the agent sees it."
        return f"There are no frames: the environment {self.why}, and its states are no images."


class Critic:
    """Values transitions as the run's loss does, but with one network, over one step, and by its Q-values alone.

    Args:
        agent: whose weights outside training are the network.
        config: the run's settings.
    """

    def __init__(self, agent: DQNAgent, config: TrainConfig) -> None:
        self.network, self.config = agent.policy.at_rest, config
        loss = agent.learner.loss
        self.bootstrap: Bootstrap = loss.bootstrap if isinstance(loss, DQNLoss | QuantileLoss | IQNLoss) else GREEDY

    @property
    def text(self) -> str:
        """What the TD errors are."""
        config = self.config
        if config.normalize_rewards:
            return (
                "There are no TD errors and no returns: the run divides rewards by a deviation that is not stored with "
                "its weights."
            )
        value = "the largest Q-value of a legal action in s′" if self.bootstrap == GREEDY else "its soft value"
        clipped = "" if config.reward_clip is None else f" clipped to ±{config.reward_clip:g}"
        bonus = "" if self.bootstrap == GREEDY else " plus the bonus of Munchausen"
        learned = "" if config.n_step == 1 else f" (training sums up to {config.n_step} steps)"
        return (
            f"TD error: r + γ V(s′) − Q(s, a), with the reward r{clipped}{bonus}, γ = {config.gamma:g} and for V(s′) "
            f"{value}, of these weights and over one step{learned}, without a target network. V is 0 after a "
            "termination, and is used after a truncation. The return is what was received from there on, discounted by "
            "γ, up to the end of the film."
        )

    def learned(self, reward: float) -> float | None:
        """Return a reward in the unit of the Q-values; None if that is not known."""
        if self.config.normalize_rewards:
            return None
        size = self.config.reward_clip
        return reward if size is None else min(max(reward, -size), size)

    def td_error(
        self, state: Array, values: QValues, reward: float, discount: float, next_state: Array, next_legal: Any
    ) -> float:
        """Return r + d V(s') - Q(s, a), of the greedy action."""
        batch: dict[str, Tensor] = {
            "states": torch.from_numpy(state[None]),
            "actions": torch.tensor([values.greedy]),
            "rewards": torch.tensor([reward]),
            "next_states": torch.from_numpy(next_state[None]),
        }
        if next_legal is not None:
            batch["action_masks"] = torch.tensor([values.legal])
            batch["next_action_masks"] = torch.from_numpy(np.asarray(next_legal).astype(bool))[None]
        with in_mode(self.network.modules(), False), torch.inference_mode():
            rewards = self.bootstrap.rewards(self.network, batch)
            target = rewards
            if discount:  # a terminal state may have no legal action, and its values mean nothing
                output = self.network.output(batch["next_states"])
                nexts = self.bootstrap.next_values(self.network, greedy_on_target, batch, output, output.q_values)
                target = td_target(rewards, torch.tensor([discount]), nexts)
        return float(target[0]) - values.values[values.greedy]


def episode(
    env: gym.Env[Any, Any], agent: DQNAgent, critic: Critic, camera: Camera, reel: Reel, seed: int, longest: int
) -> tuple[list[Scene], QValues | None, End]:
    """Play an episode greedily; return its steps, the values of its last state if that is not terminal, and its end."""
    started = time.monotonic()
    state, info = env.reset(seed=seed)
    state, legal = np.asarray(state), info.get("action_mask")
    scenes: list[Scene] = []
    end: End | None = None
    values = values_of(agent, state, legal)
    while end is None:
        if reel.wants(len(scenes)) and (frame := camera.shoot(state)) is not None:
            reel.add(len(scenes), frame)
        answer, paid, terminated, truncated, info = env.step(values.greedy)
        next_state, next_legal, reward = np.asarray(answer), info.get("action_mask"), float(paid)
        is_over = bool(terminated) or bool(info.get(LIFE_LOST, False))
        discount, learned = 0.0 if is_over else critic.config.gamma, critic.learned(reward)
        error = None if learned is None else critic.td_error(state, values, learned, discount, next_state, next_legal)
        scenes.append(Scene(values, reward, learned, discount, error))
        state, legal = next_state, next_legal
        if terminated:
            end = "terminated"
        elif truncated:
            end = "truncated"
        elif len(scenes) >= longest or time.monotonic() - started > MOST_SECONDS:
            end = "cut off"
        if end != "terminated":
            values = values_of(agent, state, legal)
    camera.shoot(state)
    return scenes, None if end == "terminated" else values, end


def values_of(agent: DQNAgent, state: Array, legal: Any) -> QValues:
    """Return the Q-values of a state and its greedy action."""
    masks = None if legal is None else np.asarray(legal).astype(bool)
    greedy = int(agent.act(state[None], 0.0, False, None if masks is None else masks[None])[0])
    return values_at(agent, state, masks, greedy)


def names_of_actions(env: gym.Env[Any, Any], action_dim: int) -> list[str]:
    """Return what an environment calls its actions; nothing if it does not say."""
    plain_env: Any = env.unwrapped
    try:
        ask, members = getattr(plain_env, "get_action_meanings", None), getattr(plain_env, "actions", None)
        if callable(ask):
            names = [str(name) for name in ask()]
        elif isinstance(members, EnumMeta):
            names = list(members.__members__)
        else:
            return []
    except Exception:  # the environment's code can raise anything, and the numbers do as well
        return []
    return names if len(names) == action_dim else []
