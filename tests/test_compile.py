"""A compiled update is the eager update."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from nexus.core.types import Transitions
from nexus.data.replay_buffer import ReplayBuffer
from nexus.models.rl.dqn import DQNAgent

# torch's own import of the compiler warns, and nothing here can change it.
IMPORT = "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
# It then compiles for an older processor, which is as right.
TOO_BUSY = "ignore:VecISA dlopen probe for .* hung:UserWarning"


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


@pytest.fixture
def new_kernels() -> Iterator[None]:
    """Let torch write its kernels anew: those that it kept may be for a processor that this time it could not ask."""
    import torch._dynamo
    import torch._functorch.config
    import torch._inductor.config

    torch._dynamo.reset()
    keeps_no_graph = torch._inductor.config.patch(fx_graph_cache=False)
    with keeps_no_graph, torch._functorch.config.patch(enable_autograd_cache=False):
        yield


@pytest.fixture
def asked_in_vain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine too busy for torch's question: a process has a minute to load a library for this processor."""
    isa = pytest.importorskip("torch._inductor.cpu_vec_isa")
    if not hasattr(isa.VecISA, "_probe_load"):
        pytest.skip("this torch does not ask that way")

    def hang(command: list[str], **options: Any) -> Any:
        if command[0] != sys.executable:
            return run(command, **options)
        asked.append(command)
        raise subprocess.TimeoutExpired(command, 60)

    run, asked = subprocess.run, list[Any]()
    kinds = {kind for one in isa.supported_vec_isa_list for kind in type(one).__mro__}
    kept = [isa.valid_vec_isa_list, *(method for kind in kinds for method in vars(kind).values())]
    answers = [answer for answer in kept if hasattr(answer, "cache_clear")]
    for answer in answers:
        answer.cache_clear()
    monkeypatch.setattr(subprocess, "run", hang)
    yield
    for answer in answers:
        answer.cache_clear()
    assert asked


@pytest.mark.usefixtures("new_kernels")
@pytest.mark.filterwarnings(IMPORT, TOO_BUSY)
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


@pytest.mark.slow
@pytest.mark.usefixtures("new_kernels", "asked_in_vain")
@pytest.mark.filterwarnings(IMPORT, TOO_BUSY)
def test_they_agree_where_torch_can_not_ask_the_processor() -> None:
    test_compiled_and_eager_updates_agree(masked=False)
