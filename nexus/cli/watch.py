"""`nexus watch RUN`."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import tyro

from nexus.cli.extras import load
from nexus.cli.film import frame_of, grid, labelled, require_writable, together, video_writer
from nexus.cli.here import look_here
from nexus.cli.parsing import parse
from nexus.core.checked import Keywords
from nexus.core.errors import ConfigError, NexusError, RunError, one_line
from nexus.core.importable import ImportNames
from nexus.core.installation import nexus_command
from nexus.core.types import Array

if TYPE_CHECKING:
    from nexus.cli.notes import Notes
    from nexus.envs.atari import AtariProtocol
    from nexus.envs.factory import EnvSpec
    from nexus.models.rl.dqn import DQNAgent

__all__ = ["run"]

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")  # a window can open if one of these is set
FPS = 30.0  # for an environment that doesn't specify it
LIMIT = 100_000  # steps of an episode in an environment without a time limit
LIMIT_OF_A_FILM = 2_000  # likewise of each episode in a film of all checkpoints

Show = Callable[[Callable[[], Array]], None]  # takes a function that draws a frame, and calls it if frames are wanted


class EpisodeSoFar(NamedTuple):
    """A state of an episode."""

    episode_return: float  # so far
    length: int  # steps so far
    over: bool

    def __str__(self) -> str:
        return f"return {self.episode_return:g}, {self.length} steps{'' if self.over else ', cut off there'}"


@dataclass(frozen=True, eq=False)
class Player:
    """An agent and an environment that can be shown."""

    agent: "DQNAgent"
    env: Any
    spec: "EnvSpec"
    steps: str | None  # the agent's checkpoint


@dataclass(frozen=True)
class WatchCommand:
    """Watch a trained agent play, greedily or with the ε of an Atari protocol, in a window or in a video. Or watch all
    checkpoints play the same episode, or an episode of the training again.
    """

    run: Annotated[str, tyro.conf.Positional]
    """A run's folder."""
    checkpoint: str | None = None
    """best, latest, or the steps of a checkpoint; none for the weights at the end of the run."""
    device: str | None = None
    """cpu, cuda, cuda:1 or mps; none for the training device, or the CPU if that is not available here."""
    env: str | None = None
    """A different environment from the run's."""
    env_kwargs: Keywords | None = None
    """Arguments of the environment, such as is_slippery=False; none for those of the training."""
    wrappers: ImportNames | None = None
    """Wrappers around the environment, as module:Wrapper,module:function; as in training if omitted."""
    episodes: int | None = None
    """Episodes to play; none for 3, or 1 of each checkpoint."""
    video: str | None = None
    """An .mp4 file to write instead of opening a window."""
    seed: int = 0
    """Seed of the first episode; each later episode adds 1."""
    max_steps: int | None = None
    """Steps after which an episode is cut off; none for 100,000, or 2,000 with all checkpoints."""
    all_checkpoints: bool = False
    """Play the same episodes with each checkpoint that the run has kept, oldest first."""
    side_by_side: bool = False
    """Show all checkpoints at the same time, in a grid; needs a video."""
    episode: int | None = None
    """Number of a training episode to play again exactly, of a run with keep_episodes."""

    def __post_init__(self) -> None:
        if self.episodes is not None and self.episodes < 1:
            raise ConfigError(f"episodes = {self.episodes}: needs at least 1")
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(f"max_steps = {self.max_steps}: needs at least 1")
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}: needs a whole number from 0")
        if self.side_by_side and not (self.all_checkpoints and self.video is not None):
            raise ConfigError("side_by_side: needs --all-checkpoints and --video")
        if self.all_checkpoints and self.checkpoint is not None:
            raise ConfigError(f"all_checkpoints: plays each of them; leave out checkpoint = {self.checkpoint}")
        others = {"seed": self.seed > 0, "all_checkpoints": self.all_checkpoints}
        others |= {name: getattr(self, name) is not None for name in ("checkpoint", "device", "episodes", "max_steps")}
        given = [name for name, is_given in others.items() if is_given]
        if self.episode is not None and given:
            raise ConfigError(f"episode = {self.episode}: plays it as the training did; leave out {', '.join(given)}")

    @property
    def count(self) -> int:
        """Episodes to play, of each checkpoint if all are watched."""
        return self.episodes or (1 if self.all_checkpoints else 3)

    @property
    def most_steps(self) -> int:
        """Steps after which an episode is cut off."""
        return self.max_steps or (LIMIT_OF_A_FILM if self.all_checkpoints else LIMIT)


def run(arguments: list[str]) -> int:
    """Play, and print each episode's return and length."""
    command = parse(WatchCommand, arguments, "nexus watch")
    if command.video is None:
        require_display(command)
    else:
        require_writable(command.video)
        load("imageio_ffmpeg", "video")
    look_here(command.env, command.run, command.wrappers)
    from nexus.cli.notes import Notes

    notes = Notes()
    if command.episode is not None:
        show_training_episode(command, command.episode, notes)
    elif command.all_checkpoints:
        show_checkpoints(command, notes)
    else:
        show_agent(command, notes)
    if command.video is not None:
        print(f"Video: {command.video}")
    return 0


def show_agent(command: WatchCommand, notes: "Notes") -> None:
    """Play episodes with the run's agent."""
    spec = spec_of(command, notes)
    player = player_of(command, spec, command.checkpoint, notes)
    with closing(player.env), screen(command, player.env, spec) as show:
        draw = partial(frame_of, player.env)
        show_episodes(player.env, player.agent, command, lambda: show(draw), spec.rules)


def show_checkpoints(command: WatchCommand, notes: "Notes") -> None:
    """Play the same episodes with each checkpoint, one after the other or side by side."""
    spec = spec_of(command, notes)
    checkpoints = checkpoints_of(command.run, notes)
    with ExitStack() as stack:
        if command.side_by_side:
            players = []
            for steps in checkpoints:
                players.append(player_of(command, spec, steps, notes))
                stack.callback(players[-1].env.close)
            show = stack.enter_context(screen(command, players[0].env, spec))
            for episode in range(command.count):
                said: dict[Player, str] = {}
                films = [map(frame_from, film(player, command, episode, said)) for player in players]
                for frames in together(films):
                    show(partial(grid, frames))
                for player in players:  # they have ended in another order
                    print(said[player], flush=True)
            return
        show_next: Show | None = None
        for steps in checkpoints:
            player = player_of(command, spec, steps, notes)
            with closing(player.env):
                show_next = show_next or stack.enter_context(screen(command, player.env, spec))
                for episode in range(command.count):
                    said = {}
                    for draw in film(player, command, episode, said):
                        show_next(draw)
                    print(said[player], flush=True)


def show_training_episode(command: WatchCommand, number: int, notes: "Notes") -> None:
    """Play a training episode again.

    Raises:
        EnvError: the environment isn't reproducible.
    """
    from nexus.envs.factory import name_of
    from nexus.inspection.training_episode import played_again, training_episode
    from nexus.training.edited import read_run_or_copy

    run = Path(command.run)
    episode = training_episode(run, read_run_or_copy(run, notes.on_notice), number)
    spec = spec_of(command, notes)
    env = rendered(spec, command)
    with closing(env), screen(command, env, spec) as show:
        if command.video is None:
            first_state(env, command, None)  # opens a window, or says that it can't
        for _ in played_again(env, episode, name_of(spec.source)):
            show(partial(frame_of, env))
    print(f"training episode {number}: return {episode.episode_return:g}, {episode.length} steps", flush=True)


def spec_of(command: WatchCommand, notes: "Notes") -> "EnvSpec":
    """Return the environment to play."""
    from nexus.api import env_of_run

    return env_of_run(command.run, command.env, command.env_kwargs, command.wrappers, notes)


def checkpoints_of(run: str, notes: "Notes") -> list[str]:
    """Return the steps of a run's checkpoints, oldest first; a notice says how to have more than one.

    Raises:
        RunError: there is none.
    """
    from nexus.training.checkpoint_writer import Checkpoints

    found = [str(steps) for steps in reversed(Checkpoints(Path(run), keep=1).present())]
    if not found:
        raise RunError(f"{run} has no checkpoint")
    if len(found) == 1:
        notes.on_notice(f"{run} has one checkpoint, of step {found[0]}; train with --keep-checkpoints 10 to keep more")
    return found


def player_of(command: WatchCommand, spec: "EnvSpec", checkpoint: str | None, notes: "Notes") -> Player:
    """Return an agent of the run and a new environment, which scales as it did in training.

    Raises:
        ConfigError: the environment can't be shown that way, or doesn't fit this agent.
    """
    from nexus.api import load_agent, require_fitting_env, scaled_as_trained
    from nexus.envs.factory import name_of

    agent = load_agent(command.run, checkpoint=checkpoint, device=command.device, listener=notes)
    env = rendered(spec, command, partial(require_fitting_env, agent))
    for text in scaled_as_trained(env, agent, name_of(spec.source)):
        notes.on_notice(text)
    return Player(agent, env, spec, checkpoint)


def film(player: Player, command: WatchCommand, episode: int, said: dict[Player, str]) -> Iterator[Callable[[], Array]]:
    """Play an episode; yields at each state a function that draws it, with the steps of the checkpoint and the return.

    At its end it enters a line on the episode in `said`.
    """
    assert player.steps is not None
    step = f"step {int(player.steps):,}"
    for so_far in moments(player.env, player.agent, command, command.seed + episode, player.spec.rules):
        yield partial(picture, player.env, (step, f"return {so_far.episode_return:g}"))
    said[player] = f"{step}{f', episode {episode + 1}' if command.count > 1 else ''}: {so_far}"


def picture(env: Any, lines: tuple[str, ...]) -> Array:
    """Return the image of the current state with lines of text."""
    return labelled(frame_of(env), lines)


def frame_from(draw: Callable[[], Array]) -> Array:
    """Return what a function draws."""
    return draw()


def show_episodes(
    env: Any,
    agent: "DQNAgent",
    command: WatchCommand,
    show: Callable[[], None],
    rules: "AtariProtocol | None" = None,
) -> None:
    """Play episodes, greedily or with the ε of an Atari game's protocol; `show` is called at each state."""
    for episode in range(command.count):
        for so_far in moments(env, agent, command, command.seed + episode, rules):
            show()
            last = so_far
        print(f"episode {episode + 1}: {last}", flush=True)


def moments(
    env: Any, agent: "DQNAgent", command: WatchCommand, seed: int, rules: "AtariProtocol | None"
) -> Iterator[EpisodeSoFar]:
    """Play an episode until it ends or is cut off; yields at its first state and after each step."""
    state, info = first_state(env, command, seed)
    moment = EpisodeSoFar(0.0, 0, False)
    yield moment
    while not moment.over and moment.length < command.most_steps:
        if rules is None:
            action = agent.select_action(state, training=False, action_masks=info.get("action_mask"))
        else:
            action = int(agent.act(np.asarray(state)[None], rules.eval_epsilon, training=False)[0])
        state, reward, terminated, truncated, info = env.step(action)
        episode_return = moment.episode_return + float(reward)
        moment = EpisodeSoFar(episode_return, moment.length + 1, bool(terminated or truncated))
        yield moment


def first_state(env: Any, command: WatchCommand, seed: int | None) -> tuple[Any, dict[str, Any]]:
    """Reset the environment, which opens a window or fails to."""
    try:
        state, info = env.reset(seed=seed)
        return state, info
    except Exception as error:
        if command.video is not None:
            raise
        raise no_window(command, one_line(error)) from error


def require_display(command: WatchCommand) -> None:
    """Raise `NexusError` if no window can open: on Linux without a display."""
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in DISPLAYS):
        raise no_window(command, "there is no display")


def no_window(command: WatchCommand, reason: str) -> NexusError:
    """Return the error that suggests a video."""
    words = [] if command.checkpoint is None else ["--checkpoint", command.checkpoint]
    words += ["--all-checkpoints"] if command.all_checkpoints else []
    words += [] if command.episode is None else ["--episode", str(command.episode)]
    video = nexus_command("watch", command.run, *words, "--video", "out.mp4")
    return NexusError(f"can't open a window: {reason}; try: {video}")


def rendered(spec: "EnvSpec", command: WatchCommand, require_fitting: Callable[[Any], None] = lambda env: None) -> Any:
    """Return a new environment, ready to render.

    Args:
        spec: the environment.
        command: whether for a window or a video.
        require_fitting: raises an error if the environment is not one for the agent.

    Raises:
        ConfigError: it can't be shown that way, or doesn't fit.
    """
    from nexus.envs.factory import make_env, name_of

    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    mode, kind = ("human", "window") if command.video is None else ("rgb_array", "video")
    with closing(make_env(spec)) as plain:
        require_fitting(plain)
        modes = plain.metadata.get("render_modes") or []
    if mode not in modes:
        able = f"but has only {', '.join(map(str, modes))}" if modes else "but it renders nothing"
        raise ConfigError(f"{name_of(spec.source)} can't be shown in a {kind}: needs render mode {mode}, {able}")
    return make_env(spec, render_mode=mode)


@contextmanager
def screen(command: WatchCommand, env: Any, spec: "EnvSpec") -> Iterator[Show]:
    """Open the video, if one is wanted; yields a function that adds what another one draws to it.

    A window shows each state by itself, so nothing is frame_from for it.
    """
    if command.video is None:
        yield lambda draw: None
        return
    frames_per_second = float(env.metadata.get("render_fps") or FPS) / spec.frame_skip
    with video_writer(command.video, frames_per_second) as write:
        yield lambda draw: write(draw())
