"""The nouns: periods, configs that check themselves, random generators, and the nearest name."""

import ast
import inspect
import json
import textwrap
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.core import AgentConfig, ConfigError, NexusError, Period, RunError, nearest
from nexus.core.checked import CheckedConfig
from nexus.core.period import UNITS
from nexus.core.seeding import Purpose, generator, seed_of
from nexus.core.settings import OwnAlgorithmSettings
from nexus.training.config import GROUPS, TrainConfig

NEXUS = Path(__file__).resolve().parent.parent / "nexus"

# --- Period ---


@pytest.mark.parametrize(
    ("text", "count", "unit"),
    [
        ("10000 steps", 10_000, "steps"),
        ("10_000 steps", 10_000, "steps"),
        ("10,000 steps", 10_000, "steps"),
        ("1e4 steps", 10_000, "steps"),
        ("1.5e4 steps", 15_000, "steps"),
        ("1 step", 1, "steps"),
        ("1 episode", 1, "episodes"),
        ("500 updates", 500, "updates"),
        ("  5   Updates ", 5, "updates"),
        ("7episodes", 7, "episodes"),
    ],
)
def test_a_period_is_read_from_text(text: str, count: int, unit: str) -> None:
    assert Period.parse(text) == Period(count, unit)


@given(count=st.integers(1, 10**12), unit=st.sampled_from(UNITS))
def test_a_period_reads_back_what_it_prints(count: int, unit: str) -> None:
    period = Period(count, unit)
    assert Period.parse(str(period)) == period
    assert Period.parse(period) is period


@pytest.mark.parametrize(
    "text",
    [
        "",
        "steps",
        "10",
        "-5 steps",
        "1.5 steps",
        "1e4.5 steps",
        "1e999 steps",
        "1e-2 steps",
        "10 steps 5",
        "_ steps",
        ", steps",
    ],
)
def test_what_is_no_period_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="needs a count and a unit, as in '10000 steps'"):
        Period.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10 epsiodes", "did you mean episodes"),
        ("10 frames", "needs one of steps, episodes, updates"),
        ("0 steps", "at least 1 steps, got 0"),
    ],
)
def test_an_impossible_period_says_what_it_needs(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Period.parse(text)


@pytest.mark.parametrize(
    ("before", "after", "crossings"),
    [
        (0, 0, 0),
        (0, 9, 0),
        (0, 10, 1),
        (9, 10, 1),
        (10, 11, 0),
        (10, 19, 0),
        (8, 16, 1),
        (0, 35, 3),
        (19, 40, 3),
    ],
)
def test_crossings_count_the_multiples_passed(before: int, after: int, crossings: int) -> None:
    assert Period(10, "steps").crossings(before, after) == crossings


@given(count=st.integers(1, 50), stride=st.integers(1, 64), strides=st.integers(1, 50))
def test_a_cadence_keeps_its_rate_whatever_the_stride(count: int, stride: int, strides: int) -> None:
    period = Period(count, "steps")
    crossed = sum(period.crossings(i * stride, (i + 1) * stride) for i in range(strides))
    assert crossed == strides * stride // count


# --- configs ---

IMPOSSIBLE: list[tuple[str, Any]] = [
    ("hidden_dim", 0),
    ("hidden_layers", 0),
    ("gamma", 1.01),
    ("gamma", -0.1),
    ("gamma", float("nan")),
    ("learning_rate", 0.0),
    ("learning_rate", float("inf")),
    ("adam_epsilon", 0.0),
    ("max_grad_norm", 0.0),
    ("tau", 0.0),
    ("tau", 1.5),
    ("epsilon", 1.1),
    ("epsilon_min", -0.1),
    ("epsilon_decay", 0.0),
    ("epsilon_decay", 1.1),
    ("seed", -1),
    ("total_steps", 0),
    ("num_envs", 0),
    ("frame_skip", 0),
    ("frame_stack", 0),
    ("n_step", 0),
    ("replay_capacity", 0),
    ("rollout_steps", 0),
    ("priority_exponent", -0.1),
    ("priority_exponent", 1.1),
    ("importance_exponent", -0.1),
    ("importance_exponent", 1.1),
    ("batch_size", 0),
    ("gradient_steps", 0),
    ("epsilon_steps", 0),
    ("learning_rate_step", 0),
    ("eval_episodes", -1),
    ("learning_starts", -1),
    ("reward_clip", 0.0),
    ("learning_rate_end", -0.1),
    ("learning_rate_factor", 0.0),
    ("threads", 0),
]

WRONG_TYPE: list[tuple[str, Any, str]] = [
    ("batch_size", "64", "a whole number"),
    ("batch_size", 64.5, "a whole number"),
    ("batch_size", True, "a whole number"),
    ("batch_size", None, "a whole number"),
    ("batch_size", [64], "a whole number"),
    ("gamma", "0.9", "a number"),
    ("gamma", True, "a number"),
    ("max_grad_norm", "big", "a number or none"),
    ("compile", 1, "true or false"),
    ("compile", "yes", "true or false"),
    ("device", 0, "text"),
    ("loss", "hubert", "one of huber, squared"),
    ("loss", None, "one of huber, squared"),
    ("epsilon_schedule", ["linear"], "one of linear, per_step, per_episode, constant"),
    ("log_every", 1_000, "needs a count and a unit"),
    ("log_every", None, "needs a count and a unit"),
    ("eval_every", "10 frames", "needs one of steps, episodes, updates"),
]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE, ids=str)
def test_an_impossible_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name} = {value}: needs "):
        TrainConfig.from_mapping({name: value})


@pytest.mark.parametrize(("name", "value", "needs"), WRONG_TYPE, ids=str)
def test_a_value_of_the_wrong_type_is_refused_by_name(name: str, value: Any, needs: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} = .*{needs}"):
        TrainConfig.from_mapping({name: value})


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"epsilon": 0.1, "epsilon_min": 0.2}, "epsilon_min"),
        ({"batch_size": 200, "replay_capacity": 100}, "batch_size"),
        ({"learning_starts": 100, "total_steps": 100}, "learning_starts"),
        ({"target_return": 475.0}, "target_return"),
        ({"update_every": "4 updates"}, "update_every"),
    ],
)
def test_values_that_are_impossible_together_are_refused(values: Mapping[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} = .*: needs "):
        TrainConfig.from_mapping(values)


def test_values_at_the_edge_are_possible() -> None:
    TrainConfig(gamma=1.0, tau=1.0, epsilon=0.0, epsilon_min=0.0, epsilon_decay=1.0, seed=0, learning_starts=0)
    TrainConfig(gamma=0.0, batch_size=100, replay_capacity=100, learning_starts=99, total_steps=100)
    TrainConfig(target_return=475.0, eval_every=Period(1_000, "steps"))
    TrainConfig(batch_size=1, replay_capacity=1, rollout_steps=1, learning_starts=0)
    for edge in (0.0, 1.0):
        TrainConfig(prioritized=True, priority_exponent=edge, importance_exponent=edge)


def test_the_defaults_of_the_replay() -> None:
    replay = TrainConfig()
    assert (replay.replay_capacity, replay.replay_store) == (100_000, "auto")
    assert (replay.prioritized, replay.priority_exponent, replay.importance_exponent) == (False, 0.5, 0.4)
    assert (replay.rollout_steps, replay.trace_lambda) == (1024, None)


@pytest.mark.parametrize("kind", [AgentConfig, TrainConfig])
def test_an_unknown_key_is_refused_with_the_nearest(kind: type[CheckedConfig]) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'learning_rat'; did you mean learning_rate"):
        kind.from_mapping({"learning_rat": 0.1})


def test_a_setting_of_training_alone_is_unknown_to_an_agent() -> None:
    with pytest.raises(ConfigError, match="unknown setting 'total_steps'"):
        AgentConfig.from_mapping({"total_steps": 5})


def test_a_value_becomes_its_type_where_that_loses_nothing() -> None:
    config = TrainConfig.from_mapping({"gamma": 1, "total_steps": 5e6, "log_every": "1 episode", "max_grad_norm": None})
    assert (config.gamma, config.total_steps) == (1.0, 5_000_000)
    assert (type(config.gamma), type(config.total_steps)) == (float, int)
    assert config.log_every == Period(1, "episodes")
    assert config.max_grad_norm is None


def test_the_checks_hold_for_every_way_to_make_a_config() -> None:
    with pytest.raises(ConfigError, match="gamma = 2"):
        AgentConfig(gamma=2)
    with pytest.raises(ConfigError, match="gamma = 2"):
        replace(AgentConfig(), gamma=2)


def test_a_config_can_not_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        AgentConfig().gamma = 0.5  # type: ignore[misc]


CHANGED = {
    "hidden_dim": 7,
    "gamma": 0.9,
    "loss": "squared",
    "max_grad_norm": None,
    "device": "cpu",
    "compile": True,
    "update_every": "2 episodes",
    "eval_every": "500 steps",
    "target_return": 1.0,
    "threads": 2,
}


@pytest.mark.parametrize("config", [AgentConfig(), TrainConfig(), TrainConfig.from_mapping(CHANGED)])
def test_a_config_comes_back_from_json_as_it_was(config: CheckedConfig) -> None:
    text = json.dumps(config.to_mapping(), allow_nan=False)
    assert type(config).from_mapping(json.loads(text)) == config


def test_to_mapping_gives_every_field_and_the_values_set() -> None:
    mapping = TrainConfig.from_mapping(CHANGED).to_mapping()
    assert list(mapping) == [field.name for field in fields(TrainConfig)]
    assert {name: mapping[name] for name in CHANGED} == CHANGED


@pytest.mark.parametrize("kind", [group for groups in GROUPS.values() for group in groups])
def test_every_field_is_described_right_below_it(kind: type[CheckedConfig]) -> None:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    declared, bare = [], []
    for node, below in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            declared.append(node.target.id)
            match below:
                case ast.Expr(value=ast.Constant(value=str(text))) if text.endswith("."):
                    continue
            bare.append(node.target.id)
    assert bare == []
    assert declared == [field.name for field in fields(kind)]
    assert declared


def test_each_setting_is_in_one_group_and_each_group_in_the_config() -> None:
    grouped = [*(group for groups in GROUPS.values() for group in groups), OwnAlgorithmSettings]
    assert sorted(field.name for group in grouped for field in fields(group)) == sorted(
        field.name for field in fields(TrainConfig)
    )
    assert all(issubclass(TrainConfig, group) for group in grouped)
    assert [field.name for field in fields(AgentConfig)][:2] == ["algorithm", "seed"]


@dataclass(frozen=True)
class Even(CheckedConfig):
    even: int = 2

    def check(self) -> None:
        self.require(self.even % 2 == 0, "even", "an even number")


@dataclass(frozen=True)
class Odd(CheckedConfig):
    odd: int = 3

    def check(self) -> None:
        self.require(self.odd % 2 == 1, "odd", "an odd number")


@dataclass(frozen=True)
class Both(Odd, Even):
    def check(self) -> None:
        self.require(self.even < self.odd, "even", "less than odd")


@dataclass(frozen=True)
class Unchecked(Both):
    more: int = 0


@pytest.mark.parametrize("kind", [Both, Unchecked])
def test_each_group_checks_its_own_and_the_config_the_rest(kind: type[Both]) -> None:
    kind(even=4, odd=5)
    for values, says in (
        ({"even": 1}, "even = 1: needs an even number"),
        ({"odd": 4}, "odd = 4: needs an odd number"),
        ({"even": 6, "odd": 5}, "even = 6: needs less than odd"),
    ):
        with pytest.raises(ConfigError, match=f"^{says}$"):
            kind(**values)


# --- seeding ---


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_the_same_seed_gives_the_same_numbers(seed: int) -> None:
    for purpose in get_args(Purpose):
        assert generator(seed, purpose).random(4).tolist() == generator(seed, purpose).random(4).tolist()
        assert seed_of(seed, purpose) == seed_of(seed, purpose)


def test_generators_differ_from_each_other_and_between_seeds() -> None:
    keys = [(seed, purpose) for seed in range(20) for purpose in get_args(Purpose)]
    assert len({tuple(generator(*key).random(4)) for key in keys}) == len(keys) == 20 * len(get_args(Purpose))
    assert len({seed_of(*key) for key in keys}) == len(keys)
    # Nor is one the plain generator of the seed.
    assert all(generator(0, purpose).random() != np.random.default_rng(0).random() for purpose in get_args(Purpose))


def test_a_plain_seed_has_31_bits() -> None:
    seeds = [seed_of(seed, "environments") for seed in range(200)]
    assert all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
    assert max(seeds) > 2**30


# --- errors ---


def test_the_nearest_names_are_the_closest_first() -> None:
    known = ["learning_rate", "learning_starts", "gamma", "tau"]
    assert nearest("learning_rat", known, count=1) == "; did you mean learning_rate?"
    assert nearest("GAMA", known) == "; did you mean gamma?"
    assert nearest("learning_rat", known).startswith("; did you mean learning_rate, ")


def test_nothing_is_near_a_word_like_no_other() -> None:
    assert nearest("xyzzy", ["learning_rate", "gamma"]) == ""
    assert nearest("gamma", []) == ""


@pytest.mark.parametrize("kind", [ConfigError, RunError])
def test_what_an_error_quotes_in_several_lines_is_one(kind: type[NexusError]) -> None:
    error = kind("got [[1 2]\n     [3 4]],\r\n needs\u2028one  line\n")
    assert str(error) == "got [[1 2] [3 4]], needs one  line"
    assert str(kind()) == ""


@pytest.mark.parametrize("kind", [ConfigError, RunError])
def test_every_error_of_the_library_can_be_caught_as_one(kind: type[NexusError]) -> None:
    assert issubclass(kind, NexusError)
    assert issubclass(ConfigError, ValueError)
