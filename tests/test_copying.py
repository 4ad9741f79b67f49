"""A deep copy is an agent of its own that goes on as the original would; `eval` and `train` break nothing."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from nexus.core.types import Batch
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.learner import Learner
from nexus.models.rl.dqn.rainbow import make_agent
from tests.rollouts import NOISY_OR_NOT, with_returns

SETTINGS: dict[str, Any] = {"state_dim": 4, "action_dim": 3, "hidden_dim": 8, "atoms": 5, "quantiles": 4}
STATES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def agent_of(algorithm: str, **settings: Any) -> DQNAgent:
    return make_agent(algorithm, **SETTINGS, averaged_updates=3, **settings)


def batch_number(seed: int) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    return with_returns(
        {
            "states": torch.randn(8, 4, generator=rng),
            "actions": torch.randint(3, (8,), generator=rng),
            "rewards": torch.randn(8, generator=rng),
            "discounts": torch.full((8,), 0.9),
            "next_states": torch.randn(8, 4, generator=rng),
        }
    )


def go_on(agent: DQNAgent, first: int, count: int = 4) -> list[Any]:
    """Learn and act; return what came of it."""
    seen: list[Any] = []
    for number in range(first, first + count):
        update = agent.update(batch_number(number))
        seen.append({name: value.item() for name, value in update.items()})
        if number % 2:
            agent.update_target_network()
        seen += [agent.act(STATES, 0.3).tolist(), agent.act(STATES, 0.0, training=False).tolist()]
    return [*seen, agent.learner.state_values(STATES).tolist()]


def require_same(agent: DQNAgent, state: dict[str, Any]) -> None:
    found = agent.get_state()
    assert found.keys() == state.keys()
    for name, value in found.items():
        np.testing.assert_equal(value, state[name], err_msg=name)


@pytest.mark.parametrize(("algorithm", "noisy"), NOISY_OR_NOT)
def test_a_copy_goes_on_as_the_original_would_and_neither_moves_the_other(algorithm: str, noisy: bool) -> None:
    agent = agent_of(algorithm, noisy=noisy)
    go_on(agent, 0)
    agent.optimizer.param_groups[0]["lr"] = 0.05
    copy, at_the_copy = deepcopy(agent), agent.get_state()
    require_same(copy, at_the_copy)

    original = go_on(agent, 4)
    require_same(copy, at_the_copy)  # the original moves alone
    afterwards = agent.get_state()
    with pytest.raises(AssertionError):
        require_same(copy, afterwards)
    assert go_on(copy, 4) == original
    require_same(copy, afterwards)
    require_same(agent, afterwards)  # and so does the copy

    copy.q_network.requires_grad_(False)
    for network in copy.networks.values():
        for parameter in network.parameters():
            parameter.zero_()
    require_same(agent, afterwards)
    assert not copy.learner.theta.any()  # its parameters are views of its own flat ones
    assert not copy.learner.theta_target.any()


def test_a_copy_keeps_what_was_set_on_the_original() -> None:
    agent = agent_of("dqn", optimizer="rmsprop")
    go_on(agent, 0)
    agent.gamma, agent.epsilon, agent.optimizer.param_groups[0]["decay"] = 0.5, 0.25, 0.5
    copy = deepcopy(agent)
    assert (copy.gamma, copy.epsilon, copy.config) == (0.5, 0.25, agent.config)
    assert copy.config is not agent.config
    assert go_on(copy, 4) == go_on(agent, 4)


def test_a_copy_of_a_copy_and_a_copy_after_loading_are_whole() -> None:
    agent = agent_of("rainbow")
    go_on(agent, 0)
    copy = deepcopy(deepcopy(agent))
    copy.set_state(agent.get_state())
    copy.load_state_dict(agent.state_dict())
    assert go_on(copy, 4) == go_on(agent, 4)


def test_a_scheduler_that_is_copied_along_goes_with_the_copy() -> None:
    agent = agent_of("dqn")
    scheduler = torch.optim.lr_scheduler.StepLR(agent.optimizer, step_size=1, gamma=0.5)
    agent.update(batch_number(0))
    scheduler.step()
    copy, its_scheduler = deepcopy((agent, scheduler))
    copy.update(batch_number(1))
    its_scheduler.step()
    assert copy.optimizer.param_groups[0]["lr"] == 0.00025
    assert agent.optimizer.param_groups[0]["lr"] == 0.0005


@pytest.mark.parametrize(("algorithm", "noisy"), NOISY_OR_NOT)
def test_eval_and_train_change_neither_acting_nor_learning(algorithm: str, noisy: bool) -> None:
    plain, switched = agent_of(algorithm, noisy=noisy), agent_of(algorithm, noisy=noisy)
    expected, found = [], []
    for first, mode in ((0, False), (4, True), (8, False)):
        switched.train(mode)
        expected.append(go_on(plain, first))
        found.append(go_on(switched, first))
        assert all(module.training is mode for module in switched.modules())  # it stays as it was set
    assert found == expected
    require_same(switched, plain.get_state())


def test_a_copy_of_a_policy_alone_acts_on_weights_of_its_own() -> None:
    agent = agent_of("dqn")
    copy = deepcopy(agent.policy)
    assert copy.act(STATES, 0.0).tolist() == agent.act(STATES, 0.0).tolist()
    copy.set_weights(agent.policy.get_weights()[::-1].copy())
    assert not torch.equal(copy.network(STATES), agent.q_network(STATES))
    copy.set_weights(agent.policy.get_weights())
    assert torch.equal(copy.network(STATES), agent.q_network(STATES))


def test_a_copy_of_a_learner_that_records_its_steps_records_its_own() -> None:
    agent, made = agent_of("dqn"), []

    def recorded(learner: Learner) -> Any:
        made.append(learner)
        return learner.step

    agent.learner.record_by(recorded)
    copy = deepcopy(agent)
    assert made == [agent.learner, copy.learner]
    assert copy.learner.take_step == copy.learner.step
