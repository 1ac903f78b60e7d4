"""The same numbers as `empg advantage`, to the last bit (needs EMPG_BIN, the program)."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import numpy as np
import pytest
from batches import batch
from reference import runs

import empg

PROGRAM = os.environ.get("EMPG_BIN", "")
pytestmark = pytest.mark.skipif(not PROGRAM, reason="EMPG_BIN does not name the empg program")

OPTIONS: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["--k", "2.5", "--k-f", "0.3", "--zeta", "0.7"], {"k": 2.5, "k_f": 0.3, "zeta": 0.7}),
    (["--shape", "linear", "--no-center"], {"shape": "linear", "center": False}),
    (
        ["--normalize", "quantile", "--quantile-low", "0.2", "--gate-bonus"],
        {"normalize": "quantile", "quantile": (0.2, 0.95), "gate_bonus": True},
    ),
    (["--paper-exact"], {"paper_exact": True}),
]


def credited(lines: list[dict[str, Any]], flags: list[str]) -> list[dict[str, Any]]:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    command = [PROGRAM, "advantage", *flags]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("flags,options", OPTIONS, ids=str)
@pytest.mark.parametrize("per_token", [False, True])
def test_given_advantages(flags: list[str], options: dict[str, Any], per_token: bool) -> None:
    for seed in range(3):
        advantages, entropy, mask = batch(seed, rows=12, width=300)
        entropy[~mask] = 0.0
        advantages[3] = 0.0
        if per_token:
            noise = np.random.default_rng(seed).normal(size=entropy.shape)
            advantages = advantages[:, None] + noise * (np.arange(12)[:, None] % 2)
        lines = [
            {"entropy": h.tolist(), "mask": m.astype(int).tolist(), "advantage": a.tolist()}
            for h, m, a in zip(entropy, mask, advantages)
        ]
        told = credited(lines, flags)
        got = empg.modulate(advantages, entropy, mask=mask, **options)
        assert np.array_equal(got, [line["advantages"] for line in told])
        credit = empg.explain(advantages, entropy, mask=mask, **options)
        steps = [step for line in told for step in line["credit"]]
        assert len(steps) == len(credit)
        for name, column in credit.to_dict().items():
            if name in steps[0]:
                wanted = [np.nan if step[name] is None else step[name] for step in steps]
                assert np.array_equal(column, wanted, equal_nan=True), name


@pytest.mark.parametrize("base", ["grpo", "dr-grpo", "rloo"])
def test_bases_of_groups(base: str) -> None:
    _, entropy, mask = batch(7, rows=12, width=200)
    entropy[~mask] = 0.0
    rewards = np.random.default_rng(0).random(12)
    rewards[[1, 5, 9]] = 0.3
    groups = [row % 4 for row in range(12)]
    lines = [
        {"entropy": h.tolist(), "steps": steps, "reward": reward, "group": group}
        for h, steps, reward, group in zip(entropy, runs(mask), rewards.tolist(), groups)
    ]
    told = credited(lines, ["--base", base])
    estimator = {"grpo": empg.grpo, "dr-grpo": empg.dr_grpo, "rloo": empg.rloo}[base]
    got = empg.modulate(estimator(rewards, groups), entropy, mask=mask)
    assert np.array_equal(got, [line["advantages"] for line in told])
