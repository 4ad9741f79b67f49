"""The floors: who may import whom. Reads the source of every file below nexus/ and imports none of it."""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

PAGE = ROOT / "docs" / "architecture.md"


def floors_of(page: str) -> dict[str, frozenset[str] | None]:
    """A floor -> the floors that it may import beside itself; None means all. From the table that people read.

    A module stands on the floor with the longest matching name. One that matches none is an error, so a new folder must
    be entered in the table.
    """
    table = page.partition("| floor | holds | may import |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {
        floor.strip("`"): None if given == "all" else frozenset(re.findall(r"`([\w.]+)`", given))
        for floor, _, given in rows
    }


FLOORS = floors_of(PAGE.read_text(encoding="utf-8"))
TOP = "nexus"  # nexus/__init__.py: may import all, and nothing but the floors without limits may import it

THIRD_PARTY_IN_CORE = frozenset({"torch", "numpy"})

# Inside this folder each of the stairs may import those before it, a variant the first, and the last all.
AGENTS = "nexus.models.rl.dqn"
STAIRS = ("dqn", "own_parts", "policy", "learner", "learner_state", "pure", "agent", "rainbow")

# Loaded where they are used, never by `import nexus`.
LAZY = ("Box2D", "ale_py", "matplotlib", "rich", "tensorboard", "tyro")


class Import(NamedTuple):
    line: int
    target: str  # dotted; the last part may be a name inside a module


def check(path: Path, source: str) -> list[str]:
    """One line for each forbidden import of a file; `path` is relative to the root of the repository."""
    importer = module_name(path)
    floor = floor_of(importer)
    if floor == TOP and importer != TOP:
        return [f"{path.as_posix()}:1: {importer} stands on no floor; enter it in FLOORS"]
    return [
        f"{path.as_posix()}:{line}: forbidden import: {shown} -> {target}"
        for line, target in imports(path, source)
        if (shown := refused_as(importer, floor, target))
    ]


def refused_as(importer: str, floor: str, target: str) -> str | None:
    """The left end of the arrow when it is forbidden (a floor, or a module inside one), else None."""
    if target.partition(".")[0] != "nexus":
        return floor if floor == "nexus.core" and not allowed_in_core(target) else None
    target_floor = floor_of(target)
    if target_floor == floor == AGENTS:
        return None if is_step_down(importer, target) else importer
    may_import = None if floor == TOP else FLOORS[floor]
    return None if may_import is None or target_floor == floor or target_floor in may_import else floor


def is_step_down(importer: str, target: str) -> bool:
    """True if a module of the agents' folder may import another one there."""
    if importer in (AGENTS, f"{AGENTS}.{STAIRS[-1]}"):
        return True
    own, other = (name.removeprefix(f"{AGENTS}.").partition(".")[0] for name in (importer, target))
    if own in STAIRS:
        return other in STAIRS[: STAIRS.index(own)]
    return other == STAIRS[0]


def allowed_in_core(target: str) -> bool:
    top_level = target.partition(".")[0]
    return top_level in sys.stdlib_module_names or top_level in THIRD_PARTY_IN_CORE


def floor_of(module: str) -> str:
    holders = [floor for floor in FLOORS if module == floor or module.startswith(f"{floor}.")]
    return max(holders, key=len, default=TOP)


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, source: str) -> Iterator[Import]:
    """Every import of a file, also inside functions, under TYPE_CHECKING and by import_module("...")."""
    folder = ".".join(path.parent.parts)
    for node in ast.walk(ast.parse(source, filename=str(path))):
        match node:
            case ast.Import(names=names):
                yield from (Import(node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                origin = absolute("." * level + (module or ""), folder)
                for alias in names:
                    yield Import(node.lineno, origin if alias.name == "*" else f"{origin}.{alias.name}")
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(target)), *_],
            ):
                yield Import(node.lineno, absolute(target, folder))


def absolute(target: str, folder: str) -> str:
    """`..data` seen from the folder `nexus.ops` is `nexus.data`."""
    name = target.lstrip(".")
    climb = len(target) - len(name) - 1
    if climb < 0:
        return name
    base = folder.rsplit(".", climb)[0] if climb else folder
    return f"{base}.{name}" if name else base


def test_every_import_in_the_package_is_an_allowed_arrow() -> None:
    files = sorted((ROOT / "nexus").rglob("*.py"))
    assert files, "found no source to check"
    complaints = [complaint for file in files for complaint in check(file.relative_to(ROOT), file.read_text("utf-8"))]
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize(
    ("path", "source", "arrow"),
    [
        ("nexus/core/types.py", "from nexus.ops.schedules import linear", "nexus.core -> nexus.ops.schedules"),
        ("nexus/core/types.py", "import gymnasium as gym", "nexus.core -> gymnasium"),
        ("nexus/ops/schedules.py", "from ..data import replay_buffer", "nexus.ops -> nexus.data.replay_buffer"),
        ("nexus/data/n_step.py", "import nexus.envs", "nexus.data -> nexus.envs"),
        ("nexus/envs/make.py", "from nexus import training", "nexus.envs -> nexus.training"),
        ("nexus/envs/make.py", "from nexus import DQNAgent", "nexus.envs -> nexus.DQNAgent"),
        ("nexus/envs/make.py", "import nexus", "nexus.envs -> nexus"),
        ("nexus/models/layers.py", "from nexus.ops import schedules", "nexus.models.layers -> nexus.ops.schedules"),
        ("nexus/models/layers.py", "from nexus.models import torsos", "nexus.models.layers -> nexus.models.torsos"),
        ("nexus/models/__init__.py", "import nexus.training", "nexus.models -> nexus.training"),
        ("nexus/training/loop.py", "import nexus.models.rl.dqn", "nexus.training -> nexus.models.rl.dqn"),
        ("nexus/training/loop.py", "def f():\n    import nexus.models", "nexus.training -> nexus.models"),
        (
            "nexus/training/loop.py",
            "import_module('nexus.models.layers')",
            "nexus.training -> nexus.models.layers",
        ),
        ("nexus/training/loop.py", "import nexus.cli.main", "nexus.training -> nexus.cli.main"),
        (
            "nexus/models/rl/dqn/iqn.py",
            "from nexus.data import tree",
            "nexus.models.rl.dqn -> nexus.data.tree",
        ),
        ("nexus/models/rl/dqn/iqn.py", "from .c51 import C51Agent", "iqn -> nexus.models.rl.dqn.c51"),
        ("nexus/models/rl/dqn/iqn.py", "from . import c51", "iqn -> nexus.models.rl.dqn.c51"),
        # By way of the package: that import runs every variant.
        ("nexus/models/rl/dqn/iqn.py", "from . import DQNAgent", "iqn -> nexus.models.rl.dqn.DQNAgent"),
        ("nexus/models/rl/dqn/dqn.py", "from .iqn import IQNAgent", "dqn -> nexus.models.rl.dqn.iqn"),
        ("nexus/models/rl/dqn/iqn.py", "from .learner import Learner", "iqn -> nexus.models.rl.dqn.learner"),
        ("nexus/models/rl/dqn/policy.py", "from .learner import Learner", "policy -> nexus.models.rl.dqn.learner"),
        ("nexus/models/rl/dqn/agent.py", "from .c51 import C51Loss", "agent -> nexus.models.rl.dqn.c51"),
        ("nexus/elsewhere/new.py", "import math", "no floor"),
    ],
)
def test_the_checker_names_a_forbidden_arrow(path: str, source: str, arrow: str) -> None:
    (complaint,) = check(Path(path), source)
    assert complaint.startswith(f"{path}:")
    assert arrow in complaint


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("nexus/core/types.py", "import math, torch\nimport numpy as np\nfrom .period import Period"),
        ("nexus/ops/schedules.py", "from nexus.core import Batch\nfrom nexus import core\nimport scipy"),
        ("nexus/models/rl/__init__.py", "from nexus.models.rl.dqn import DQNAgent"),
        ("nexus/models/rl/dqn/__init__.py", "from .c51 import C51Agent\nfrom .iqn import IQNAgent"),
        ("nexus/models/rl/dqn/rainbow.py", "from .c51 import C51Agent\nfrom .iqn import IQNAgent"),
        (
            "nexus/models/rl/dqn/c51.py",
            "from .dqn import DQNAgent\nfrom . import dqn\nfrom nexus.models import layers",
        ),
        ("nexus/models/rl/dqn/agent.py", "from .policy import Policy\nfrom .learner import Learner"),
        ("nexus/training/loop.py", "from nexus.data import ReplayBuffer\nfrom nexus.envs import make"),
        ("nexus/cli/main.py", "import nexus\nfrom nexus.models.rl.dqn import c51\nfrom nexus import api"),
        ("nexus/__init__.py", "from nexus.api import train"),
    ],
)
def test_the_checker_lets_an_allowed_arrow_pass(path: str, source: str) -> None:
    assert check(Path(path), source) == []


def test_a_complaint_names_file_line_and_arrow() -> None:
    source = '"""A loop."""\n\nimport math\nfrom nexus.models.layers import mlp\n'
    assert check(Path("nexus/training/loop.py"), source) == [
        "nexus/training/loop.py:4: forbidden import: nexus.training -> nexus.models.layers.mlp"
    ]


def test_import_nexus_loads_none_of_the_heavy_modules() -> None:
    code = f"import json, sys, nexus; print(json.dumps([m for m in {LAZY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def packages() -> list[str]:
    return sorted(module_name(file.relative_to(ROOT)) for file in (ROOT / "nexus").rglob("__init__.py"))


@pytest.mark.parametrize("package", packages())
def test_every_name_in_all_exists_once(package: str) -> None:
    module = importlib.import_module(package)
    names: list[str] = list(getattr(module, "__all__", []))
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(module, name)] == []


# Sizes.

MOST_METHODS, MOST_ATTRIBUTES = 15, 12
LARGER = {
    "nexus/models/rl/dqn/agent.py DQNAgent": "policy, learner and the original interface under one name",
    "nexus/models/rl/dqn/learner.py Learner": "what is learned is named once, flat and as networks",
    "nexus/data/replay.py Replay": "what a replay is to loop, run and checkpoint; each goes to one of its parts",
    "nexus/envs/stream.py TransitionStream": "what an episode is under way with, for three autoreset modes",
    "nexus/parts.py Parts": "each part of a run under its name, and the statistics that a lost process no longer gives",
    "nexus/training/config.py TrainConfig": "what settings of several groups decide together",
    "nexus/cli/progress.py TrainView": "what is on the screen",
    "nexus/planning/probe.py Probe": "a stopwatch has many hands",
    "nexus/dashboard/kept_logs.py KeptLogs": "what was read of two logs that grow, and what a report asks of it",
}


def sizes(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, methods (but for magic ones) and attributes of each class in a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ClassDef):
            functions = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            methods = {function.name for function in functions if not function.name.startswith("__")}
            attributes = {
                part.attr
                for function in functions
                for part in ast.walk(function)
                if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store)
                if isinstance(part.value, ast.Name) and part.value.id == "self"
            }
            yield node.name, len(methods), len(attributes - methods)


def test_a_large_class_has_a_reason() -> None:
    found = {
        f"{path.relative_to(ROOT).as_posix()} {name}": (methods, attributes)
        for path in sorted((ROOT / "nexus").rglob("*.py"))
        for name, methods, attributes in sizes(path)
        if methods > MOST_METHODS or attributes > MOST_ATTRIBUTES
    }
    assert set(found) == set(LARGER), found


# Names.

SHARED = {
    "run": "the entry of each command's module, which `cli/main.py` calls by the command's name",
    "train": "the two loops have one signature, and `parts.py` picks one of them; `api.train` is public",
}


def top_level_names(source: str) -> set[str]:
    """Names of the classes, functions, constants and aliases that a module defines; not those that it imports."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return {name for name in found if not name.startswith("__")}


def test_a_name_has_one_meaning() -> None:
    modules: dict[str, list[str]] = {}
    for path in sorted((ROOT / "nexus").rglob("*.py")):
        for name in top_level_names(path.read_text("utf-8")):
            modules.setdefault(name, []).append(path.relative_to(ROOT).as_posix())
    assert modules["TransitionStream"] == ["nexus/envs/stream.py"]
    found = {name: where for name, where in modules.items() if len(where) > 1}
    assert {name: where for name, where in found.items() if name not in SHARED} == {}
    assert SHARED.keys() <= found.keys(), "an exception that is not needed"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("class One:\n    TWO = 2\n", {"One"}),
        ("def one():\n    two = 2\n", {"one"}),
        ("async def one(): ...", {"one"}),
        ("ONE, (TWO, *REST) = 1, (2, 3)\nTHREE = FOUR = 3", {"ONE", "TWO", "REST", "THREE", "FOUR"}),
        ("One: TypeAlias = int\nTwo = list[int]", {"One", "Two"}),
        ("__all__ = ['one']\n__version__: str = '1'\ndef __getattr__(name): ...", set()),
        ("import one\nfrom two import three as four", set()),
    ],
)
def test_top_level_names_are_found(source: str, names: set[str]) -> None:
    assert top_level_names(source) == names
