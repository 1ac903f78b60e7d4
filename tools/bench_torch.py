#!/usr/bin/env python3
"""Tokens a second that PyTorch trains at, for the shape of `empg bench train`.

    python tools/bench_torch.py --dtype bf16 --batch 4 --seq 512 --steps 3 --json

`LlamaForCausalLM` of transformers with random weights of SmolLM2-135M's shape: forward, backward and
loss on every position; with --optimizer also a step of torch's AdamW. The seconds are the median of
the steps after the first.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from typing import Any

SHAPE: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--optimizer", action="store_true", help="a step of AdamW as well")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if min(args.batch, args.seq, args.steps, args.threads) < 1:
        parser.error("counts begin at 1")

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    model.to(torch.bfloat16 if args.dtype == "bf16" else torch.float32).train()
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4) if args.optimizer else None
    tokens = torch.randint(0, SHAPE["vocab_size"], (args.batch, args.seq))
    seconds = []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        model(input_ids=tokens, labels=tokens).loss.backward()
        if optimizer is not None:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    step = statistics.median(seconds[1:])
    result = {
        "tokens_per_s": args.batch * args.seq / step,
        "seconds": step,
        "dtype": args.dtype,
        "threads": args.threads,
        "torch": torch.__version__,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(
            f"PyTorch {result['torch']} {args.dtype}: {result['tokens_per_s']:.1f} tokens/s, "
            f"{step:.2f} s a step, {result['peak_memory_bytes'] / 1e9:.1f} GB"
        )


if __name__ == "__main__":
    main()
