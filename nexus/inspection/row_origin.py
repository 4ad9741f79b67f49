"""Where a stored transition is from: which episode and step of the training, and what was to be seen there."""

import math
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np

from nexus.core.errors import EnvError, RunError
from nexus.core.state import part
from nexus.core.types import Array, Ints
from nexus.envs.episodes import ActionLog
from nexus.envs.factory import EnvSpec, make_env, name_of
from nexus.envs.statistics import Running
from nexus.inspection.rows import ReplayRows
from nexus.inspection.training_episode import TrainingEpisode, played_again, training_episode
from nexus.models.torsos import image_form
from nexus.training.kept_episodes import KeptEpisode, kept_episodes

__all__ = ["RowOrigin", "frame_of_row", "image_in", "origin_of_row", "place_in_order", "renders_images"]


@dataclass(frozen=True)
class RowOrigin:
    """Where a transition is from.

    Args:
        env: its sub-environment.
        step: steps of the episode before its state.
        episode: number of the training episode; None if that had not ended at the checkpoint.
    """

    env: int
    step: int
    episode: int | None


def place_in_order(row: int, ends: list[Ints], n_step: int) -> tuple[int, int]:
    """Return the vector step and the sub-environment in which a transition began, from 0.

    A transition is stored when its n steps are complete or its episode ends; those stored in the same vector step are
    in the order in which they began, and then of their sub-environments.

    Args:
        row: number of the transition, from 0.
        ends: the vector steps after which each sub-environment's episodes have ended, in order.
        n_step: steps that a transition is folded over.
    """
    width = len(ends)
    now = row // width  # no row is stored earlier, and at most n_step - 1 vector steps later
    while True:
        times = np.arange(max(0, now - n_step + 1), now + 1)
        stored_at = np.stack([stored_times(times, own, n_step) for own in ends], 1)  # [T, E]
        stored = (now + 1) * width - int((stored_at > now).sum())
        if stored > row:
            began, envs = np.nonzero(stored_at == now)
            place = row - (stored - len(began))
            return int(times[began[place]]), int(envs[place])
        now += 1


def stored_times(times: Ints, ends: Ints, n_step: int) -> Ints:
    """Return in which vector steps transitions are stored that began in these, `[T]`, in one sub-environment."""
    following = np.append(ends, np.iinfo(np.int64).max)[np.searchsorted(ends, times, side="right")]
    earliest: Ints = np.minimum(times + n_step - 1, following - 1)
    return earliest


def origin_of_row(rows: ReplayRows, number: int) -> RowOrigin | None:
    """Return where a transition is from; None if that is not known.

    It is known of a run with `keep_episodes`, except for transitions that it took over from another run, after an
    episode was lost because its environment is not reproducible, and where lost lives end the n steps of several
    sub-environments early.

    Raises:
        RunError: the kept episodes are missing or damaged.
    """
    config, state, action_dim = rows.config, rows.saved.state, rows.saved.action_dim
    lengths, open_windows = state.get("stream.episode_lengths"), state.get("under_way.accumulator.open")
    if config.folds_when_drawn:
        open_windows = np.zeros(1)  # each step is stored at once
    rules = config.spec_of(str(rows.about["env"])).rules if rows.about.get("env_is_id") else None
    by_lives = rules is not None and rules.life_loss and config.stored_steps > 1 and config.num_envs > 1
    if not config.keep_episodes or by_lives or lengths is None or open_windows is None:
        return None
    played = rows.saved.steps // config.num_envs
    own = number - (rows.saved.replay.added - (rows.saved.steps - int(open_windows.sum())))
    if own < 0:
        return None
    numbers: list[list[int]] = [[] for _ in range(config.num_envs)]
    ended: list[list[int]] = [[0] for _ in range(config.num_envs)]
    for episode in islice(kept_episodes(rows.run, action_dim), int(state["counters.episodes"])):
        if episode.env >= config.num_envs:
            raise RunError(f"{rows.run}: episode {episode.number} is of an environment that the run does not have")
        numbers[episode.env].append(episode.number)
        ended[episode.env].append(ended[episode.env][-1] + len(episode.actions))
    if any(own_ends[-1] + length != played for own_ends, length in zip(ended, lengths.tolist(), strict=True)):
        return None
    ends = [np.array(own_ends[1:], np.int64) for own_ends in ended]
    time, env = place_in_order(own, ends, config.stored_steps)
    before = int(np.searchsorted(ends[env], time, side="right"))
    episode_number = numbers[env][before] if before < len(numbers[env]) else None
    return RowOrigin(env, time - ended[env][before], episode_number)


def renders_images(spec: EnvSpec) -> bool:
    """True if an environment can be rendered as arrays."""
    with closing(make_env(spec)) as env:
        return "rgb_array" in (env.metadata.get("render_modes") or [])


def frame_of_row(rows: ReplayRows, number: int, origin: RowOrigin, spec: EnvSpec) -> Array:
    """Return what an environment renders at a transition, `[H, W, 3]`, by playing its episode again.

    Args:
        rows: the transitions.
        number: number of one.
        origin: where it is from.
        spec: the environment.

    Raises:
        EnvError: the environment isn't reproducible: it shows another state there.
    """
    name = name_of(spec.source)
    if origin.episode is None:
        episode = episode_in_progress(rows, origin.env)
    else:
        episode = training_episode(rows.run, rows.about, origin.episode)
    env = make_env(spec, render_mode="rgb_array")
    try:
        scaled = bool(Running(env).kinds("observation"))  # by what isn't known of the time
        so_far = next(islice(played_again(env, episode, name), origin.step, None))
        stored = rows.batch_at(np.array([rows.place_of(number)]))["states"][0].numpy()
        if not scaled and not np.array_equal(np.asarray(so_far.state).astype(stored.dtype), stored):
            raise EnvError(
                f"{name} isn't reproducible: {episode}; played again it shows another state after {origin.step} steps "
                f"than the one stored in row {number}"
            )
        return np.asarray(env.render())
    finally:
        env.close()


def episode_in_progress(rows: ReplayRows, env: int) -> TrainingEpisode:
    """Return the episode that had not ended in a sub-environment at the checkpoint, with those since its last seed.

    Raises:
        RunError: something is missing or does not fit.
    """
    log = ActionLog(rows.config.num_envs, rows.saved.action_dim)
    log.set_state(part(rows.saved.state, "stream"))
    since, length = log.actions_of(env), int(rows.saved.state["stream.episode_lengths"][env])
    seed, earlier = int(log.seeds[env]), since[: len(since) - length]
    before = (KeptEpisode(0, env, seed, earlier),) if len(earlier) else ()
    kept = KeptEpisode(0, env, None if before else seed, since[len(earlier) :], before=before)
    return TrainingEpisode(kept, None, length)


def image_in(state: Array, rows: ReplayRows) -> Array | None:
    """Return the newest image in a state, `[H, W]` or `[H, W, 3]`; None if it has none."""
    if state.dtype != np.uint8 or rows.are_packed or state.ndim not in (2, 3) or math.prod(state.shape) == 0:
        return None
    if state.ndim == 2:
        return state
    channels_last = image_form(state.shape, rows.config.channels).channels == "last"
    image = state if channels_last else np.moveaxis(state, 0, -1)
    return image if image.shape[-1] == 3 and rows.config.frame_stack == 1 else image[..., -1]
