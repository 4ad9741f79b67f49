"""The benchmarks: the page of results, and what they replace to measure without it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import atari_update, safety, untuned
from benchmarks.replacing import replace
from nexus.api import train
from tests.chaos import Silent

ROOT = Path(__file__).parent.parent
CHECKS = {  # what `take_off` replaces, by file and function
    ("envs/checks.py", "require_finite"),
    ("envs/checks.py", "require_shape"),
    ("envs/checks.py", "require_rewards"),
    ("training/divergence.py", "learn"),
    ("training/logs.py", "_count"),
}


@pytest.fixture
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `take_off` replace for one test only."""
    with ExitStack() as stack:

        def for_now(owner: Any, name: str, value: Any) -> None:
            before = getattr(owner, name, None)
            replace(owner, name, value)
            stack.callback(setattr, owner, name, before)

        monkeypatch.setattr(safety, "replace", for_now)
        yield


def entered(call: Callable[[], Any]) -> set[tuple[str, str]]:
    """File and name of each function of nexus that a call enters in this thread."""
    codes: set[CodeType] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            codes.add(frame.f_code)

    sys.setprofile(trace)
    try:
        call()
    finally:
        sys.setprofile(None)
    files = [(Path(code.co_filename), code.co_name) for code in codes]
    own = ROOT / "nexus"
    return {(path.relative_to(own).as_posix(), name) for path, name in files if path.is_relative_to(own)}


def test_the_page_is_what_the_records_say_and_needs_no_package_of_a_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("lz4", "minatar", "stable_baselines3"):  # benchmarks/requirements.txt
        monkeypatch.setitem(sys.modules, name, None)  # an import of it raises ImportError
    from benchmarks import learning_sections, report

    drawn: list[str] = []
    monkeypatch.setattr(learning_sections, "save", lambda figure, name: drawn.append(name))
    assert report.page() == (ROOT / "docs" / "results.md").read_text("utf-8"), "run python -m benchmarks.report"
    assert drawn == ["cartpole", "lunarlander", "acrobot", "minatar_family", "atari"]


def test_a_difference_counts_if_its_interval_is_on_one_side_of_zero() -> None:
    apart = untuned.difference(np.array([1.0, 1.1, 0.9]), np.array([0.1, 0.2, 0.3]))
    assert 0.6 <= apart[0] < 0.8 < apart[1] <= 1.0
    assert untuned.difference(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == (0.0, 0.0)
    assert [untuned.verdict(*pair) for pair in (apart, (0.0, 0.0), (-1.0, 1.0), (-2.0, -1.0))] == [
        *("better", "level", "level", "worse")
    ]


def test_a_name_that_is_gone_is_not_replaced() -> None:
    owner = SimpleNamespace(here=1)
    replace(owner, "here", 2)
    assert owner.here == 2
    with pytest.raises(AttributeError, match="SimpleNamespace has no 'gone' to replace"):
        replace(owner, "gone", 3)
    assert not hasattr(owner, "gone")


def test_what_is_taken_off_is_off(tmp_path: Path, put_back: None) -> None:
    def run(name: str) -> None:
        settings: dict[str, Any] = {"total_steps": 120, "learning_starts": 100, "eval_every": None, "eval_episodes": 1}
        result = train("CartPole-v1", run_dir=tmp_path / name, listener=Silent(), checkpoint_every=None, **settings)
        assert result.counters.updates > 0

    assert entered(lambda: run("on")) >= CHECKS
    safety.take_off()
    assert entered(lambda: run("off")) & CHECKS == set()


def test_images_in_the_order_that_they_come_in_give_the_same_values() -> None:
    agent, batch = atari_update.learner()
    network, states = agent.q_network, batch["states"][:2]
    laid_out: list[bool] = []  # whether the convolutions get channels last
    network.get_submodule("torso.convolutions").register_forward_pre_hook(
        lambda module, given: laid_out.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    with torch.inference_mode():
        before = network(states)
        atari_update.keep_order(agent)
        after = network(states)
    assert laid_out == [True, False]
    torch.testing.assert_close(after, before, rtol=0, atol=1e-3)  # bfloat16 where the processor has it
