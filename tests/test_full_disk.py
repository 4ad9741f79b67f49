"""A disk that is really full: a tmpfs that is too small for the run, in a mount namespace of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nexus.api import train
from nexus.training.config import TrainConfig
from nexus.training.verify import verify
from tests.chaos import SETTINGS, Silent, differences

PROGRAM = "import sys; from nexus.cli.main import main; sys.exit(main(sys.argv[1:]))"
BIG = SETTINGS | {
    "total_steps": 24_000,
    "num_envs": 8,
    "update_every": "400 steps",
    "replay_capacity": 100_000,
    "eval_every": None,
    "log_every": "100 steps",
    "checkpoint_every": "1000 steps",
}
SCRIPT = """
mount -t tmpfs -o size={size}k tmpfs "{disk}" || exit 99
"{python}" -c '{program}' train CartPole-v1 --config "{config}" --run-dir "{disk}/run" >/dev/null 2>"{said}"
echo $? >"{code}"
cp -r "{disk}/run" "{full}"
mount -o remount,size=64m "{disk}"
"{python}" -c '{program}' resume "{disk}/run" >/dev/null || exit 98
cp -r "{disk}/run" "{resumed}"
"""


def can_mount() -> bool:
    """True where a user may have a mount namespace."""
    try:
        done = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs unshare -rm")
@pytest.mark.parametrize("size", [1300, 1700])
def test_a_run_that_fills_its_disk_keeps_its_checkpoint_and_goes_on_once_there_is_room(
    size: int, tmp_path: Path
) -> None:
    names = {name: tmp_path / name for name in ("disk", "config", "said", "code", "full", "resumed")}
    names["disk"].mkdir()
    names["config"].write_text(json.dumps(TrainConfig.from_mapping(BIG).to_mapping()))
    script = SCRIPT.format(size=size, python=sys.executable, program=PROGRAM, **names)
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode == 99:
        pytest.skip("can't mount here")
    assert done.returncode == 0, done.stderr
    (said,) = names["said"].read_text().splitlines()
    assert names["code"].read_text().strip() == "2"
    assert said.startswith(f"nexus: error: can't write {names['disk']}/run/")
    assert "No space left on device: needs " in said
    assert " bytes are free" in said
    verdict = verify(names["full"])
    assert verdict.whole
    assert len(verdict.checkpoints) == 2
    assert 5_000 < verdict.checkpoints[0] < 24_000
    left = [path for path in names["full"].rglob("*") if ".tmp" in path.name]
    assert left == []
    train("CartPole-v1", config=TrainConfig.from_mapping(BIG), run_dir=tmp_path / "whole", listener=Silent())
    assert differences(tmp_path / "whole", names["resumed"]) == []
