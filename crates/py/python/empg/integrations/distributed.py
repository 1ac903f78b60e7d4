"""Step tables across `torch.distributed` ranks: gather, then every rank computes the same bits.

A step table is small (512 trajectories of 25 steps are 360 kB), so ranks exchange tables, never
tokens. An error on one rank reaches all of them: a rank that failed alone would leave the others
waiting in the collective.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from empg import StepTable

T = TypeVar("T")

__all__ = ["gather_objects", "gather_steps"]


def _world_size(group: Any) -> int:
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return 1
    return int(dist.get_world_size(group))


def gather_objects(make: Callable[[], T], group: Any = None) -> list[T]:
    """What `make()` gives on every rank of `group`, in rank order, on every rank.

    Parameters
    ----------
    make
        Called once on this rank; its value is pickled.
    group
        A `torch.distributed` process group; None is the default group. Prefer a gloo group: an
        NCCL group moves the bytes over the GPU. Without an initialised process group there is one
        rank.

    Raises
    ------
    Exception
        What `make` raised here, where there is one rank.
    ValueError
        `make` failed on some rank: raised on all of them, with the first failed rank's message.
    """
    world = _world_size(group)
    if world == 1:
        return [make()]
    import torch.distributed as dist

    mine: tuple[bool, Any]
    failure: Exception | None = None
    try:
        mine = (True, make())
    except Exception as error:
        failure = error
        mine = (False, f"{type(error).__name__}: {error}")
    answers: list[Any] = [None] * world
    dist.all_gather_object(answers, mine, group=group)
    for rank, (good, value) in enumerate(answers):
        if not good:
            raise ValueError(f"rank {rank} of {world}: {value}") from failure
    return [value for _, value in answers]


def gather_steps(make: Callable[[], StepTable] | StepTable, group: Any = None) -> StepTable:
    """The step table of the whole batch from this rank's own, the same on every rank.

    Parameters
    ----------
    make
        This rank's `StepTable` (may be empty), or a function that makes it; with a function, bad
        input on one rank becomes the same ValueError on all. Trajectory keys must be those of the
        whole batch: the same key on two ranks means the same trajectory.
    group
        As for `gather_objects`.

    Raises
    ------
    ValueError
        A step that two ranks claim; what `make` refused on some rank.
    """
    build = make if callable(make) else lambda: make
    shards = gather_objects(lambda: build().to_bytes(), group)
    return StepTable.gather([StepTable.from_bytes(shard) for shard in shards])
