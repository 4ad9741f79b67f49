"""Saving a benchmark's figures with everything needed to repeat them."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nexus import __version__
from nexus.training.run_folder import versions

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def machine() -> str:
    """Processor, cores and memory, as reported by the system."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB"


def commit() -> str:
    """The measured commit, with a + if files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], check=True, capture_output=True, text=True, cwd=RESULTS).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", "../../nexus") else "")


def record(name: str, rows: Sequence[dict[str, Any]], **about: Any) -> Path:
    """Write `docs/results/NAME.json` and return its path."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    module = (sys.modules["__main__"].__spec__ or __spec__).name
    values = {
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        # A checkout that is not installed also has a version.
        "versions": {name: found for name, found in versions().items() if name != "platform"} | {"nexus": __version__},
        **about,
        "rows": list(rows),
    }
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
    return path


def rows_of(name: str) -> list[dict[str, Any]]:
    """Return the rows of an unfinished record."""
    path = RESULTS / f"{name}.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["rows"]) if path.exists() else []


def fresh_process(module: str, *arguments: object) -> Any:
    """Run a module in a separate process and return its last line of output, parsed as JSON."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def median(values: Sequence[float]) -> float:
    """The median as a plain number."""
    return float(np.median(values))
