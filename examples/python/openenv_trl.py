"""Train a model with TRL's GRPOTrainer on an environment that `empg` serves.

    empg serve env households                                      # in one shell
    python examples/python/openenv_trl.py --model Qwen/Qwen3-0.6B  # in another

TRL makes one `Household` for every rollout that is under way, calls `reset` with the columns of the
example, offers the other public methods to the model as tools, and asks `get_reward` at the end
(TRL 1.8 or later: earlier ones take `get_reward` for a tool as well).
"""

from __future__ import annotations

import argparse
from typing import Any

from empg.envs.openenv import EmpgAction, EmpgEnv

URL = "http://127.0.0.1:8000"


class Household:
    """One environment for TRL's `environment_factory`."""

    def __init__(self, url: str | None = None) -> None:
        self._env = EmpgEnv(base_url=url or URL).sync()
        self._reward = 0.0
        self._done = False

    def reset(self, seed: int = 0, **_: Any) -> str:
        """Start the task of the seed. All rollouts of a prompt get the same one."""
        result = self._env.reset(seed=int(seed))
        self._reward, self._done = 0.0, False
        return result.observation.text

    def act(self, command: str) -> str:
        """
        Do something in the household.

        Args:
            command: What to do, for example "go to desk 1", "take mug 1 from desk 1" or "look".

        Returns:
            What you see then.
        """
        if self._done:
            return "The task is over."
        result = self._env.step(EmpgAction(text=command))
        self._reward += result.reward or 0.0
        self._done = result.done
        return result.observation.text

    def get_reward(self) -> float:
        """The sum of the environment's rewards: 1 where the task is solved."""
        return self._reward


def tasks(count: int) -> list[dict[str, Any]]:
    """Prompts with the seeds that `reset` gets."""
    instruction = "Solve the task with the tool `act`, one command at a time."
    return [
        {"prompt": [{"role": "user", "content": instruction}], "seed": seed}
        for seed in range(count)
    ]


def main() -> None:
    """Trains with the settings of the command line."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B")
    parser.add_argument("--url", default=URL)
    parser.add_argument("--tasks", type=int, default=512)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--out", default="runs/openenv-trl")
    parser.add_argument("--cpu", action="store_true")
    arguments = parser.parse_args()
    config = GRPOConfig(
        output_dir=arguments.out,
        max_steps=arguments.steps,
        num_generations=arguments.rollouts,
        per_device_train_batch_size=arguments.rollouts,
        max_completion_length=1024,
        max_tool_calling_iterations=30,
        logging_steps=1,
        use_cpu=arguments.cpu,
        report_to=[],
    )
    trainer = GRPOTrainer(
        model=arguments.model,
        args=config,
        train_dataset=Dataset.from_list(tasks(arguments.tasks)),
        environment_factory=lambda: Household(arguments.url),
    )
    trainer.train()


if __name__ == "__main__":
    main()
