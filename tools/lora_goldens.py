#!/usr/bin/env python3
"""Writes crates/llm/tests/goldens/lora: adapters on the golden Llama, saved and run by PEFT.

    python -m venv venv && venv/bin/pip install torch transformers safetensors peft
    venv/bin/python tools/lora_goldens.py crates/llm/tests/goldens

The folder gets what `save_pretrained` writes (adapter_config.json, adapter_model.safetensors) and
golden.safetensors: `logits`, `logprob` and `entropy` of the golden Llama's tokens with the adapters
on, `grad.*` the gradient of every A and B. The loss is that of `llm_goldens.py`. All in f32 from a
computation in f64.
"""

import json
import sys
from pathlib import Path

import torch
from llm_goldens import TEMPERATURE, build, distribution
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "crates/llm/tests/goldens")
    torch.set_num_threads(1)
    golden = json.loads((folder / "llama.json").read_text())
    tensors = load_file(folder / "llama.safetensors")
    model, _ = build("llama")
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(tensors[f"param.{key}"])
    config = LoraConfig(
        r=3, lora_alpha=5, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, config)
    torch.manual_seed(5)
    with torch.no_grad():
        for key, p in adapted.named_parameters():
            if "lora_" in key:
                p.copy_(0.2 * torch.randn_like(p))
    out = folder / "lora"
    adapted.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    # The folder in which the script ran is of no interest.
    text = json.loads((out / "adapter_config.json").read_text())
    text["base_model_name_or_path"] = "golden/llama"
    (out / "adapter_config.json").write_text(json.dumps(text, indent=1, sort_keys=True) + "\n")

    exact = adapted.double()
    tokens = torch.tensor(golden["tokens"])
    a = torch.tensor(golden["coefficient_a"], dtype=torch.float64)
    b = torch.tensor(golden["coefficient_b"], dtype=torch.float64)
    logits, logp, entropy = distribution(exact, tokens, TEMPERATURE)
    loss = -(a * logp.flatten() + b * entropy.flatten()).mean()
    loss.backward()
    written = {
        "logits": logits.detach().float(),
        "logprob": logp.detach().float(),
        "entropy": entropy.detach().float(),
    }
    for key, p in exact.named_parameters():
        if p.grad is not None:
            written["grad." + key.replace(".default.", ".")] = p.grad.float()
    save_file({k: t.contiguous() for k, t in written.items()}, out / "golden.safetensors")
    print(loss.item(), len(written), "tensors")


if __name__ == "__main__":
    main()
