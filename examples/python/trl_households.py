"""EMPG inside TRL on generated households, from nothing, on two cores in a few minutes.

    pip install 'empg[trl,envs]'
    python examples/python/trl_households.py --steps 20
    python examples/python/trl_households.py --steps 20 --no-empg    # plain GRPO

A tiny random model first reads transcripts of aimless walks, so that it knows some commands. Then
EMPGTrainer trains it by playing: the reward of an episode is the share of its commands that had an effect,
plus 1 for reaching the goal. `rollout` is a `rollout_func`: `env_mask` marks which tokens the model wrote, and
each run of them is one step for EMPG. For a pretrained model that calls tools see trl_tools.py.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig

from empg.envs import make
from empg.integrations.trl import EMPGTrainer

END = "<end>"
LONGEST_COMMAND = 12


def shown(observation: str) -> str:
    """The first lines of an observation: the tiny model reads no novels."""
    return " ".join(observation.split())[:300] + " > "


def walk(seed: int, turns: int) -> list[tuple[str, str]]:
    """(observation, command) of an aimless walk through a household."""
    env, draw = make("households", max_steps=turns + 1), random.Random(seed)
    observation, info = env.reset(seed=seed)
    told = []
    for _ in range(turns):
        command = draw.choice(list(info["admissible_commands"]))
        told.append((shown(observation), command))
        observation, _, terminated, truncated, info = env.step(command)
        if terminated or truncated:
            break
    return told


def vocabulary(walks: list[list[tuple[str, str]]]) -> PreTrainedTokenizerFast:
    """One token a word."""
    words = sorted({word for told in walks for pair in told for text in pair for word in re.findall(r"\w+|[^\w\s]", text)})
    ids = {word: index for index, word in enumerate(["<pad>", END, "<unk>", *words])}
    tokens = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", eos_token=END, unk_token="<unk>", padding_side="left"
    )


def warm_up(policy: Any, tokens: Any, walks: list[list[tuple[str, str]]], steps: int) -> None:
    """Supervised steps on the commands of the walks."""
    optimizer, draw = torch.optim.AdamW(policy.parameters(), lr=2e-3), random.Random(0)
    for step in range(steps):
        rows, targets = [], []
        for told in draw.sample(walks, 8):
            ids: list[int] = []
            labels: list[int] = []
            for seen, command in told:
                read, said = tokens(seen)["input_ids"], [*tokens(command)["input_ids"], tokens.eos_token_id]
                ids += read + said
                labels += [-100] * len(read) + said
            rows.append(torch.tensor(ids))
            targets.append(torch.tensor(labels))
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
        loss = policy(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"warm-up {step}: loss {loss.item():.3f}", flush=True)


class Play:
    """TRL's `rollout_func`: one household per completion, all of them one turn at a time."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.envs: list[Any] = []

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        tokens, device = trainer.processing_class, trainer.accelerator.device
        while len(self.envs) < len(prompts):
            self.envs.append(make("households", max_steps=self.turns, admissible=False))
        # A prompt is the number of a household: completions of a group play the same one.
        first = [env.reset(seed=int(prompt))[0] for env, prompt in zip(self.envs, prompts)]
        prompt_ids = [tokens(shown(observation))["input_ids"] for observation in first]
        completions: list[list[int]] = [[] for _ in prompts]
        mask: list[list[int]] = [[] for _ in prompts]
        effects, wins = [0] * len(prompts), [0.0] * len(prompts)
        playing, turns = list(range(len(prompts))), [0] * len(prompts)
        while playing:
            batch = tokens.pad({"input_ids": [prompt_ids[row] + completions[row] for row in playing]}, return_tensors="pt")
            with torch.no_grad():
                out = trainer.model.generate(
                    **batch.to(device), max_new_tokens=LONGEST_COMMAND, do_sample=True, top_k=0,
                    temperature=trainer.temperature,
                )  # fmt: skip
            still = []
            for row, written in zip(playing, out[:, batch["input_ids"].shape[1] :].tolist()):
                said = written[: written.index(tokens.eos_token_id) + 1] if tokens.eos_token_id in written else written
                completions[row] += said
                mask[row] += [1] * len(said)
                observation, _, terminated, truncated, info = self.envs[row].step(
                    tokens.decode(said, skip_special_tokens=True)
                )
                turns[row] += 1
                effects[row] += info["effect"]
                wins[row] = float(info["won"])
                if not (terminated or truncated):
                    read = tokens(shown(observation))["input_ids"]
                    completions[row] += read
                    mask[row] += [0] * len(read)
                    still.append(row)
            playing = still
        return {
            "prompt_ids": prompt_ids, "completion_ids": completions, "env_mask": mask,
            "logprobs": [[0.0] * len(ids) for ids in completions],
            "effect": [effect / turn for effect, turn in zip(effects, turns)], "won": wins,
        }  # fmt: skip


def effective(completions: list[str], effect: list[float], **_: Any) -> list[float]:
    return effect


def reached(completions: list[str], won: list[float], **_: Any) -> list[float]:
    return won


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--warm-up", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-empg", action="store_true")
    parser.add_argument("--out", default="runs/trl-households")
    given = parser.parse_args()

    torch.manual_seed(given.seed)
    walks = [walk(100_000 + seed, given.turns) for seed in range(200)]
    tokens = vocabulary(walks)
    policy = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokens), hidden_size=96, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=24, max_position_embeddings=2048, tie_word_embeddings=True,
            eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id,
        )
    )  # fmt: skip
    warm_up(policy, tokens, walks, given.warm_up)

    config = GRPOConfig(
        output_dir=given.out, max_steps=given.steps, learning_rate=5e-4, num_generations=8,
        per_device_train_batch_size=16, gradient_accumulation_steps=2, max_completion_length=2048, beta=0.0,
        loss_type="dapo", logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, bf16=False,
        gradient_checkpointing=False, seed=given.seed, disable_tqdm=True,
    )  # fmt: skip
    trainer = EMPGTrainer(
        model=policy,
        processing_class=tokens,
        args=config,
        reward_funcs=[effective, reached],
        train_dataset=Dataset.from_dict({"prompt": [str(seed) for seed in range(1000)]}),
        rollout_func=Play(given.turns),
        empg=not given.no_empg,
    )
    start = time.monotonic()
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "rewards/effective/mean" in entry]
    for name, part in (("first", history[:5]), ("last", history[-5:])):
        share = sum(entry["rewards/effective/mean"] for entry in part) / len(part)
        print(f"commands with an effect, {name} {len(part)} steps: {share:.1%}")
    print(f"{given.steps} steps in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
