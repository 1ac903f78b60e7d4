"""`modulate` and `explain` against plain numpy, in every layout, dtype and kind of array."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from batches import batch
from reference import empg as reference
from reference import runs

import empg

OPTIONS: list[dict[str, Any]] = [
    {},
    {"k": 2.5, "k_f": 0.3, "zeta": 0.4},
    {"k": 0.0, "zeta": 0.0},
    {"shape": "linear", "k": 0.7},
    {"normalize": "quantile", "quantile": (0.1, 0.8)},
    {"gate_bonus": True},
    {"center": False},
    {"paper_exact": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("per_token", [False, True])
def test_equals_the_equations(options: dict[str, Any], per_token: bool) -> None:
    for seed in range(5):
        advantages, entropy, mask = batch(seed)
        advantages[2] = 0.0
        if per_token:
            noise = np.random.default_rng(seed).normal(size=entropy.shape)
            advantages = advantages[:, None] + (0.1 * noise if seed % 2 else 0.0 * noise)
        wanted = reference(advantages, entropy, runs(mask), **options)
        got = empg.modulate(advantages, entropy, mask=mask, **options)
        assert got.dtype == np.float64
        assert np.all(np.abs(got - wanted) <= 1e-6 * np.maximum(1, np.abs(wanted)))
        if not options.get("paper_exact"):
            assert np.all(got[~mask] == 0.0) and not np.any(np.signbit(got[~mask]))
        single = empg.modulate(
            advantages.astype(np.float32), entropy.astype(np.float32), mask=mask, **options
        )
        assert single.dtype == np.float32
        assert np.all(np.abs(single - wanted) <= 2e-5 * np.maximum(1, np.abs(wanted)))


def test_one_advantage_per_row_has_the_bits_of_one_per_token() -> None:
    for dtype in (np.float32, np.float64):
        advantages, entropy, mask = batch(1, dtype=dtype)
        spread = np.repeat(advantages[:, None], entropy.shape[1], 1)
        per_row = empg.modulate(advantages, entropy, mask=mask)
        assert np.array_equal(per_row, empg.modulate(spread, entropy, mask=mask))
        for threads in (1, 2, 5):
            again = empg.modulate(advantages, entropy, mask=mask, threads=threads)
            assert np.array_equal(per_row, again)


@pytest.mark.parametrize("per_token", [False, True])
def test_ragged_rows_equal_padded_ones(per_token: bool) -> None:
    advantages, entropy, mask = batch(2)
    if per_token:
        advantages = np.repeat(advantages[:, None], entropy.shape[1], 1)
    padded = empg.modulate(advantages, entropy, mask=mask)
    lengths = np.random.default_rng(3).integers(30, 71, len(entropy))
    keep = np.arange(entropy.shape[1]) < lengths[:, None]
    mask &= keep
    padded = empg.modulate(advantages, entropy, mask=mask)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    flat = advantages[keep] if per_token else advantages
    ragged = empg.modulate(flat, entropy[keep], mask=mask[keep], offsets=offsets)
    assert np.array_equal(ragged, padded[keep])
    steps = empg.steps_from_mask(mask[keep], offsets=offsets)
    again = empg.modulate(flat, entropy[keep], steps=steps, offsets=list(offsets))
    assert np.array_equal(ragged, again)


@pytest.mark.parametrize("kind", ["bool", "u1", "i1", "i2", "u4", "i4", "i8", "f2", "f4", "f8"])
def test_masks_of_every_type(kind: str) -> None:
    advantages, entropy, mask = batch(4)
    wanted = empg.modulate(advantages, entropy, mask=mask)
    assert np.array_equal(wanted, empg.modulate(advantages, entropy, mask=mask.astype(kind)))


def test_steps_in_every_form() -> None:
    advantages, entropy, mask = batch(5)
    wanted = empg.modulate(advantages, entropy, mask=mask)
    spans = runs(mask)
    forms: list[Any] = [
        spans,
        tuple(tuple(row) for row in spans),
        [[list(span) for span in row] for row in spans],
        [np.array(row, np.int64).reshape(-1, 2).tolist() for row in spans],
        np.array([(row, a, b) for row, steps in enumerate(spans) for a, b in steps]),
    ]
    for form in forms:
        assert np.array_equal(wanted, empg.modulate(advantages, entropy, steps=form))


@pytest.mark.parametrize("form", [list, np.array, iter], ids=["list", "array", "iterator"])
def test_quantiles_are_any_two_numbers(form: Any) -> None:
    advantages, entropy, mask = batch(11)
    levels = (0.1, 0.8)
    table = empg.StepTable.from_tokens(advantages, entropy, mask=mask)
    wanted = empg.modulate(advantages, entropy, mask=mask, normalize="quantile", quantile=levels)
    got = empg.modulate(advantages, entropy, mask=mask, normalize="quantile", quantile=form(levels))
    assert np.array_equal(got, wanted)
    credit = table.credit(normalize="quantile", quantile=form(levels))
    assert np.array_equal(credit.g, table.credit(normalize="quantile", quantile=levels).g)


def test_neighbouring_steps_are_told_apart_by_ranges_only() -> None:
    entropy = np.array([[0.1, 0.1, 0.9, 0.9]])
    two = empg.explain(np.ones(1), entropy, steps=[[(0, 2), (2, 4)]])
    assert len(two) == 2 and two.f_next[0] == pytest.approx(np.exp(-1.0), abs=1e-6)
    assert len(empg.explain(np.ones(1), entropy, mask=np.ones((1, 4), bool))) == 1


def test_out_is_written_and_nothing_else() -> None:
    for dtype in (np.float32, np.float64):
        advantages, entropy, mask = batch(6, dtype=dtype)
        before = [array.copy() for array in (advantages, entropy, mask)]
        wanted = empg.modulate(advantages, entropy, mask=mask)
        out = np.full(entropy.shape, 7, dtype)
        assert empg.modulate(advantages, entropy, mask=mask, out=out) is out
        assert np.array_equal(out, wanted)
        spread = np.repeat(advantages[:, None], entropy.shape[1], 1)
        assert empg.modulate(spread, entropy, mask=mask, out=spread) is spread
        assert np.array_equal(spread, wanted)
        for array, was in zip((advantages, entropy, mask), before):
            assert np.array_equal(array, was, equal_nan=array.dtype.kind == "f")
    # What fails leaves `out` as it was.
    entropy[0] = np.nan
    out[:] = 7
    with pytest.raises(ValueError, match="entropy"):
        empg.modulate(advantages, entropy, mask=mask, out=out)
    assert np.all(out == 7)


def test_half_precision_is_computed_in_float32() -> None:
    advantages, entropy, mask = batch(7, dtype=np.float16)
    got = empg.modulate(advantages, entropy, mask=mask)
    wide = empg.modulate(advantages.astype("f4"), entropy.astype("f4"), mask=mask)
    assert got.dtype == np.float16 and np.array_equal(got, wide.astype("f2"))
    out = np.zeros_like(entropy)
    assert empg.modulate(advantages, entropy, mask=mask, out=out) is out
    assert np.array_equal(out, got)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("precision", ["f4", "f8"])
def test_a_base_per_row_is_read_in_the_precision_of_the_entropies(
    dtype: str, precision: str
) -> None:
    advantages, entropy, mask = batch(12)
    base, entropy = advantages.astype(dtype), entropy.astype(precision)
    wanted = empg.modulate(base.astype(precision), entropy, mask=mask)
    got = empg.modulate(base, entropy, mask=mask)
    if (dtype, precision) == ("f2", "f4"):
        assert got.dtype == np.float16
        wanted = wanted.astype("f2")
    else:
        assert got.dtype == np.dtype(precision)
    assert np.array_equal(got, wanted)
    out = np.zeros_like(entropy)
    empg.modulate(base, entropy, mask=mask, out=out)
    assert np.array_equal(out.astype(got.dtype), got)
    table = empg.StepTable.from_tokens(base, entropy, mask=mask)
    assert table == empg.StepTable.from_tokens(base.astype(precision), entropy, mask=mask)
    assert np.array_equal(empg.modulate(base, entropy, mask=mask, table=table), got)
    assert np.array_equal(
        empg.explain(base, entropy, mask=mask).base,
        empg.explain(base.astype(precision), entropy, mask=mask).base,
    )


def test_what_group_estimators_give_goes_with_torch_entropies() -> None:
    torch = pytest.importorskip("torch")
    _, entropy, mask = batch(13, dtype=np.float32)
    base = empg.grpo(np.arange(len(entropy)) % 3, np.zeros(len(entropy), int))
    assert base.dtype == np.float64
    wanted = empg.modulate(base.astype("f4"), entropy, mask=mask)
    for given in (base, torch.from_numpy(base)):
        got = empg.modulate(given, torch.from_numpy(entropy), mask=mask)
        assert isinstance(got, torch.Tensor) and got.dtype == torch.float32
        assert np.array_equal(got.numpy(), wanted)


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
@pytest.mark.parametrize("per_token", [False, True])
def test_entropies_in_half_precision_leave_the_credit_its_own(half: str, per_token: bool) -> None:
    torch = pytest.importorskip("torch")
    advantages, entropy, mask = batch(14, dtype=np.float32)
    if per_token:
        advantages = np.repeat(advantages[:, None], entropy.shape[1], 1)
    tensor = torch.from_numpy(entropy).to(getattr(torch, half))
    wanted = empg.modulate(advantages, tensor.float().numpy(), mask=mask)
    for given in (advantages, torch.from_numpy(advantages)):
        got = empg.modulate(given, tensor, mask=mask)
        assert isinstance(got, torch.Tensor) and got.dtype == torch.float32
        assert np.array_equal(got.numpy(), wanted)
    if not per_token:
        got = empg.modulate(advantages.astype("f8"), tensor, mask=mask)
        assert got.dtype == torch.float32 and np.array_equal(got.numpy(), wanted)
    got = empg.modulate(advantages.astype("f2"), tensor, mask=mask)
    assert got.dtype == torch.float16


def test_torch_tensors_come_back_as_they_went() -> None:
    torch = pytest.importorskip("torch")
    advantages, entropy, mask = batch(8, dtype=np.float32)
    wanted = empg.modulate(advantages, entropy, mask=mask)
    given = [torch.from_numpy(array) for array in (advantages, entropy, mask)]
    got = empg.modulate(given[0], given[1], mask=given[2])
    assert isinstance(got, torch.Tensor) and got.dtype == torch.float32
    assert np.array_equal(got.numpy(), wanted)
    # An expanded view, another mask type, numpy beside torch, a tensor that wants gradients.
    spread = given[0][:, None].expand(*given[1].shape)
    assert np.array_equal(empg.modulate(spread, given[1], mask=given[2].long()).numpy(), wanted)
    assert np.array_equal(empg.modulate(given[0], entropy, mask=mask).numpy(), wanted)
    assert isinstance(empg.modulate(advantages, given[1], mask=mask), torch.Tensor)
    hungry = given[1].clone().requires_grad_()
    assert not empg.modulate(given[0], hungry, mask=given[2]).requires_grad
    # float64 and the half types.
    double = empg.modulate(given[0].double(), given[1].double(), mask=given[2])
    assert double.dtype == torch.float64
    for half in (torch.bfloat16, torch.float16):
        got = empg.modulate(given[0].to(half), given[1].to(half), mask=given[2])
        wide = empg.modulate(given[0].to(half).float(), given[1].to(half).float(), mask=given[2])
        assert got.dtype == half and torch.equal(got, wide.to(half))
        out = torch.zeros(given[1].shape, dtype=half)
        empg.modulate(given[0].to(half), given[1].to(half), mask=given[2], out=out)
        assert torch.equal(out, got)
    # out=, also the advantages themselves.
    both = spread.contiguous()
    assert empg.modulate(both, given[1], mask=given[2], out=both) is both
    assert np.array_equal(both.numpy(), wanted)
    if torch.cuda.is_available():
        there = [tensor.cuda() for tensor in given]
        got = empg.modulate(there[0], there[1], mask=there[2])
        assert got.device == there[0].device and np.array_equal(got.cpu().numpy(), wanted)
        out = torch.zeros_like(there[1])
        empg.modulate(there[0], there[1], mask=there[2], out=out)
        assert np.array_equal(out.cpu().numpy(), wanted)


def test_arrays_of_other_libraries_are_read_through_dlpack() -> None:
    class Foreign:
        def __init__(self, array: np.ndarray[Any, Any]) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    advantages, entropy, mask = batch(9)
    got = empg.modulate(Foreign(advantages), Foreign(entropy), mask=mask)
    assert isinstance(got, np.ndarray)
    assert np.array_equal(got, empg.modulate(advantages, entropy, mask=mask))


def test_explain_agrees_with_modulate() -> None:
    advantages, entropy, mask = batch(10)
    got = empg.modulate(advantages, entropy, mask=mask)
    credit = empg.explain(advantages, entropy, mask=mask)
    columns = credit.to_dict()
    assert len(credit) == sum(map(len, runs(mask)))
    for row, start, end, advantage in zip(
        columns["row"], columns["start"], columns["end"], columns["advantage"]
    ):
        assert np.all(got[row, start:end] == advantage)
    assert np.array_equal(columns["trajectory"], columns["row"])
    whole = credit.base * credit.g + credit.bonus - credit.centring
    assert np.allclose(whole, credit.advantage, atol=1e-12, rtol=0)
    last = np.append(columns["row"][1:] != columns["row"][:-1], True)
    assert np.array_equal(np.isnan(credit.f_next), last)
    assert np.all(credit.bonus[last] == 0.0)
    summary = credit.summary
    assert summary["steps"] == len(credit) and summary["g_max"] == credit.g.max()
    assert summary["centring"] == credit.centring[0]
    assert credit.g.mean() == pytest.approx(1.0, abs=1e-7)
    assert "bonus" in credit.describe(0) and credit.describe(-1) == credit.describe(len(credit) - 1)
    with pytest.raises(IndexError):
        credit.describe(len(credit))


def test_rows_without_steps_get_nothing() -> None:
    advantages, entropy, mask = batch(11)
    assert np.all(empg.modulate(advantages, entropy, mask=mask)[1] == 0.0)
    exact = empg.modulate(advantages, entropy, mask=mask, paper_exact=True)
    centring = empg.explain(advantages, entropy, mask=mask).summary["centring"]
    assert np.all(exact[1] == advantages[1] - centring)
    unchanged = empg.modulate(advantages, entropy, mask=np.zeros_like(mask), paper_exact=True)
    assert np.array_equal(unchanged, np.repeat(advantages[:, None], entropy.shape[1], 1))


def test_torch_is_not_imported() -> None:
    program = (
        "import sys, numpy as np, empg, empg.envs, empg.integrations\n"
        "empg.modulate(np.ones(2), np.ones((2, 3)), mask=np.ones((2, 3), bool))\n"
        "hosts = {'torch', 'gymnasium', 'trl', 'verl', 'ray', 'pandas', 'pyarrow'}\n"
        "assert not hosts & set(sys.modules), hosts & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_interpreter_runs_on_meanwhile() -> None:
    entropy = np.random.default_rng(0).random((64, 1 << 17))
    mask = np.ones(entropy.shape, bool)
    started, finished = threading.Event(), []

    def work() -> None:
        started.set()
        empg.modulate(np.ones(64), entropy, mask=mask, threads=1)
        finished.append(True)

    interval = sys.getswitchinterval()
    # A thread that holds the lock is not asked for it: only one that lets go is overtaken.
    sys.setswitchinterval(1000.0)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        started.wait()
        overtaken = not finished
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert overtaken
