"""Numbers that look random and follow from whole numbers alone, so that they need not be stored."""

import torch
from torch import Tensor

__all__ = ["hashed"]

BITS_32 = 2**32 - 1
MULTIPLIER = 0x45D9F3B  # below 2^27: a product with 32 bits fits in an int64


def hashed(rows: Tensor, columns: int, key: Tensor) -> Tensor:
    """Return a number for each row and column, as if drawn uniformly from (0, 1).

    Two rounds of multiplying and folding mix all bits of a row, its column and the key.

    Args:
        rows: `[B]` int64, from 0.
        columns: `K`.
        key: `[]` int64, from 0; another one gives other numbers.

    Returns:
        `[B, K]` float32, with steps of 2^-23.
    """
    bits = rows.unsqueeze(1) * columns + torch.arange(columns, device=rows.device)  # [B, K], each pair once
    bits = mixed(mixed(bits & BITS_32) ^ mixed(key & BITS_32))
    return ((bits >> 9) + 0.5) / 2**23


def mixed(bits: Tensor) -> Tensor:
    """Return 32 bits of which each depends on all 32 given ones, in an int64."""
    for _ in range(2):
        bits = ((bits ^ (bits >> 16)) * MULTIPLIER) & BITS_32
    return bits ^ (bits >> 16)
