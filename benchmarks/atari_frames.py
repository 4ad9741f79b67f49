"""Bytes of a compressed Atari frame by game, and the time to open a group of eight: why frames are packed as they are.

pip install -r benchmarks/requirements.txt
python -m benchmarks.atari_frames
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.atari_replay import recorded
from benchmarks.learning import ATARI_GAMES
from benchmarks.page import table_section
from benchmarks.record import median, record
from nexus.core.types import Array
from nexus.data.frame_index import GROUP
from nexus.data.frame_store import Packer

FRAME = 84 * 84


def changes(groups: Array) -> Array:
    """Return groups `[G, 8, F]` with each frame but the first XORed with the previous one."""
    found = groups.copy()
    found[:, 1:] ^= groups[:, :-1]
    return found


def restored(group: Array) -> Array:
    """Undo `changes` for one group `[8, F]`."""
    found = group.copy()
    for number in range(1, len(found)):  # frame by frame: twenty times as fast as numpy's `accumulate`
        found[number] ^= found[number - 1]
    return found


def measure(
    groups: Array, pack: Callable[[Array], bytes], unpack: Callable[[bytes], Any], exclusive_or: bool = False
) -> tuple[float, float]:
    """Return bytes per frame, and microseconds of processor time to open a group."""
    packed, taken = [pack(group) for group in (changes(groups) if exclusive_or else groups)], []
    for group, given in zip(groups, packed, strict=True):
        started = time.process_time_ns()
        opened = np.frombuffer(unpack(given), np.uint8).reshape(GROUP, FRAME)
        if exclusive_or:
            opened = restored(opened)
        taken.append(1e-3 * (time.process_time_ns() - started))
        assert np.array_equal(opened, group)
    return sum(map(len, packed)) / (GROUP * len(packed)), median(taken)


def section() -> str:
    """Return this benchmark's section of docs/results.md."""
    return table_section(
        "atari_frames",
        "Bytes of a compressed frame",
        "{steps:,} steps of random play in each game, 84 x 84, 7,056 bytes uncompressed; groups of eight "
        "consecutive frames are packed together: by Zstandard as `compressed` does, by Zstandard after an "
        "exclusive or of each frame with the previous one, and by LZ4. Processor time to open a group, medians.",
        ["game", "Zstandard", "and exclusive or", "LZ4", "Zstandard, µs", "and exclusive or, µs", "LZ4, µs"],
    )


def main() -> None:
    """Measure each game and write the record."""
    import lz4.frame

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    steps = parser.parse_args().steps
    packer, rows = Packer(FRAME), []
    for game in ATARI_GAMES:
        newest = np.ascontiguousarray(recorded(steps, f"ALE/{game}-v5")["next_states"][:, 0, -1])
        groups = newest.reshape(-1, GROUP, FRAME)
        ways = {
            "zstandard": measure(groups, packer.pack, packer.unpack),
            "exclusive_or": measure(groups, packer.pack, packer.unpack, exclusive_or=True),
            "lz4": measure(groups, lz4.frame.compress, lz4.frame.decompress),
        }
        rows.append(
            {
                "game": game,
                **{f"{way}_bytes": round(size) for way, (size, _) in ways.items()},
                **{f"{way}_us": round(taken, 1) for way, (_, taken) in ways.items()},
            }
        )
        print(rows[-1], flush=True)
    record("atari_frames", rows, steps=steps)


if __name__ == "__main__":
    main()
