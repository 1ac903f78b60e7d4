"""Goldens of GGUF reading, made with numpy and the `gguf` package.

    python tools/gguf_goldens.py crates/llm/tests/goldens [--model SmolLM2-135M-Instruct.Q4_1.gguf]

Writes `gguf_blocks.json` (stored blocks of every element type and their values), `tiny_llama.gguf`,
`tiny_qwen2.gguf` and `tiny_qwen3.gguf` (whole files of mixed types) with `tiny_gguf.json` (fingerprints of their
tensors under Hugging Face names and order), and with --model `smollm2_gguf.json`: fingerprints of
the tensors that `transformers` reads from the real file, and token ids of a sample of texts.

Needs: numpy, gguf; with --model also torch, transformers, tokenizers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter, TokenType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize

KINDS = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
# Where the half-precision scales of a block lie; random bits there would be NaN now and then.
SCALES = {"Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

SAMPLE = [
    "Hello, world! It's 2 o'clock; they'll've left by 10:45.",
    "  leading and  double  blanks,\ttabs\n\n\nand lines \n ",
    "You are in the middle of a room. Looking quickly around you, you see a cabinet 14.",
    "Größe, naïve façade, Übermut; ça va? ¿Qué tal? Łódź žluťoučký kůň",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. 1917 год",
    "今日はいい天気ですね。東京タワーは333メートルです。中文字符,繁體字",
    "한국어 문장도 있습니다. مرحبا بالعالم ١٢٣ שלום עולם हिन्दी १२३ ไทย",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 ❤️ 👍🏽 flags 🇩🇪🇯🇵 and ∑∫√≠∞ ½ ² ①",
    "def f(x: int) -> dict[str, float]:\n    return {\n        'a': 1.5e-3,\n        \"b\": x ** 2,\n    }\n",
    "for (int i = 0; i < 100; ++i) { a[i] += 0x1F & ~mask; } // TODO: 42%\n",
    "SELECT COUNT(*) FROM t WHERE id IN (1,22,333,4444);\r\n\t-- done",
    "<think>goal</think><action>go to cabinet 1</action>",
    "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n",
    "e\u0301 is not \u00e9; \u200bzero\u00a0width \ufeffmarks",
    "x  1\n\n\n2\n    3",
    "",
]


def fingerprint(values: np.ndarray) -> str:
    """FNV-1a over the little-endian bytes of f32 values."""
    state = np.uint64(0xCBF29CE484222325)
    words = np.ascontiguousarray(values, dtype="<f4").reshape(-1).view("<u4")
    # Whole words instead of bytes: as telling, four times as fast.
    hashed = int(state)
    for word in words.tolist():
        hashed = ((hashed ^ word) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{hashed:016x}"


def blocks(seed: int) -> dict[str, Any]:
    """Stored bytes of every type and what they mean."""
    random = np.random.default_rng(seed)
    out: dict[str, Any] = {}
    for name in KINDS:
        kind = Type[name]
        count, size = GGML_QUANT_SIZES[kind]
        total = 512 if count == 256 else 96
        if name in SCALES:
            raw = random.integers(0, 256, (total // count, size), dtype=np.uint8)
            for at in SCALES[name]:
                scale = random.uniform(-0.01, 0.01, (total // count, 1)).astype("<f2")
                raw[:, at : at + 2] = scale.view(np.uint8)
        else:
            raw = quantize(random.normal(0, 1, (1, total)).astype(np.float32), kind)
        raw = np.ascontiguousarray(raw).view(np.uint8).reshape(1, -1)
        if name == "F32":
            values = raw.view("<f4")
        elif name == "F16":
            values = raw.view("<f2").astype(np.float32)
        else:
            values = dequantize(raw, kind)
        out[name] = {
            "bytes": raw.tobytes().hex(),
            "values": np.ascontiguousarray(values, dtype="<f4").tobytes().hex(),
        }
    return out


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a rotary projection in the order of GGUF's `llama` files."""
    shape = rows.shape
    return rows.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def separate(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `interleave`."""
    shape = rows.shape
    return rows.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def byte_tokens() -> list[str]:
    """The 256 characters of byte-level BPE, in order of bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def tiny(path: Path, arch: str, seed: int) -> dict[str, str]:
    """Writes a small file and returns the fingerprints of its tensors."""
    random = np.random.default_rng(seed)
    hidden, inter, heads, kv, dim, layers = 64, 96, 4, 2, 16, 2
    if arch == "qwen3":
        dim = 32  # heads wider together than the model
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2"]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *byte_tokens()]
    tokens += [m.replace(" ", "") for m in merges] + ["<extra>", "[PAD266]"]
    types = [TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 5)
    types += [TokenType.USER_DEFINED, TokenType.UNUSED]
    writer = GGUFWriter(str(path), arch)
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inter)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_rope_dimension_count(dim)
    if arch == "qwen3":
        writer.add_key_length(dim)
        writer.add_value_length(dim)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm" if arch == "llama" else "qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([int(t) for t in types])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(arch == "llama")
    writer.add_chat_template("{{ messages[0]['content'] }}")
    prints: dict[str, str] = {}

    def add(hf: str, name: str, shape: tuple[int, ...], kind: str, rotary: int = 0) -> None:
        values = random.normal(0, 0.2, shape).astype(np.float32)
        if rotary:
            values = interleave(values, rotary)
        if kind == "F32":
            writer.add_tensor(name, values)
            back = values
        else:
            raw = quantize(values, Type[kind])
            writer.add_tensor(name, raw, raw_dtype=Type[kind])
            back = raw.astype(np.float32) if kind == "F16" else dequantize(raw, Type[kind])
            back = back.reshape(shape)
        prints[hf] = fingerprint(separate(back, rotary) if rotary else back)

    turns = arch == "llama"
    add("model.embed_tokens.weight", "token_embd.weight", (len(tokens), hidden), "Q8_0")
    for layer in range(layers):
        hf, name = f"model.layers.{layer}.", f"blk.{layer}."
        add(hf + "input_layernorm.weight", name + "attn_norm.weight", (hidden,), "F32")
        for part, rows, kind, rotary in [
            ("q", heads, "Q4_0", heads),
            ("k", kv, "Q4_1", kv),
            ("v", kv, "Q5_0", 0),
        ]:
            shape = (rows * dim, hidden)
            order = rotary if turns else 0
            add(f"{hf}self_attn.{part}_proj.weight", f"{name}attn_{part}.weight", shape, kind, order)
            if arch == "qwen2":
                bias = (rows * dim,)
                add(f"{hf}self_attn.{part}_proj.bias", f"{name}attn_{part}.bias", bias, "F32")
            if arch == "qwen3" and part != "v":
                hf_norm = f"{hf}self_attn.{part}_norm.weight"
                add(hf_norm, f"{name}attn_{part}_norm.weight", (dim,), "F32")
        add(hf + "self_attn.o_proj.weight", name + "attn_output.weight", (hidden, heads * dim), "F16")
        add(hf + "post_attention_layernorm.weight", name + "ffn_norm.weight", (hidden,), "F32")
        add(hf + "mlp.gate_proj.weight", name + "ffn_gate.weight", (inter, hidden), "BF16")
        add(hf + "mlp.up_proj.weight", name + "ffn_up.weight", (inter, hidden), "Q5_1")
        add(hf + "mlp.down_proj.weight", name + "ffn_down.weight", (hidden, inter), "Q4_1")
    add("model.norm.weight", "output_norm.weight", (hidden,), "F32")
    if arch == "qwen2":
        add("lm_head.weight", "output.weight", (len(tokens), hidden), "F16")
    else:
        writer.add_tensor("rope_freqs.weight", np.ones(dim // 2, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return prints


def real(path: Path) -> dict[str, Any]:
    """What `transformers` makes of the real file."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32
    )
    wanted = ["embed_tokens", "layers.0.", "layers.17.self_attn", "layers.29.mlp", "model.norm"]
    tensors = {
        name: fingerprint(value.numpy())
        for name, value in model.state_dict().items()
        if any(part in name for part in wanted) and not name.startswith("lm_head")
    }
    # The published tokenizer takes every digit for itself; the conversion in `transformers` does
    # not, so its pieces are set here from the file's lists.
    fields = GGUFReader(str(path)).fields
    tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
    kinds: list[int] = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([t for t, k in zip(tokens, kinds, strict=True) if k == 3])
    ids = {text: tokenizer.encode(text, add_special_tokens=False).ids for text in SAMPLE}
    return {"tensors": tensors, "tokens": ids}


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, help="the real GGUF file")
    args = parser.parse_args()
    goldens: dict[str, Any] = {"gguf_blocks.json": blocks(7)}
    goldens["tiny_gguf.json"] = {
        f"tiny_{arch}.gguf": tiny(args.out / f"tiny_{arch}.gguf", arch, seed)
        for arch, seed in [("llama", 1), ("qwen2", 2), ("qwen3", 3)]
    }
    if args.model:
        goldens["smollm2_gguf.json"] = real(args.model)
    for name, content in goldens.items():
        text = json.dumps(content, indent=1, ensure_ascii=True)
        (args.out / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
