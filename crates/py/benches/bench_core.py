"""Time `empg.modulate` against other implementations and against memory itself.

    python crates/py/benches/bench_core.py [--rows 512] [--tokens 4096] [--steps 25] [--threads N]

Rivals, written here: the project page's pseudo-code in PyTorch (where torch is installed), and a
vectorised numpy version. They are timed in two forms: with the steps searched as each of them
searches (chat markers or a mask), and with the steps known. All are fed the same arrays, take turns,
and must agree. Memory: every array read once and the result written once, by as many threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

import empg

Array = NDArray[Any]
HEADER, END = [151644, 77091, 198], [151645]
K = K_F = 1.0
ZETA = 0.1


def episodes(rows: int, tokens: int, steps: int) -> tuple[Array, Array, Array]:
    """Token ids, entropies and mask (B, T): agent turns of different lengths among observations."""
    random = np.random.default_rng(0)
    ids = random.integers(1000, 50000, (rows, tokens))
    mask = np.zeros((rows, tokens), bool)
    room = tokens // steps
    for row in range(rows):
        for step in range(steps):
            start = step * room + len(HEADER) + int(random.integers(0, room // 4))
            end = start + int(random.integers(room // 4, room // 2))
            ids[row, start - len(HEADER) : start] = HEADER
            ids[row, end : end + len(END)] = END
            mask[row, start:end] = True
    return ids, random.gamma(1.2, 0.4, (rows, tokens)).astype(np.float32), mask


# --- the project page's pseudo-code, in PyTorch


def search(row: Any, header: list[int], end: list[int]) -> list[tuple[int, int]]:
    """Token ranges between markers, by a loop over the row."""
    ids, found, at = row.tolist(), [], 0
    while at + len(header) <= len(ids):
        if ids[at : at + len(header)] != header:
            at += 1
            continue
        stop = start = at + len(header)
        while stop < len(ids) and ids[stop : stop + len(end)] != end:
            stop += 1
        found.append((start, stop))
        at = stop + len(end)
    return found


def pseudo_code(
    torch: Any, spans: list[list[tuple[int, int]]], entropy: Any, advantages: Any
) -> None:
    """Both passes of the page, step by step, in place."""
    entropies, segments = [], []
    for row, own in enumerate(spans):
        for start, end in own:
            if start < end:
                entropies.append(entropy[row][start:end].mean().item())
                segments.append((row, start, end))
    h = np.array(entropies)
    h_norm = (h - h.min()) / (h.max() - h.min() + 1e-8)
    scale = np.exp(-K * h_norm)
    g = torch.tensor(scale / (scale.mean() + 1e-8), dtype=torch.float32)
    f = torch.tensor(np.exp(-K_F * h_norm), dtype=torch.float32)
    firsts = []
    for index, (row, start, end) in enumerate(segments):
        advantages[row][start:end] *= g[index]
        if index + 1 < len(segments) and segments[index + 1][0] == row:
            advantages[row][start:end] += ZETA * f[index + 1]
        firsts.append(advantages[row][start])
    advantages -= torch.mean(torch.stack(firsts))


# --- vectorised numpy


def edges(mask: Array) -> tuple[Array, Array]:
    """Starts and ends of all runs, as flat positions."""
    bits = mask.view(np.int8)
    rise = np.empty(mask.shape, bool)
    rise[:, 0], rise[:, 1:] = mask[:, 0], bits[:, 1:] > bits[:, :-1]
    fall = np.empty(mask.shape, bool)
    fall[:, -1], fall[:, :-1] = mask[:, -1], bits[:, :-1] > bits[:, 1:]
    return np.flatnonzero(rise), np.flatnonzero(fall) + 1


def vectorised(starts: Array, ends: Array, entropy: Array, advantages: Array) -> None:
    """One pass over steps and one over tokens, in place; tokens outside become A - mean."""
    width, flat = entropy.shape[1], advantages.reshape(-1)
    cuts = np.column_stack((starts, ends)).ravel()
    sums = np.add.reduceat(entropy.reshape(-1), cuts[cuts < entropy.size])[::2]
    h = sums / (ends - starts)
    h_norm = (h - h.min()) / (h.max() - h.min() + 1e-8)
    g = np.exp(-K * h_norm)
    g /= g.mean() + 1e-8
    bonus = np.zeros_like(g)
    same = starts[1:] // width == starts[:-1] // width
    bonus[:-1][same] = ZETA * np.exp(-K_F * h_norm[1:][same])
    scale, shift = g.astype(np.float32), bonus.astype(np.float32)
    mean = (flat[starts] * scale + shift).mean(dtype=np.float64)
    lengths = ends - starts
    index = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
    flat[index] = flat[index] * np.repeat(scale, lengths) + np.repeat(shift, lengths)
    flat -= np.float32(mean)


# --- memory


def memory(arrays: list[Array], out: Array, threads: int) -> Callable[[], None]:
    """Read every array once and write the result once, in equal parts by each thread."""
    pool = ThreadPoolExecutor(threads)
    parts = np.array_split(np.arange(len(out)), threads)

    def part(rows: Array) -> None:
        low, high = rows[0], rows[-1] + 1
        for array in arrays:
            block = array[low:high].reshape(-1)
            (block.view(np.uint64) if block.nbytes % 8 == 0 else block).max()
        out[low:high] = 1.0

    if threads == 1:
        return lambda: part(parts[0])

    def together() -> None:
        for _ in pool.map(part, parts):
            pass

    return together


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    arguments.add_argument("--rows", type=int, default=512)
    arguments.add_argument("--tokens", type=int, default=4096)
    arguments.add_argument("--steps", type=int, default=25)
    arguments.add_argument("--repeats", type=int, default=30)
    arguments.add_argument("--slow-repeats", type=int, default=4, help="of the pseudo-code")
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    chosen = arguments.parse_args()
    threads = chosen.threads
    ids, entropy, mask = episodes(chosen.rows, chosen.tokens, chosen.steps)
    per_row = np.random.default_rng(1).normal(size=chosen.rows).astype(np.float32)
    advantages = np.repeat(per_row[:, None], chosen.tokens, 1)
    out = np.empty_like(advantages)
    work = advantages.copy()
    starts, ends = edges(mask)
    row = starts // chosen.tokens
    triples = np.column_stack((row, starts % chosen.tokens, ends - row * chosen.tokens))

    def numpy_mask() -> None:
        vectorised(*edges(mask), entropy, work)

    timed: dict[str, Callable[[], object]] = {
        "empg: mask, (B, T) advantages": lambda: empg.modulate(
            advantages, entropy, mask=mask, threads=threads
        ),
        "empg: mask, (B, T) advantages, out=": lambda: empg.modulate(
            advantages, entropy, mask=mask, out=out, threads=threads
        ),
        "empg: mask, (B,) advantages, out=": lambda: empg.modulate(
            per_row, entropy, mask=mask, out=out, threads=threads
        ),
        "empg: mask, paper_exact, in place": lambda: empg.modulate(
            work, entropy, mask=mask, out=work, paper_exact=True, threads=threads
        ),
        "empg: steps known (array), (B, T) advantages, out=": lambda: empg.modulate(
            advantages, entropy, steps=triples, out=out
        ),
        "numpy: mask, in place": numpy_mask,
        "numpy: steps known, in place": lambda: vectorised(starts, ends, entropy, work),
        "memory: read mask, entropy, (B, T) advantages; write": memory(
            [mask, entropy, advantages], out, threads
        ),
        "memory: read mask, entropy; write": memory([mask, entropy], out, threads),
    }
    slow: dict[str, Callable[[], object]] = {}
    try:
        import torch
    except ImportError:
        print("torch is not installed: its pseudo-code is not timed")
    else:
        torch.set_num_threads(threads)
        t_ids, t_entropy = torch.from_numpy(ids), torch.from_numpy(entropy)
        t_work, spans = torch.from_numpy(work), empg.steps_from_mask(mask)
        t_advantages, t_mask = torch.from_numpy(advantages), torch.from_numpy(mask)
        timed["empg: torch tensors, mask, (B, T) advantages"] = lambda: empg.modulate(
            t_advantages, t_entropy, mask=t_mask, threads=threads
        )
        slow = {
            "torch: pseudo-code, search of markers, in place": lambda: pseudo_code(
                torch, [search(row, HEADER, END) for row in t_ids], t_entropy, t_work
            ),
            "torch: pseudo-code, steps known, in place": lambda: pseudo_code(
                torch, spans, t_entropy, t_work
            ),
        }

    # All agree before any is timed.
    wanted = empg.modulate(advantages, entropy, mask=mask, paper_exact=True)
    for name, run in {**timed, **slow}.items():
        if name.startswith(("numpy", "torch")):
            work[:] = advantages
            run()
            worst = float(np.max(np.abs(work - wanted)))
            assert worst < 2e-5, (name, worst)

    seconds: dict[str, list[float]] = {name: [] for name in {**timed, **slow}}
    for turn in range(chosen.repeats + 3):
        for name, run in (timed if turn >= chosen.slow_repeats else {**timed, **slow}).items():
            if "in place" in name:
                work[:] = advantages
            start = time.perf_counter()
            run()
            if turn >= 3 or name in slow:
                seconds[name].append(time.perf_counter() - start)
    steps = len(starts) / chosen.rows
    shape = f"{chosen.rows} x {chosen.tokens} x {steps:g} steps, threads: {threads}"
    print(f"{shape}: median and smallest of {chosen.repeats} ({chosen.slow_repeats}) turns")
    for name, times in seconds.items():
        print(f"{statistics.median(times) * 1e3:10.3f} ms {min(times) * 1e3:10.3f} ms  {name}")

    def ratio(slower: str, faster: str) -> tuple[float, float]:
        over, under = seconds[slower], seconds[faster]
        return statistics.median(over) / statistics.median(under), min(over) / min(under)

    fresh = "empg: mask, (B, T) advantages"
    known = "empg: steps known (array), (B, T) advantages, out="
    kept = "empg: mask, (B, T) advantages, out="
    pairs = {
        "numpy / empg, both from a mask": ("numpy: mask, in place", fresh),
        "numpy / empg, steps known": ("numpy: steps known, in place", known),
        "empg, new array / memory": (fresh, "memory: read mask, entropy, (B, T) advantages; write"),
        "empg, out= / memory": (kept, "memory: read mask, entropy, (B, T) advantages; write"),
    }
    if slow:
        pairs["torch, search / empg from a mask"] = (next(iter(slow)), fresh)
        pairs["torch / empg, steps known"] = (list(slow)[1], known)
    ratios = {name: ratio(*pair) for name, pair in pairs.items()}
    for name, (median, least) in ratios.items():
        print(f"{median:10.2f}    {least:10.2f}     {name}")
    medians = {name: round(median, 3) for name, (median, _) in ratios.items()}
    print(json.dumps({"shape": shape, "ratios": medians}))


if __name__ == "__main__":
    main()
