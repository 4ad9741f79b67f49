"""A recorded update is the eager update, or there is none. A GPU records for real; elsewhere a recorder stands in."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from nexus.models.graph import Captured, Recording, record
from nexus.models.rl.dqn import DQNAgent
from nexus.runner import agent_from


class Found(NamedTuple):
    total: Tensor
    drawn: Tensor


class Subject:
    """A function that draws, counts its runs, and can be changed after it was recorded."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.runs = 0

    def __call__(self, inputs: Any) -> Found:
        self.runs += 1
        return Found(2 * inputs["x"] + inputs["y"], torch.rand(4, generator=self.generator))


class OnTheCPU:
    """Does what a CUDA graph does: fixed memory for the results, nothing but the recorded work in a replay."""

    def __init__(self, spoil: Callable[[Sequence[Tensor]], object] | None = None) -> None:
        self.spoil = spoil
        self.recorded = 0
        self.replayed = 0

    def __call__(self, function: Callable[[], Sequence[Tensor]], generators: Sequence[torch.Generator]) -> Recording:
        self.recorded += 1
        results = [result.clone() for result in function()]

        def replay() -> None:
            self.replayed += 1
            for result, fresh in zip(results, function(), strict=True):
                result.copy_(fresh)
            if self.spoil is not None:
                self.spoil(results)

        return Recording(replay, results)


def inputs_of(number: float, rows: int = 2) -> dict[str, Tensor]:
    return {"x": torch.full((rows,), number), "y": torch.ones(rows)}


def test_a_recording_reads_new_inputs_and_draws_what_the_function_would() -> None:
    eager, subject, recorder = Subject(), Subject(), OnTheCPU()
    captured = Captured(subject, [subject.generator], recorder)
    for number in (1.0, 2.0, 3.0):
        expected, found = eager(inputs_of(number)), captured(inputs_of(number))
        assert isinstance(found, Found)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert torch.equal(subject.generator.get_state(), eager.generator.get_state())
    assert (recorder.recorded, recorder.replayed) == (1, 3)


def test_a_result_is_not_overwritten_by_the_next_call() -> None:
    subject = Subject()
    captured = Captured(subject, [subject.generator], OnTheCPU())
    results = [captured(inputs_of(number)) for number in (1.0, 2.0, 3.0)]
    assert [float(result.total[0]) for result in results] == [3.0, 5.0, 7.0]
    assert len({float(result.drawn[0]) for result in results}) == 3


def test_other_shapes_run_as_they_are() -> None:
    subject, recorder = Subject(), OnTheCPU()
    captured = Captured(subject, [subject.generator], recorder)
    captured(inputs_of(1.0))
    assert captured(inputs_of(2.0, rows=5)).total.tolist() == [5.0] * 5
    assert captured(inputs_of(3.0)).total.tolist() == [7.0] * 2
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
    captured = Captured(subject, [subject.generator], recorder)
    with pytest.warns(RuntimeWarning, match=says):
        first = captured(inputs_of(1.0))
    torch.testing.assert_close(first, eager(inputs_of(1.0)), rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = captured(inputs_of(2.0))
    torch.testing.assert_close(second, eager(inputs_of(2.0)), rtol=0, atol=0)
    assert torch.equal(subject.generator.get_state(), eager.generator.get_state())


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
    settings = {"state_dim": (4, 36, 36), "action_dim": 3, "hidden_dim": 16, "tau": 0.1, "device": device}
    return agent_from({**settings, **algorithm, "cuda_graph": cuda_graph})


FAMILY: list[dict[str, Any]] = [
    {},
    {"algorithm": "rainbow", "v_min": -5.0, "v_max": 5.0},
    {"algorithm": "iqn"},
    {"algorithm": "beyond"},
]


@pytest.mark.parametrize("algorithm", FAMILY, ids=lambda given: given.get("algorithm", "dqn"))
def test_an_agent_learns_the_same_through_a_recording(algorithm: dict[str, Any]) -> None:
    eager, recorded = (agent_for(algorithm, "cpu", cuda_graph=False) for _ in range(2))
    draws = [stream for name, stream in recorded.torch_streams.items() if name.startswith("loss.")]
    assert bool(draws) == (algorithm.get("algorithm") in ("iqn", "beyond"))
    recorder = OnTheCPU()
    recorded._gradient_of = Captured(recorded._gradient, draws, recorder)
    for seed in range(4):
        for agent in (eager, recorded):
            agent.learn(batch_of(seed))
            agent.update_target_network()
    assert recorder.replayed == 4
    for name, tensor in eager.tensors.items():
        torch.testing.assert_close(recorded.tensors[name], tensor, rtol=0, atol=0, msg=name)


def test_without_a_gpu_nothing_is_recorded() -> None:
    assert not isinstance(agent_for({}, "cpu", cuda_graph=True)._gradient_of, Captured)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("algorithm", FAMILY, ids=lambda given: given.get("algorithm", "dqn"))
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
