#!/usr/bin/env python3
"""Fine-tunes in PyTorch on the batches of `empg sft --save-batches` and compares the losses.

    empg sft --model DIR --steps 30 --lr 5e-5 --save-batches --out OUT
    python tools/sft_torch.py --model DIR --run OUT --lr 5e-5 --dtype f32

The model of transformers, torch's AdamW, the schedule and clipping of `empg sft`; --dtype bf16 is
autocast over f32 weights, PyTorch's usual mixed precision. Every step's loss stands beside the one in
OUT/sft.jsonl; the last line is the summary as JSON. Losses can be compared where observations are not
learned (--observation-weight 0, which language models start from).
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

BETAS, EPS, WEIGHT_DECAY, CLIP, WARMUP, FLOOR = (0.9, 0.95), 1e-8, 0.01, 1.0, 5, 0.1


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Half a cosine after a linear warm-up, down to a tenth; steps count from 0."""
    if step < WARMUP:
        return peak * (step + 1) / WARMUP
    progress = min((step - WARMUP) / max(steps - WARMUP, 1), 1.0)
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress)))


def lines(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> None:
    """Trains and compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="the folder that training started from")
    parser.add_argument("--run", type=Path, required=True, help="the folder of `empg sft`")
    parser.add_argument("--lr", type=float, default=1e-4, help="peak learning rate")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--steps", type=int, help="stop after so many")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()

    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(args.threads)
    batches, ours = lines(args.run / "batches.jsonl"), lines(args.run / "sft.jsonl")
    if not batches or len(batches) != len(ours):
        parser.error(f"{len(batches)} batches for {len(ours)} steps in {args.run}")
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).train()
    model.config.use_cache = False
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=BETAS, eps=EPS)
    losses: list[float] = []
    for index, (batch, our) in enumerate(zip(batches, ours, strict=True)):
        if args.steps is not None and index >= args.steps:
            break
        sequences = batch["sequences"]
        total = sum(weight for s in sequences for _, _, weight in s["targets"])
        optimizer.zero_grad(set_to_none=True)
        loss, count = 0.0, 0
        for sequence in sequences:
            rows, tokens, weights = (
                torch.tensor(x) for x in zip(*sequence["targets"], strict=True)
            )
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.dtype == "bf16"):
                logits = model(torch.tensor([sequence["tokens"]])).logits[0]
            nll = -torch.log_softmax(logits[rows].float(), -1)[torch.arange(len(rows)), tokens]
            (nll * weights).sum().div(total).backward()
            loss, count = loss + nll.sum().item(), count + len(rows)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item()
        rate = learning_rate(args.lr, index, len(batches))
        if not math.isclose(rate, our["lr"], rel_tol=1e-6):
            parser.error(f"step {index + 1} used the rate {our['lr']}, not {rate}: another --lr?")
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss / count)
        print(
            f"step {index + 1:>3}  loss {losses[-1]:.5f}  empg {our['loss']:.5f}"
            f"  norm {norm:.3f}  empg {our['grad_norm']:.3f}",
            flush=True,
        )
    mean = sum(losses) / len(losses)
    empg = sum(step["loss"] for step in ours[: len(losses)]) / len(losses)
    apart = max(abs(a / b["loss"] - 1) for a, b in zip(losses, ours, strict=False))
    summary = {"dtype": args.dtype, "steps": len(losses), "loss": mean, "empg": empg}
    print(json.dumps(summary | {"largest_difference": apart}))


if __name__ == "__main__":
    main()
