"""The DQN family."""

from nexus.models.rl.dqn.dqn import DQNAgent, DQNNetwork

__all__ = ["DQNAgent", "DQNNetwork"]
