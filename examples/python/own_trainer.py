"""EMPG in a trainer of your own, on one process or several.

    python examples/python/own_trainer.py
    torchrun --nproc-per-node 2 examples/python/own_trainer.py

Each rank holds some rows of the batch. Ranks exchange step tables (28 bytes a step), and each
computes the advantages of its rows with the statistics of the whole batch: the printed numbers are
the same however many ranks there are.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist

import empg
from empg.integrations.distributed import gather_steps

ROWS, TOKENS, GROUP = 8, 48, 4


def rollout() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards (B,), entropies (B, T) in nats and the mask (B, T) of a batch of agents' turns."""
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randint(0, 2, (ROWS,), generator=generator).float()
    entropy = torch.rand(ROWS, TOKENS, generator=generator) * 2
    turn = torch.arange(TOKENS) % 12
    mask = (turn >= 4).int().repeat(ROWS, 1)  # four tokens of environment, eight of the agent
    return rewards, entropy, mask


def main() -> None:
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        dist.init_process_group("gloo")
    rewards, entropy, mask = rollout()
    groups = [row // GROUP for row in range(ROWS)]
    base = torch.from_numpy(empg.grpo(rewards.numpy(), groups)).float()

    mine = torch.arange(rank, ROWS, world)
    rows = {"mask": mask[mine], "trajectories": mine}
    table = gather_steps(lambda: empg.StepTable.from_tokens(base[mine], entropy[mine], **rows))
    advantages = empg.modulate(base[mine], entropy[mine], **rows, table=table)

    for row, values in zip(mine.tolist(), advantages, strict=True):
        steps = [f"{values[start]:+.4f}" for start, _ in empg.steps_from_mask(mask[row : row + 1])[0]]
        print(f"row {row}  base {base[row]:+.4f}  steps {' '.join(steps)}", flush=True)
    if rank == 0:
        print({name: round(value, 6) for name, value in table.credit().summary.items()})
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
