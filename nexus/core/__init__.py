"""The basic types that all other floors share."""

from nexus.core.config import AgentConfig
from nexus.core.errors import ConfigError, NexusError, RunError, nearest
from nexus.core.module import NexusModule
from nexus.core.period import Period
from nexus.core.types import Batch, Outcome, QOutput, Transitions

__all__ = [
    "AgentConfig",
    "Batch",
    "ConfigError",
    "NexusError",
    "NexusModule",
    "Outcome",
    "Period",
    "QOutput",
    "RunError",
    "Transitions",
    "nearest",
]
