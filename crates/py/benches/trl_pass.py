"""What EMPG adds to a training step of TRL: python crates/py/benches/trl_pass.py [--hidden H] [--tokens N].

A random model of the given size generates with transformers, on the CPU, without a cache of compiled code; the extra
pass and the credit are timed inside the trainer, the step around them. The first step warms up and is left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import tiny_trl as tiny
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig

from empg.integrations.trl import EMPGTrainer, trainer as module


class Timed(EMPGTrainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.passes: list[float] = []
        self.scored: list[float] = []
        super().__init__(*args, **kwargs)

    def _empg_entropy(self, batch: Any) -> torch.Tensor:
        start = time.perf_counter()
        entropy = super()._empg_entropy(batch)
        self.passes.append(time.perf_counter() - start)
        return entropy

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        start = time.perf_counter()
        batch = super()._generate_and_score_completions(inputs)
        self.scored.append(time.perf_counter() - start)
        return batch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    policy = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=given.vocabulary, hidden_size=given.hidden, intermediate_size=3 * given.hidden,
            num_hidden_layers=given.layers, num_attention_heads=given.hidden // 64,
            num_key_value_heads=given.hidden // 128, head_dim=64, tie_word_embeddings=True,
        )
    )  # fmt: skip
    credit: list[float] = []
    plain = module.credit_rows

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        out = plain(*args, **kwargs)
        credit.append(time.perf_counter() - start)
        return out

    module.credit_rows = timed
    with tempfile.TemporaryDirectory() as folder:
        config = tiny.arguments(
            GRPOConfig, Path(folder), max_steps=given.steps, per_device_train_batch_size=given.rows,
            gradient_accumulation_steps=1, max_completion_length=given.tokens, learning_rate=0.0,
        )  # fmt: skip
        trainer: Any = tiny.train(Timed, config, model=policy)
    steps = [entry["step_time"] for entry in trainer.state.log_history if "step_time" in entry][1:]
    one = statistics.median
    print(f"weights {sum(p.numel() for p in policy.parameters()) / 1e6:.1f} M, {given.rows} x {given.tokens} tokens")
    print(f"step {one(steps):.2f} s, of it generating and scoring {one(trainer.scored[1:]):.2f} s")
    print(f"extra pass {one(trainer.passes[1:]):.3f} s = {one(trainer.passes[1:]) / one(steps):.1%} of the step")
    print(f"credit {one(credit[1:]) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
