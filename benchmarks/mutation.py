"""How many small faults the tests notice: a mutation score over the code that decides what is learned.

    python -m benchmarks.mutation --count 200

Each mutant changes one place of one file (a comparison, an operator, a constant, a condition, a statement left out). A
test of that file that fails or exceeds the time limit kills it. Run it in a separate worktree: it edits the files, one
at a time, and restores each.
"""

import argparse
import ast
import copy
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 240  # seconds for the tests of one mutant
LOOP = "loop n_step concurrent_loop straight_line episodes q_star action_masks pqn"
STREAM = "stream notices action_masks env_checks episodes statistics edge one_environment env_faults evaluation"
REPLAY = "replay_buffer prioritized_replay replay_parts n_step own_sampler state"
FRAMES = "frame_replay frame_resume"
TESTS = {
    "nexus/ops": (
        "ops n_step munchausen distributional iqn bootstrap optimizers double_dueling pqn q_star boltzmann acting "
        "action_masks noisy normalization"
    ),
    "nexus/data": f"{REPLAY} core pqn {FRAMES} whole_update",
    "nexus/training/loop.py": LOOP,
    "nexus/envs/stream.py": STREAM,
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


def mutated(node: ast.AST) -> Iterator[ast.AST]:
    """Yield changed copies of one node, if it is of a kind that can be changed."""
    new = copy.deepcopy(node)
    match new:
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            new.ops = [COMPARISONS[type(op)]()]
            yield new
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            new.op = OPERATORS[type(op)]()
            yield new
        case ast.BoolOp(op=op):
            new.op = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield new
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.IfExp():
            new.body, new.orelse = new.orelse, new.body
            yield new
        case ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield ast.Pass()


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Yield every place that decides something: its parent, the field and index there, and the node.

    Annotations, docstrings, `__all__` and the text of errors decide nothing that a test should notice.
    """
    stack: list[ast.AST] = [tree]
    while stack:
        parent = stack.pop()
        if isinstance(parent, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr):
            continue
        for field, value in ast.iter_fields(parent):
            if field in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(node, ast.AST):
                    yield parent, field, index, node
                    stack.append(node)


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, what was changed, and the new source of every mutant of a file."""
    lines = source.splitlines(keepends=True)
    for _, _, _, node in places(ast.parse(source)):
        for new in mutated(node):
            if not isinstance(node, ast.expr | ast.stmt) or node.end_lineno is None or node.end_col_offset is None:
                continue
            # Only the node is written anew: lines, comments and everything else stay as they are.
            text = ast.unparse(new)
            text = f"({text})" if isinstance(new, ast.expr) and isinstance(node, ast.expr) else text
            first, last = node.lineno - 1, node.end_lineno - 1
            start = len(lines[first].encode()[: node.col_offset].decode())
            end = len(lines[last].encode()[: node.end_col_offset].decode())
            before, after = lines[first][:start], lines[last][end:]
            changed = "".join([*lines[:first], before + text + after, *lines[last + 1 :]])
            try:
                compile(changed, "mutant", "exec")
            except SyntaxError:
                continue
            yield node.lineno, f"{ast.unparse(node)}  ->  {ast.unparse(new)}", changed


def survives(tests: list[str]) -> bool:
    """True if all tests pass, run in a fork of this process, which has imported what is slow to import."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        import pytest

        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]))
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def main() -> None:
    """Draw mutants, as many per line of code everywhere, put them to the tests, and print those that survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(TESTS), help="these folders and files")
    given = parser.parse_args()
    import gymnasium  # noqa: F401
    import torch

    torch.set_num_threads(1)
    sys.dont_write_bytecode = True  # its time stamps are too coarse for files that change within a second
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    drawn = []
    for name in given.only:
        for path in sorted(Path(name).rglob("*.py")) if Path(name).is_dir() else [Path(name)]:
            drawn += [(path, name, *mutant) for mutant in mutants(path.read_text(encoding="utf-8"))]
    chosen = random.Random(given.seed).sample(drawn, min(given.count, len(drawn)))
    killed = 0
    for number, (path, name, line, what, changed) in enumerate(chosen, 1):
        original = path.read_text(encoding="utf-8")
        try:
            path.write_text(changed, encoding="utf-8")
            alive = survives([f"tests/test_{test}.py" for test in TESTS[name].split()])
        finally:
            path.write_text(original, encoding="utf-8")
        killed += not alive
        if alive:
            print(f"survived {path}:{line}: {what}", flush=True)
        elif number % 10 == 0:
            print(f"{killed} of {number} killed", flush=True)
    print(f"{killed} of {len(chosen)} killed, of {len(drawn)} possible mutants")


if __name__ == "__main__":
    main()
