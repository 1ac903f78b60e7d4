"""Batches as verl's agent loops make them, and EMPG written out in plain numpy."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GROUP = "verl.plugins"

# Before verl is imported here, and inherited by Ray's workers: torch on CPU as verl's platform.
_HERE = str(Path(__file__).parent)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_HERE, os.environ.get("PYTHONPATH")]))
os.environ.update(VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_MODULES="verl_cpu")
# Ray's workers would give way to everything else on the machine, and a busy one takes longer than
# a minute to start them.
os.environ.update(
    RAY_worker_niceness="0",
    RAY_worker_register_timeout_seconds="600",
    RAY_gcs_server_request_timeout_seconds="600",
)


def discoverable() -> None:
    """Make the wheel's entry points visible in a source tree, here and in child processes.

    Nothing where the wheel is installed: the entry point is then its own.
    """
    if any(entry.name == "empg" for entry in entry_points(group=GROUP)):
        return
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    folder = Path(tempfile.mkdtemp(prefix="empg-dist-info-"))
    info = folder / "empg-0.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: empg\nVersion: 0.0.0\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])


@dataclass
class Case:
    """Rows of sampled turns between tool replies, padded to one width."""

    keys: list[str]
    uid: np.ndarray
    lengths: list[int]
    mask: np.ndarray
    entropy: np.ndarray
    rewards: np.ndarray
    old_log_probs: np.ndarray
    rollout_log_probs: np.ndarray


def case(
    seed: int = 0, prompts: int = 3, sessions: int = 4, outputs: tuple[int, ...] = (1,)
) -> Case:
    """`prompts` × `sessions` sessions, each of as many outputs as the cycle `outputs` says."""
    rng = np.random.default_rng(seed)
    keys, uids, rows, rewards = [], [], [], []
    for prompt in range(prompts):
        for session in range(sessions):
            reward = float(rng.random() < 0.5) + (0.25 if session == 0 else 0.0)
            for output in range(outputs[(prompt * sessions + session) % len(outputs)]):
                keys.append(f"p_{prompt}_{session}_{output}")
                uids.append(f"p_{prompt}")
                rewards.append(reward)
                turns = []
                for _ in range(int(rng.integers(1, 5))):
                    turns += [1] * int(rng.integers(1, 7)) + [0] * int(rng.integers(1, 4))
                rows.append(turns[: int(rng.integers(len(turns) - 1, len(turns) + 1))])
    lengths = [len(row) for row in rows]
    shape = (len(rows), max(lengths))
    mask = np.zeros(shape, dtype=np.int64)
    for row, turns in enumerate(rows):
        mask[row, : len(turns)] = turns
    inside = np.arange(shape[1])[None, :] < np.asarray(lengths)[:, None]
    entropy = (rng.gamma(2.0, 0.5, shape) * inside).astype(np.float32)
    old = (-rng.gamma(2.0, 0.5, shape) * inside).astype(np.float32)
    rollout = (old + rng.normal(0.0, 0.6, shape) * inside).astype(np.float32)
    return Case(
        keys, np.array(uids, dtype=object), lengths, mask, entropy,
        np.array(rewards, dtype=np.float32), old, rollout,
    )  # fmt: skip


def token_rewards(case: Case) -> np.ndarray:
    """(B, T): the outcome on the last token of each row, as verl's reward loop writes it."""
    rewards = np.zeros(case.mask.shape, dtype=np.float32)
    for row, length in enumerate(case.lengths):
        rewards[row, length - 1] = case.rewards[row]
    return rewards


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """The runs of 1 of one row."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], np.asarray(mask, dtype=np.int64), [0]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def reference(
    base: np.ndarray,
    entropy: np.ndarray,
    mask: np.ndarray,
    keys: list[str] | None = None,
    k: float = 1.0,
    k_f: float = 1.0,
    zeta: float = 0.1,
) -> np.ndarray:
    """Equations 7 to 12 in float64. `base`: (B,) or (B, T); a step's is that of its first token."""
    base = np.asarray(base, dtype=np.float64)
    if base.ndim == 1:
        base = np.repeat(base[:, None], mask.shape[1], axis=1)
    keys = keys if keys is not None else [f"row_{row}_0" for row in range(len(mask))]
    steps = []
    for row in range(len(mask)):
        session, output = keys[row].rsplit("_", 1)
        for a, b in runs(mask[row]):
            steps.append((session, int(output), row, a, b))
    steps.sort()
    h = np.array([np.mean(entropy[row, a:b], dtype=np.float64) for _, _, row, a, b in steps])
    norm = (h - h.min()) / (h.max() - h.min() + 1e-8)
    g = np.exp(-k * norm)
    g = g / (g.mean() + 1e-8)
    f = np.exp(-k_f * norm)
    bonus = np.zeros(len(steps))
    for i in range(len(steps) - 1):
        if steps[i][0] == steps[i + 1][0]:
            bonus[i] = zeta * f[i + 1]
    first = np.array([base[row, a] for _, _, row, a, _ in steps])
    centring = np.mean(first * g + bonus)
    out = np.zeros(mask.shape)
    for i, (_, _, row, a, b) in enumerate(steps):
        out[row, a:b] = base[row, a:b] * g[i] + bonus[i] - centring
    return out
