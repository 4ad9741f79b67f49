"""What an agent needs besides the shapes of its environment, in one flat config."""

from dataclasses import dataclass

from nexus.core.settings import (
    AlgorithmSettings,
    BoltzmannSettings,
    C51Settings,
    DeviceSettings,
    ExplorationSettings,
    MunchausenSettings,
    NetworkSettings,
    NoisySettings,
    OptimizerSettings,
    OwnAlgorithmSettings,
    QuantileSettings,
    TargetSettings,
)

__all__ = ["AgentConfig"]


@dataclass(frozen=True)
class AgentConfig(
    OwnAlgorithmSettings,
    BoltzmannSettings,
    NoisySettings,
    MunchausenSettings,
    QuantileSettings,
    C51Settings,
    DeviceSettings,
    NetworkSettings,
    OptimizerSettings,
    ExplorationSettings,
    TargetSettings,
    AlgorithmSettings,
):
    """What an agent needs besides the shapes of its environment: the settings of all these groups.

    A dataclass has the fields of its last base first, so the most common group stands last.
    """

    def check(self) -> None:
        """Raise `ConfigError` if settings of several groups are impossible together."""
        self.require(
            self.exploration == "epsilon_greedy" or 0 <= self.temperature_min <= self.temperature,
            "temperature_min",
            f"[0, temperature = {self.temperature:g}]",
        )
