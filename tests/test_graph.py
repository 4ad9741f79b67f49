"""A recorded update is the eager update, or there is none. A GPU records for real; elsewhere a recorder stands in."""

import linecache
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from nexus.models.graph import Captured, Recorder, Recording, record
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.learner_state import CapturedStep, generators, tensors
from nexus.runner import agent_from
from tests.recording import OnTheCPU


class Found(NamedTuple):
    total: Tensor
    drawn: Tensor
    factor: Tensor


class Subject:
    """A function that draws and changes a tensor in place."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.weights = torch.ones(3)

    def __call__(self, inputs: Any, number: float | Tensor = 2.0) -> Found:
        drawn = torch.rand(4, generator=self.generator)
        self.weights.sub_(drawn[:3] * number)
        return Found(2 * inputs["x"] + inputs["y"], drawn, torch.as_tensor(number))

    def captured(self, recorder: Recorder) -> Captured[Found]:
        return Captured(self, [self.generator], lambda: {"weights": self.weights}, recorder)


def inputs_of(number: float, rows: int = 2) -> dict[str, Tensor]:
    return {"x": torch.full((rows,), number), "y": torch.ones(rows)}


def test_a_recording_reads_new_inputs_and_draws_what_the_function_would() -> None:
    eager, subject, recorder = Subject(), Subject(), OnTheCPU()
    captured = subject.captured(recorder)
    for number in (1.0, 2.0, 3.0):
        expected, found = eager(inputs_of(number), number / 2), captured(inputs_of(number), number / 2)
        assert isinstance(found, Found)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert torch.equal(subject.weights, eager.weights)
        assert torch.equal(subject.generator.get_state(), eager.generator.get_state())
    assert (recorder.recorded, recorder.replayed) == (1, 3)


def test_a_result_is_not_overwritten_by_the_next_call() -> None:
    captured = Subject().captured(OnTheCPU())
    results = [captured(inputs_of(number)) for number in (1.0, 2.0, 3.0)]
    assert [float(result.total[0]) for result in results] == [3.0, 5.0, 7.0]
    assert len({float(result.drawn[0]) for result in results}) == 3


def test_other_shapes_run_as_they_are() -> None:
    recorder = OnTheCPU()
    captured = Subject().captured(recorder)
    captured(inputs_of(1.0), 0.5)
    other = captured(inputs_of(2.0, rows=5), 0.25)
    assert (other.total.tolist(), float(other.factor)) == ([5.0] * 5, 0.25)
    assert captured(inputs_of(3.0), 0.5).total.tolist() == [7.0] * 2
    assert recorder.replayed == 2


def fails(function: Any, generators: Any) -> Recording:
    function()
    raise RuntimeError("operation not permitted when stream is capturing\nsecond line")


@pytest.mark.parametrize(
    ("recorder", "says"),
    [
        (fails, r"without a CUDA graph: operation not permitted when stream is capturing$"),
        (OnTheCPU(lambda results: results[0].mul_(1.01)), r"its total is off by 1\.0e-02 of its norm$"),
        (OnTheCPU(lambda results: results[0].fill_(torch.nan)), r"its total is off by nan of its norm$"),
        (OnTheCPU(lambda results: results[1].zero_()), r"its drawn is off by 1\.0e\+00 of its norm$"),
    ],
)
def test_what_can_not_be_trusted_is_not_used(recorder: Any, says: str) -> None:
    eager, subject = Subject(), Subject()
    captured = subject.captured(recorder)
    with pytest.warns(RuntimeWarning, match=says):
        first = captured(inputs_of(1.0))
    torch.testing.assert_close(first, eager(inputs_of(1.0)), rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = captured(inputs_of(2.0))
    torch.testing.assert_close(second, eager(inputs_of(2.0)), rtol=0, atol=0)
    assert torch.equal(subject.weights, eager.weights)
    assert torch.equal(subject.generator.get_state(), eager.generator.get_state())


def test_a_recording_that_moves_the_weights_otherwise_is_not_used() -> None:
    eager, subject = Subject(), Subject()
    captured = subject.captured(OnTheCPU(lambda results: subject.weights.mul_(0.9)))
    with pytest.warns(RuntimeWarning, match=r"without a CUDA graph: its weights is off by .* of its norm$"):
        captured(inputs_of(1.0))
    eager(inputs_of(1.0))
    assert torch.equal(subject.weights, eager.weights)


@pytest.mark.parametrize("door", ["step", "learner", "agent", "update"])
def test_the_warning_names_the_line_that_asked_for_the_update(door: str) -> None:
    """From each door it is another number of calls away."""
    agent = agent_for({}, "cpu", cuda_graph=False)
    agent.learner.take_step = step = CapturedStep(agent.learner, fails)
    batch = batch_of(0)
    doors: dict[str, Callable[[], object]] = {
        "step": lambda: step(agent.learner.prepared(batch), 0.001),
        "learner": lambda: agent.learner.learn(batch),
        "agent": lambda: agent.learn(batch),
        "update": lambda: agent.update(batch),
    }
    with pytest.warns(RuntimeWarning, match="without a CUDA graph") as caught:
        doors[door]()
    assert caught[0].filename == __file__
    assert linecache.getline(__file__, caught[0].lineno).startswith(f'        "{door}": lambda:')


def batch_of(seed: int, device: str = "cpu") -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    batch = {
        "states": torch.randint(0, 256, (8, 4, 36, 36), generator=rng, dtype=torch.uint8),
        "actions": torch.randint(0, 3, (8,), generator=rng),
        "rewards": torch.randn(8, generator=rng),
        "next_states": torch.randint(0, 256, (8, 4, 36, 36), generator=rng, dtype=torch.uint8),
        "discounts": torch.full((8,), 0.99),
        "weights": torch.rand(8, generator=rng),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def agent_for(algorithm: dict[str, Any], device: str, cuda_graph: bool) -> DQNAgent:
    settings = {
        "state_dim": (4, 36, 36),
        "action_dim": 3,
        "hidden_dim": 16,
        "tau": 0.1,
        "learning_rate": 2**-10,  # the same number in float32
        "device": device,
    }
    return agent_from({**settings, **algorithm, "cuda_graph": cuda_graph})


FAMILY: list[dict[str, Any]] = [
    {},
    {"algorithm": "rainbow", "v_min": -5.0, "v_max": 5.0},
    {"algorithm": "iqn"},
    {"algorithm": "beyond"},
    {"algorithm": "dqn", "optimizer": "rmsprop"},
    {"algorithm": "dqn", "averaged_updates": 2},
]
NAMES = ["dqn", "rainbow", "iqn", "beyond", "rmsprop", "averaged"]


@pytest.mark.parametrize("algorithm", FAMILY, ids=NAMES)
def test_an_agent_learns_the_same_through_a_recording(algorithm: dict[str, Any]) -> None:
    eager, recorded = (agent_for(algorithm, "cpu", cuda_graph=False) for _ in range(2))
    recorder = OnTheCPU()
    recorded.learner.take_step = CapturedStep(recorded.learner, recorder)
    for seed in range(4):
        for agent in (eager, recorded):
            agent.optimizer.param_groups[0]["lr"] = 2.0 ** -(10 + seed)
            agent.learn(batch_of(seed))
            agent.update_target_network()
    assert recorder.replayed == 4
    for name, tensor in tensors(eager.learner).items():
        torch.testing.assert_close(tensors(recorded.learner)[name], tensor, rtol=1e-6, atol=1e-7, msg=name)
    for name, generator in generators(eager.learner).items():
        assert torch.equal(generators(recorded.learner)[name].get_state(), generator.get_state()), name


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_recording_reads_the_learning_rate_that_it_is_given(optimizer: str) -> None:
    given, taken = (agent_for({"optimizer": optimizer}, "cpu", cuda_graph=False) for _ in range(2))
    given.optimizer.param_groups[0]["lr"] = 2.0**-8
    given.learn(batch_of(0))
    taken.optimizer.param_groups[0]["lr"] = 0.0  # the number that a recording would keep for ever
    taken.learner.step(taken.learner.prepared(batch_of(0)), torch.tensor(2.0**-8))
    torch.testing.assert_close(taken.learner.theta, given.learner.theta, rtol=1e-6, atol=1e-7)


def test_tensors_that_were_replaced_are_recorded_anew() -> None:
    eager, recorded = (agent_for({}, "cpu", cuda_graph=False) for _ in range(2))
    recorder = OnTheCPU()
    recorded.learner.take_step = CapturedStep(recorded.learner, recorder)
    for seed in range(4):
        for agent in (eager, recorded):
            if seed == 2:
                agent.optimizer.load_state_dict(deepcopy(agent.optimizer.state_dict()))
            agent.learn(batch_of(seed))
    assert (recorder.recorded, recorder.replayed) == (2, 4)
    torch.testing.assert_close(recorded.learner.theta, eager.learner.theta, rtol=1e-6, atol=1e-7)


def test_without_a_gpu_nothing_is_recorded() -> None:
    assert not isinstance(agent_for({}, "cpu", cuda_graph=True).learner.take_step, CapturedStep)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("algorithm", FAMILY, ids=NAMES)
def test_a_gpu_records_every_kind_of_update(algorithm: dict[str, Any]) -> None:
    eager, recorded = (agent_for(algorithm, "cuda", cuda_graph=given) for given in (False, True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a fallback would warn
        for seed in range(20):
            for agent in (eager, recorded):
                agent.learn(batch_of(seed, "cuda"))
                agent.update_target_network()
    for name, tensor in eager.networks["q_network"].state_dict().items():
        torch.testing.assert_close(recorded.networks["q_network"].state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_can_not_wait_for_the_device() -> None:
    with pytest.raises(RuntimeError):
        record(lambda: [torch.full((1,), float(torch.ones(1, device="cuda").sum()))], [])
