"""What EMPG's slime hook sees of its host, for machines without Megatron and GPUs.

slime is not on the package index, so the tests follow its documented data structures: the lists of
`rollout_data` that a rank of the last pipeline stage holds, Megatron's groups, and the zigzag cut
of responses over context-parallel ranks. Where slime's source can be imported, its own functions
for the cut are used instead of the ones here.
"""

import argparse
import importlib
import sys
import types

import torch
import torch.distributed as dist
import torch.distributed.nn  # noqa: F401  slime's functions find it there, as Megatron imports it


def arguments(**changes):
    """slime's arguments that the hook reads, as a GRPO run with EMPG sets them."""
    plain = {
        "advantage_estimator": "grpo",
        "normalize_advantages": False,
        "use_rollout_entropy": True,
        "use_rollout_logprobs": False,
        "kl_coef": 0.0,
        "use_opd": False,
        "custom_advantage_function_path": "empg.integrations.slime.advantages",
    }
    return argparse.Namespace(**{**plain, **changes})


def owned(total, response, rank, size):
    """Response tokens of a context-parallel rank, in order.

    The sequence is cut into 2·size chunks; rank r has chunks r and 2·size − 1 − r. A token belongs
    to the rank that has the logits before it.
    """
    chunk = -(-total // (2 * size))
    mine = {rank, 2 * size - 1 - rank}
    prompt = total - response
    return [t for t in range(response) if (prompt + t - 1) // chunk in mine]


def shard(samples, places, context_rank=0, context_size=1, release=False):
    """`rollout_data` of the rank that holds these places of the rollout.

    The `release` 0.3.1 drops `partition` before the hook is called; later ones keep it.
    """
    mine = [samples[place] for place in places]
    data = {
        **({} if release else {"partition": list(places)}),
        "tokens": [torch.zeros(s["total"], dtype=torch.long) for s in mine],
        "total_lengths": [s["total"] for s in mine],
        "response_lengths": [len(s["mask"]) for s in mine],
        "loss_masks": [torch.tensor(s["mask"], dtype=torch.int) for s in mine],
        "rewards": [s["reward"] for s in mine],
        "rollout_ids": [s["rollout"] for s in mine],
        "raw_reward": [s["reward"] for s in samples],
    }
    cut = [
        owned(s["total"], len(s["mask"]), context_rank, context_size)
        if context_size > 1
        else list(range(len(s["mask"])))
        for s in mine
    ]
    data["entropy"] = [s["entropy"][at].clone() for s, at in zip(mine, cut, strict=True)]
    data["log_probs"] = [-s["entropy"][at].clone() for s, at in zip(mine, cut, strict=True)]
    data["kl"] = [torch.zeros(len(at)) for at in cut]
    return data


def install(data_group=None, data_size=1, context_group=None, context_rank=0, context_size=1):
    """Puts `megatron.core.mpu` (and slime's slicing, if slime is not there) in place."""
    mpu = types.ModuleType("megatron.core.mpu")
    mpu.get_data_parallel_world_size = lambda with_context_parallel=False: (
        data_size * (context_size if with_context_parallel else 1)
    )

    def data_parallel_group(with_context_parallel=False):
        assert not with_context_parallel, "ranks of one context group hold the same samples"
        return data_group

    mpu.get_data_parallel_group_gloo = data_parallel_group
    mpu.get_context_parallel_world_size = lambda: context_size
    mpu.get_context_parallel_rank = lambda: context_rank
    mpu.get_context_parallel_group = lambda: context_group
    mpu.is_pipeline_last_stage = lambda: True
    mpu.get_tensor_model_parallel_group = lambda: None
    core = types.ModuleType("megatron.core")
    core.mpu = mpu
    megatron = types.ModuleType("megatron")
    megatron.core = core
    sys.modules.update(
        {"megatron": megatron, "megatron.core": core, "megatron.core.mpu": mpu}
    )
    try:
        importlib.import_module("slime.backends.megatron_utils.cp_utils")
    except ImportError:
        _install_slices(mpu)


def _install_slices(mpu):
    slices = types.ModuleType("slime.backends.megatron_utils.cp_utils")

    def at(total, response):
        return owned(
            total, response, mpu.get_context_parallel_rank(), mpu.get_context_parallel_world_size()
        )

    def all_gather_with_cp(part, total_length, response_length):
        whole = torch.zeros(response_length, dtype=part.dtype)
        whole[at(total_length, response_length)] = part
        dist.all_reduce(whole, group=mpu.get_context_parallel_group())
        return whole

    def slice_log_prob_with_cp(whole, total_length, response_length):
        assert len(whole) == response_length
        return whole[at(total_length, response_length)]

    slices.all_gather_with_cp = all_gather_with_cp
    slices.slice_log_prob_with_cp = slice_log_prob_with_cp
    for name in ("slime", "slime.backends", "slime.backends.megatron_utils"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules[slices.__name__] = slices


def start_rank(rank, world, store, context_size=1):
    """Joins a gloo world of data × context ranks, as Megatron lays them out, and installs it.

    Returns this rank's place among the data-parallel ranks and among the context-parallel ones.
    """
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    data_size = world // context_size
    data_rank, context_rank = divmod(rank, context_size)
    data_groups = [
        dist.new_group([d * context_size + c for d in range(data_size)]) for c in range(context_size)
    ]
    context_groups = [
        dist.new_group([d * context_size + c for c in range(context_size)]) for d in range(data_size)
    ]
    install(
        data_groups[context_rank], data_size, context_groups[data_rank], context_rank, context_size
    )
    return data_rank, context_rank
