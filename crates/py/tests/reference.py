"""EMPG in plain numpy, row by row, written from the equations: what the core is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Steps = Sequence[Sequence[tuple[int, int]]]


def runs(mask: NDArray[Any]) -> list[list[tuple[int, int]]]:
    """Runs of 1 of each row."""
    found = []
    for row in np.asarray(mask).astype(bool):
        edges = np.diff(np.concatenate(([0], row.astype(int), [0])))
        found.append(
            [(int(a), int(b)) for a, b in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1))]
        )
    return found


def empg(
    advantages: NDArray[Any],
    entropy: NDArray[Any],
    steps: Steps,
    *,
    k: float = 1.0,
    k_f: float = 1.0,
    zeta: float = 0.1,
    shape: str = "exp",
    normalize: str = "minmax",
    quantile: tuple[float, float] = (0.05, 0.95),
    gate_bonus: bool = False,
    center: bool = True,
    paper_exact: bool = False,
) -> NDArray[np.float64]:
    """Advantages (B,) or (B, T) to (B, T), in float64."""
    entropy = entropy.astype(np.float64)
    base = advantages.astype(np.float64)
    if base.ndim == 1:
        base = np.repeat(base[:, None], entropy.shape[1], 1)
    places = [(row, a, b) for row, spans in enumerate(steps) for a, b in spans]
    h = np.array([entropy[row, a:b].mean() for row, a, b in places])
    low, high = (
        (h.min(), h.max()) if normalize == "minmax" else np.quantile(h, quantile, method="linear")
    )
    h_norm = np.clip((h - low) / (high - low + 1e-8), 0.0, 1.0)

    def falling(strength: float) -> NDArray[np.float64]:
        return np.exp(-strength * h_norm) if shape == "exp" else np.maximum(0.0, 1 - strength * h_norm)

    g = falling(k) / (falling(k).mean() + 1e-8)
    f = falling(k_f)
    result = base.copy() if paper_exact else np.zeros_like(base)
    firsts = []
    for index, (row, a, b) in enumerate(places):
        bonus = 0.0
        if index + 1 < len(places) and places[index + 1][0] == row:
            bonus = zeta * f[index + 1]
        if gate_bonus and base[row, a] == 0.0:
            bonus = 0.0
        result[row, a:b] = base[row, a:b] * g[index] + bonus
        firsts.append(result[row, a])
    if center:
        mean = np.mean(firsts)
        if paper_exact:
            result -= mean
        else:
            for row, a, b in places:
                result[row, a:b] -= mean
    return result
