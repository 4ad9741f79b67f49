"""The settings of an agent, in groups: each with its default, meaning and valid values.

A training run's are in `envs/settings.py`, `data/settings.py` and `training/settings.py`.
"""

from dataclasses import dataclass, field
from typing import Literal

from nexus.core.checked import CheckedConfig, Keywords
from nexus.core.importable import ImportName
from nexus.core.names import algorithm_name

__all__ = [
    "AlgorithmSettings",
    "BoltzmannSettings",
    "BootstrapSettings",
    "C51Settings",
    "DeviceSettings",
    "ExplorationSettings",
    "MunchausenSettings",
    "NetworkSettings",
    "NoisySettings",
    "OptimizerSettings",
    "OwnAlgorithmSettings",
    "QuantileSettings",
    "TargetSettings",
]


@dataclass(frozen=True)
class AlgorithmSettings(CheckedConfig):
    """The algorithm and the seed."""

    algorithm: str = "dqn"
    """Which member of the family; `nexus algorithms` lists them."""
    seed: int = 0
    """Seed of every random generator."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "algorithm", algorithm_name(self.algorithm))
        super().__post_init__()

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.seed >= 0, "seed", "a whole number from 0")


@dataclass(frozen=True)
class OwnAlgorithmSettings(CheckedConfig):
    """What an algorithm of the user's own adds. Each is a flag and a keyword by itself, so this group has no flag."""

    algorithm_settings: Keywords = field(default_factory=dict, hash=False)
    """The settings that only this algorithm has."""


@dataclass(frozen=True)
class TargetSettings(CheckedConfig):
    """The target that the network is trained towards."""

    gamma: float = 0.99
    """Discount factor γ."""
    double: bool = False
    """Double DQN: the online network picks the next action, the target network evaluates it."""
    loss: Literal["huber", "squared"] = "huber"
    """Loss of the TD error; huber grows linearly beyond 1."""
    tau: float = 1.0
    """Target update θ⁻ ← τθ + (1-τ)θ⁻; 1 copies the network."""
    averaged_updates: int | None = None
    """Outside training, act on the mean of the weights over about this many updates; none: on the latest weights."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(0 <= self.gamma <= 1, "gamma", "a discount in [0, 1]")
        self.require(0 < self.tau <= 1, "tau", "a fraction in (0, 1]")
        self.require(
            self.averaged_updates is None or self.averaged_updates >= 1, "averaged_updates", "at least 1, or none"
        )


@dataclass(frozen=True)
class ExplorationSettings(CheckedConfig):
    """How the agent explores while it trains."""

    exploration: Literal["epsilon_greedy", "boltzmann"] = "epsilon_greedy"
    """epsilon_greedy: at random with probability ε; boltzmann: drawn from softmax(Q / temperature), without ε."""
    epsilon: float = 1.0
    """Probability of a random action at the start."""
    epsilon_min: float = 0.01
    """Smallest probability of a random action while training."""
    epsilon_decay: float = 0.995
    """Factor by which ε shrinks per episode; an agent without the trainer applies it once per update."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(0 <= self.epsilon <= 1, "epsilon", "a probability in [0, 1]")
        self.require(0 <= self.epsilon_min <= self.epsilon, "epsilon_min", f"[0, epsilon = {self.epsilon}]")
        self.require(0 < self.epsilon_decay <= 1, "epsilon_decay", "a factor in (0, 1]")


@dataclass(frozen=True)
class OptimizerSettings(CheckedConfig):
    """The optimizer step."""

    optimizer: Literal["adam", "rmsprop"] = "adam"
    """rmsprop: centred, with ε inside the root, as in the released code of the Nature paper."""
    learning_rate: float = 0.001
    """Step size of the optimizer."""
    max_grad_norm: float | None = 10.0
    """Clip the gradient to this norm; none for no clipping."""
    weight_decay: float = 0.0
    """Weight decay, decoupled from the gradient, as in AdamW."""
    adam_epsilon: float = 1e-8
    """Adam's ε, added to the root of the second moment."""
    rmsprop_decay: float = 0.95
    """rmsprop: decay of the means of the gradient and of its square."""
    rmsprop_epsilon: float = 0.01 / 32**2
    """rmsprop: ε, added to the variance of the mean gradient of a batch."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.learning_rate > 0, "learning_rate", "a step size above 0")
        self.require(self.max_grad_norm is None or self.max_grad_norm > 0, "max_grad_norm", "a norm above 0")
        self.require(self.weight_decay >= 0, "weight_decay", "0 or more")
        self.require(self.weight_decay == 0 or self.optimizer == "adam", "weight_decay", "optimizer adam, or 0")
        self.require(self.adam_epsilon > 0, "adam_epsilon", "a number above 0")
        self.require(0 <= self.rmsprop_decay < 1, "rmsprop_decay", "a factor in [0, 1)")
        self.require(self.rmsprop_epsilon > 0, "rmsprop_epsilon", "a number above 0")


@dataclass(frozen=True)
class NetworkSettings(CheckedConfig):
    """The network, from a state to its values."""

    torso: Literal["auto", "mlp", "nature_cnn", "nips_cnn", "impala_cnn", "minatar_cnn"] | ImportName = "auto"
    """The network's first part; auto: nature_cnn for images from 36 x 36, minatar_cnn for smaller ones, else mlp. Your
    own: a class or function from the shape of a state to a module that maps [B, *shape] to [B, D]."""
    hidden_dim: int | None = None
    """Units of each hidden layer; none: the published number, such as 512 for nature_cnn; mlp 128."""
    hidden_layers: int | None = None
    """Hidden layers of the mlp, none for 2; the others have 1 after their convolutions."""
    layer_norm: bool = False
    """Normalise each hidden layer before its ReLU."""
    dueling: bool = False
    """The head is split into the value of a state and the advantages of its actions."""
    channels: Literal["auto", "first", "last"] = "auto"
    """Position of an image's channels; auto: next to two equal sides, last if all are equal, else the shorter end."""
    standardize_images: bool = False
    """Standardize each image, its frames together, to mean 0 and deviation 1: a uniform background becomes 0."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of a torso for images; auto:  bfloat16 on processors with AVX512-BF16 or AMX, else float32."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.hidden_dim is None or self.hidden_dim >= 1, "hidden_dim", "at least 1 unit")
        self.require(self.hidden_layers is None or self.hidden_layers >= 1, "hidden_layers", "at least 1 layer")


@dataclass(frozen=True)
class DeviceSettings(CheckedConfig):
    """The network's device, and how updates run there."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps; auto takes a GPU for images only."""
    compile: bool = False
    """Compile the update with torch.compile: about 10 s to start, then faster."""
    cuda_graph: bool = True
    """On CUDA: record the update once as a CUDA graph, compare it with the eager one, and replay it."""


@dataclass(frozen=True)
class C51Settings(CheckedConfig):
    """The distribution of returns on atoms, also for Rainbow."""

    atoms: int = 51
    """Atoms of the return's distribution."""
    v_min: float = -10.0
    """The smallest return that the atoms represent."""
    v_max: float = 10.0
    """The largest return; with rewards of up to 1 and γ = 0.99 none exceeds 100."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.atoms >= 2, "atoms", "at least 2 atoms")
        self.require(self.v_min < self.v_max, "v_min", f"less than v_max = {self.v_max:g}")


@dataclass(frozen=True)
class QuantileSettings(CheckedConfig):
    """The quantiles of returns, also for Beyond the Rainbow."""

    quantiles: int = 32
    """qr-dqn: quantiles learned; iqn: evenly spaced levels used for acting."""
    quantile_samples: int = 8
    """iqn: levels drawn for each prediction and for each target."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.quantiles >= 1, "quantiles", "at least 1 quantile")
        self.require(self.quantile_samples >= 1, "quantile_samples", "at least 1 level")


@dataclass(frozen=True)
class MunchausenSettings(CheckedConfig):
    """The log-policy in the target."""

    munchausen: bool = False
    """Add the log-policy to the reward, and average over next actions softly in the target."""
    munchausen_alpha: float = 0.9
    """Fraction of the log-policy added to the reward."""
    munchausen_temperature: float = 0.03
    """Temperature of the policy."""
    munchausen_clip: float = -1.0
    """Lower limit of the scaled log-policy."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(0 <= self.munchausen_alpha <= 1, "munchausen_alpha", "a fraction in [0, 1]")
        self.require(self.munchausen_temperature > 0, "munchausen_temperature", "a temperature above 0")
        self.require(self.munchausen_clip <= 0, "munchausen_clip", "0 or less")


@dataclass(frozen=True)
class BootstrapSettings(CheckedConfig):
    """The heads of Bootstrapped DQN."""

    boot_heads: int = 20
    """bootstrapped: heads; each begins with other weights, and one of them acts for a whole episode."""
    prior_scale: float = 3.0
    """bootstrapped: factor of the fixed random network added to each head, in units of the return; 0 for none."""
    boot_mask: float = 0.5
    """bootstrapped: probability that a head learns from a transition."""
    boot_noise: float = 0.0
    """bootstrapped: deviation of the noise added to a reward, different for each head."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.boot_heads >= 1, "boot_heads", "at least 1 head")
        self.require(self.prior_scale >= 0, "prior_scale", "0 or more")
        self.require(0 < self.boot_mask <= 1, "boot_mask", "a probability in (0, 1]")
        self.require(self.boot_noise >= 0, "boot_noise", "0 or more")


@dataclass(frozen=True)
class NoisySettings(CheckedConfig):
    """Noise in the weights of the head."""

    noisy: bool = False
    """Noisy weights in the head, which explore instead of ε."""
    noisy_sigma: float = 0.5
    """Initial noise, times the square root of a layer's inputs."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.noisy_sigma >= 0, "noisy_sigma", "0 or more")


@dataclass(frozen=True)
class BoltzmannSettings(CheckedConfig):
    """For `--exploration boltzmann`."""

    temperature: float = 1.0
    """Temperature at the start, in units of the return; it follows epsilon_schedule."""
    temperature_min: float = 0.1
    """Smallest temperature while training."""

    def check(self) -> None:
        """Raise `ConfigError` if a value is impossible."""
        self.require(self.temperature > 0, "temperature", "a temperature above 0")
