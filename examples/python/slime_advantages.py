"""EMPG in slime: what its hook does to the rollout data of two data-parallel ranks.

    python examples/python/slime_advantages.py

In a run of slime nothing of this file is needed: set

    --custom-advantage-function-path empg.integrations.slime.advantages
    --custom-megatron-init-path empg.integrations.slime.check
    --use-rollout-entropy

Here two gloo processes on CPU stand for two ranks, each with half of a rollout, and a module stands
for the three questions that the hook asks Megatron.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import types
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from empg.integrations import slime


def one_data_parallel_group() -> None:
    mpu: Any = types.ModuleType("megatron.core.mpu")
    mpu.get_data_parallel_world_size = lambda with_context_parallel: dist.get_world_size()
    mpu.get_data_parallel_group_gloo = lambda with_context_parallel: dist.group.WORLD
    mpu.get_context_parallel_world_size = lambda: 1
    core: Any = types.ModuleType("megatron.core")
    core.mpu = mpu
    sys.modules.update({"megatron": types.ModuleType("megatron"), "megatron.core": core})


def rollout_data(places: list[int]) -> dict[str, Any]:
    """What slime gives a rank: here four tokens of tool answer between two turns of the agent."""
    mask = [1] * 6 + [0] * 4 + [1] * 5
    entropy = [
        torch.rand(len(mask), generator=torch.Generator().manual_seed(place)) for place in places
    ]
    return {
        "partition": places,
        "rollout_ids": places,
        "rewards": [1.0 if place % 2 else -1.0 for place in places],
        "total_lengths": [len(mask) + 20 for _ in places],
        "response_lengths": [len(mask) for _ in places],
        "loss_masks": [torch.tensor(mask, dtype=torch.int) for _ in places],
        "entropy": entropy,
        "kl": [torch.zeros(len(mask)) for _ in places],
    }


def rank(index: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=2)
    one_data_parallel_group()
    args = argparse.Namespace(
        advantage_estimator="grpo",
        normalize_advantages=False,
        use_rollout_entropy=True,
        empg_k=1.0,
        empg_zeta=0.1,
    )
    slime.check(args)
    data = rollout_data([0, 3] if index == 0 else [1, 2])
    slime.advantages(args, data)
    for turn in range(2):
        dist.barrier()
        if turn != index:
            continue
        for place, base, row in zip(
            data["partition"], data["returns"], data["advantages"], strict=True
        ):
            print(f"rank {index} sample {place}  base {base[0]:+.1f}  turns {row[0]:+.4f} {row[10]:+.4f}")
        sys.stdout.flush()
    if index == 0:
        print({name: round(data[name].item(), 4) for name in data if name.startswith("empg/")})
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(rank, (f"{folder}/store",), nprocs=2)
