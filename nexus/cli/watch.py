"""`nexus watch RUN`."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from nexus.cli.extras import load
from nexus.cli.here import look_here
from nexus.cli.parsing import parse
from nexus.core.checked import Keywords
from nexus.core.errors import ConfigError, NexusError, RunError, one_line
from nexus.core.importable import ImportNames
from nexus.core.installation import nexus_command
from nexus.core.types import Array

if TYPE_CHECKING:
    from nexus.envs.atari import AtariProtocol
    from nexus.envs.factory import EnvSpec
    from nexus.models.rl.dqn import DQNAgent

__all__ = ["run"]

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")  # a window can open if one of these is set
FPS = 30.0  # for an environment that doesn't specify it
LIMIT = 100_000  # steps of an episode in an environment without a time limit


@dataclass(frozen=True)
class WatchCommand:
    """Watch a trained agent play, greedily or with the ε of an Atari protocol, in a window or in a video."""

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
    episodes: int = 3
    """Episodes to play."""
    video: str | None = None
    """An .mp4 file to write instead of opening a window."""
    seed: int = 0
    """Seed of the first episode; each later episode adds 1."""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"episodes = {self.episodes}: needs at least 1")
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}: needs a whole number from 0")


def run(arguments: list[str]) -> int:
    """Play, and print each episode's return and length."""
    command = parse(WatchCommand, arguments, "nexus watch")
    if command.video is None:
        require_display(command)
    else:
        require_writable(command.video)
        load("imageio_ffmpeg", "video")
    look_here(command.env, command.run, command.wrappers)
    from nexus.api import env_of_run, load_agent, scaled_as_trained
    from nexus.cli.notes import Notes
    from nexus.envs.factory import name_of

    notes = Notes()
    agent = load_agent(command.run, checkpoint=command.checkpoint, device=command.device, listener=notes)
    spec = env_of_run(command.run, command.env, command.env_kwargs, command.wrappers, notes)
    env = rendered(spec, agent, "human" if command.video is None else "rgb_array")
    for text in scaled_as_trained(env, agent, name_of(spec.source)):
        notes.on_notice(text)
    with closing(env):
        if command.video is None:
            show_episodes(env, agent, command, lambda: None, spec.rules)
            return 0
        frames_per_second = float(env.metadata.get("render_fps") or FPS) / spec.frame_skip
        with video_writer(command.video, frames_per_second) as write:
            show_episodes(env, agent, command, lambda: write(frame_of(env)), spec.rules)
    print(f"Video: {command.video}")
    return 0


def show_episodes(
    env: Any,
    agent: "DQNAgent",
    command: WatchCommand,
    show: Callable[[], None],
    rules: "AtariProtocol | None" = None,
) -> None:
    """Play episodes, greedily or with the ε of an Atari game's protocol; `show` is called at each state."""
    for episode in range(command.episodes):
        state, info = first_state(env, command, command.seed + episode)
        show()
        episode_return, length, done = 0.0, 0, False
        while not done and length < LIMIT:
            if rules is None:
                action = agent.select_action(state, training=False, action_masks=info.get("action_mask"))
            else:
                action = int(agent.act(np.asarray(state)[None], rules.eval_epsilon, training=False)[0])
            state, reward, terminated, truncated, info = env.step(action)
            show()
            episode_return, length, done = episode_return + float(reward), length + 1, terminated or truncated
        print(f"episode {episode + 1}: return {episode_return:g}, {length} steps", flush=True)


def first_state(env: Any, command: WatchCommand, seed: int) -> tuple[Any, dict[str, Any]]:
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
    checkpoint = [] if command.checkpoint is None else ["--checkpoint", command.checkpoint]
    video = nexus_command("watch", command.run, *checkpoint, "--video", "out.mp4")
    return NexusError(f"can't open a window: {reason}; try: {video}")


def rendered(spec: "EnvSpec", agent: "DQNAgent", mode: Literal["human", "rgb_array"]) -> Any:
    """Return the environment, ready to render.

    Raises:
        ConfigError: it can't be shown that way, or doesn't fit this agent.
    """
    from nexus.api import require_fitting_env
    from nexus.envs.factory import make_env, name_of

    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    with closing(make_env(spec)) as plain:
        require_fitting_env(agent, plain)
        modes = plain.metadata.get("render_modes") or []
    if mode not in modes:
        kind = "window" if mode == "human" else "video"
        able = f"but has only {', '.join(map(str, modes))}" if modes else "but it renders nothing"
        raise ConfigError(f"{name_of(spec.source)} can't be shown in a {kind}: needs render mode {mode}, {able}")
    return make_env(spec, render_mode=mode)


def frame_of(env: Any) -> Array:
    """Return the image of the current state, `[H, W, 3]` with even sides, as video players require."""
    try:
        frame = np.asarray(env.render())
    except Exception as error:
        raise ConfigError(f"the environment can't be rendered: {one_line(error)}") from error
    if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
        raise ConfigError(f"the environment renders {frame.dtype}{list(frame.shape)}: needs uint8[height, width, 3]")
    height, width, _ = frame.shape
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


@contextmanager
def video_writer(path: str, frames_per_second: float) -> Iterator[Callable[[Array], None]]:
    """Open an mp4 file; yields a function that adds a frame to it."""
    imageio = load("imageio.v2", "video")
    try:
        # The default block size of 16 would stretch every frame to a multiple of it.
        with imageio.get_writer(path, format="FFMPEG", mode="I", fps=frames_per_second, macro_block_size=1) as writer:
            yield writer.append_data
    except OSError as error:
        raise RunError(f"can't write {path}: {one_line(error)}") from error


def require_writable(path: str) -> None:
    """Raise an error before playing if the video can't be written there."""
    video = Path(path)
    if video.suffix.lower() != ".mp4":
        raise ConfigError(f"video = {path!r}: needs a file name that ends in .mp4")
    if not video.parent.is_dir():
        raise ConfigError(f"video = {path!r}: there is no folder {str(video.parent)!r}; make it first")
    existed = video.exists()
    try:
        video.open("ab").close()
    except OSError as error:
        raise RunError(f"can't write {path}: {error.strerror or error}") from None
    if not existed:
        video.unlink()
