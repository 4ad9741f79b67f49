"""A compiled update is the eager update."""

import numpy as np
import pytest
import torch

from nexus.core.types import Transitions
from nexus.data.replay_buffer import ReplayBuffer
from nexus.models.rl.dqn import DQNAgent


def filled_replay(masked: bool) -> ReplayBuffer:
    rng, rows = np.random.default_rng(0), 500
    actions = rng.integers(2, size=rows)
    legal = np.eye(2, dtype=bool)[actions]  # often the action taken is the only one
    replay = ReplayBuffer(rows, seed=1)
    replay.add(
        Transitions(
            states=rng.normal(size=(rows, 4)).astype(np.float32),
            actions=actions,
            rewards=rng.normal(size=rows).astype(np.float32),
            discounts=np.where(rng.random(rows) < 0.2, 0, 0.99).astype(np.float32),
            next_states=rng.normal(size=(rows, 4)).astype(np.float32),
            action_masks=legal if masked else None,
            next_action_masks=np.roll(legal, 1, axis=0) if masked else None,
        )
    )
    return replay


def weights_after(updates: int, *, compile_update: bool, masked: bool = False) -> tuple[torch.Tensor, dict[str, float]]:
    replay = filled_replay(masked)
    # A small norm, so that clipping is part of what is compared.
    agent = DQNAgent({"state_dim": 4, "action_dim": 2, "compile": compile_update, "max_grad_norm": 0.5, "tau": 0.1})
    for _ in range(updates):
        metrics = agent.update(replay.sample(32))
        agent.update_target_network()
    parameters = [*agent.q_network.parameters(), *agent.target_network.parameters()]
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    return flat, {name: float(value) for name, value in metrics.items()}


# torch's own import of the compiler warns, and nothing here can change it.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("masked", [False, True])
def test_compiled_and_eager_updates_agree(masked: bool) -> None:
    eager, eager_metrics = weights_after(20, compile_update=False, masked=masked)
    compiled, compiled_metrics = weights_after(20, compile_update=True, masked=masked)
    start, _ = weights_after(1, compile_update=False, masked=masked)
    assert (eager - start).abs().max() > 1e-3  # something was learned
    torch.testing.assert_close(compiled, eager, rtol=0, atol=1e-5)
    for name, value in eager_metrics.items():
        assert abs(compiled_metrics[name] - value) < 1e-3, name


def test_the_masks_of_these_tests_are_not_without_effect() -> None:
    free, _ = weights_after(20, compile_update=False)
    masked, _ = weights_after(20, compile_update=False, masked=True)
    assert (free - masked).abs().max() > 1e-4
