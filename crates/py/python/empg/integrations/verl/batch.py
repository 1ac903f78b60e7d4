"""EMPG over verl's batches: ``DataProto`` or ``TensorDict``, padded, or jagged as TransferQueue's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import empg

from .options import EmpgConfig

# Outputs of one session are told apart in the upper bits of a step's index: every process that
# holds one of them then names its steps alike, without knowing how many steps the others have.
_OUTPUT_BITS = 16
_STEPS_PER_OUTPUT = 1 << (32 - _OUTPUT_BITS)


def session_rows(keys: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which trajectory each row is part of, from verl's keys ``{uid}_{session}_{output}``.

    An agent loop may return several outputs for one session (a context that was rebuilt, say):
    together they are one trajectory, in the order of their output index. The numbers depend on the
    keys alone, so any process gives the same row the same number.

    Parameters
    ----------
    keys : (B,) strings

    Returns
    -------
    trajectories, first_step : (B,) int64
        For :func:`empg.modulate` and :class:`empg.StepTable`.

    Raises
    ------
    ValueError
        A key of another form, or one that occurs twice.
    """
    trajectories = np.empty(len(keys), dtype=np.int64)
    first_step = np.empty(len(keys), dtype=np.int64)
    seen: dict[tuple[str, int], int] = {}
    for row, key in enumerate(keys):
        session, _, output = str(key).rpartition("_")
        if "_" not in session or not output.isdecimal() or int(output) >= 1 << _OUTPUT_BITS:
            raise ValueError(f"keys: row {row}: {key!r} is not of the form uid_session_output")
        place = (session, int(output))
        if place in seen:
            raise ValueError(f"keys: row {row}: {key!r} is also the key of row {seen[place]}")
        seen[place] = row
        digest = hashlib.blake2b(session.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        trajectories[row] = int.from_bytes(digest, "big") >> 1
        first_step[row] = int(output) * _STEPS_PER_OUTPUT
    return trajectories, first_step


def modulate_batch(
    batch: Any,
    config: EmpgConfig | Mapping[str, Any] | None = None,
    *,
    keys: Sequence[str] | None = None,
    trajectories: npt.ArrayLike | None = None,
    first_step: npt.ArrayLike | None = None,
    mask: Any = None,
    table: empg.StepTable | None = None,
) -> dict[str, float]:
    """Replace ``batch["advantages"]`` by EMPG's, from ``batch["entropy"]``.

    Parameters
    ----------
    batch : DataProto or TensorDict
        With ``advantages``, ``entropy`` (nats; ``entropys`` as in the legacy trainer is accepted)
        and ``response_mask``, all (B, T) padded or all jagged. The tensors themselves are not
        written to; the entry ``advantages`` is replaced.
    config
        Settings; the paper's where None.
    keys : (B,) strings, optional
        verl's keys, see :func:`session_rows`. Without them each row is a trajectory.
    trajectories, first_step : (B,) int, optional
        Instead of ``keys``: as in :func:`empg.modulate`.
    mask : like ``response_mask``, optional
        The mask whose runs of 1 are the steps, where rejection sampling has rewritten
        ``response_mask`` since. Tokens that it rejected get 0; a row of which it left no token has
        no steps.
    table : StepTable, optional
        The steps of the whole batch where this is one shard of it: :func:`step_table` of every
        shard, gathered. The rows then need ``keys`` or ``trajectories``.

    Returns
    -------
    dict
        ``empg/…`` metrics of the whole batch; ``empg/rejected_tokens`` is of these rows. A batch
        that was rejected whole has that and ``empg/steps`` alone.

    Raises
    ------
    ValueError
        An entry is missing, shapes disagree, or what :func:`empg.modulate` refuses.
    """
    if config is None:
        options = EmpgConfig()
    elif isinstance(config, EmpgConfig):
        options = config
    else:
        options = EmpgConfig.from_mapping(config)
    tensors = _tensors(batch)
    rows = _read(tensors, keys, trajectories, first_step, mask)
    # A batch that had no step to begin with is a mistake; a shard, or what rejection left, is not.
    may_be_empty = table is not None or rows.rejected is not None
    if table is None:
        table = rows.table()
    elif keys is None and trajectories is None:
        raise ValueError(
            "table: is of the whole batch, so keys or trajectories must name this shard's rows"
        )
    if may_be_empty and len(table) == 0:
        # Nothing to credit, nor for a loss to take.
        tensors["advantages"] = rows.like_advantages(rows.base.new_zeros(rows.base.shape))
        return {"empg/steps": 0.0, "empg/rejected_tokens": rows.rejected_tokens()}
    out = rows.modulate(table, options)
    tensors["advantages"] = rows.like_advantages(out)
    return rows.metrics(table.credit(**options.modulation()))


def step_table(
    batch: Any,
    *,
    keys: Sequence[str] | None = None,
    trajectories: npt.ArrayLike | None = None,
    first_step: npt.ArrayLike | None = None,
    mask: Any = None,
) -> empg.StepTable:
    """The steps of one shard, to be gathered with the others'; arguments as :func:`modulate_batch`.

    Raises
    ------
    ValueError
        As :func:`modulate_batch`.
    """
    return _read(_tensors(batch), keys, trajectories, first_step, mask).table()


@dataclass(frozen=True)
class _Rows:
    """A batch's tensors as the core takes them: (B, T), or flat with offsets."""

    base: Any
    entropy: Any
    # Tokens of steps, of which some rows have lost all that they had; those that were given.
    steps: Any
    given: Any
    # Tokens of given steps that rejection sampling took out; None where there are none.
    rejected: Any
    offsets: npt.NDArray[np.int64] | None
    place: dict[str, Any]
    original: Any

    def table(self) -> empg.StepTable:
        return empg.StepTable.from_tokens(
            self.base, self.entropy, mask=self.steps, offsets=self.offsets, **self.place
        )

    def modulate(self, table: empg.StepTable, options: EmpgConfig) -> Any:
        out = empg.modulate(
            self.base,
            self.entropy,
            mask=self.steps,
            offsets=self.offsets,
            table=table,
            threads=options.threads,
            **self.place,
            **options.modulation(),
        )
        return out if self.rejected is None else out.masked_fill(self.rejected, 0.0)

    def like_advantages(self, out: Any) -> Any:
        import torch

        out = out.to(self.original.dtype)
        if self.offsets is None:
            return out
        return torch.nested.nested_tensor_from_jagged(out, self.original.offsets())

    def metrics(self, credit: empg.Credit) -> dict[str, float]:
        metrics = {f"empg/{name}": float(value) for name, value in credit.summary.items()}
        # Groups of equal rewards have no signal: their steps receive the bonus alone.
        metrics["empg/zero_base"] = float(np.mean(np.asarray(credit.base) == 0.0))
        metrics["empg/rejected_tokens"] = self.rejected_tokens()
        return metrics

    def rejected_tokens(self) -> float:
        rejected = 0 if self.rejected is None else int(self.rejected.sum())
        return rejected / int(self.given.sum()) if rejected else 0.0


def _tensors(batch: Any) -> Any:
    tensors = batch.batch if hasattr(batch, "non_tensor_batch") else batch
    if not hasattr(tensors, "keys") or not hasattr(tensors, "__setitem__"):
        raise TypeError(f"batch: expected a DataProto or TensorDict, got {type(batch).__name__}")
    return tensors


def _read(
    tensors: Any,
    keys: Sequence[str] | None,
    trajectories: npt.ArrayLike | None,
    first_step: npt.ArrayLike | None,
    mask: Any,
) -> _Rows:
    import torch

    names = set(tensors.keys())
    if "entropy" not in names and "entropys" not in names:
        raise ValueError(
            "batch: has no entropy. It comes from the pass that computes old_log_probs; bypass mode "
            "and the legacy trainer leave it out"
        )
    for name in ("advantages", "response_mask"):
        if name not in names:
            raise ValueError(f"batch: has no {name} (it has: {', '.join(sorted(map(str, names)))})")
    advantages = tensors["advantages"]
    entropy = tensors["entropy" if "entropy" in names else "entropys"]
    kept = tensors["response_mask"]

    offsets = None
    parts = {"advantages": advantages, "entropy": entropy, "response_mask": kept}
    if mask is not None:
        parts["mask"] = mask
    if len({part.is_nested for part in parts.values()}) != 1:
        kinds = ", ".join(
            f"{name} {'jagged' if part.is_nested else 'padded'}" for name, part in parts.items()
        )
        raise ValueError(f"batch: either all padded or all jagged, but {kinds}")
    if advantages.is_nested:
        wanted = advantages.offsets()
        for name, part in parts.items():
            lengths = part.offsets().diff()
            if not torch.equal(lengths, wanted.diff()):
                raise ValueError(
                    f"{name}: rows of {_short(lengths)} tokens, but advantages has {_short(wanted.diff())}"
                )
        offsets = wanted.detach().cpu().numpy().astype(np.int64)
        count = len(offsets) - 1
        flat = {name: part.values() for name, part in parts.items()}
    else:
        for name, part in parts.items():
            if part.dim() != 2 or part.shape != advantages.shape:
                raise ValueError(
                    f"{name}: shape {tuple(part.shape)}, but advantages has {tuple(advantages.shape)}; "
                    "all are (B, T)"
                )
        count = advantages.shape[0]
        flat = parts

    source = "response_mask" if mask is None else "mask"
    step_bits = _bits(source, flat[source], offsets, advantages)
    rejected = None
    if mask is not None:
        kept_bits = _bits("response_mask", flat["response_mask"], offsets, advantages)
        changed = step_bits ^ kept_bits
        outside = changed & kept_bits
        if bool(outside.any()):
            row, token = _place(int(outside.flatten().nonzero()[0]), offsets, advantages)
            raise ValueError(
                f"response_mask: row {row} token {token} is 1, but mask is 0 there: not a copy of it"
            )
        rejected = changed if bool(changed.any()) else None

    if keys is not None:
        if trajectories is not None or first_step is not None:
            raise ValueError("keys: give either keys or trajectories and first_step")
        if len(keys) != count:
            raise ValueError(f"keys: {len(keys)} of them for {count} rows")
        trajectories, first_step = session_rows(keys)
    work = torch.float64 if advantages.dtype == torch.float64 else torch.float32
    base = flat["advantages"].detach().to(work).contiguous()
    steps = step_bits
    if rejected is not None:
        base, steps = _survivors(base, step_bits, rejected, offsets)
    return _Rows(
        base=base,
        entropy=flat["entropy"].detach().to(work).contiguous(),
        steps=steps,
        given=step_bits,
        rejected=rejected,
        offsets=offsets,
        place={"trajectories": trajectories, "first_step": first_step},
        original=advantages,
    )


def _bits(name: str, mask: Any, offsets: npt.NDArray[np.int64] | None, advantages: Any) -> Any:
    import torch

    mask = mask.detach()
    bits = mask.bool()
    # 0 and 1 are what a change to bool and back leaves alone; NaN is not.
    if mask.dtype != torch.bool and not torch.equal(bits.to(mask.dtype), mask):
        bad = int((bits.to(mask.dtype) != mask).flatten().nonzero()[0])
        row, token = _place(bad, offsets, advantages)
        raise ValueError(
            f"{name} of shape {tuple(advantages.shape)}: row {row} token {token} is "
            f"{mask.flatten()[bad].item()}, but must be 0 or 1"
        )
    return bits.contiguous()


def _survivors(
    base: Any, steps: Any, rejected: Any, offsets: npt.NDArray[np.int64] | None
) -> tuple[Any, Any]:
    """The base advantages with those of rejected tokens put back, and the steps that count.

    A row of which no token is left is none of the batch that is trained on: its steps go.
    Elsewhere verl's estimators write 0 (or a whitened nothing) over rejected tokens. A step's base
    is that of its tokens, so a rejected one takes the first surviving value of its step, or else
    of its row.
    """
    import torch

    own, values = steps.flatten(), base.flatten()
    count = values.numel()
    index = torch.arange(count, device=base.device)
    if offsets is None:
        rows, row = base.shape[0], index // base.shape[1]
    else:
        rows = len(offsets) - 1
        row = torch.bucketize(index, torch.as_tensor(offsets[1:], device=base.device), right=True)
    survivors = (own & ~rejected.flatten()).nonzero().squeeze(1)
    left = own.new_zeros((rows,))
    left[row[survivors]] = True
    own = own & left[row]
    gone = own & rejected.flatten()

    begins = own.clone()
    begins[1:] &= ~(own[:-1] & (row[1:] == row[:-1]))
    step = begins.cumsum(0) - 1

    def first(group: Any) -> Any:
        """Where the first survivor of each rejected token's group is; `count` where there is none."""
        member = group[survivors]
        leads = torch.ones_like(member, dtype=torch.bool)
        leads[1:] = member[1:] != member[:-1]
        # Empty rows have no token: there may be more rows than tokens.
        found = index.new_full((max(count, rows),), count)
        found[member[leads]] = survivors[leads]
        return found[group[gone]]

    source = first(step)
    source = torch.where(source < count, source, first(row))
    filled = values.clone()
    filled[gone] = values[source]
    return filled.reshape(base.shape), own.reshape(steps.shape)


def _place(flat: int, offsets: npt.NDArray[np.int64] | None, advantages: Any) -> tuple[int, int]:
    if offsets is None:
        return divmod(flat, int(advantages.shape[1]))
    row = int(np.searchsorted(offsets, flat, side="right")) - 1
    return row, flat - int(offsets[row])


def _short(lengths: Any) -> str:
    values = lengths.tolist()
    return str(values) if len(values) <= 8 else f"[{', '.join(map(str, values[:8]))}, …]"
