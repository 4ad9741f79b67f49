"""Double DQN (van Hasselt et al. 2016, https://arxiv.org/abs/1509.06461): one network selects, the other evaluates.

`docs/double_dqn.md` lists every deviation.
"""

from torch import Tensor

from nexus.core import Batch, QOutput
from nexus.models.rl.dqn.dqn import DQNNetwork
from nexus.ops.action_values import only_legal

__all__ = ["greedy_on_online"]


def greedy_on_online(q_network: DQNNetwork, target_output: QOutput, batch: Batch) -> Tensor:
    """a' = argmax_a Q(s', a; θ): the online network selects the action that the target network then evaluates.

    If one network does both, an action whose value is too high by chance is selected for exactly that reason, and
    the target is too high on average. Two networks rarely make the same error.

    Args:
        q_network: θ.
        target_output: the output of θ⁻ at s'; ignored.
        batch: contains s' and, if the environment reports them, its legal actions.

    Returns:
        `[B]`.
    """
    q_values = q_network.output(batch["next_states"]).q_values  # [B, A]
    return only_legal(q_values, batch.get("next_action_masks")).argmax(1)
