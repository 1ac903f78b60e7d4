"""Any number of processes gives the same advantages, to the bit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trl", reason="TRL is not installed")

import tiny_trl as tiny
import torch

from empg.integrations.trl import EMPGOptions, credit_rows


def shards(seed, ranks, rows, width):
    rng = np.random.default_rng(seed)
    base = torch.tensor(rng.normal(size=ranks * rows), dtype=torch.float32)
    entropy = torch.tensor(rng.gamma(1.0, size=(ranks * rows, width)), dtype=torch.float32)
    mask = torch.tensor(rng.random((ranks * rows, width)) < 0.7).long()
    mask[3] = 0
    return base, entropy, mask


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_any_number_of_ranks_gives_the_same_bits(ranks):
    rows = 12 // ranks
    base, entropy, mask = shards(5, ranks, rows, 17)
    options = EMPGOptions(k=1.5, normalize="quantile")
    whole = credit_rows(base, entropy, mask, options=options)
    slices = [slice(rank * rows, (rank + 1) * rows) for rank in range(ranks)]
    payloads = []
    for rank, part in enumerate(slices):
        # The first call of a rank only tells what it would send.
        credit_rows(
            base[part], entropy[part], mask[part], rank=rank,
            gather=lambda mine: payloads.append(mine) or [mine], options=options,
        )  # fmt: skip
    parts = [
        credit_rows(base[part], entropy[part], mask[part], rank=rank, gather=lambda _: payloads, options=options)
        for rank, part in enumerate(slices)
    ]
    assert torch.equal(torch.cat([part.advantages for part in parts]), whole.advantages)
    assert all(part.metrics(options) == whole.metrics(options) for part in parts)
    np.testing.assert_allclose(
        credit_rows(base, entropy, mask).advantages.numpy(),
        tiny.paper(base.numpy(), entropy.numpy(), mask.numpy()),
        atol=2e-5,
    )


def test_a_rank_with_a_bad_entropy_is_named_on_every_rank():
    base, entropy, mask = shards(5, 1, 6, 17)
    entropy[2, int(mask[2].argmax())] = float("nan")
    told = []
    with pytest.raises(ValueError, match="rank 0: .*entropy"):
        credit_rows(base, entropy, mask, gather=lambda mine: told.append(mine) or [mine])
    good = shards(5, 1, 6, 17)
    with pytest.raises(ValueError, match="rank 1: .*entropy"):
        credit_rows(*good, gather=lambda mine: [mine, told[0]])


def launch(folder, world):
    """Starts training in `world` processes joined by gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("trl_rank.py")
    processes = []
    for rank in range(world):
        own = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1, "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        environment = {**os.environ, **({name: str(value) for name, value in own.items()} if world > 1 else {})}
        processes.append(
            subprocess.Popen(
                [sys.executable, str(script), str(folder / f"{world}-{rank}.pt")],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
    return processes


def saw(folder, processes):
    """What each of the processes saw, once all are done."""
    for process in processes:
        told, _ = process.communicate(timeout=600)
        assert process.returncode == 0, told
    world = len(processes)
    return [torch.load(folder / f"{world}-{rank}.pt") for rank in range(world)]


def test_two_processes_train_as_one(tmp_path):
    """The first batch has the same bits; later weights differ by the order of a sum."""
    alone, joined = launch(tmp_path, 1), launch(tmp_path, 2)
    (whole,), parts = saw(tmp_path, alone), saw(tmp_path, joined)
    for name in ("completion_ids", "tool_mask", "advantages"):
        assert torch.equal(torch.cat([part["batches"][0][name] for part in parts]), whole["batches"][0][name]), name
    assert whole["batches"][0]["advantages"].std() > 0.1
    assert len(whole["batches"]) == len(parts[0]["batches"]) == 2
    for part in parts:
        for name in [name for name in whole["metrics"] if name.startswith("empg/")]:
            assert part["metrics"][name] == whole["metrics"][name], name
    later = torch.cat([part["batches"][1]["advantages"] for part in parts])
    torch.testing.assert_close(later, whole["batches"][1]["advantages"], atol=1e-4, rtol=1e-4)
    moved = 0.0
    for name, value in whole["weights"].items():
        assert torch.equal(parts[0]["weights"][name], parts[1]["weights"][name]), name
        torch.testing.assert_close(parts[0]["weights"][name], value, atol=2e-4, rtol=2e-3)
        moved = max(moved, (value - whole["start"][name]).abs().max().item())
    assert moved > 1e-3
