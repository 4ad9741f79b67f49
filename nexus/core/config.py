"""An agent's settings, in one flat config."""

from dataclasses import dataclass

from nexus.core.settings import (
    AlgorithmSettings,
    BoltzmannSettings,
    BootstrapSettings,
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
    BootstrapSettings,
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
    """An agent's settings, from all these groups; the shapes of its environment are separate.

    A dataclass lists the fields of its last base first, so the most common group comes last.
    """

    def check(self) -> None:
        """Raise `ConfigError` if settings of different groups contradict each other."""
        self.require(
            self.exploration == "epsilon_greedy" or 0 <= self.temperature_min <= self.temperature,
            "temperature_min",
            f"[0, temperature = {self.temperature:g}]",
        )
