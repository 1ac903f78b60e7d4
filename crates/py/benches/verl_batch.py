"""Time of `modulate_batch` on verl's forms of a batch: 512 rows of up to 4,096 tokens, 25 steps each.

Medians of repeated calls, beside the core's own call on the same arrays.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from tensordict import TensorDict

import empg
from empg.integrations.verl import modulate_batch

ROWS, TOKENS, STEPS, REPEATS = 512, 4096, 25, 7


def median(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((ROWS, TOKENS), dtype=np.int64)
    for row in mask:
        for start in range(0, TOKENS - 100, TOKENS // STEPS):
            row[start : start + int(rng.integers(60, 140))] = 1
    entropy = torch.from_numpy(rng.gamma(2.0, 0.5, mask.shape).astype(np.float32))
    masks = torch.from_numpy(mask)
    base = torch.from_numpy(rng.normal(size=(ROWS, 1)).astype(np.float32)) * masks
    keys = [f"p{row // 8}_{row % 8}_0" for row in range(ROWS)]
    lengths = torch.full((ROWS,), TOKENS)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    kept = masks * torch.from_numpy(rng.random(mask.shape) > 0.1)

    def jagged(tensor: torch.Tensor) -> torch.Tensor:
        return torch.nested.nested_tensor_from_jagged(tensor.flatten(), offsets)

    def batch(
        form: Callable[[torch.Tensor], torch.Tensor], response_mask: torch.Tensor
    ) -> TensorDict:
        parts = {"advantages": base, "entropy": entropy, "response_mask": response_mask}
        return TensorDict({name: form(part) for name, part in parts.items()}, batch_size=ROWS)

    def run(form: Callable[[torch.Tensor], torch.Tensor], response_mask: torch.Tensor) -> float:
        data, copy = batch(form, response_mask), form(masks)
        return median(lambda: modulate_batch(data.clone(recurse=False), keys=keys, mask=copy))

    bits = masks.bool()
    print(
        f"empg.modulate            {median(lambda: empg.modulate(base, entropy, mask=bits)):7.1f} ms"
    )
    print(f"modulate_batch, padded   {run(lambda tensor: tensor, masks):7.1f} ms")
    print(f"modulate_batch, jagged   {run(jagged, masks):7.1f} ms")
    print(f"…, 10 % of tokens rejected {run(jagged, kept):5.1f} ms")


if __name__ == "__main__":
    main()
