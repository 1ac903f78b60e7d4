"""Data-parallel workers: any sharding gives the bits of one process."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from batches import batch
from reference import runs

import empg

OPTIONS: list[dict[str, Any]] = [
    {},
    {"normalize": "quantile", "center": False},
    {"paper_exact": True, "zeta": 0.3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_sharding_has_the_same_bits(options: dict[str, Any], dtype: Any) -> None:
    for seed in range(8):
        random = np.random.default_rng(seed)
        advantages, entropy, mask = batch(seed, rows=12, dtype=dtype)
        keys = random.choice(10**12, 12, replace=False)
        whole = empg.modulate(advantages, entropy, mask=mask, trajectories=keys, **options)
        owner = random.integers(0, 4, 12)
        parts = [random.permutation(np.flatnonzero(owner == worker)) for worker in range(4)]
        local = [
            {
                "advantages": advantages[rows],
                "entropy": entropy[rows],
                "mask": mask[rows],
                "trajectories": keys[rows],
            }
            for rows in parts
        ]
        tables = [empg.StepTable.from_tokens(**part) for part in local]
        table = empg.StepTable.gather(tables[::-1])
        assert table == empg.StepTable.from_tokens(advantages, entropy, mask=mask, trajectories=keys)
        for rows, part in zip(parts, local):
            assert np.array_equal(empg.modulate(**part, table=table, **options), whole[rows])
            credit = empg.explain(**part, table=table, **options)
            assert credit.summary["steps"] == len(table)


def test_a_trajectory_cut_into_rows_is_one_trajectory() -> None:
    advantages, entropy, mask = batch(3, rows=4)
    whole = empg.modulate(advantages, entropy, mask=mask)
    rows, base, keys, first = [], [], [], []
    for row, steps in enumerate(runs(mask)):
        cut = len(steps) // 2
        later = np.arange(70) >= (steps[cut][0] if steps else 10)
        for piece, skipped in ((mask[row] & later, cut), (mask[row] & ~later, 0)):
            rows.append((row, piece))
            base.append(advantages[row])
            keys.append(row)
            first.append(skipped)
    cut_mask = np.array([piece for _, piece in rows])
    cut_entropy = entropy[[row for row, _ in rows]]
    got = empg.modulate(
        np.array(base), cut_entropy, mask=cut_mask, trajectories=keys, first_step=first
    )
    for row in range(4):
        both = got[2 * row] + got[2 * row + 1]
        assert np.array_equal(both, whole[row])


def test_tables_travel() -> None:
    advantages, entropy, mask = batch(4)
    table = empg.StepTable.from_tokens(advantages, entropy, mask=mask, trajectories=np.arange(9) * 3)
    arrays = table.to_arrays()
    assert {name: column.dtype.name for name, column in arrays.items()} == {
        "trajectory": "uint64",
        "step": "uint32",
        "entropy": "float64",
        "advantage": "float64",
    }
    order = np.random.default_rng(0).permutation(len(table))
    assert empg.StepTable.from_arrays(**{n: c[order] for n, c in arrays.items()}) == table
    assert empg.StepTable.from_bytes(table.to_bytes()) == table
    assert pickle.loads(pickle.dumps(table)) == table
    empty = empg.StepTable.from_tokens(advantages, entropy, mask=np.zeros_like(mask))
    assert len(empty) == 0 and pickle.loads(pickle.dumps(empty)) == empty != table
    assert table.merge(empty) == empty.merge(table) == empg.StepTable.gather([table]) == table
    assert len(empg.StepTable.gather([])) == 0
    with pytest.raises(TypeError):
        hash(table)


def test_the_credit_of_a_table_is_that_of_its_rows() -> None:
    advantages, entropy, mask = batch(5)
    table = empg.StepTable.from_tokens(advantages, entropy, mask=mask)
    credit, rows = table.credit(zeta=0.2), empg.explain(advantages, entropy, mask=mask, zeta=0.2)
    assert credit.row is None and rows.row is not None
    assert credit.summary == rows.summary
    for name, column in credit.to_dict().items():
        assert np.array_equal(column, rows.to_dict()[name], equal_nan=True), name


def test_a_worker_may_hold_nothing() -> None:
    advantages, entropy, mask = batch(6)
    table = empg.StepTable.from_tokens(advantages, entropy, mask=mask)
    idle = empg.modulate(advantages, entropy, mask=np.zeros_like(mask), table=table)
    assert np.all(idle == 0.0)
    none = empg.modulate(np.ones(0), np.ones((0, 5)), mask=np.ones((0, 5), bool), table=table)
    assert none.shape == (0, 5)
    with pytest.raises(ValueError, match="no row has a step"):
        empg.modulate(
            advantages, entropy, mask=np.zeros_like(mask), table=empg.StepTable.gather([])
        )


def test_mistakes_between_workers_are_told() -> None:
    advantages, entropy, mask = batch(7)
    table = empg.StepTable.from_tokens(advantages, entropy, mask=mask)
    with pytest.raises(ValueError, match=r"trajectory 0 step 0 is in tables\[0\] and tables\[1\]"):
        table.merge(table)
    with pytest.raises(ValueError, match=r"tables\[1\] and tables\[2\]"):
        empg.StepTable.gather([empg.StepTable.gather([]), table, table])
    with pytest.raises(TypeError, match=r"tables\[1\]: expected StepTable, got dict"):
        empg.StepTable.gather([table, {}])
    with pytest.raises(TypeError):
        empg.StepTable.gather(3)
    with pytest.raises(ValueError, match="table: trajectory 100 step 0 is not in the table"):
        empg.modulate(advantages, entropy, mask=mask, table=table, trajectories=np.arange(9) + 100)
    with pytest.raises(ValueError, match="table: the entropy of trajectory 0 step 0 is not that"):
        empg.modulate(advantages, entropy + 1, mask=mask, table=table)
    with pytest.raises(ValueError, match="trajectories: trajectory 5 step 0 occurs twice"):
        empg.modulate(advantages, entropy, mask=mask, trajectories=np.full(9, 5))
    for data in (b"", b"other bytes of more than the mark", table.to_bytes()[:-1]):
        with pytest.raises(ValueError, match="data: the bytes are no step table"):
            empg.StepTable.from_bytes(data)
    arrays = table.to_arrays()
    with pytest.raises(ValueError, match="step: shape"):
        empg.StepTable.from_arrays(**{**arrays, "step": arrays["step"][:-1]})
    with pytest.raises(ValueError, match="advantage: shape"):
        empg.StepTable.from_arrays(**{**arrays, "advantage": arrays["advantage"][:-1]})
    with pytest.raises(ValueError, match="twice"):
        empg.StepTable.from_arrays(**{**arrays, "step": arrays["step"] * 0})
    with pytest.raises(ValueError, match="entropy is not finite"):
        empg.StepTable.from_arrays(**{**arrays, "entropy": arrays["entropy"] * np.nan})
    with pytest.raises(ValueError, match="no step"):
        empg.StepTable.gather([]).credit()
