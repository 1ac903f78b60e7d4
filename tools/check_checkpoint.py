"""Does a checkpoint mean the same to transformers as to this engine?

    cargo run --release -p empg-llm --example checkpoint_probe -- DIR
    python tools/check_checkpoint.py DIR

Opens DIR with AutoModelForCausalLM (adapters with PEFT's AutoPeftModelForCausalLM) and
AutoTokenizer and compares tokens, the rendered conversation, log-probabilities and entropies with
DIR/probe.json. Needs torch and transformers, and peft where DIR holds adapters.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BOUND = 1e-4


def open_model(directory: Path) -> torch.nn.Module:
    if (directory / "adapter_config.json").exists():
        from peft import AutoPeftModelForCausalLM

        return AutoPeftModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    directory = Path(sys.argv[1])
    probe = json.loads((directory / "probe.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = open_model(directory).eval()
    failures = 0

    for case in probe["texts"]:
        found = tokenizer.encode(case["text"], add_special_tokens=False)
        if found != case["tokens"]:
            failures += 1
            print(f"tokens differ: {case['text']!r}\n  here {case['tokens']}\n  there {found}")

    rendered = tokenizer.apply_chat_template(
        probe["messages"], add_generation_prompt=True, tokenize=False
    )
    found = tokenizer.encode(rendered, add_special_tokens=False)
    if found != probe["tokens"]:
        failures += 1
        print(f"conversation differs:\n  here {probe['tokens']}\n  there {found}")

    ids = torch.tensor([probe["tokens"]])
    with torch.no_grad():
        logp = torch.log_softmax(model(ids).logits[0, :-1].double(), dim=-1)
    chosen = logp.gather(1, ids[0, 1:, None])[:, 0]
    entropy = -(logp.exp() * logp).sum(dim=-1)
    for name, there in [("logprobs", chosen), ("entropies", entropy)]:
        gap = (there - torch.tensor(probe[name], dtype=torch.float64)).abs().max().item()
        print(f"{name}: {len(there)} values, largest difference {gap:.2e}")
        failures += gap > BOUND
    print("equal" if failures == 0 else f"{failures} differences")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
