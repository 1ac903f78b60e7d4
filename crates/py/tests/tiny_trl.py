"""What the tests of the TRL integration train: a random model of 30,000 weights, bytes as tokens."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>"]


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the marks of the Qwen3 chat template, which knows tools."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters])}
    tokens = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokens, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    made.add_special_tokens({"additional_special_tokens": SPECIAL[1:3]})
    made.chat_template = chat_template()
    return made


def chat_template() -> str:
    """Qwen3's, as the installed TRL knows it: a file, or a string in early versions."""
    file = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
    return file.read_text() if file.exists() else str(trl.chat_template_utils.qwen3_chat_template)


def model(seed: int = 0, positions: int = 2048) -> Qwen3ForCausalLM:
    """A random policy whose entropies differ from token to token."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(SPECIAL) + 256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        eos_token_id=2,
        pad_token_id=0,
    )
    made = Qwen3ForCausalLM(config)
    with torch.no_grad():
        made.model.embed_tokens.weight.mul_(12.0)
    return made


def prompts(count: int = 4) -> Dataset:
    return Dataset.from_dict({"prompt": [f"task {index}: go" for index in range(count)]})


def reward(completions: list[str], **_: Any) -> list[float]:
    """Different within a group for any random completions."""
    return [(sum(text.encode()) % 7) / 7 for text in map(str, completions)]


def arguments(kind: Any, folder: Path, **changes: Any) -> Any:
    """A configuration that trains two steps of one generation each."""
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": 12,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "beta": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "seed": 7,
    }
    settings.update(changes)
    return kind(**settings)


def turns(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """A rollout of one to three turns with observations between, the same in every process.

    Prompts come already repeated; the n-th completion of a prompt depends on both only. The last
    completion of a group has the greatest length, so that padding does not depend on the sharding.
    """
    longest, tokens = 24, trainer.processing_class
    seen: dict[str, int] = {}
    out: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "logprobs": [], "env_mask": []}
    for prompt in prompts:
        nth = seen[prompt] = seen.get(prompt, -1) + 1
        draw = random.Random(f"{prompt} {nth} {trainer.state.global_step}")
        ids: list[int] = []
        mask: list[int] = []
        for turn in range(draw.randint(1, 3)):
            if turn:
                observed = draw.randint(1, 3)
                ids += [draw.randrange(20, 200) for _ in range(observed)]
                mask += [0] * observed
            spoken = draw.randint(1, 5)
            ids += [draw.randrange(20, 200) for _ in range(spoken)]
            mask += [1] * spoken
        if nth == trainer.num_generations - 1:
            ids += [9] * (longest - len(ids))
            mask += [0] * (longest - len(mask))
        out["prompt_ids"].append(tokens(prompt)["input_ids"])
        out["completion_ids"].append(ids)
        out["env_mask"].append(mask)
        out["logprobs"].append([0.0] * len(ids))
    return out


def watched(kind: type) -> type:
    """`kind`, remembering the generation batches that it made and the entropies that it saw."""

    class Watched(kind):  # type: ignore[misc]
        empg_per_token_loss = True

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.batches: list[dict[str, Any]] = []
            self.losses: list[float] = []
            self.passes = 0
            super().__init__(*args, **kwargs)

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            self.passes += 1
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            batch = super()._generate_and_score_completions(inputs)
            self.batches.append({name: value for name, value in batch.items() if torch.is_tensor(value)})
            return batch

        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            loss = super()._compute_loss(model, inputs)
            self.losses.append(loss.item())
            return loss

    return Watched


def train(kind: type, config: Any, **changes: Any) -> Any:
    settings: dict[str, Any] = {"reward_funcs": reward, "train_dataset": prompts()}
    settings.update(changes)
    trainer = kind(
        model=settings.pop("model", None) or model(), args=config, processing_class=tokenizer(), **settings
    )
    trainer.train()
    return trainer


def steps_of(batch: dict[str, Any]) -> np.ndarray:
    mask = batch["completion_mask"] * batch.get("tool_mask", torch.ones_like(batch["completion_mask"]))
    return mask.numpy()


def entropies(policy: Any, batch: dict[str, Any], temperature: float = 1.0) -> np.ndarray:
    """(B, T) entropies of the completions from plain logits, one row at a time."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    width = batch["completion_ids"].shape[1]
    rows = []
    with torch.no_grad():
        for row in range(len(ids)):
            logits = policy(input_ids=ids[row : row + 1], attention_mask=attention[row : row + 1]).logits[0]
            logp = torch.log_softmax(logits[-width - 1 : -1].double() / temperature, dim=-1)
            rows.append(-(logp.exp() * logp).sum(-1).numpy())
    return np.stack(rows)


def paper(
    advantages: np.ndarray, entropy: np.ndarray, mask: np.ndarray, k: float = 1.0, k_f: float = 1.0, zeta: float = 0.1
) -> np.ndarray:
    """EMPG from the paper's equations, step by step, in plain Python and f64."""
    steps = []
    for row in range(len(mask)):
        start, number = None, 0
        for token in range(mask.shape[1] + 1):
            inside = token < mask.shape[1] and mask[row, token] == 1
            if inside and start is None:
                start = token
            if not inside and start is not None:
                steps.append((row, number, start, token, float(np.mean(entropy[row, start:token]))))
                start, number = None, number + 1
    lowest = min(step[-1] for step in steps)
    highest = max(step[-1] for step in steps)
    normal = [(step[-1] - lowest) / (highest - lowest + 1e-8) for step in steps]
    weight = [np.exp(-k * value) for value in normal]
    mean = sum(weight) / len(weight) + 1e-8
    credit = []
    for index, (row, _, _, _, _) in enumerate(steps):
        follows = index + 1 < len(steps) and steps[index + 1][0] == row
        bonus = zeta * np.exp(-k_f * normal[index + 1]) if follows else 0.0
        credit.append(float(advantages[row]) * weight[index] / mean + bonus)
    centre = sum(credit) / len(credit)
    out = np.zeros(mask.shape)
    for (row, _, start, end, _), value in zip(steps, credit, strict=True):
        out[row, start:end] = value - centre
    return out
