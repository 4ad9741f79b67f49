"""The DQN family."""

from nexus.models.rl.dqn.agent import DQNAgent
from nexus.models.rl.dqn.dqn import DQNNetwork

__all__ = ["DQNAgent", "DQNNetwork"]
