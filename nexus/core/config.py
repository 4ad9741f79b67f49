"""Frozen configs that check themselves: an unknown key, a wrong type or an impossible value is one clear error."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Literal, Self, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch

from nexus.core.errors import ConfigError, nearest
from nexus.core.names import algorithm_name, current_names
from nexus.core.period import Period

__all__ = ["AgentConfig", "CheckedConfig", "Keywords"]

Keywords: TypeAlias = Mapping[str, Any]
"""Keyword arguments as JSON can hold them."""


@dataclass(frozen=True)
class CheckedConfig:
    """A frozen dataclass whose fields are checked against their annotations when it is made."""

    def __post_init__(self) -> None:
        for name, kind in annotations_of(type(self)).items():
            object.__setattr__(self, name, convert(name, getattr(self, name), kind))
        self.check()

    def check(self) -> None:
        """Raise `ConfigError` if the values are impossible, alone or together."""

    def require(self, possible: bool, name: str, needs: str) -> None:
        """Raise `ConfigError` that names the field, what it got and what it needs, unless `possible`."""
        if not possible:
            raise ConfigError(f"{name} = {show(getattr(self, name))}: needs {needs}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values, as read from JSON; `ALIASES` of settings are taken too.

        Raises:
            ConfigError: a key is unknown (with the nearest known ones), or a value has the wrong type.
        """
        values = current_names(values)
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown setting {key!r}{nearest(str(key), known)}")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values that `from_mapping` reads back, ready for JSON."""
        return {
            name: str(getattr(self, name)) if isinstance(getattr(self, name), Period) else value
            for name, value in asdict(self).items()
        }


def annotations_of(cls: type[CheckedConfig]) -> dict[str, Any]:
    """Return the annotation of each field of a config class."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def convert(name: str, value: Any, kind: Any) -> Any:
    """Return `value` as `kind`, where that loses nothing.

    Raises:
        ConfigError: it does not fit.
    """
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    value = plain(value)
    if value is None and NoneType in options:
        return None
    if isinstance(value, float) and not isfinite(value):
        raise ConfigError(f"{name} = {value}: needs a finite number")
    for option in options:
        if option == Keywords:
            if isinstance(value, Mapping):
                return {word: keyword(name, word, given) for word, given in value.items()}
        elif get_origin(option) is Literal:
            if value in get_args(option):
                return value
        elif option is Period:
            try:
                return Period.parse(value)
            except ConfigError as error:
                raise ConfigError(f"{name} = {show(value)}: {error}") from None
        elif fits(value, option):
            return option(value)
    raise ConfigError(f"{name} = {show(value)}: needs {describe(options)}")


def keyword(name: str, word: Any, value: Any) -> Any:
    """Return the value of a keyword argument as JSON can hold it; a tuple becomes a list.

    Raises:
        ConfigError: it can't, or the keyword is no text.
    """
    if not isinstance(word, str):
        raise ConfigError(f"{name} has the key {word!r}: needs text")
    value = plain(value)
    if isinstance(value, list | tuple):
        return [keyword(name, word, item) for item in value]
    if isinstance(value, Mapping):
        return {key: keyword(name, key, item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value)):
        return value
    raise ConfigError(
        f"{name} has {word} = {type(value).__name__}: needs numbers, text, true, false or none, or lists and mappings "
        "of them"
    )


def plain(value: Any) -> Any:
    """Return Python's own form of NumPy's numbers, as sweeps bring them, and of torch's devices; all else as it is."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, torch.device) else value


def fits(value: Any, option: Any) -> bool:
    """True if a plain value can become this plain type without loss; True is an int in Python, never here."""
    if option is bool or isinstance(value, bool):
        return option is bool and isinstance(value, bool)
    if option is float:
        return isinstance(value, int | float)
    if option is int:
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return option is str and isinstance(value, str)


def describe(options: tuple[Any, ...]) -> str:
    """Name types as a user would."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "none"}
    words[Keywords] = "a mapping from names to values"
    return " or ".join(
        "one of " + ", ".join(map(str, get_args(option))) if get_origin(option) is Literal else words[option]
        for option in options
    )


def show(value: Any) -> str:
    """Print a value as it would stand in a config file."""
    return repr(value) if isinstance(value, str) else str(value)


@dataclass(frozen=True)
class AgentConfig(CheckedConfig):
    """What an agent needs besides the shapes of its environment."""

    algorithm: str = "dqn"
    """Which member of the family; `nexus algorithms` lists them."""
    double: bool = False
    """The online network picks the next action, the target network values it."""
    dueling: bool = False
    """The head is split into the value of a state and the advantages of its actions."""
    noisy: bool = False
    """The head's weights are noisy, which explores in place of ε."""
    noisy_sigma: float = 0.5
    """Noise at the start, times the root of a layer's inputs."""
    munchausen: bool = False
    """The log-policy joins the reward, and the target weighs every next action softly."""
    atoms: int = 51
    """c51: atoms of the return's distribution."""
    v_min: float = -10.0
    """c51: the smallest return that can be told."""
    v_max: float = 10.0
    """c51: the largest; with rewards of 1 and γ = 0.99 nothing is above 100."""
    quantiles: int = 32
    """qr-dqn: quantiles learned; iqn: evenly spaced levels that acting reads."""
    quantile_samples: int = 8
    """iqn: levels drawn for each prediction and for each target."""
    munchausen_alpha: float = 0.9
    """munchausen: how much of the log-policy joins the reward."""
    munchausen_temperature: float = 0.03
    """munchausen: temperature of the policy."""
    munchausen_clip: float = -1.0
    """munchausen: the smallest log-policy that counts."""
    torso: Literal["auto", "mlp", "nature_cnn", "nips_cnn", "impala_cnn", "minatar_cnn"] = "auto"
    """What reads a state; auto: nature_cnn for images from 36 x 36, minatar_cnn for smaller ones, else mlp."""
    hidden_dim: int | None = None
    """Units of each hidden layer; none: what was published, as 512 for nature_cnn; mlp 128."""
    hidden_layers: int | None = None
    """Hidden layers of the mlp, none for 2; the others have 1 behind their convolutions."""
    layer_norm: bool = False
    """Normalise each hidden layer before its ReLU."""
    channels: Literal["auto", "first", "last"] = "auto"
    """Where an image has its channels; auto: beside two equal sides, last if all are equal, else the shorter end."""
    standardize_images: bool = False
    """Give each image, its frames together, mean 0 and deviation 1: an even background is then 0."""
    gamma: float = 0.99
    """Discount factor γ."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """rmsprop: centred, with ε inside the root, as in the released code of the Nature paper."""
    learning_rate: float = 0.001
    """Step size of the optimizer."""
    adam_epsilon: float = 1e-8
    """Adam's ε, added to the root of the second moment."""
    rmsprop_decay: float = 0.95
    """rmsprop: decay of the means of the gradient and of its square."""
    rmsprop_epsilon: float = 0.01 / 32**2
    """rmsprop: ε, added to the variance of the mean gradient of a batch."""
    weight_decay: float = 0.0
    """Decay of the weights, apart from the gradient, as in AdamW."""
    loss: Literal["huber", "squared"] = "huber"
    """Loss of the TD error; huber grows linearly beyond 1."""
    max_grad_norm: float | None = 10.0
    """Clip the gradient to this norm; none for no clipping."""
    tau: float = 1.0
    """Target update θ⁻ ← τθ + (1-τ)θ⁻; 1 copies the network."""
    averaged_updates: int | None = None
    """Outside training act on the mean of the weights over about so many updates; none: on the newest weights."""
    exploration: Literal["epsilon_greedy", "boltzmann"] = "epsilon_greedy"
    """epsilon_greedy: at random with probability ε; boltzmann: drawn from softmax(Q / temperature), without ε."""
    temperature: float = 1.0
    """boltzmann: temperature at the start, in units of the return; it follows epsilon_schedule."""
    temperature_min: float = 0.1
    """boltzmann: smallest temperature while training."""
    epsilon: float = 1.0
    """Probability of a random action at the start."""
    epsilon_min: float = 0.01
    """Smallest probability of a random action while training."""
    epsilon_decay: float = 0.995
    """Factor by which ε shrinks per episode; an agent used alone applies it once per update."""
    seed: int = 0
    """Seed of every random stream."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps; auto takes a GPU for images only."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What a torso for images computes in; auto: bfloat16 on processors with AVX512-BF16 or AMX, else float32."""
    compile: bool = False
    """Compile the update with torch.compile: about 10 s to start, then faster."""
    cuda_graph: bool = True
    """On CUDA: record the update once as a CUDA graph, compare it with the eager one, and replay it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "algorithm", algorithm_name(self.algorithm))
        super().__post_init__()

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.noisy_sigma >= 0, "noisy_sigma", "0 or more")
        self.require(self.atoms >= 2, "atoms", "at least 2 atoms")
        self.require(self.v_min < self.v_max, "v_min", f"less than v_max = {self.v_max:g}")
        self.require(self.quantiles >= 1, "quantiles", "at least 1 quantile")
        self.require(self.quantile_samples >= 1, "quantile_samples", "at least 1 level")
        self.require(0 <= self.munchausen_alpha <= 1, "munchausen_alpha", "a fraction in [0, 1]")
        self.require(self.munchausen_temperature > 0, "munchausen_temperature", "a temperature above 0")
        self.require(self.munchausen_clip <= 0, "munchausen_clip", "0 or less")
        self.require(self.weight_decay >= 0, "weight_decay", "0 or more")
        self.require(self.weight_decay == 0 or self.optimizer == "adam", "weight_decay", "optimizer adam, or 0")
        self.require(0 <= self.rmsprop_decay < 1, "rmsprop_decay", "a factor in [0, 1)")
        self.require(self.rmsprop_epsilon > 0, "rmsprop_epsilon", "a number above 0")
        self.require(self.hidden_dim is None or self.hidden_dim >= 1, "hidden_dim", "at least 1 unit")
        self.require(self.hidden_layers is None or self.hidden_layers >= 1, "hidden_layers", "at least 1 layer")
        self.require(0 <= self.gamma <= 1, "gamma", "a discount in [0, 1]")
        self.require(self.learning_rate > 0, "learning_rate", "a step size above 0")
        self.require(self.adam_epsilon > 0, "adam_epsilon", "a number above 0")
        self.require(self.max_grad_norm is None or self.max_grad_norm > 0, "max_grad_norm", "a norm above 0")
        self.require(0 < self.tau <= 1, "tau", "a fraction in (0, 1]")
        self.require(
            self.averaged_updates is None or self.averaged_updates >= 1, "averaged_updates", "at least 1, or none"
        )
        self.require(self.temperature > 0, "temperature", "a temperature above 0")
        self.require(
            self.exploration == "epsilon_greedy" or 0 <= self.temperature_min <= self.temperature,
            "temperature_min",
            f"[0, temperature = {self.temperature:g}]",
        )
        self.require(0 <= self.epsilon <= 1, "epsilon", "a probability in [0, 1]")
        self.require(0 <= self.epsilon_min <= self.epsilon, "epsilon_min", f"[0, epsilon = {self.epsilon}]")
        self.require(0 < self.epsilon_decay <= 1, "epsilon_decay", "a factor in (0, 1]")
        self.require(self.seed >= 0, "seed", "a whole number from 0")
