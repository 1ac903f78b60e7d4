"""Opens a GGUF file with llama.cpp and compares it with another.

    python tools/check_gguf.py EXPORT.gguf SOURCE.gguf [--tolerance 0.05]

Both answer the same prompts greedily; the log-probabilities of the first token's three likeliest
candidates must agree within the tolerance (nats), and the tokens of a sample of texts exactly.
Best against an export in f32: quantised sources round activations too, by some tenths of a nat.

Needs: xllamacpp (wheels of llama.cpp with its server).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.request
from typing import Any

PROMPTS = [
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "The three primary colors are",
    "def add(a, b):\n    return",
]
TEXTS = [
    "Hello, world! 12 345",
    "Größe, 今日は, привет 😀",
    "for (int i = 0; i < 100; ++i) {\n    a[i] += 1;\n}\n\n\n2",
    "<|im_start|>user\n<|im_end|>",
]


def answers(path: str) -> dict[str, Any]:
    """What llama.cpp makes of the prompts and texts with the model in a file."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 512
    server = xllamacpp.Server(params)

    def post(route: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            server.listening_address + route,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as reply:
            return json.load(reply)

    tokens = [post("/tokenize", {"content": t, "parse_special": True})["tokens"] for t in TEXTS]
    replies = []
    for prompt in PROMPTS:
        body = {"prompt": prompt, "n_predict": 12, "temperature": 0, "n_probs": 3}
        reply = post("/completion", body)
        first = reply["completion_probabilities"][0]["top_logprobs"]
        likely = {c["token"]: c["logprob"] for c in first}
        replies.append({"text": reply["content"], "likely": likely})
    return {"tokens": tokens, "replies": replies}


def in_child(path: str) -> dict[str, Any]:
    """One server a process: it does not always stop."""
    read, write = os.pipe()
    if os.fork() == 0:
        with os.fdopen(write, "w") as out:
            json.dump(answers(path), out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as source:
        return json.load(source)


def main() -> int:
    """Compares; 0 if they agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export")
    parser.add_argument("source")
    parser.add_argument("--tolerance", type=float, default=0.05)
    args = parser.parse_args()
    export, source = in_child(args.export), in_child(args.source)
    same = export["tokens"] == source["tokens"]
    worst = 0.0
    for left, right in zip(export["replies"], source["replies"], strict=True):
        print(json.dumps({"export": left["text"], "source": right["text"]}, ensure_ascii=False))
        shared = left["likely"].keys() & right["likely"].keys()
        differences = [abs(left["likely"][t] - right["likely"][t]) for t in shared]
        worst = max([worst, *differences]) if len(shared) >= 2 else float("inf")
    print(json.dumps({"tokens_equal": same, "largest_difference": worst}))
    return 0 if same and worst <= args.tolerance else 1


if __name__ == "__main__":
    sys.exit(main())
