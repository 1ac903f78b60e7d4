"""One rank of a training run: python trl_rank.py OUT, with the variables of torchrun."""

import os
import sys
import tempfile
from typing import Any

import tiny_trl as tiny
import torch
from trl import GRPOConfig

from empg.integrations.trl import EMPGTrainer


def main(out: str) -> None:
    torch.set_num_threads(1)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    policy = tiny.model()
    start = {name: value.clone() for name, value in policy.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        # Passes of four rows, all of one group, in either case: a matrix product's bits depend on
        # its shape.
        config = tiny.arguments(
            GRPOConfig,
            folder,
            gradient_accumulation_steps=4 // world,
            per_device_train_batch_size=4,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0.0,
        )
        trainer: Any = tiny.train(
            tiny.watched(EMPGTrainer), config, model=policy, rollout_func=tiny.turns, train_dataset=tiny.prompts(8)
        )
    torch.save(
        {
            "batches": trainer.batches,
            "metrics": next(entry for entry in trainer.state.log_history if "empg/g_min" in entry),
            "start": start,
            "weights": trainer.accelerator.unwrap_model(trainer.model).state_dict(),
        },
        out,
    )
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
