"""The straight line: how much must be open to follow one DQN step from the environment to the weights."""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from nexus.api import make_config
from nexus.parts import Parts

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
MOST_FILES, MOST_LINES = 7, 1_000
# Beside the line: what a step enters there can be taken at its word.
BESIDE = {
    "core/module.py": "where a network lies",
    "core/period.py": "periods, by their names",
    "core/types.py": "nouns",
    "core/config.py": "settings",
    "data/protocols.py": "what storage and sampler are to a replay",
    "data/row_checks.py": "refuses rows that don't fit",
    "data/rows.py": "where the rows of a replay lie",
    "data/uniform.py": "a random number for each row of a batch",
    "envs/checks.py": "refuses what can't be learned from",
    "envs/episodes.py": "notes seeds and actions",
    "envs/factory.py": "wrappers around an environment",
    "models/layers.py": "layers",
    "models/rl/dqn/agent.py": "hands on to policy and learner",
    "models/rl/dqn/double_dqn.py": "the choice of the next action, in a variant",
    "models/rl/dqn/own_parts.py": "of losses that learn, too",
    "models/rl/dqn/policy.py": "acts",
    "ops/action_values.py": "Q-values of the actions taken, and of legal ones",
    "ops/exploration.py": "coins",
    "ops/schedules.py": "learning rate and ε",
    "ops/target_update.py": "θ⁻ ← θ",
    "training/config.py": "schedules, by their names",
    "training/divergence.py": "looks at the loss",
}


def line() -> list[Path]:
    """The files that the page names, in its order."""
    names = re.findall(r"^\d\. `([\w/]+\.py)`", PAGE, re.MULTILINE)
    return [ROOT / "nexus" / name for name in names]


def lines_of_code(path: Path) -> int:
    """Lines with anything but comments and docstrings."""
    source = path.read_text("utf-8")
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {
        number for token in tokens if token.type not in skipped for number in range(token.start[0], token.end[0] + 1)
    }
    return len(found - set(docstrings(ast.parse(source))))


def docstrings(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.Module(body=[first, *_]) | ast.ClassDef(body=[first, *_]) | ast.FunctionDef(body=[first, *_]):
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    yield from range(first.lineno, (first.end_lineno or first.lineno) + 1)


def test_a_step_is_read_in_few_files() -> None:
    counted = {path.relative_to(ROOT).as_posix(): lines_of_code(path) for path in line()}
    sys.stdout.write("".join(f"{lines:>5} {name}\n" for name, lines in counted.items()))
    assert "nexus/ops/optimizers.py" in counted
    assert len(counted) <= MOST_FILES
    assert sum(counted.values()) <= MOST_LINES


def test_a_step_enters_nothing_that_the_page_does_not_name(tmp_path: Path) -> None:
    config = make_config("CartPole-v1", total_steps=400, learning_starts=100, target_update_every="5 updates")
    entered: dict[str, set[str]] = {}

    def trace(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT / "nexus"):
            name = frame.f_code.co_name
            if not name.startswith("<"):
                entered.setdefault(path.relative_to(ROOT / "nexus").as_posix(), set()).add(name)

    with ExitStack() as stack:
        parts = Parts("CartPole-v1", config, stack)
        parts.watch(tmp_path)
        steps = parts.steps(config)
        while parts.counters.updates < 3:
            next(steps)
        sys.setprofile(trace)
        try:
            for _ in range(30):  # with updates, a new target and ends of episodes
                next(steps)
        finally:
            sys.setprofile(None)
    on_the_line = {path.relative_to(ROOT / "nexus").as_posix() for path in line()}
    sys.stdout.write("".join(f"{name}: {', '.join(sorted(names))}\n" for name, names in sorted(entered.items())))
    assert on_the_line <= entered.keys()
    assert entered.keys() - on_the_line <= BESIDE.keys()
