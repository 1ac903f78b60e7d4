#!/usr/bin/env python3
"""Writes what crates/llm is compared with on whole models, by running them in transformers.

    python -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python tools/model_goldens.py tiny crates/llm/tests/goldens
    venv/bin/python tools/model_goldens.py smollm2 MODELS/smollm2-hf crates/llm/tests/goldens
    venv/bin/python tools/model_goldens.py templates MODELS/chat_templates.json SITE-PACKAGES/trl/chat_templates

`tiny` makes a random Qwen2 (bf16, in several files with an index) and a random Qwen3 (f32, one
file) with a byte-level tokenizer of their own, each a folder as `save_pretrained` leaves it, and
`expected.json` beside the weights: texts, their tokens, log-probabilities and entropies in f32,
and a conversation.

`smollm2` reads SmolLM2-135M-Instruct in f32 (the dequantised weights of its GGUF) and writes
`smollm2.json`: five prompts of up to 512 tokens with log-probabilities and entropies, the tokens of
a sample in many scripts, conversations.

`templates` renders conversations with the Jinja files of a folder. Its output holds those files'
text, which is others' work, and is not versioned.
"""

import argparse
import json
from pathlib import Path
from typing import Any

SAMPLE = (
    "Grüße aus Köln! Ça va? ¿Qué tal? Żółć, naïve façade — “quotes” … 3½ × 10⁻⁶ €\n"
    "日本語のテキスト、中文字符，한국어 문장. Привет, мир! שלום עולם مرحبا بالعالم नमस्ते ไทย ελληνικά\n"
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 👍🏽 ☕️ 🤖🎉 é (e + U+0301) ﬁ ﷺ \u200b zero\u00a0width\ttab\r\n"
    "fn main() {\n    let x: Vec<u32> = (0..10).map(|i| i * 0x1F).collect(); // '\"\\n\\t\\\\\n}\n"
    "def f(a, *, b=None):\n\treturn {**a, 'k': [1_000, 2.5e-3]} if b is not None else lambda: ...\n"
    "SELECT * FROM t WHERE a >= 10 AND b LIKE '%x%';   trailing spaces   \n\n\n12345678901 1st 2nd "
    "I'm you're they'll WE'VE don't o'clock <|im_start|>user<|im_end|> <|endoftext|></s>"
)

CHATS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "Where is the mug?"}], "add_generation_prompt": True},
    {
        "messages": [
            {"role": "system", "content": "You play a household game.\nAnswer briefly."},
            {"role": "user", "content": "  You are in a kitchen.  "},
            {"role": "assistant", "content": "<think>\nLook first.\n</think>\n\nlook"},
            {"role": "user", "content": "You see a mug 🍵 & a <table>."},
        ],
        "add_generation_prompt": True,
    },
    {
        "messages": [
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": "<think>a</think>two"},
            {"role": "user", "content": "Three"},
            {"role": "assistant", "content": "four"},
        ],
        "add_generation_prompt": False,
    },
]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Finds a <word> & its \"meaning\" – é",
            "parameters": {
                "type": "object",
                "properties": {"word": {"type": "string"}, "n": {"type": "number", "default": 1.5}},
                "required": ["word"],
            },
        },
    }
]

TOOL_CHATS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "system", "content": "Use tools."},
            {"role": "user", "content": "What is a quern?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "type": "function",
                        "function": {"name": "look_up", "arguments": {"word": "quern", "n": 2}},
                    },
                    {
                        "type": "function",
                        "function": {"name": "look_up", "arguments": {"word": "mühle"}},
                    },
                ],
            },
            {"role": "tool", "name": "look_up", "content": "a hand mill"},
            {"role": "tool", "name": "look_up", "content": "mill"},
            {"role": "assistant", "content": "A hand mill."},
            {"role": "user", "content": "Thanks."},
        ],
        "tools": TOOLS,
        "add_generation_prompt": True,
    },
    {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "reasoning_content": "Greet.", "content": "Hello!"},
            {"role": "user", "content": "Bye"},
        ],
        "tools": TOOLS,
        "add_generation_prompt": True,
        "enable_thinking": False,
    },
]


def scores(model: Any, tokens: list[int], temperature: float = 1.0) -> dict[str, Any]:
    """Log-probability and entropy of every token after the first, in nats."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, :-1].double() / temperature
    logp = torch.log_softmax(logits, dim=-1)
    chosen = logp.gather(-1, torch.tensor(tokens)[1:, None])[:, 0]
    entropy = -(logp.exp() * logp).sum(-1)
    digits = 6
    return {
        "tokens": tokens,
        "temperature": temperature,
        "logprobs": [round(x, digits) for x in chosen.tolist()],
        "entropy": [round(x, digits) for x in entropy.tolist()],
    }


def as_text(chat: dict[str, Any]) -> str:
    """The variables of a template, their keys in order."""
    return json.dumps(chat, ensure_ascii=False)


def chats(tokenizer: Any, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Conversations with their text by the tokenizer's template."""
    rendered = []
    for chat in given:
        rest = {k: v for k, v in chat.items() if k != "messages"}
        text = tokenizer.apply_chat_template(chat["messages"], tokenize=False, **rest)
        rendered.append({"variables": as_text(chat), "text": text})
    return rendered


def write(path: Path, value: Any) -> None:
    """One line a value of the outermost object or list, so that a change is readable."""
    lines = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    path.write_text(lines.replace('},{"', '},\n{"') + "\n", encoding="utf-8")
    print(path, path.stat().st_size)


def byte_tokenizer() -> Any:
    """A byte-level tokenizer with a few merges, learnt from this file's sample."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.NFC()
    words = r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([SAMPLE], trainer)
    template = (
        "{%- for message in messages %}\n"
        "    {%- if loop.first and message.role != 'system' %}\n"
        "        {{- '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}\n"
        "    {%- endif %}\n"
        "    {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}\n"
        "{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n"
        "    {{- '<|im_start|>assistant\\n' }}\n"
        "{%- endif %}\n"
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
    )


def tiny(folder: Path) -> None:
    """The random Qwen2 and Qwen3 folders."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        GenerationConfig,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    shape = dict(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rms_norm_eps=1e-6,
        rope_theta=10_000.0,
        bos_token_id=None,
        eos_token_id=2,
        attn_implementation="eager",
    )
    tokenizer = byte_tokenizer()
    shape["vocab_size"] = len(tokenizer) + 4
    for name in ("qwen2", "qwen3"):
        torch.manual_seed(len(name) + int(name[-1]))
        if name == "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=False))
        else:
            model = Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=16, tie_word_embeddings=True))
        with torch.no_grad():
            for key, p in model.named_parameters():
                centre = 1.0 if key.endswith("norm.weight") else 0.0
                p.copy_(centre + 0.2 * torch.randn_like(p))
        model.generation_config = GenerationConfig(
            do_sample=True, temperature=0.7, top_k=20, top_p=0.8, eos_token_id=[2, 0], pad_token_id=0
        )
        out = folder / f"{name}-tiny"
        half = name == "qwen2"
        if half:
            model = model.to(torch.bfloat16)
        model.save_pretrained(out, max_shard_size="24KB" if half else "5GB")
        tokenizer.save_pretrained(out)
        exact = AutoModelForCausalLM.from_pretrained(
            out, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        texts = [SAMPLE, "The mug is on the table.\n"]
        tokens = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
        expected = {
            "texts": texts,
            "tokens": tokens,
            "scores": [scores(exact, tokens[0][:120]), scores(exact, tokens[1], 0.7)],
            "chats": chats(tokenizer, CHATS),
        }
        write(out / "expected.json", expected)


def published(tokenizer: Any) -> Any:
    """The tokenizer as its authors publish it: the conversion of the GGUF that made the folder
    loses that digits stand alone, which shows where blanks come before them."""
    from tokenizers import Tokenizer, pre_tokenizers

    inner = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return inner


def smollm2(model_dir: Path, folder: Path) -> None:
    """The real model's goldens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=torch.float32, attn_implementation="eager"
    ).eval()

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    root = Path(__file__).resolve().parent.parent
    chat = tokenizer.apply_chat_template(
        CHATS[1]["messages"], tokenize=False, add_generation_prompt=True
    )
    generator = torch.Generator().manual_seed(0)
    prompts = [
        scores(model, encode((root / "README.md").read_text(encoding="utf-8"))[:512]),
        scores(model, encode(Path(__file__).read_text(encoding="utf-8"))[-512:]),
        scores(model, encode(SAMPLE)),
        scores(model, encode(chat), 0.7),
        scores(model, torch.randint(0, 49_152, (64,), generator=generator).tolist()),
    ]
    expected = {
        "sample": SAMPLE,
        "converted_tokens": encode(SAMPLE),
        "sample_tokens": published(tokenizer).encode(SAMPLE, add_special_tokens=False).ids,
        "prompts": prompts,
        "chats": chats(tokenizer, CHATS),
    }
    write(folder / "smollm2.json", expected)


def templates(out: Path, folder: Path) -> None:
    """Renders with every template of the folder; those that refuse a conversation skip it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    specials = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    cases = []
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for chat in CHATS + TOOL_CHATS:
            rest = {k: v for k, v in chat.items() if k not in ("messages", "tools")}
            try:
                texts, _ = render_jinja_template(
                    [chat["messages"]],
                    tools=chat.get("tools"),
                    chat_template=source,
                    **rest,
                    **specials,
                )
                text = texts[0]
            except Exception as error:  # noqa: BLE001 - templates raise what they like
                text = None
                print(path.name, "refuses:", str(error)[:80])
            cases.append({"name": path.name, "source": source, "variables": as_text(chat), "text": text})
    write(out, {"specials": specials, "cases": cases})


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, arguments in (
        ("tiny", ["folder"]),
        ("smollm2", ["model", "folder"]),
        ("templates", ["out", "folder"]),
    ):
        command = commands.add_parser(name)
        for argument in arguments:
            command.add_argument(argument, type=Path)
    given = parser.parse_args()
    if given.command == "tiny":
        tiny(given.folder)
    elif given.command == "smollm2":
        smollm2(given.model, given.folder)
    else:
        templates(given.out, given.folder)


if __name__ == "__main__":
    main()
