"""Random batches for the tests of the core."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def batch(
    seed: int, rows: int = 9, width: int = 70, dtype: Any = np.float64
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Advantages (B,), entropies and mask (B, T); row 1 has no step, NaN stands outside steps."""
    random = np.random.default_rng(seed)
    mask = np.zeros((rows, width), bool)
    for row in range(rows):
        at = int(random.integers(0, 5))
        while at < width:
            length = int(random.integers(1, 12))
            mask[row, at : at + length] = True
            at += length + int(random.integers(1, 9))
    mask[1] = False
    entropy = random.gamma(1.2, 0.4, (rows, width)).astype(dtype)
    entropy[~mask] = np.nan
    return random.normal(size=rows).astype(dtype), entropy, mask
