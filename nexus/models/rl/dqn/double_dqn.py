"""Double DQN (van Hasselt et al. 2016, https://arxiv.org/abs/1509.06461): one network picks, the other values.

`docs/double_dqn.md` lists every deviation.
"""

from torch import Tensor

from nexus.core import Batch, QOutput
from nexus.models.rl.dqn.dqn import DQNNetwork
from nexus.ops.action_values import only_legal

__all__ = ["greedy_on_online"]


def greedy_on_online(q_network: DQNNetwork, target_output: QOutput, batch: Batch) -> Tensor:
    """a' = argmax_a Q(s', a; θ): the online network picks the action that the target network then values.

    Where one network does both, an action whose value is too high by chance is picked for just that reason, and
    the target is too high on average. Two networks rarely err on the same action.

    Args:
        q_network: θ.
        target_output: of θ⁻ at s'; not looked at.
        batch: with s' and, where the environment tells, its legal actions.

    Returns:
        `[B]`.
    """
    q_values = q_network.output(batch["next_states"]).q_values  # [B, A]
    return only_legal(q_values, batch.get("next_action_masks")).argmax(1)
