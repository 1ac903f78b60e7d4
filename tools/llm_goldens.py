#!/usr/bin/env python3
"""Writes the goldens of crates/llm: tiny random Llama, Qwen2 and Qwen3 models, and a Llama with
scaled rotary frequencies, run in PyTorch.

    python -m venv venv && venv/bin/pip install torch transformers safetensors
    venv/bin/python tools/llm_goldens.py crates/llm/tests/goldens [NAME ...]

For each model it writes NAME.json (the configuration as transformers saves it, token ids, losses)
and NAME.safetensors: `param.*` the weights, `logits`, `logprob` and `entropy` at temperature T,
`grad.*` the gradient of every weight. All in f32 from a computation in f64, except the ten
training losses, which are AdamW steps in f32.

The loss is the mean over predicted tokens of  -a_i * logp_i - b_i * H_i  with fixed a_i and b_i
(`coefficient_a`, `coefficient_b`), so that the entropy's gradient is covered as well. Training
minimises the plain mean of -logp at T = 1.
"""

import copy
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SHAPE = dict(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    attn_implementation="eager",
)
TEMPERATURE = 0.8
ADAMW = dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)


def build(name):
    torch.manual_seed({"llama": 1, "qwen2": 2, "qwen3": 3, "llama3": 4}[name])
    rope = {"rope_type": "default", "rope_theta": 500.0}
    if name == "llama3":
        # One frequency stays, one is mixed, two are divided.
        rope |= {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    if name in ("llama", "llama3"):
        config = LlamaConfig(
            **SHAPE, head_dim=8, tie_word_embeddings=True, rope_parameters=rope
        )
        model = LlamaForCausalLM(config)
    elif name == "qwen3":
        config = Qwen3Config(
            **SHAPE, head_dim=10, tie_word_embeddings=True, rope_parameters=rope
        )
        model = Qwen3ForCausalLM(config)
    else:
        config = Qwen2Config(**SHAPE, tie_word_embeddings=False, rope_parameters=rope)
        model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for key, p in model.named_parameters():
            centre = 1.0 if key.endswith("norm.weight") else 0.0
            p.copy_(centre + 0.25 * torch.randn_like(p))
    return model.eval(), json.loads(config.to_json_string(use_diff=False))


def distribution(model, tokens, temperature):
    logits = model(tokens).logits
    logp = torch.log_softmax(logits[:, :-1] / temperature, dim=-1)
    chosen = logp.gather(-1, tokens[:, 1:, None])[..., 0]
    entropy = -(logp.exp() * logp).sum(-1)
    return logits, chosen, entropy


def write(name, folder):
    model, config = build(name)
    tokens = torch.randint(0, SHAPE["vocab_size"], (2, 19))
    count = tokens.numel() - tokens.shape[0]
    index = torch.arange(count, dtype=torch.float64)
    a, b = torch.sin(index + 0.5), 0.3 * torch.cos(0.7 * index)

    tensors = {f"param.{k}": p.detach().clone() for k, p in model.named_parameters()}
    exact = copy.deepcopy(model).double()
    logits, logp, entropy = distribution(exact, tokens, TEMPERATURE)
    loss = -(a * logp.flatten() + b * entropy.flatten()).mean()
    loss.backward()
    for key, p in exact.named_parameters():
        tensors[f"grad.{key}"] = p.grad.float()
    tensors["logits"] = logits.detach().float()
    tensors["logprob"] = logp.detach().float()
    tensors["entropy"] = entropy.detach().float()

    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        step_loss = -distribution(model, tokens, 1.0)[1].mean()
        step_loss.backward()
        optimizer.step()
        losses.append(step_loss.item())

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: t.contiguous() for k, t in tensors.items()}
    save_file(tensors, folder / f"{name}.safetensors")
    text = {
        "config": config,
        "tokens": tokens.tolist(),
        "temperature": TEMPERATURE,
        "coefficient_a": a.tolist(),
        "coefficient_b": b.tolist(),
        "loss": loss.item(),
        "adamw": {k: v for k, v in ADAMW.items()},
        "training_losses": losses,
        "torch": torch.__version__,
    }
    (folder / f"{name}.json").write_text(json.dumps(text, indent=1) + "\n")
    print(name, loss.item(), losses[0], losses[-1])


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "crates/llm/tests/goldens")
    torch.set_num_threads(1)
    for name in sys.argv[2:] or ("llama", "qwen2", "qwen3", "llama3"):
        write(name, folder)


if __name__ == "__main__":
    main()
