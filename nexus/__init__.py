"""Deep Q-learning: the DQN family on PyTorch and Gymnasium.

result = nexus.train("CartPole-v1")
agent = nexus.load_agent(result.run_dir)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "DQNAgent",
    "DQNLoss",
    "DQNNetwork",
    "FlatActions",
    "Listener",
    "Listeners",
    "ReplayBuffer",
    "Settings",
    "StudyResult",
    "TrainResult",
    "__version__",
    "check",
    "compare",
    "describe",
    "diagnose",
    "evaluate",
    "load_agent",
    "make_agent",
    "plan",
    "q_values",
    "register_algorithm",
    "report",
    "resume",
    "study",
    "tracker",
    "train",
]

if TYPE_CHECKING:
    from nexus.api import evaluate, load_agent, resume, train
    from nexus.checking import check
    from nexus.comparing import compare
    from nexus.core.checked import Settings
    from nexus.data.replay_buffer import ReplayBuffer
    from nexus.doctor.afterwards import diagnose
    from nexus.envs.flat_actions import FlatActions
    from nexus.inspection.describe import describe
    from nexus.inspection.state_values import q_values
    from nexus.listener import Listener, Listeners, TrainResult
    from nexus.models.rl.dqn import DQNAgent, DQNNetwork
    from nexus.models.rl.dqn.dqn import DQNLoss
    from nexus.models.rl.dqn.rainbow import make_agent, register_algorithm
    from nexus.planning import plan
    from nexus.reporting import report
    from nexus.studies import StudyResult, study
    from nexus.tracking import tracker

HOMES = {
    "check": "nexus.checking",
    "compare": "nexus.comparing",
    "describe": "nexus.inspection.describe",
    "diagnose": "nexus.doctor.afterwards",
    "evaluate": "nexus.api",
    "load_agent": "nexus.api",
    "make_agent": "nexus.models.rl.dqn.rainbow",
    "plan": "nexus.planning",
    "q_values": "nexus.inspection.state_values",
    "register_algorithm": "nexus.models.rl.dqn.rainbow",
    "report": "nexus.reporting",
    "resume": "nexus.api",
    "study": "nexus.studies",
    "tracker": "nexus.tracking",
    "train": "nexus.api",
    "Listener": "nexus.listener",
    "Listeners": "nexus.listener",
    "ReplayBuffer": "nexus.data.replay_buffer",
    "Settings": "nexus.core.checked",
    "StudyResult": "nexus.studies",
    "TrainResult": "nexus.listener",
    "DQNAgent": "nexus.models.rl.dqn",
    "DQNLoss": "nexus.models.rl.dqn.dqn",
    "FlatActions": "nexus.envs.flat_actions",
    "DQNNetwork": "nexus.models.rl.dqn",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import nexus` stays fast."""
    if name not in HOMES:
        raise AttributeError(f"module 'nexus' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(HOMES[name]), name)
