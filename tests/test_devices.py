"""Runs that go to another device than they were trained on."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

import nexus
from nexus.cli.main import main
from nexus.core.errors import ConfigError, RunError
from nexus.core.state import restore_torch_generator
from nexus.listener import Listener
from nexus.models.setup import resolve_device
from nexus.training.files import write_json, write_tensors

LACKING = "mps" if torch.cuda.is_available() else "cuda"
TINY: dict[str, Any] = {
    "total_steps": 300,
    "num_envs": 2,
    "learning_starts": 64,
    "hidden_dim": 8,
    "eval_episodes": 2,
    "eval_every": None,
    "target_return": None,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as it would be had it been trained on a device that is not here."""
    run = tmp_path_factory.mktemp("trained") / "run"
    nexus.train("CartPole-v1", algorithm="noisy", run_dir=run, **TINY)
    about = json.loads((run / "run.json").read_text())
    about["config"]["device"] = LACKING
    write_json(run / "run.json", about)
    for state in run.glob("checkpoints/*/state.safetensors"):
        arrays = safetensors.numpy.load_file(state)
        arrays["agent.generators.noise"] = np.arange(16, dtype=np.uint8)  # as CUDA has it
        said = json.loads(state.with_name("state.json").read_text())
        write_json(state.with_name("state.json"), {**said, "arrays": vars(write_tensors(state, arrays))})
    return run


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


class Heard(Listener):
    def __init__(self) -> None:
        self.notices: list[str] = []

    def on_notice(self, text: str) -> None:
        self.notices.append(text)


def test_an_agent_of_a_device_that_is_not_here_comes_on_the_cpu_with_a_notice(trained: Path) -> None:
    with pytest.warns(RuntimeWarning, match=f"was trained on {LACKING}, which is not available here: its agent is "):
        agent = nexus.load_agent(trained)
    assert agent.device.type == "cpu"
    heard = Heard()
    score = nexus.evaluate(trained, episodes=2, listener=heard)
    assert len(heard.notices) == 1
    assert score == nexus.evaluate(trained, episodes=2, device="cpu")  # which says nothing
    assert nexus.load_agent(trained, device=torch.device("cpu")).device.type == "cpu"  # type: ignore[arg-type]


def test_a_device_that_was_asked_for_is_not_replaced(trained: Path) -> None:
    for act in (nexus.load_agent, nexus.evaluate):
        with pytest.raises(ConfigError, match=f"^device = '{LACKING}' is not available"):
            act(trained, device=LACKING)
    with pytest.raises(ConfigError, match="device = 'cpu': needs the folder of a run instead of an agent"):
        nexus.evaluate(nexus.load_agent(trained, device="cpu"), "CartPole-v1", 2, device="cpu")


def test_what_is_no_device_is_damage(copy: Path) -> None:
    about = json.loads((copy / "run.json").read_text())
    for device, says in (
        ("tpu", "an agent that can't be"),
        ("", "an agent that can't be"),
        (7, "a config that can't be"),
    ):
        about["config"]["device"] = device
        write_json(copy / "run.json", about)
        with pytest.raises(RunError, match=says):
            nexus.load_agent(copy)


def test_to_go_on_elsewhere_must_be_said(copy: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{copy} was trained on {LACKING}, which is not .*: add --device cpu "):
        nexus.resume(copy, total_steps=400)
    heard = Heard()
    result = nexus.resume(copy, total_steps=400, device="cpu", listener=heard)
    assert result.counters.steps >= 400
    assert any(f"the run was trained on {LACKING} and continues on cpu" in text for text in heard.notices)
    about = json.loads((copy / "run.json").read_text())
    assert about["config"]["device"] == "cpu"
    assert set(about["agent"]) == {"state_dim", "action_dim", "state_bounds"}
    nexus.resume(copy, total_steps=500, listener=Heard())  # from now on it belongs here
    nexus.load_agent(copy)


def test_each_command_takes_a_device(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("imageio_ffmpeg")
    video = ["--video", str(tmp_path / "out.mp4"), "--episodes", "1"]
    for words in (["evaluate", str(copy), "--episodes", "2", "--json"], ["watch", str(copy), *video]):
        capsys.readouterr()
        assert main(words) == 0
        said = capsys.readouterr()
        assert said.err.count(f"Note: {copy} was trained on {LACKING}") == 1
        assert "Note" not in said.out
        assert main([*words, "--device", "cpu"]) == 0
        assert "Note" not in capsys.readouterr().err
        assert main([*words, "--device", LACKING]) == 2
        assert f"nexus: error: device = '{LACKING}' is not available" in capsys.readouterr().err
    resumed = ["resume", str(copy), "--total-steps", "400"]
    assert main(resumed) == 2
    assert "add --device cpu" in capsys.readouterr().err
    assert main([*resumed, "--device", "cpu"]) == 0


def test_a_generator_of_another_kind_of_device_begins_where_only_that_state_says() -> None:
    def drawn(saved: Any) -> list[int]:
        generator = torch.Generator()
        restore_torch_generator(generator, {"noise": saved}, "noise")
        return torch.randint(1000, (8,), generator=generator).tolist()

    one, other = np.arange(16, dtype=np.uint8), np.ones(16, np.uint8)
    assert drawn(one) == drawn(one.copy()) != drawn(other)
    own = torch.Generator().manual_seed(3).get_state().numpy()
    assert drawn(own) == torch.randint(1000, (8,), generator=torch.Generator().manual_seed(3)).tolist()
    for strange in (own[:-1], np.ones((1, 16), np.uint8), np.ones(16, np.int64), np.ones(100, np.uint8), None):
        with pytest.raises(RunError, match="noise"):
            drawn(strange)


class Machine:
    """Which devices torch finds, whatever is really there."""

    def __init__(self, patch: pytest.MonkeyPatch, gpus: int = 0, mps: bool = False, built: str | None = None) -> None:
        patch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        patch.setattr(torch.cuda, "device_count", lambda: gpus)
        patch.setattr(torch.backends.mps, "is_available", lambda: mps)
        patch.setattr(torch.version, "cuda", built)
        patch.setattr(torch.version, "hip", None)


@pytest.mark.parametrize(
    ("name", "machine", "says"),
    [
        ("cuda", {}, "is not available: this torch was built without CUDA; use auto or cpu"),
        ("cuda:1", {}, "is not available: this torch was built without CUDA; use auto or cpu"),
        ("cuda", {"built": "13.0"}, "is not available: torch finds no GPU that CUDA can use; use auto or cpu"),
        ("cuda", {"mps": True}, "is not available: this torch was built without CUDA; use auto, cpu or mps"),
        ("cuda:4", {"gpus": 1}, "is not available: this machine has only 1; use auto, cpu or cuda"),
        (
            "cuda:2",
            {"gpus": 2},
            "is not available: this machine has only 2; use auto, cpu, cuda, cuda:0 or cuda:1",
        ),
        ("meta", {}, "is not available on this machine: use auto or cpu"),
        ("hpu", {}, "is not available on this machine: use auto or cpu"),
        ("gpu", {}, ": needs auto or cpu"),
        ("CUDA", {"gpus": 1}, ": needs auto, cpu or cuda"),
        ("", {}, ": needs auto or cpu"),
        ("cuda:-1", {"gpus": 1}, ": needs auto, cpu or cuda"),
    ],
)
def test_a_device_that_is_not_here_is_told_with_those_that_are(
    name: str, machine: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(monkeypatch, **machine)
    with pytest.raises(ConfigError) as caught:
        resolve_device(name, (4,))
    space = "" if says.startswith(":") else " "
    assert str(caught.value) == f"device = {name!r}{space}{says}"


def test_a_gpu_that_fails_is_not_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: out of memory\nmore of it")

    Machine(monkeypatch, gpus=1)
    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(ConfigError, match=r"^device = 'cuda' can't be used: CUDA error: out of memory; use cpu$"):
        resolve_device("cuda", (4,))


def test_another_name_of_the_same_device_is_no_other(copy: Path) -> None:
    about = json.loads((copy / "run.json").read_text())
    about["config"]["device"] = about["agent"]["device"] = "auto"  # the CPU, for vectors
    write_json(copy / "run.json", about)
    heard = Heard()
    nexus.resume(copy, total_steps=400, device="cpu", listener=heard)
    assert not [text for text in heard.notices if "trained on" in text]
