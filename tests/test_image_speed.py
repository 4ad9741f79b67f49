"""What makes images fast changes no number: memory layout, bfloat16, threads and memory that is kept."""

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from nexus.api import Listener, process_for, train
from nexus.core import ConfigError
from nexus.core.types import Array, Batch, Outcome
from nexus.models.rl.dqn import DQNAgent
from nexus.models.rl.dqn.rainbow import make_agent
from nexus.models.torsos import ConvolutionalTorso, Images, bfloat16_devices
from nexus.training.logs import EpisodeTracker
from nexus.training.loop import Progress
from tests.probes import Probe, SignalReward
from tests.training import trained

ATARI = (4, 84, 84)


class PlainImages(nn.Module):
    """The oracle: float32, divided, laid out as the shape says."""

    def __init__(self, images: Images) -> None:
        super().__init__()
        self.state_dims, self.channels_last, self.shape = images.state_dims, images.channels_last, images.shape

    def forward(self, states: Tensor) -> Tensor:
        states = states.movedim(-1, -3) if self.channels_last else states
        states = states.reshape(-1, *self.shape).contiguous()
        return states.float() / 255 if states.dtype == torch.uint8 else states.float()


def agent_of(shape: tuple[int, ...] = ATARI, **settings: Any) -> DQNAgent:
    return make_agent("dqn", **{"state_dim": shape, "action_dim": 4, "device": "cpu", **settings})


def torso_in(agent: DQNAgent) -> ConvolutionalTorso:
    torso = agent.q_network.torso
    assert isinstance(torso, ConvolutionalTorso)
    return torso


def random_batch(shape: tuple[int, ...] = ATARI, rows: int = 8) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    states, next_states = torch.randint(0, 256, (2, rows, *shape), dtype=torch.uint8, generator=rng)
    return {
        "states": states,
        "actions": torch.randint(4, (rows,), generator=rng),
        "rewards": torch.randn(rows, generator=rng),
        "discounts": torch.full((rows,), 0.99),
        "next_states": next_states,
    }


def updated(agent: DQNAgent, batch: Batch) -> tuple[Tensor, Outcome]:
    """The gradient `[P]` of an update, and what it tells."""
    return agent.learner.gradient(agent.learner.prepared(batch))


@pytest.mark.parametrize("torso", ["nature_cnn", "nips_cnn", "impala_cnn", "minatar_cnn"])
@pytest.mark.parametrize("shape", [(4, 36, 36), (36, 36, 3), (2, 3, 36, 36), (2, 36, 36, 3), (1, 36, 36)])
def test_the_layout_changes_no_number(torso: str, shape: tuple[int, ...]) -> None:
    """Loss and gradient of a whole update, against images that are laid out as their shape says."""
    agent = agent_of(shape, torso=torso, hidden_dim=16)
    plain = deepcopy(agent)
    for network in plain.networks.values():
        network.torso.images = PlainImages(torso_in(agent).images)
    plain.learner._parameters = list(plain.q_network.parameters())
    batch = random_batch(shape)
    fast_gradient, fast = updated(agent, batch)
    slow_gradient, slow = updated(plain, batch)
    torch.testing.assert_close(fast.metrics["q_mean"], slow.metrics["q_mean"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fast.loss, slow.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fast_gradient, slow_gradient, rtol=1e-4, atol=1e-6)
    assert slow_gradient.norm() > 1e-3
    torch.testing.assert_close(torso_in(agent).images(batch["states"]), PlainImages(Images(shape))(batch["states"]))


@pytest.mark.parametrize("shape", [ATARI, (84, 84, 3), (2, 84, 84, 3)])
def test_the_numbers_of_a_pixel_lie_together_on_a_cpu(shape: tuple[int, ...]) -> None:
    images = Images(shape)
    for dtype in (torch.uint8, torch.float32):
        states = torch.zeros(3, *shape, dtype=dtype)
        assert images(states).is_contiguous(memory_format=torch.channels_last)
        assert images(states).dtype == torch.float32


def test_states_stay_as_they_were() -> None:
    """Scaling is done in place, in memory of its own."""
    for dtype in (torch.uint8, torch.float32):
        for shape in (ATARI, (84, 84, 4)):
            states = torch.full((2, *shape), 51, dtype=dtype)
            features = Images(shape)(states)
            assert bool((states == 51).all())
            torch.testing.assert_close(features, torch.full_like(features, 0.2 if dtype == torch.uint8 else 51))


def test_acting_in_many_environments_is_one_forward_without_gradient_or_copy() -> None:
    agent, seen = agent_of(), []
    states = np.random.default_rng(0).integers(0, 256, (8, *ATARI), np.uint8)

    def look(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0].data_ptr(), tuple(inputs[0].shape), output.requires_grad))

    agent.q_network.torso.register_forward_hook(look)
    agent.target_network.torso.register_forward_hook(look)
    assert agent.act(states, 0.1).shape == (8,)
    assert seen == [(states.ctypes.data, (8, *ATARI), False)]


# --- bfloat16 ---


@pytest.mark.parametrize(
    ("precision", "features", "devices"),
    [
        ("auto", {}, ()),
        ("auto", {"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, ()),
        ("auto", {"avx512_bf16": True}, ("cpu",)),
        ("auto", {"amx_bf16": True, "avx512_bf16": False}, ("cpu",)),
        ("float32", {"avx512_bf16": True, "amx_bf16": True}, ()),
        ("bfloat16", {}, ("cpu", "cuda", "mps")),
    ],
)
def test_auto_goes_by_the_processor(
    monkeypatch: pytest.MonkeyPatch, precision: str, features: dict[str, bool], devices: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    assert bfloat16_devices(precision) == devices
    assert torso_in(agent_of(precision=precision)).bfloat16_on == devices


def test_a_torch_that_can_not_tell_means_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert bfloat16_devices("auto") == ()


def test_bfloat16_is_for_images() -> None:
    with pytest.raises(
        ConfigError, match="precision = 'bfloat16': applies only to image torsos; the mlp computes in float"
    ):
        agent_of((4,), precision="bfloat16")
    with pytest.raises(ConfigError, match="precision = 'half': needs one of auto, float32, bfloat16"):
        agent_of(precision="half")


def test_bfloat16_stays_inside_the_torso_and_near_float32() -> None:
    half, whole = agent_of(precision="bfloat16"), agent_of(precision="float32")
    dtypes: list[torch.dtype] = []
    for layer in half.q_network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda _, __, out: dtypes.append(out.dtype))
    batch = random_batch(rows=32)
    low, told = updated(half, batch)
    full, expected = updated(whole, batch)
    assert dtypes == [torch.bfloat16] * 4 + [torch.float32]  # three convolutions, the layer behind them, the head
    tensors = (low, told.loss, told.priorities, *told.metrics.values())
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert not torch.equal(low, full)
    q_values, exact = told.metrics["q_mean"], expected.metrics["q_mean"]
    assert float((q_values - exact).abs().max()) < 0.02 * float(exact.abs().max())
    assert abs(float(told.loss / expected.loss) - 1) < 0.01
    assert float((low - full).norm() / full.norm()) < 0.1


class PictureOfSignal(Probe):
    """One step that pays the signal, which is a white or a black image."""

    observation_space = spaces.Box(0, 255, (10, 10, 1), np.uint8)  # type: ignore[arg-type]

    def state(self) -> Array:
        return np.full((10, 10, 1), 255 if self.signal > 0 else 0, np.uint8)

    def reward(self, action: int) -> float:
        return self.signal


def test_a_probe_is_learned_in_bfloat16() -> None:
    agent = trained(PictureOfSignal, device="cpu", precision="bfloat16", learning_rate=0.002)
    for signal, value in ((255, 1.0), (0, -1.0)):
        values = agent.q_network(np.full((1, 10, 10, 1), signal, np.uint8)).detach().numpy()
        np.testing.assert_allclose(values, [[value, value]], atol=0.05)


# --- the process ---


@pytest.mark.parametrize(
    ("shape", "asked", "had", "threads"),
    [
        ((4,), None, 2, 1),
        ((4,), 2, 1, 2),
        (ATARI, None, 2, 2),
        (ATARI, None, 1, 1),
        (ATARI, 1, 2, 1),
        (ATARI, None, 16, 8),
        ((10, 10, 4), None, 2, 1),
    ],
)
def test_threads_are_as_many_as_the_torso_is_worth(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], asked: int | None, had: int, threads: int
) -> None:
    agent, seen = agent_of(shape), [had]
    monkeypatch.setattr(torch, "get_num_threads", lambda: seen[-1])
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    monkeypatch.setattr("nexus.api.keep_freed_memory", lambda: None)
    with process_for(agent, asked):
        assert seen[-1] == threads
    assert seen[-1] == had


@pytest.mark.parametrize(("asked", "threads"), [(None, 1), (3, 3)])
def test_a_run_has_its_threads_and_gives_them_back(tmp_path: Path, asked: int | None, threads: int) -> None:
    class Look(Listener):
        def on_step(self, progress: Progress, episodes: EpisodeTracker) -> None:
            seen.add(torch.get_num_threads())

    seen: set[int] = set()
    had = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run: dict[str, Any] = {"total_steps": 20, "learning_starts": 10, "eval_episodes": 1, "checkpoint_every": None}
        train(SignalReward, run_dir=tmp_path / "run", listener=Look(), threads=asked, **run)
        assert seen == {threads}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(had)


@pytest.mark.parametrize(("shape", "kept"), [((4,), False), ((10, 10, 4), False), (ATARI, True)])
def test_memory_is_kept_for_large_torsos(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], kept: bool) -> None:
    calls: list[bool] = []
    monkeypatch.setattr("nexus.api.keep_freed_memory", lambda: calls.append(True))
    monkeypatch.setattr(sys, "platform", "linux")
    with process_for(agent_of(shape), 1):
        assert calls == [True] * kept


FAULTS = """
import resource, sys, torch
from nexus.api import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()

def faults(calls):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(calls):
        parts = [torch.ones((1 + i) << 19) for i in range(8)]  # 2, 4, .. 16 MB
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(3)
print(faults(20))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_kept_memory_is_not_taken_page_by_page_again() -> None:
    def faults(how: str) -> int:
        # Whether glibc by itself gives such blocks back depends on what lies above them; so fixed, it always does.
        env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 << 10)}
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)

    assert faults("kept") < 10_000 < 100_000 < faults("given back")
