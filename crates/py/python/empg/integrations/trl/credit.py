"""One rank's rows of a generation batch, credited with the statistics of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch

import empg

from .options import EMPGOptions

__all__ = ["Gather", "Credited", "credit_rows"]

#: Collects one object of every rank, in the order of ranks.
Gather: TypeAlias = Callable[[Any], "list[Any]"]


class Credited:
    """Modulated advantages of one rank, and the step table of all ranks."""

    def __init__(self, advantages: torch.Tensor, table: empg.StepTable, completions: int) -> None:
        self.advantages = advantages
        """(B, T): one value per completion token of this rank, 0 outside steps."""
        self.table = table
        """The steps of all ranks."""
        self.completions = completions
        """Completions of all ranks that have a step."""

    def metrics(self, options: EMPGOptions) -> dict[str, float]:
        """What the statistics of the batch came to, the same numbers on every rank."""
        if len(self.table) == 0:
            return {"empg/steps_per_completion": 0.0}
        summary = self.table.credit(**options.statistics()).summary
        return {
            "empg/g_min": float(summary["g_min"]),
            "empg/g_max": float(summary["g_max"]),
            "empg/g_std": float(summary["g_std"]),
            "empg/step_entropy_min": float(summary["entropy_min"]),
            "empg/step_entropy_mean": float(summary["entropy_mean"]),
            "empg/step_entropy_max": float(summary["entropy_max"]),
            "empg/bonus_mean": float(summary["bonus_mean"]),
            "empg/centring": float(summary["centring"]),
            "empg/steps_per_completion": len(self.table) / self.completions,
        }


def credit_rows(
    advantages: torch.Tensor,
    entropy: torch.Tensor,
    mask: torch.Tensor,
    *,
    rank: int = 0,
    gather: Gather = lambda mine: [mine],
    options: EMPGOptions = EMPGOptions(),
) -> Credited:
    """Modulates the advantages of one rank's rows; a collective call.

    Row b of this rank is trajectory ``rank * B + b`` of the batch, so that any number of ranks
    gives what one process with all rows gives, to the bit.

    Parameters
    ----------
    advantages : (B,) or (B, T)
        Base advantages.
    entropy : (B, T)
        Nats; read inside steps only.
    mask : (B, T) of 0 and 1
        Each run of 1 is a step; a row of 0 has none, gets 0 and enters no statistic.
    rank : int
        This rank; every rank has the same number of rows.
    gather : callable
        Collects an object of every rank.
    options : EMPGOptions

    Raises
    ------
    ValueError
        What :func:`empg.modulate` raises, on every rank, naming the rank that it comes from.
    """
    rows = advantages.shape[0]
    trajectories = np.arange(rank * rows, (rank + 1) * rows, dtype=np.int64)
    mine: bytes | None = None
    complaint: str | None = None
    try:
        mine = empg.StepTable.from_tokens(
            advantages, entropy, mask=mask, trajectories=trajectories
        ).to_bytes()
    except (TypeError, ValueError) as error:
        # Told to the other ranks first, which would wait for this one for ever.
        complaint = str(error)
    parts = gather((mine, complaint))
    for other, (_, complaint) in enumerate(parts):
        if complaint is not None:
            raise ValueError(f"empg: rank {other}: {complaint}")
    table = empg.StepTable.gather([empg.StepTable.from_bytes(part) for part, _ in parts])
    if len(table) == 0:
        # Every completion is masked out: no token is left for a loss either.
        nothing = torch.zeros_like(entropy, dtype=advantages.dtype)
        return Credited(nothing, table, 0)
    modulated = empg.modulate(
        advantages, entropy, mask=mask, trajectories=trajectories, table=table, **options.keywords()
    )
    completions = len(np.unique(table.to_arrays()["trajectory"]))
    return Credited(modulated, table, completions)
