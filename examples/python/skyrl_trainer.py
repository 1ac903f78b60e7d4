"""EMPG in SkyRL: an entrypoint of one's own, and what it does to a batch.

    python examples/python/skyrl_trainer.py                      # on CPU: credits a tiny batch
    python examples/python/skyrl_trainer.py trainer.strategy=fsdp data.train_data=… …   # trains

Needs `skyrl` with its trainer (`pip install 'skyrl[fsdp]>=0.3'` to train) and Python 3.12.
"""

from __future__ import annotations

import sys
from typing import Any

import ray
import torch
from skyrl.backends.skyrl_train.training_batch import TrainingInputBatch
from skyrl.train.config import SkyRLTrainConfig
from skyrl.train.entrypoints.main_base import BasePPOExp
from skyrl.train.utils import validate_cfg
from skyrl.train.utils.utils import initialize_ray

from empg.integrations.skyrl import EMPGTrainer


class Experiment(BasePPOExp):
    def get_trainer(self, *args: Any, **kwargs: Any) -> EMPGTrainer:
        return EMPGTrainer(*args, empg={"k": 1.0, "zeta": 0.1}, **kwargs)


@ray.remote(num_cpus=1)
def train(cfg: SkyRLTrainConfig) -> None:
    Experiment(cfg).run()


class Prompts(list[str]):
    def collate_fn(self, batch: list[str]) -> list[str]:
        return batch


def credit_a_tiny_batch() -> None:
    """Two tasks with two trajectories each, three turns a trajectory, entropies that differ."""
    overrides = [
        "trainer.logger=tensorboard",
        "trainer.train_batch_size=2",
        "generator.inference_engine.enable_ray_prometheus_stats=false",
    ]
    trainer = EMPGTrainer(
        cfg=SkyRLTrainConfig.from_cli_overrides(overrides),
        tracker=None,
        tokenizer=None,
        train_dataset=Prompts(["task 1", "task 2"]),
        inference_engine_client=None,
        generator=None,
    )
    turns = torch.tensor([1, 1, 1, 0, 1, 1, 0, 1, 1, 1], dtype=torch.int32).repeat(4, 1)
    rewards = torch.zeros(4, 10)
    rewards[:, -1] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    batch = TrainingInputBatch(
        {
            "sequences": torch.zeros(4, 12, dtype=torch.long),
            "attention_mask": torch.ones(4, 12, dtype=torch.long),
            "loss_mask": turns,
            "response_mask": torch.ones_like(turns),
            "rewards": rewards,
            "values": None,
            # In training these come from the policy's forward pass.
            "entropy": torch.rand(4, 10, generator=torch.Generator().manual_seed(0)) * 2,
        }
    )
    batch.metadata = {"uids": ["a", "a", "b", "b"], "response_length": 10, "avg_response_length": 10}
    batch = trainer.compute_advantages_and_returns(batch)
    print("GRPO", batch["returns"][:, 0].tolist())
    print("EMPG", *batch["advantages"][:, [0, 4, 7]].tolist(), sep="\n     ")
    print({name: value for name, value in trainer.all_metrics.items() if name.startswith("empg/")})


def main() -> None:
    if len(sys.argv) == 1:
        credit_a_tiny_batch()
        return
    cfg = SkyRLTrainConfig.from_cli_overrides(sys.argv[1:])
    validate_cfg(cfg)
    initialize_ray(cfg)
    ray.get(train.remote(cfg))


if __name__ == "__main__":
    main()
