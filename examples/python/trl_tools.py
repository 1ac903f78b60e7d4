"""EMPG inside TRL with a pretrained model that calls tools; every turn of the model is one step.

    pip install 'empg[trl,envs]' 'trl>=1.8'
    accelerate launch examples/python/trl_tools.py --model Qwen/Qwen3-0.6B
    accelerate launch examples/python/trl_tools.py --model DIR --env alfworld --data DIR

TRL lets each completion play its own environment through the tool `act`; the environment owns the reward.
"""

from __future__ import annotations

import argparse

import torch
from datasets import Dataset
from trl import GRPOConfig

from empg.integrations.trl import EMPGTrainer, environment_factory

TASK = "Reach the goal in the text world below. Call the tool `act` with one command at a time.\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B", help="an id or a folder")
    parser.add_argument("--env", default="households", choices=["households", "alfworld", "webshop"])
    parser.add_argument("--data", default=None, help="the environment's data; households need none")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4096, help="per completion, all turns together")
    parser.add_argument("--out", default="runs/trl-tools")
    given = parser.parse_args()

    options = {} if given.data is None else {"data": given.data}
    # Every completion of a row plays the task of its seed.
    rows = {"prompt": [[{"role": "user", "content": TASK}]] * 1000, "seed": list(range(1000))}
    trainer = EMPGTrainer(
        model=given.model,
        args=GRPOConfig(
            output_dir=given.out,
            max_steps=given.steps,
            num_generations=given.generations,
            per_device_train_batch_size=given.generations,
            max_completion_length=given.tokens,
            max_tool_calling_iterations=30,
            chat_template_kwargs={"enable_thinking": False},
            logging_steps=1,
            report_to=[],
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
        ),
        train_dataset=Dataset.from_dict(rows),
        environment_factory=environment_factory(given.env, **options),
    )
    trainer.train()


if __name__ == "__main__":
    main()
