"""Step tables over torch.distributed ranks (gloo processes on this machine)."""

import pickle

import numpy as np
import pytest

import empg
from empg.integrations.distributed import gather_objects, gather_steps

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as multiprocessing  # noqa: E402


def batch(seed=0, rows=7, width=11):
    rng = np.random.default_rng(seed)
    mask = (rng.random((rows, width)) < 0.6).astype(np.uint8)
    mask[2] = 0
    return rng.normal(size=rows), rng.gamma(2.0, 0.4, (rows, width)), mask


def local_table(rows):
    base, entropy, mask = batch()
    return empg.StepTable.from_tokens(
        base[rows], entropy[rows], mask=mask[rows], trajectories=np.array(rows)
    )


def run_rank(rank, world, folder, case):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
    )
    shards = [[0, 4, 2], [6, 1, 3, 5]]
    base, entropy, mask = batch()
    rows = shards[rank]
    try:
        if case == "modulate":
            table = gather_steps(lambda: local_table(rows))
            where = {"mask": mask[rows], "trajectories": np.array(rows)}
            got = empg.modulate(base[rows], entropy[rows], **where, table=table)
            answer = (rows, got, table.to_bytes())
        elif case == "empty":
            answer = gather_steps(local_table([2] if rank else [0, 1])).to_bytes()
        elif case == "same key":
            gather_steps(local_table([0]))
            answer = None
        else:
            answer = gather_objects(lambda: 1 // rank)
    except ValueError as error:
        answer = str(error)
    with open(f"{folder}/{rank}.pickle", "wb") as file:
        pickle.dump(answer, file)
    # A process that ends with its group's threads alive may be aborted.
    dist.barrier()
    dist.destroy_process_group()


def ranks(tmp_path, case):
    multiprocessing.spawn(run_rank, (2, str(tmp_path), case), nprocs=2)
    return [pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) for rank in range(2)]


def test_two_ranks_have_the_bits_of_one(tmp_path):
    base, entropy, mask = batch()
    whole = empg.modulate(base, entropy, mask=mask)
    for rows, got, table in ranks(tmp_path, "modulate"):
        assert np.array_equal(got, whole[rows])
        assert empg.StepTable.from_bytes(table) == local_table(list(range(7)))


def test_a_rank_without_steps_takes_part(tmp_path):
    for table in ranks(tmp_path, "empty"):
        assert empg.StepTable.from_bytes(table) == local_table([0, 1])


def test_a_step_of_two_ranks_is_an_error_on_both(tmp_path):
    for message in ranks(tmp_path, "same key"):
        assert "0" in message


def test_an_error_of_one_rank_is_raised_on_all(tmp_path):
    for message in ranks(tmp_path, "fail"):
        assert message == "rank 0 of 2: ZeroDivisionError: integer division or modulo by zero"


def test_without_a_process_group_there_is_one_rank():
    assert gather_steps(local_table([0, 1])) == local_table([0, 1])
    assert gather_objects(lambda: "here") == ["here"]
    with pytest.raises(ZeroDivisionError):
        gather_objects(lambda: 1 // 0)
