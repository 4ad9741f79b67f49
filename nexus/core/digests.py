"""A fixed number of bytes that stand for a state, so that visits can be counted and saved."""

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

from nexus.core.types import Array

__all__ = ["DIGEST", "Keys", "digest"]

DIGEST = 16  # bytes

Keys: TypeAlias = Callable[[Array], Sequence[bytes]]
"""From states `[K, *obs]` to a digest of each: of states that count as the same one, the same."""


def digest(content: bytes) -> bytes:
    """Return 16 bytes that stand for any number of them."""
    return hashlib.blake2b(content, digest_size=DIGEST).digest()
