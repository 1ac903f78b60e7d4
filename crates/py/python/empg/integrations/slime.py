"""EMPG inside slime, through its `--custom-advantage-function-path`.

Set::

    --custom-advantage-function-path empg.integrations.slime.advantages
    --custom-megatron-init-path empg.integrations.slime.check
    --use-rollout-entropy

Options (`empg_k`, `empg_zeta`, …) come from the file of `--custom-config-path`. slime calls
`advantages` on every rank of the last pipeline stage with that rank's samples; ranks exchange
their step tables over the data-parallel group, so statistics are those of the whole rollout and
the same bits on every rank. Megatron and slime are imported only where they run this function.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import empg

from .distributed import gather_objects
from .options import check_options, of_table

__all__ = ["advantages", "check", "options_of"]

# Estimators whose advantage is one number per sample: the reward that slime normalised.
OUTCOME_ESTIMATORS = ("grpo", "gspo", "cispo")
PREFIX = "empg_"


def options_of(args: Any) -> dict[str, Any]:
    """The options of `empg.modulate` among slime's arguments: those named `empg_…`."""
    return {
        name.removeprefix(PREFIX): value
        for name, value in vars(args).items()
        if name.startswith(PREFIX)
    }


def check(args: Any) -> None:
    """Refuses, before a model is loaded, arguments that EMPG cannot work with.

    For `--custom-megatron-init-path`; `advantages` repeats what does not depend on how many samples
    a rollout has.

    Raises
    ------
    ValueError
        An option outside its domain, or one of slime's arguments, by its name.
    """
    _check_arguments(args)
    if _of(args, "use_rollout_logprobs") and not _of(args, "get_mismatch_metrics"):
        raise ValueError(
            "--use-rollout-logprobs leaves out slime's log-probability pass, which gives the "
            "entropies; drop it, or add --get-mismatch-metrics"
        )
    if _one_step(args) and _loss_gives_log_probs(args):
        raise ValueError(
            f"--global-batch-size {args.global_batch_size} is the whole rollout: with one training "
            "step slime leaves out its log-probability pass, which gives the entropies; use "
            "--num-steps-per-rollout 2 or more, or --keep-old-actor"
        )


def _of(args: Any, name: str, default: Any = False) -> Any:
    value = getattr(args, name, None)
    return default if value is None else value


def _one_step(args: Any) -> bool:
    """Whether a rollout is one training step, as slime cuts it; False where it is not known yet."""
    size = _of(args, "global_batch_size", 0)
    rollouts = _of(args, "rollout_batch_size", 0) * _of(args, "n_samples_per_prompt", 0)
    return bool(size and rollouts) and rollouts // size == 1


def _loss_gives_log_probs(args: Any) -> bool:
    """Slime's `can_reuse_log_probs_in_loss`, given one training step per rollout."""
    others = ("use_rollout_logprobs", "get_mismatch_metrics", "use_critic", "keep_old_actor", "use_opd")
    return (
        _of(args, "loss_type", "policy_loss") == "policy_loss"
        and _of(args, "kl_coef", 0) == 0
        and not any(_of(args, name) for name in others)
        and (not _of(args, "use_routing_replay") or _of(args, "use_rollout_routing_replay"))
        and args.advantage_estimator != "gspo"
    )


def _check_arguments(args: Any) -> None:
    check_options(options_of(args))
    if args.advantage_estimator not in OUTCOME_ESTIMATORS:
        raise ValueError(
            f"--advantage-estimator {args.advantage_estimator}: its advantages differ from token "
            f"to token, EMPG scales one per sample; use one of {', '.join(OUTCOME_ESTIMATORS)}"
        )
    if args.normalize_advantages:
        raise ValueError(
            "--normalize-advantages whitens over tokens what EMPG has centred over steps; drop it "
            "(the rewards are normalised within their group already)"
        )
    if not args.use_rollout_entropy:
        raise ValueError(
            "EMPG needs the entropies of the policy: add --use-rollout-entropy, and keep slime's "
            "log-probability pass (see docs/integrations/slime.md)"
        )


def advantages(args: Any, rollout_data: dict[str, Any]) -> None:
    """Sets `advantages` (EMPG's) and `returns` (the base) of this rank's samples.

    The base advantage of a sample is its reward as slime normalised it (GRPO). Steps are runs of 1
    in its loss mask; samples with one rollout id are one trajectory, in the order of the rollout.

    Parameters
    ----------
    args
        slime's arguments.
    rollout_data
        Lists with one entry per sample of this rank: `rewards` floats; `loss_masks` (R_i,) of 0/1
        for R_i response tokens; `entropy` in nats, `kl` (both this context-parallel rank's slice
        of the R_i tokens); `response_lengths`, `total_lengths`, `rollout_ids`, and `partition`,
        the samples' places in the whole rollout, which may be missing (slime 0.3.1 drops it)
        where no two samples have one rollout id. Changed in place; `empg/…` scalars are added,
        which slime logs under `rollout/`.

    Raises
    ------
    ValueError
        What `check` refuses; no entropies; several samples of a rollout id without `partition`;
        bad values, on every rank and naming the rank that has them.
    """
    import torch

    _check_arguments(args)
    options = options_of(args)
    parallel = _Parallel()
    like = rollout_data["kl"]
    lengths = list(
        zip(rollout_data["total_lengths"], rollout_data["response_lengths"], strict=True)
    )
    # Collective, so outside the part that may fail on one rank only.
    entropy = parallel.join(_entropies(rollout_data, lengths), lengths)
    rows: list[_Rows] = []

    def shard() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], bytes]:
        mine = _Rows.of(rollout_data, entropy)
        rows.append(mine)
        # Places are unique in the rollout; rollouts, which may span ranks, come after.
        table = empg.StepTable.from_tokens(mine.base, mine.entropy, **mine.spans(mine.places))
        counts = [len(spans) for spans in mine.steps]
        return mine.rollouts, mine.places, np.array(counts, dtype=np.int64), table.to_bytes()

    shards = gather_objects(shard, parallel.data_group)
    (mine,) = rows
    rollouts, places, counts = (
        np.concatenate([shard[i] for shard in shards]) for i in range(3)
    )
    if "partition" not in rollout_data:
        _check_alone(places)
    by_place = empg.StepTable.gather([empg.StepTable.from_bytes(shard[3]) for shard in shards])
    first = _first_steps(rollouts, places, counts)
    table = _by_rollout(by_place, rollouts, places, first)

    rollout_data["returns"] = [
        torch.full_like(x, float(a)) for x, a in zip(like, mine.base, strict=True)
    ]
    if len(table) == 0:
        # Every sample was taken out of the loss, on every rank: there is nothing to credit.
        rollout_data["advantages"] = list(rollout_data["returns"])
        return
    first_step = np.array([first[place] for place in mine.places.tolist()], dtype=np.int64)
    where = mine.spans(mine.rollouts, first_step)
    flat = empg.modulate(mine.base, mine.entropy, **where, table=table, **options)
    ends = mine.offsets.tolist()
    whole = [torch.from_numpy(flat[a:b]) for a, b in zip(ends, ends[1:], strict=False)]
    rollout_data["advantages"] = [
        parallel.part(row, total, response).to(device=x.device, dtype=x.dtype)
        for row, x, (total, response) in zip(whole, like, lengths, strict=True)
    ]
    for name, value in table.credit(**of_table(options)).summary.items():
        rollout_data[f"empg/{name}"] = torch.tensor(float(value))


@dataclass(frozen=True)
class _Rows:
    """This rank's samples: token arrays (N,) one sample after the other, one number per sample."""

    steps: list[list[tuple[int, int]]]
    entropy: NDArray[np.float32]
    base: NDArray[np.float32]
    offsets: NDArray[np.int64]
    rollouts: NDArray[np.int64]
    places: NDArray[np.int64]

    @classmethod
    def of(cls, data: dict[str, Any], entropy: list[Any]) -> _Rows:
        if "rollout_ids" not in data:
            raise ValueError("rollout_data has no 'rollout_ids': slime 0.3 or later is needed")
        lengths = [int(length) for length in data["response_lengths"]]
        steps = []
        for row, (mask, length) in enumerate(zip(data["loss_masks"], lengths, strict=True)):
            values = np.asarray(mask.cpu())
            if values.shape != (length,):
                raise ValueError(
                    f"loss_masks: sample {row} has shape {values.shape}, its response has {length}"
                )
            steps.append(empg.steps_from_mask(values[None])[0])
        flat = [np.asarray(x.float().cpu()) for x in entropy]
        rollouts = np.asarray([int(i) for i in data["rollout_ids"]], dtype=np.int64)
        places = rollouts
        if "partition" in data:
            places = np.asarray([int(i) for i in data["partition"]], dtype=np.int64)
        else:
            _check_alone(places)
        return cls(
            steps=steps,
            entropy=np.concatenate([*flat, np.zeros(0, np.float32)]),
            base=np.asarray([float(reward) for reward in data["rewards"]], dtype=np.float32),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            rollouts=rollouts,
            places=places,
        )

    def spans(
        self, trajectories: NDArray[np.int64], first_step: NDArray[np.int64] | None = None
    ) -> dict[str, Any]:
        """The arguments that say where steps lie and whose they are."""
        return {
            "steps": self.steps,
            "offsets": self.offsets,
            "trajectories": trajectories,
            "first_step": first_step,
        }


def _entropies(data: dict[str, Any], lengths: list[tuple[int, int]]) -> list[Any]:
    entropy = data.get("entropy")
    if entropy is None:
        raise ValueError(
            "rollout_data has no 'entropy': slime made no log-probability pass of the policy. It "
            "leaves the pass out with --use-rollout-logprobs, and where one training step uses the "
            "whole rollout; use --num-steps-per-rollout 2 or more, or --keep-old-actor, and no "
            "--use-rollout-logprobs (or --get-mismatch-metrics with it)"
        )
    if len(entropy) != len(lengths):
        raise ValueError(f"rollout_data has {len(lengths)} samples but {len(entropy)} entropies")
    return list(entropy)


def _check_alone(rollouts: NDArray[np.int64]) -> None:
    """Without places, a rollout id can stand for its sample's only where it has no other."""
    ids, counts = np.unique(rollouts, return_counts=True)
    if (counts > 1).any():
        i = int(np.argmax(counts > 1))
        raise ValueError(
            f"rollout_ids: {counts[i]} samples have the id {ids[i]}, and without 'partition', which "
            "slime 0.3.1 drops from rollout_data, their order is not known; use a slime later than "
            "0.3.1 (commit 681b3adca keeps it), or one sample per rollout id"
        )


def _first_steps(
    rollouts: NDArray[np.int64], places: NDArray[np.int64], counts: NDArray[np.int64]
) -> dict[int, int]:
    """For each place, how many steps its rollout has in samples before it."""
    first: dict[int, int] = {}
    seen: dict[int, int] = {}
    for i in np.argsort(places, kind="stable"):
        rollout = int(rollouts[i])
        first[int(places[i])] = seen.get(rollout, 0)
        seen[rollout] = first[int(places[i])] + int(counts[i])
    return first


def _by_rollout(
    table: empg.StepTable,
    rollouts: NDArray[np.int64],
    places: NDArray[np.int64],
    first: dict[int, int],
) -> empg.StepTable:
    """The same steps, keyed by rollout instead of by place."""
    owner = dict(zip(places.tolist(), rollouts.tolist(), strict=True))
    arrays = table.to_arrays()
    at = arrays["trajectory"].astype(np.int64).tolist()
    arrays["trajectory"] = np.array([owner[place] for place in at], dtype=np.uint64)
    offset = np.array([first[place] for place in at], dtype=np.uint32)
    arrays["step"] = arrays["step"] + offset
    return empg.StepTable.from_arrays(**arrays)


class _Parallel:
    """Megatron's groups, and slime's way of cutting a response over context-parallel ranks."""

    def __init__(self) -> None:
        from megatron.core import mpu

        self.data_group: Any = None
        if mpu.get_data_parallel_world_size(with_context_parallel=False) > 1:
            self.data_group = mpu.get_data_parallel_group_gloo(with_context_parallel=False)
        self.context = int(mpu.get_context_parallel_world_size())

    def join(self, parts: list[Any], lengths: Iterable[tuple[int, int]]) -> list[Any]:
        """Whole responses (R_i,) from this rank's slices; collective over the context group."""
        if self.context == 1:
            return parts
        import torch
        from slime.backends.megatron_utils.cp_utils import all_gather_with_cp

        with torch.no_grad():
            return [
                all_gather_with_cp(part, total, response)
                for part, (total, response) in zip(parts, lengths, strict=True)
            ]

    def part(self, whole: Any, total: int, response: int) -> Any:
        """This rank's slice of a whole response (R_i,)."""
        if self.context == 1:
            return whole
        from slime.backends.megatron_utils.cp_utils import slice_log_prob_with_cp

        return slice_log_prob_with_cp(whole, total, response)
