"""Any environment that a user may bring trains, and what is stored is its script; or it is refused in one line."""

import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import nexus
from nexus.core.errors import ConfigError, DivergenceError
from nexus.core.seeding import seed_of
from nexus.core.types import Array
from nexus.envs.episodes import episode_seed
from nexus.listener import Plan
from nexus.training.loop import Progress
from tests.chaos import Silent
from tests.made_envs import (
    FOR_SEVERAL,
    IN_PROCESSES,
    NAME,
    PATIENCE,
    RIGHT,
    ROLLS,
    Dice,
    Maker,
    Recipe,
    number_of,
    recipe_of,
    taken,
)

GAMMA = 0.9
LEARNING_STARTS, UPDATE_EVERY = 20, 4
EVAL_MAX_STEPS = 25
AT_MOST = 120  # seconds that one may take
FEW: dict[str, Any] = {
    "learning_starts": LEARNING_STARTS,
    "update_every": f"{UPDATE_EVERY} steps",
    "batch_size": 8,
    "hidden_dim": 8,
    "replay_capacity": 2_000,  # all of it
    "gamma": GAMMA,
    "threads": 1,
    "eval_max_steps": EVAL_MAX_STEPS,
}


@dataclass(frozen=True)
class Case:
    """A recipe, and how it is trained on."""

    recipe: Recipe
    options: dict[str, Any]
    goes_on: bool  # after the training: resume, load, predict and evaluate
    registered: bool = False  # and so known by its id
    checked: bool = False  # afterwards, by nexus's own checker

    @property
    def name(self) -> str:
        return f"{NAME}-v0" if self.registered else NAME


def case_of(dice: Dice) -> Case:
    """Any environment, and any training."""
    recipe = recipe_of(dice)
    fault = recipe.fault
    several = fault in FOR_SEVERAL or recipe.copy == 1
    num_envs = dice.among(2, 3, 4) if several else dice.among(1, 2, 3, 4)
    in_processes = dice.among(*[False] * 11, True) and recipe.copy is None and fault not in FOR_SEVERAL
    in_processes |= fault in IN_PROCESSES
    eval_episodes = dice.among(2, 1, 0) if recipe.seeded or num_envs > 1 else 0
    options = {
        "num_envs": min(num_envs, 2) if in_processes else num_envs,
        "vectorization": "async" if in_processes else dice.among("auto", "sync"),
        "step_timeout": PATIENCE if fault == "hangs" else None,
        "frame_stack": 1 if recipe.in_parts else dice.among(1, 1, 1, 2, 4),
        "frame_skip": dice.among(1, 1, 1, 2) if fault is None and recipe.masks is None and not recipe.in_parts else 1,
        "flatten_actions": recipe.flatten,
        "n_step": dice.among(1, 1, 2, 3, 5),
        "prioritized": dice.among(False, True),
        "algorithm": dice.among("dqn", "dqn", "double", "dueling", "noisy", "c51", "qr-dqn", "iqn", "munchausen"),
        "total_steps": dice.among(60, 90, 120),
        "checkpoint_every": dice.among(None, "30 steps"),
        "eval_episodes": eval_episodes,
        "eval_every": dice.among(None, "40 steps") if eval_episodes and recipe.seeded and fault is None else None,
        "scale_observations": can_be_scaled(recipe) and dice.among(True, False),
        "seed": dice.among(0, 1, 2),
    }
    stacked = recipe.verdict is None and options["frame_stack"] > 1
    framed = stacked and Playing(Case(recipe, options, False), 0).state().ndim > 1
    options["replay_store"] = dice.among("auto", "full", "raw", "compressed") if framed else "auto"
    options["actor_sync_every"] = dice.among(*[None] * 7, "20 steps") if recipe.fault is None else None
    goes_on = dice.among(False, False, False, True) and recipe.verdict is None
    made_badly = recipe.verdict is not None and recipe.verdict.error is ConfigError
    registered = dice.among(*[False] * 7, True) and not made_badly
    return Case(recipe, options, goes_on, registered, dice.among(*[False] * 11, True) and fault not in IN_PROCESSES)


CASES = st.binary(min_size=ROLLS, max_size=ROLLS).map(lambda rolls: case_of(Dice(rolls)))


def can_be_scaled(recipe: Recipe) -> bool:
    """Whether every number of a plain state has two bounds, one below the other."""
    space = recipe.space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or space.dtype == np.uint8:
        return False
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return bool((np.abs(low) < 1e6).all() and (np.abs(high) < 1e6).all() and (low < high).all())


# --- what the script says ---


@dataclass
class Told:
    """What a script comes to."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)  # state, action, reward, discount, next state, 2 masks
    episodes: list[tuple[float, int]] = field(default_factory=list)  # return and length
    updates: int = 0


class Playing:
    """One sub-environment, played by hand: its episode, what was seen last, and the windows that are open."""

    def __init__(self, case: Case, copy: int) -> None:
        self.recipe, self.options, self.copy, self.number = case.recipe, case.options, copy, -1
        self.begin()

    def begin(self) -> None:
        self.number += 1
        root = seed_of(self.options["seed"], "environments")
        self.seed = episode_seed(root, self.number * self.options["num_envs"] + self.copy)
        self.drawn = self.recipe.drawn_by(self.seed) if self.recipe.seeded else self.number
        self.t, self.paid, self.length = 0, 0.0, 0
        self.windows: list[list[Any]] = []
        self.frames = [self.frame()]
        self.frames = [padding(self.recipe.space, self.frames[0])] * (self.options["frame_stack"] - 1) + self.frames

    def frame(self) -> Array:
        return taken(self.recipe.space, self.recipe.seen(self.drawn, self.t), self.options["frame_stack"] > 1)

    def state(self) -> Array:
        return np.stack(self.frames) if self.options["frame_stack"] > 1 else self.frames[0]

    def mask(self) -> Array | None:
        return None if self.recipe.masks is None else self.recipe.legal(self.drawn, self.t)

    def decide(self, action: int) -> tuple[float, bool, bool]:
        """Repeat an action; return what it paid, and how the episode ended."""
        reward, seen = 0.0, []
        for _ in range(self.options["frame_skip"]):
            self.t += 1
            paid = self.recipe.paid(self.drawn, self.t, action)
            reward += number_of(paid)
            seen.append(self.frame())
            if any(self.recipe.over(self.drawn, self.t)):
                break
        image = seen[-1].dtype == np.uint8 and seen[-1].ndim >= 2
        shown = np.maximum(*seen[-2:]) if image and len(seen) > 1 else seen[-1]
        self.frames = [*self.frames[1:], shown]
        self.paid, self.length = self.paid + reward, self.length + 1
        return reward, *self.recipe.over(self.drawn, self.t)


def padding(space: spaces.Space[Any], frame: Array) -> Array:
    """What stands before the first frame of an episode: zeros, or what of the space is next to them."""
    zeros = np.zeros_like(frame)
    return np.clip(zeros, space.low, space.high).astype(frame.dtype) if isinstance(space, spaces.Box) else zeros


def told_by_script(case: Case, actions: list[Array]) -> Told:
    """Play the actions `[E]` of each vector step, and fold them, the slow way."""
    told, options = Told(), case.options
    copies = [Playing(case, copy) for copy in range(options["num_envs"])]
    for at, chosen in enumerate(actions):
        leaving: list[tuple[int, int, list[Any]]] = []
        for copy, action in zip(copies, chosen, strict=True):
            window = [copy.state(), int(action), 0.0, 1.0, None, copy.mask(), None]
            copy.windows.append([at, window])
            reward, terminated, truncated = copy.decide(int(action))
            for _, open_window in copy.windows:
                open_window[2] += open_window[3] * reward
                open_window[3] *= 0.0 if terminated else GAMMA
            while copy.windows and (terminated or truncated or at - copy.windows[0][0] == options["n_step"] - 1):
                began, whole = copy.windows.pop(0)
                whole[4], whole[6] = copy.state(), copy.mask()
                leaving.append((began, copy.copy, whole))
            if terminated or truncated:
                told.episodes.append((copy.paid, copy.length))
                copy.begin()
        told.rows += [tuple(whole) for _, _, whole in sorted(leaving, key=lambda row: row[:2])]
        steps = [(at + more) * options["num_envs"] for more in (0, 1)]
        if steps[1] > LEARNING_STARTS and told.rows:
            told.updates += steps[1] // UPDATE_EVERY - steps[0] // UPDATE_EVERY
    return told


def seen_by_network(case: Case, states: Array) -> Array:
    """Numbers `[B, ...]` as the first layer is to get them: scaled, and flat or as images `[B, C, H, W]`."""
    space = case.recipe.space
    numbers = states.astype(np.float64)
    low, high = (0.0, 1.0) if not isinstance(space, spaces.Box) else (float(space.low.min()), float(space.high.max()))
    whole = states.dtype.kind in "iu"
    if case.options["scale_observations"]:
        bounds = [np.asarray(bound, np.float64) for bound in (space.low, space.high)]  # type: ignore[attr-defined]
        numbers = 2 * (numbers - bounds[0]) / (bounds[1] - bounds[0]) - 1
    elif whole and low < high and max(abs(low), abs(high)) < 1e6:
        numbers = (numbers - low) / (high - low)
    elif states.dtype == np.uint8:
        numbers = numbers / 255
    shape = states.shape[1:]
    if len(shape) in (3, 4):
        *stack, first, middle, last = shape
        if case.options["frame_stack"] > 1 and len(shape) == 3:
            channels_last = False
        elif first == middle != last or middle == last != first:
            channels_last = first == middle
        else:
            channels_last = first >= last
        images = np.moveaxis(numbers, -1, -3) if channels_last else numbers
        count, height, width = images.shape[-3:]
        if min(height, width) >= 3:
            return images.reshape(-1, prod(stack) * count, height, width)
    return numbers.reshape(len(states), -1)


def entering(network: nn.Module, states: Array) -> Array:
    """What the first layer of a network gets for states `[B, *obs]`."""
    seen: list[Array] = []
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d))
    hook = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().float().numpy()))
    with torch.no_grad():
        network(states)
    hook.remove()
    return seen[0]


# --- what nexus does ---


class Watching(Silent):
    """Keeps what was done, and the replay."""

    def __init__(self) -> None:
        super().__init__()
        self.actions: list[Array] = []

    def on_start(self, plan: Plan) -> None:
        assert plan.live is not None
        self.replay = plan.live.replay
        self.weights = plan.agent.learner.theta.clone()

    def on_step(self, progress: Progress, episodes: Any) -> None:
        self.actions.append(progress.step.actions.copy())


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail what takes longer."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it hangs: no end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check(case: Case) -> str:
    """Let nexus loose on an environment; return what came of it, which was what should have."""
    maker, recipe = Maker(case.recipe, case.registered), case.recipe
    with TemporaryDirectory() as folder, within(AT_MOST), known(case, maker):
        if case.checked:
            require_report(case)
        if recipe.verdict is not None:
            require_refusal(case, maker, Path(folder) / "run")
            return "refused"
        watch = Watching()
        try:
            with closing_badly(case):
                result = trained(case, maker, Path(folder) / "run", watch)
        except DivergenceError as error:
            assert recipe.huge
            require_one_line(error, "diverged at step")
            return "diverged"
        require_script(case, result, watch, watch.actions)
        require_said(case, watch)
        require_scores(case, result.evaluation, maker, root_of_last(case, len(watch.actions)))
        if case.goes_on:
            # The one faulty environment was made for the training; those of later calls have other numbers.
            with closing_badly(case) if recipe.copy is None else nullcontext():
                go_on(case, maker, result, watch)
        require_closed(case, maker)
    return "sound"


@contextmanager
def known(case: Case, maker: Maker) -> Iterator[None]:
    """Let Gymnasium know an environment by its id for a while, if it is to."""
    if case.registered:
        limit = case.recipe.length if case.recipe.end == "time limit" else None
        gym.register(case.name, entry_point=maker, max_episode_steps=limit)
    try:
        yield
    finally:
        gym.registry.pop(case.name, None)


def require_report(case: Case) -> None:
    """A check says what a training stumbles over, in whole lines; it does not stumble itself."""
    seen_alike = ("frame_stack", "frame_skip", "flatten_actions", "scale_observations")
    options = {name: case.options[name] for name in seen_alike}
    report = nexus.check(Maker(case.recipe), seconds=2.0, **options)
    assert all(len(f"{finding.text}; {finding.cure}".splitlines()) == 1 for finding in report.findings)
    of_one_alone = case.recipe.copy != 1 and case.recipe.fault not in FOR_SEVERAL
    assert report.faults or case.recipe.verdict is None or not of_one_alone


def closing_badly(case: Case) -> AbstractContextManager[Any]:
    """Wait for the warning of an environment that raises as it is closed."""
    if case.recipe.fault != "raises in close":
        return nullcontext()
    return pytest.warns(RuntimeWarning, match=rf"^{case.name}: its close raised KeyError: 'door' \(made_envs.py, line ")


def trained(case: Case, maker: Maker, folder: Path, watch: Watching) -> nexus.TrainResult:
    return nexus.train(case.name if case.registered else maker, run_dir=folder, listener=watch, **FEW, **case.options)


def require_refusal(case: Case, maker: Maker, folder: Path) -> None:
    """Where it went wrong and what, in one line, and all environments are closed."""
    recipe = case.recipe
    assert recipe.verdict is not None
    error, text, at_step = recipe.verdict
    with pytest.raises(error) as caught:
        trained(case, maker, folder, Watching())
    said = require_one_line(caught.value, text)
    assert case.name in said
    if at_step:
        copy = Playing(case, recipe.copy or 0)
        for _ in range(recipe.at - 1):
            if any(copy.decide(0)[1:]):
                copy.begin()
        step = copy.length + (recipe.at > 0)
        where = f"sub-environment {recipe.copy or 0} of {case.options['num_envs']}, seed {copy.seed}, step {step}"
        assert said.startswith(f"{case.name}: {where}: ")
    require_closed(case, maker)


def require_one_line(error: BaseException, text: str) -> str:
    """What an error says, which is one line with this text in it."""
    said = str(error)
    assert text in said
    assert said.splitlines() == [said.strip()]
    return said


def require_script(case: Case, result: Any, watch: Watching, actions: list[Array]) -> None:
    """The counters, the files and the replay are what the script comes to under these actions."""
    told, options = told_by_script(case, actions), case.options
    assert result.counters.steps == len(actions) * options["num_envs"]
    assert result.counters.updates == told.updates > 0
    assert result.counters.episodes == len(told.episodes)
    assert not torch.equal(result.agent.learner.theta, watch.weights)
    rows = [line.split(",") for line in (result.run_dir / "episodes.csv").read_text().splitlines()[1:]]
    found = [(float(row[2]), int(row[3])) for row in rows]
    np.testing.assert_allclose(sorted(found), sorted(told.episodes), rtol=1e-4, atol=1e-30)
    require_rows(case, result.agent, watch.replay, told.rows)


def require_said(case: Case, watch: Watching) -> None:
    """What is out of bounds is said, and only then."""
    said = [text for text in watch.notices if "its space says at most" in text]
    recipe = case.recipe
    lasting = recipe.end == "never" or recipe.length > 1
    if recipe.beyond and lasting:
        assert said[0].startswith(f"{case.name}: observation[")
    else:
        assert recipe.beyond or not said


def require_rows(case: Case, agent: Any, replay: Any, rows: list[tuple[Any, ...]]) -> None:
    """What is stored, oldest first, is what the script comes to; and a network sees it scaled."""
    assert len(replay) == len(rows)
    stored = {
        name: values.numpy()
        for name, values in replay.gather(torch.arange(len(rows)), torch.ones(len(rows))).items()
        if name not in ("weights", "indices")
    }
    names = ["states", "actions", "rewards", "discounts", "next_states"]
    names += [] if case.recipe.masks is None else ["action_masks", "next_action_masks"]
    assert sorted(stored) == sorted(names)
    for name, values in zip(names, zip(*rows, strict=True), strict=False):
        expected = np.stack(values)
        if name in ("rewards", "discounts"):
            np.testing.assert_allclose(stored[name], expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
        else:
            np.testing.assert_array_equal(stored[name], expected)
    assert stored["states"].dtype == rows[0][0].dtype
    if case.recipe.in_parts:  # each part goes through layers of its own
        return
    some = stored["next_states"][:5]
    expected = seen_by_network(case, some)
    got = entering(agent.q_network, some)
    if expected.ndim == 4:  # what can't be seen by whole strides is padded with zeros
        assert not got[:, :, expected.shape[2] :].any()
        assert not got[..., expected.shape[3] :].any()
        got = got[:, :, : expected.shape[2], : expected.shape[3]]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def root_of_last(case: Case, vector_steps: int) -> int:
    """The seed of a run's last evaluation: of the one after its end, unless one was due at its last step."""
    options = case.options
    due = 0 if options["eval_every"] is None else int(options["eval_every"].split()[0])
    before, after = ((vector_steps - more) * options["num_envs"] for more in (1, 0))
    at_last_step = due > 0 and after // due > before // due
    return seed_of(options["seed"], "evaluation") + (0 if at_last_step else 10_000)


def require_scores(case: Case, evaluation: Any, maker: Maker, root: int) -> None:
    """The returns and lengths of an evaluation are those of the episodes with these seeds."""
    if not case.options["eval_episodes"]:
        assert evaluation is None
        return
    recipe = case.recipe
    assert len(evaluation.returns) == case.options["eval_episodes"]
    if not recipe.seeded:
        return
    seeds = [episode_seed(root, number) for number in range(len(evaluation.returns))]
    lengths = []
    for seed in seeds:
        length = recipe.length_of(recipe.drawn_by(seed))
        steps = EVAL_MAX_STEPS if length is None else -(-length // case.options["frame_skip"])
        lengths.append(min(steps, EVAL_MAX_STEPS))
    assert evaluation.mean_length == pytest.approx(np.mean(lengths))
    if case.options["vectorization"] != "async":
        played = {seed: rewards for env in maker.made for seed, rewards in env.played.items()}
        assert evaluation.returns == pytest.approx([sum(played[seed]) for seed in seeds], rel=1e-6, abs=1e-37)


def go_on(case: Case, maker: Maker, result: Any, watch: Watching) -> None:
    """Resume to more steps, load what is left, and let it act and be scored."""
    recipe, more = case.recipe, Watching()
    longer = nexus.resume(
        result.run_dir, env=None if case.registered else maker, total_steps=result.counters.steps + 40, listener=more
    )
    if recipe.seeded:
        require_script(case, longer, more, [*watch.actions, *more.actions])
    assert longer.counters.steps >= result.counters.steps + 40
    agent = nexus.load_agent(longer.run_dir)
    assert torch.equal(agent.learner.theta, longer.agent.learner.theta)
    require_prediction(case, agent, Playing(case, 0))
    for played in (longer.run_dir, longer):
        evaluation = nexus.evaluate(played, None if case.registered else maker, 2, seed=5, listener=Silent())
        if case.options["eval_episodes"] == 2:
            require_scores(case, evaluation, maker, 5)


def require_prediction(case: Case, agent: Any, copy: Playing) -> None:
    """A loaded agent takes what the environment observes, and a state, and chooses the best legal action."""
    mask, state = copy.mask(), copy.state()
    with torch.no_grad():
        q_values = agent.q_network.eval()(state[None])[0].numpy()
    best = int(np.where(True if mask is None else mask, q_values, -np.inf).argmax())
    if case.options["frame_stack"] == 1:
        own = None if case.recipe.masks == "observation" else mask  # else it is a part of what is observed
        assert agent.predict(case.recipe.observed(copy.drawn, 0), action_masks=own) == (best, None)
    elif isinstance(case.recipe.space, spaces.Box):
        assert agent.predict(state, action_masks=mask) == (best, None)


def require_closed(case: Case, maker: Maker) -> None:
    """No environment is left open, and no process alive."""
    assert multiprocessing.active_children() == []
    if case.options["vectorization"] != "async":
        assert {env.closed for env in maker.made} <= {1}


# --- the tests ---

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),  # Gymnasium's, of the spaces
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # how Linux starts processes before 3.14
]


def fuzz(examples: int, derandomize: bool) -> Counter[str]:
    """Check so many environments, and return how often what came of it."""
    came: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        derandomize=derandomize,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(CASES)
    def one(case: Case) -> None:
        came[check(case)] += 1

    one()
    return came


def test_forty_made_environments_train_or_are_refused() -> None:
    came = fuzz(40, derandomize=True)
    assert min(came["sound"], came["refused"]) >= 10


@pytest.mark.slow
def test_five_hundred_made_environments_train_or_are_refused(record_property: Callable[[str, object], None]) -> None:
    came = fuzz(500, derandomize=False)
    record_property("came", dict(came))
    assert min(came["sound"], came["refused"]) >= 150


LESSONS: dict[str, tuple[spaces.Space[Any], dict[str, Any]]] = {
    "numbers": (spaces.Box(-np.inf, np.inf, (3,), np.float64), {"n_step": 3}),
    "bytes": (spaces.Box(0, 255, (5, 5, 3), np.uint8), {"prioritized": True}),
    "one number": (spaces.Discrete(300, start=-3), {"algorithm": "qr-dqn"}),
    "bits": (spaces.MultiBinary((2, 2)), {"frame_stack": 2}),
    "bounded": (spaces.Box(100, 1_000, (2,), np.int16), {"scale_observations": True}),
    "several numbers": (spaces.MultiDiscrete(np.array([[2, 3], [4, 1]])), {"algorithm": "dueling"}),
    "parts": (spaces.Dict({"a": spaces.Discrete(300), "b": spaces.Box(0, 255, (5, 5, 3), np.uint8)}), {"n_step": 2}),
    "in the other order": (spaces.Box(-5, 5, (2, 2), np.dtype(">f4")), {"algorithm": "double"}),
}
TAUGHT = {
    "total_steps": 1_600,
    "num_envs": 4,
    "learning_starts": 100,
    "update_every": "4 steps",
    "epsilon_steps": 600,
    "gamma": 0.0,
    "hidden_dim": 32,
    "learning_rate": 0.01,
    "target_update_every": "20 updates",
    "eval_episodes": 20,
    "checkpoint_every": None,
    "threads": 1,
}


@pytest.mark.parametrize("kind", LESSONS)
def test_what_is_seen_is_enough_to_learn_what_is_right(kind: str, tmp_path: Path) -> None:
    """γ is 0, so Q is 1 for the action that pays in a state, and 0 for the others."""
    space, options = LESSONS[kind]
    recipe = Recipe(space, spaces.Discrete(3), length=5, spread=3, end="truncated", reward=RIGHT, given="in place")
    result = nexus.train(Maker(recipe), run_dir=tmp_path / "run", listener=Silent(), **{**TAUGHT, **options})
    assert result.evaluation is not None
    assert result.evaluation.mean == result.evaluation.mean_length
    for copy in range(3):
        playing = Playing(Case(recipe, {"num_envs": 3, "seed": 1, "frame_stack": 1, **options}, False), copy)
        q_values = result.agent.q_network(playing.state()).detach().numpy()
        right = np.eye(3)[recipe.right(playing.drawn, 0)]
        np.testing.assert_allclose(q_values, right, atol=0.2)
