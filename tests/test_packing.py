"""Observations of several parts become one row of bytes, and what reads the row finds each part again."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus.core.errors import ConfigError, EnvError
from nexus.core.packing import Layout, Part
from nexus.data.memory import replay_bytes
from nexus.envs.factory import EnvSpec, describe_spaces, make_env, make_vector_env, seen_by_agent
from nexus.envs.packing import Packing, packed_in
from nexus.envs.stream import TransitionStream
from nexus.envs.workers import close_env

ASYNC = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # how Linux starts processes before 3.14
CAMERA = spaces.Box(0, 255, (2, 2, 3), np.uint8)
SPEED = spaces.Box(-1, 1, (2,), np.float32)


class Showing(gym.Env[Any, Any]):
    """Shows one observation after the other; each step takes the next."""

    action_space: spaces.Space[Any] = spaces.Discrete(3)

    def __init__(self, space: spaces.Space[Any], *observations: Any, info: Any = None) -> None:
        self.observation_space, self.observations, self.info = space, observations, info or {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.at = 0
        return self.observations[0], self.info

    def step(self, action: Any) -> Any:
        self.at += 1
        return self.observations[self.at % len(self.observations)], 1.0, False, False, self.info


def row_of(space: spaces.Space[Any], observation: Any) -> list[int]:
    """The bytes of one observation, as an environment with our wrappers gives them."""
    env = make_env(EnvSpec(partial(Showing, space, observation)))
    state = env.reset()[0]
    assert state.dtype == np.uint8
    assert env.observation_space == spaces.Box(0, 255, state.shape, np.uint8)
    assert describe_spaces(env.observation_space, env.action_space, "x") == (state.shape, np.dtype(np.uint8), 3)
    return list(map(int, state))


def layout_of(space: spaces.Space[Any]) -> str:
    packed = packed_in(make_env(EnvSpec(partial(Showing, space, None))).observation_space)
    assert packed is not None
    return str(packed.layout)


# --- layouts by hand ---

ONE, MINUS_TWO, HALF = [0, 0, 128, 63], [0, 0, 0, 192], [0, 0, 0, 63]  # IEEE 754, least byte first


def test_a_row_is_its_parts_one_after_the_other() -> None:
    layout = Layout(
        (
            Part(("v",), (2,), "float32"),
            Part(("k",), (3,), "int8"),
            Part(("b",), (), "bool"),
            Part(("i",), (2, 2), "uint8"),
        )
    )
    values: list[Any] = [
        np.array([1, -2], np.float32),
        np.array([0, -1, 1], np.int8),
        np.array(True),
        np.array([[7, 8], [9, 255]], np.uint8),
    ]
    row = layout.pack(values)
    assert row.tolist() == [*ONE, *MINUS_TWO, 0, 255, 1, 1, 7, 8, 9, 255]
    assert (layout.nbytes, layout.slices) == (16, (slice(0, 8), slice(8, 11), slice(11, 12), slice(12, 16)))
    for found, value in zip(layout.unpack(row), values, strict=True):
        np.testing.assert_array_equal(found, value, strict=True)
    many = layout.pack([np.stack([value, value]) for value in values])
    assert many.tolist() == [row.tolist()] * 2
    for found, value in zip(layout.unpack(many), values, strict=True):
        np.testing.assert_array_equal(found, np.stack([value, value]), strict=True)


def test_every_kind_of_part_has_its_place() -> None:
    space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (1, 2, 1), np.uint8),
            "gear": spaces.Discrete(3, start=-1),
            "wheels": spaces.MultiDiscrete([2, 3], start=[0, 5]),
            "lamps": spaces.MultiBinary((2, 2)),
            "pose": spaces.Tuple(
                (spaces.Box(-9, 9, (), np.float64), spaces.Dict({"z": spaces.Box(0, 9, (1,), np.int32)}))
            ),
            "dry": spaces.Box(0, 1, (1,), np.bool_),  # type: ignore[arg-type]
            "drift": spaces.Box(-5, 5, (1,), np.int8),
        }
    )
    observation = {
        "camera": np.array([[[4], [5]]], np.uint8),
        "gear": 1,
        "wheels": np.array([1, 5]),
        "lamps": np.array([[1, 0], [0, 1]]),
        "pose": (np.float64(-2), {"z": np.array([1])}),
        "dry": np.array([True]),
        "drift": np.array([-1]),
    }
    assert layout_of(space) == (
        "observation['pose'][0] float32[], observation['pose'][1]['z'] float32[1], observation['drift'] int8[1], "
        "observation['gear'] int8[3], observation['lamps'] int8[4], observation['wheels'] int8[5], "
        "observation['dry'] bool[1], observation['camera'] uint8[1, 2, 1]"
    )
    whole = [255, *(0, 0, 1), *(1, 0, 0, 1), *(0, 1), *(1, 0, 0)]
    assert row_of(space, observation) == [*MINUS_TWO, *ONE, *whole, 1, 4, 5]


def test_tuples_may_hold_what_dicts_may() -> None:
    space = spaces.Tuple((CAMERA, spaces.Discrete(2), spaces.Box(0, 1, (1,), np.float16)))
    observation = (np.full(CAMERA.shape, 3, np.uint8), 1, np.array([0.5], np.float16))
    assert row_of(space, observation) == [*HALF, 0, 1, *[3] * 12]


def test_a_large_grey_picture_gets_its_channel() -> None:
    space = spaces.Dict({"screen": spaces.Box(0, 255, (36, 40), np.uint8), "board": spaces.Box(0, 2, (3, 3), np.uint8)})
    assert layout_of(space) == "observation['board'] uint8[3, 3], observation['screen'] uint8[1, 36, 40]"
    shown = {"board": np.zeros((3, 3), np.uint8), "screen": np.zeros((36, 40), np.uint8)}
    stream = TransitionStream(make_vector_env(EnvSpec(partial(Showing, space, shown)), 1))
    stream.reset(0)
    assert stream.notices == [
        "partial: observation['board'] (3, 3) are taken as 9 numbers; for images, add an axis, as in (1, 3, 3)",
        "partial: observation['screen'] (36, 40) are taken as grey images, (1, 36, 40)",
    ]


def test_an_image_stays_as_small_as_it_is() -> None:
    """The figures of docs/observations.md."""
    space = spaces.Dict({"camera": spaces.Box(0, 255, (84, 84, 1), np.uint8), "joints": spaces.Box(-1, 1, (6,))})
    (length,) = Packing(space, "x").space.shape
    assert length == 84 * 84 + 4 * 6 == 7_080
    assert replay_bytes(100_000, (length,), np.uint8) == 1_417_600_000
    assert replay_bytes(100_000, (84 * 84 + 6,), np.float32) == 5_651_200_000  # as one array of float32


def test_what_an_agent_is_told_of_each_part() -> None:
    space = spaces.Dict(
        {
            "camera": CAMERA,
            "gear": spaces.Discrete(3, start=-1),
            "wheels": spaces.MultiDiscrete(np.array([[2, 3]]), start=np.array([[0, 5]])),
            "lamps": spaces.MultiBinary((2, 1)),
            "count": spaces.Box(0, 9, (1,), np.int64),
            "speed": SPEED,
            "free": spaces.Box(-np.inf, np.inf, (1,), np.float64),
            "depth": spaces.Box(0, 9, (2, 2, 1), np.float32),
        }
    )
    seen = make_env(EnvSpec(partial(Showing, space, None))).observation_space
    plain: list[dict[str, Any]] = [
        {"path": ["count"], "state_dim": [1], "dtype": "float32", "state_scale": [0.0, 9.0]},
        {"path": ["depth"], "state_dim": [2, 2, 1], "dtype": "float32"},
        {"path": ["free"], "state_dim": [1], "dtype": "float32"},
        {"path": ["speed"], "state_dim": [2], "dtype": "float32"},
        {"path": ["gear"], "state_dim": [3], "dtype": "int8", "state_scale": [0.0, 1.0], "discrete_start": -1},
        {"path": ["lamps"], "state_dim": [2], "dtype": "int8", "state_scale": [0.0, 1.0], "observed_dim": [2, 1]},
        {
            "path": ["wheels"],
            "state_dim": [5],
            "dtype": "int8",
            "state_scale": [0.0, 1.0],
            "discrete_sizes": [[2, 3]],
            "discrete_start": [[0, 5]],
        },
        {"path": ["camera"], "state_dim": [2, 2, 3], "dtype": "uint8", "state_scale": [0.0, 255.0]},
    ]
    assert seen_by_agent(seen, "x", False) == {"state_parts": plain}
    scaled = {entries["path"][0]: entries for entries in seen_by_agent(seen, "x", True)["state_parts"]}
    assert {name: entries.get("state_bounds") for name, entries in scaled.items()} == {
        "count": ([0.0], [9.0]),
        "speed": ([-1.0, -1.0], [1.0, 1.0]),
        "free": None,
        "depth": None,  # an image keeps its scale
        "gear": ([0.0] * 3, [1.0] * 3),
        "wheels": ([0.0] * 5, [1.0] * 5),
        "lamps": ([0.0] * 2, [1.0] * 2),
        "camera": None,
    }
    assert scaled["camera"]["state_scale"] == [0.0, 255.0]


def test_nothing_to_scale_by_is_refused() -> None:
    space = Packing(spaces.Dict({"camera": CAMERA, "free": spaces.Box(-np.inf, np.inf, (1,))}), "x").space
    with pytest.raises(ConfigError, match="scale_observations: the observations of x have no bounds to scale by"):
        seen_by_agent(space, "x", True)


# --- round trips ---


def boxes() -> st.SearchStrategy[spaces.Space[Any]]:
    shapes = st.lists(st.integers(1, 3), max_size=4).map(tuple)
    dtypes = st.sampled_from([np.uint8, np.int8, bool, np.float32, np.float16])
    return st.builds(lambda shape, dtype: spaces.Box(0, 1 if dtype is bool else 100, shape, dtype), shapes, dtypes)


def several() -> st.SearchStrategy[spaces.Space[Any]]:
    """Spaces of any parts, nested in each other."""
    sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
    leaves: st.SearchStrategy[spaces.Space[Any]] = st.one_of(
        boxes(),
        st.builds(spaces.Discrete, st.integers(1, 5), start=st.integers(-3, 3)),
        sizes.map(lambda nvec: spaces.MultiDiscrete(nvec, start=[-1] * len(nvec))),
        sizes.map(lambda shape: spaces.MultiBinary(shape)),
    )

    def around(below: st.SearchStrategy[spaces.Space[Any]]) -> st.SearchStrategy[spaces.Space[Any]]:
        keys = st.text("abcdef", min_size=1, max_size=3)
        return st.one_of(
            st.dictionaries(keys, below, min_size=1, max_size=4).map(spaces.Dict),
            st.lists(below, min_size=1, max_size=4).map(lambda them: spaces.Tuple(tuple(them))),
        )

    return around(st.recursive(leaves, around, max_leaves=8))


def observed(space: spaces.Space[Any], values: Any, path: tuple[Any, ...] = ()) -> Any:
    """The observation that unpacked values `{path: array}` stand for: ours read backwards, by Gymnasium's own words."""
    match space:
        case spaces.Dict():
            return {key: observed(below, values, (*path, key)) for key, below in space.spaces.items()}
        case spaces.Tuple():
            return tuple(observed(below, values, (*path, index)) for index, below in enumerate(space.spaces))
        case spaces.Box():
            return values[path].astype(space.dtype)
    return spaces.unflatten(space, values[path])


@settings(deadline=None, max_examples=200)
@given(several(), st.integers(0, 2**31))
def test_what_is_packed_is_found_again(space: Any, seed: int) -> None:
    space.seed(seed)
    packing = Packing(space, "x")
    observations = [space.sample() for _ in range(3)]
    rows = np.stack([packing.read(observation) for observation in observations])
    assert rows.shape == (3, packing.layout.nbytes)
    for row, observation in zip(rows, observations, strict=True):
        unpacked = packing.layout.unpack(row)
        found = {part.path: values for part, values in zip(packing.layout.parts, unpacked, strict=True)}
        again: Any = spaces.flatten(space, observed(space, found))
        np.testing.assert_array_equal(again, spaces.flatten(space, observation))
    for together, alone in zip(
        packing.layout.unpack(rows), zip(*map(packing.layout.unpack, rows), strict=True), strict=True
    ):
        np.testing.assert_array_equal(together, np.stack(alone), strict=True)


# --- what an environment does ---


def test_rows_are_arrays_of_their_own() -> None:
    class InPlace(Showing):
        def step(self, action: Any) -> Any:
            self.observations[0]["speed"] += 0.5
            return super().step(action)

    env = make_env(EnvSpec(lambda: InPlace(spaces.Dict({"speed": SPEED}), {"speed": np.zeros(2, np.float32)})))
    first = env.reset()[0]
    assert env.step(0)[0].tolist() == [*HALF, *HALF]
    assert first.tolist() == [0] * 8


SPACE = spaces.Dict({"camera": CAMERA, "pose": spaces.Tuple((SPEED, spaces.Discrete(4)))})
FINE = {"camera": np.zeros(CAMERA.shape, np.uint8), "pose": (np.zeros(2, np.float32), 0)}


@ASYNC
@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("odd", "text"),
    [
        ({"camera": FINE["camera"]}, "its observation has no 'pose', only 'camera'"),
        (
            {"camera": FINE["camera"], "pos": FINE["pose"]},
            "its observation has no 'pose', only 'camera', 'pos'; did you mean pos?",
        ),
        ({}, "its observation has no 'pose', it is empty"),
        (FINE["camera"], "its observation is of type ndarray: needs a mapping with 'pose'"),
        ({**FINE, "pose": {"a": 0}}, "its observation['pose'] is of type dict: needs a tuple"),
        ({**FINE, "pose": (np.zeros(2, np.float32),)}, "its observation['pose'] has 1 entries: needs at least 2"),
        (
            {**FINE, "pose": (np.zeros(3, np.float32), 0)},
            "observation['pose'][0]: got an observation float32[3]: needs float32[2]",
        ),
        (
            {**FINE, "pose": (np.array([0, np.nan], np.float32), 0)},
            "observation['pose'][0]: got an observation with nan at [1]: needs finite numbers",
        ),
        (
            {**FINE, "pose": (np.zeros(2, np.float32), 4)},
            "observation['pose'][1]: got observation 4: its space has 0 to 3",
        ),
        (
            {**FINE, "camera": np.zeros(CAMERA.shape)},
            "observation['camera']: got an observation float64[2, 2, 3]: needs uint8[2, 2, 3]",
        ),
    ],
)
def test_an_answer_that_lacks_a_part_or_has_a_wrong_one_is_told_with_its_index(
    odd: Any, text: str, vectorization: Any
) -> None:
    make: Callable[[], Any] = partial(Showing, SPACE, FINE, odd)
    stream = TransitionStream(make_vector_env(EnvSpec(make), 2, vectorization), "Game")
    stream.reset(0)
    with pytest.raises(EnvError) as caught:
        stream.step(np.zeros(2, np.int64))
    close_env(stream.env)
    message = str(caught.value)
    assert message.startswith("Game: sub-environment ")
    assert message.endswith(f", step 1: {text}")


def test_a_number_that_float32_can_not_hold_is_refused() -> None:
    space = spaces.Dict({"far": spaces.Box(-np.inf, np.inf, (2,), np.float64)})
    with pytest.raises(
        EnvError, match=r"^observation\['far'\]: got an observation with 1e\+300 at \[1\]: agents compute in float32"
    ):
        row_of(space, {"far": np.array([0, 1e300])})


def test_a_part_beyond_its_bounds_is_said_once() -> None:
    space = spaces.Dict({"camera": CAMERA, "speed": SPEED})
    shown = [{"camera": FINE["camera"], "speed": np.array([0, speed], np.float32)} for speed in (0, 1.5, 2)]
    stream = TransitionStream(make_vector_env(EnvSpec(partial(Showing, space, *shown)), 1))
    stream.reset(0)
    for _ in range(4):
        stream.step(np.zeros(1, np.int64))
    assert stream.notices == [
        "partial: observation['speed'][1] was 1.5, its space says at most 1; states may be scaled by these bounds: "
        "correct the space"
    ]


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (
            spaces.Dict({"a": SPEED, "said": spaces.Text(3)}),
            "has Text(1, 3, charset=",
        ),
        (
            spaces.Dict({"a": SPEED, "said": spaces.Text(3)}),
            "as observation['said']: needs numbers of a fixed shape; leave it out with "
            "gymnasium.wrappers.FilterObservation, or encode it as numbers, such as a MultiDiscrete of words in an "
            "ObservationWrapper",
        ),
        (
            spaces.Tuple((SPEED, spaces.Dict({"b": spaces.Sequence(SPEED)}))),
            "as observation[1]['b']: needs numbers of a fixed shape; pad it to a Box of a fixed shape in an "
            "ObservationWrapper",
        ),
        (spaces.Dict({"a": spaces.Dict({})}), "needs at least one part"),
        (spaces.Dict({"a": spaces.Box(0, 1, (0, 2))}), "as observation['a']: needs at least one number"),
        (spaces.Dict({1: SPEED}), "has observation[1] in its observations: needs text as keys"),  # type: ignore[dict-item]
    ],
)
def test_what_no_network_can_see_is_refused(space: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_env(EnvSpec(partial(Showing, space, None)))
    assert text in str(caught.value)
    assert str(caught.value).startswith("partial has ")
    assert "\n" not in str(caught.value)


def test_sub_environments_must_have_the_same_parts() -> None:
    made = iter((spaces.Dict({"a": SPEED, "b": SPEED}), spaces.Dict({"a": SPEED, "c": SPEED})))
    with pytest.raises(
        ConfigError, match=r"sub-environment 1 has observations .*\['c'\] float32\[2\], sub-environment 0 has .*\['b'\]"
    ):
        make_vector_env(EnvSpec(lambda: Showing(next(made), None)), 2, "sync")


def test_repeated_actions_show_the_brighter_of_two_images_and_the_last_numbers() -> None:
    shown = [
        {"camera": np.full(CAMERA.shape, bright, np.uint8), "pose": (np.full(2, speed, np.float32), place)}
        for bright, speed, place in ((0, 0, 0), (9, 1, 1), (7, 0.5, 2))
    ]
    env = make_env(EnvSpec(partial(Showing, SPACE, *shown), frame_skip=2))
    env.reset()
    assert env.step(0)[0].tolist() == [*HALF, *HALF, 0, 0, 1, 0, *[9] * 12]


# --- masks beside several parts ---


def masked(**more: Any) -> Showing:
    space = spaces.Dict({"action_mask": spaces.MultiBinary(3), "camera": CAMERA, "speed": SPEED})
    observation = {"action_mask": np.array([1, 0, 1]), "camera": FINE["camera"], "speed": np.ones(2, np.float32)}
    return Showing(space, observation | more)


def test_a_mask_is_taken_out_before_packing() -> None:
    env = make_env(EnvSpec(masked))
    state, info = env.reset()
    assert state.tolist() == [*ONE, *ONE, *[0] * 12]
    assert info["action_mask"].tolist() == [True, False, True]
    assert seen_by_agent(env.observation_space, "x", False)["mask_entry"] == "action_mask"
    stream = TransitionStream(make_vector_env(EnvSpec(masked), 2, "sync"))
    stream.reset(0)
    assert stream.notices == ["masked: takes the legal actions from observation['action_mask']"]
    assert stream.action_masks is not None
    assert stream.step(np.array([0, 2])).next_action_masks is not None


def test_a_structure_next_to_a_mask_is_packed() -> None:
    space = spaces.Dict({"action_mask": spaces.MultiBinary(3), "seen": spaces.Dict({"speed": SPEED})})
    env = make_env(EnvSpec(lambda: Showing(space, {"action_mask": [1, 1, 0], "seen": {"speed": [0.5, 1.0]}})))
    state, info = env.reset()
    assert (state.tolist(), info["action_mask"].tolist()) == ([*HALF, *ONE], [True, True, False])
    (part,) = seen_by_agent(env.observation_space, "x", False)["state_parts"]
    assert part["path"] == ["seen", "speed"]


def test_a_mask_that_is_missing_is_told() -> None:
    class Lacking(Showing):
        def step(self, action: Any) -> Any:
            observation, *rest = super().step(action)
            return ({"camera": observation["camera"], "speed": observation["speed"]}, *rest)

    whole = masked()
    env = make_env(EnvSpec(lambda: Lacking(whole.observation_space, *whole.observations)))
    env.reset()
    with pytest.raises(EnvError, match="got an observation with camera, speed: needs action_mask"):
        env.step(0)
