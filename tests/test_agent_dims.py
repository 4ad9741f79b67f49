"""Sizes of an agent's states and actions, as programs have them."""

from typing import Any

import numpy as np
import pytest
import torch

import nexus
from nexus.core.errors import ConfigError


@pytest.mark.parametrize(
    "state_dim", [4, np.int64(4), 4.0, np.uint8(4), (4,), [np.int32(4)], np.array([4]), torch.Size([4]), np.float64(4)]
)
@pytest.mark.parametrize("action_dim", [2, np.int64(2), 2.0])
def test_sizes_may_be_of_any_kind_that_is_whole(state_dim: Any, action_dim: Any) -> None:
    agent = nexus.make_agent("rainbow", state_dim=state_dim, action_dim=action_dim, hidden_dim=np.int64(8))
    assert (agent.state_shape, agent.action_dim) == ((4,), 2)
    assert all(type(size) is int for size in (*agent.state_shape, agent.action_dim))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"state_dim": 4.5}, "state_dim = 4.5: needs a whole number"),
        ({"state_dim": "4"}, "state_dim = '4': needs a whole number"),
        ({"state_dim": None}, "state_dim = None: needs a whole number"),
        ({"state_dim": 0}, "state_dim = 0, action_dim = 2: needs sizes of at least 1"),
        ({"state_dim": (3, 0)}, r"state_dim = \(3, 0\), action_dim = 2: needs sizes of at least 1"),
        ({"action_dim": 0}, "state_dim = 4, action_dim = 0: needs sizes of at least 1"),
        ({"action_dim": 2.5}, "action_dim = 2.5: needs a whole number"),
        ({"action_dim": True}, "action_dim = True: needs a whole number"),
    ],
)
def test_others_are_refused_in_one_line(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        nexus.make_agent("dqn", **{"state_dim": 4, "action_dim": 2, **sizes})
