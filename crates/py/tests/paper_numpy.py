"""The paper's equations 7, 8 and 10 to 12, written as loops: a second opinion for the tests.

Nothing here calls `empg`.
"""

import numpy as np


def runs(mask):
    """[(start, end), …] of the runs of 1 in a row."""
    spans, start = [], None
    for t, on in enumerate([*list(mask), 0]):
        if on and start is None:
            start = t
        elif not on and start is not None:
            spans.append((start, t))
            start = None
    return spans


def paper(base, entropy, mask, trajectories=None, k=1.0, k_f=1.0, zeta=0.1, center=True):
    """Advantages per token (lists of rows) in float64.

    `base` one number per row; `entropy` and `mask` rows of any lengths; rows of one trajectory
    follow each other in its order.
    """
    steps = []  # (row, start, end, H, A, trajectory)
    for row, bits in enumerate(mask):
        owner = row if trajectories is None else trajectories[row]
        for start, end in runs(bits):
            h = float(np.mean(np.asarray(entropy[row][start:end], dtype=np.float64)))
            steps.append((row, start, end, h, float(base[row]), owner))
    all_h = np.array([step[3] for step in steps])
    h_norm = (all_h - all_h.min()) / (all_h.max() - all_h.min() + 1e-8)
    g = np.exp(-k * h_norm)
    g = g / (g.mean() + 1e-8)
    clarity = np.exp(-k_f * h_norm)
    modulated = []
    for i, step in enumerate(steps):
        has_next = i + 1 < len(steps) and steps[i + 1][5] == step[5]
        modulated.append(step[4] * g[i] + (zeta * clarity[i + 1] if has_next else 0.0))
    mean = float(np.mean(modulated)) if center else 0.0
    out = [np.zeros(len(bits)) for bits in mask]
    for value, (row, start, end, *_) in zip(modulated, steps, strict=True):
        out[row][start:end] = value - mean
    return out
