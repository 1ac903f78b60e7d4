"""Bad input: a ValueError that names the argument, the shape and the row; never a panic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from batches import batch

import empg

A, H, M = batch(0)


def nan_at(row: int, token: int, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array = array.copy()
    array[row, token] = np.nan
    return array


FIRST = int(np.flatnonzero(M[2])[0])
FLAT = {"entropy": H.ravel(), "mask": M.ravel()}
OVERLAP = np.zeros(2 * H.size)
SPREAD = np.repeat(A[:, None], 70, 1)
TWO = M.astype(int)
TWO[3, 5] = 2
FLAGS = M.astype("f8")
LOCKED = np.zeros((9, 70))
LOCKED.flags.writeable = False
# fmt: off
CASES: list[tuple[str, dict[str, Any]]] = [
    (r"advantages: shape \(4,\), expected \(9, 70\) as entropy, or \(9,\)", {"advantages": A[:4]}),
    (r"advantages: shape \(70, 9\)", {"advantages": np.ones((70, 9))}),
    (r"entropy: shape \(70,\) without offsets", {"entropy": H[0]}),
    (r"entropy: shape \(9, 70, 1\)", {"entropy": H[:, :, None]}),
    (r"entropy: shape \(9, 35\) is not C-contiguous", {"entropy": H[:, ::2], "mask": M[:, :35].copy()}),
    (r"advantages: shape \(9,\) is not C-contiguous", {"advantages": np.repeat(A, 2)[::2]}),
    (r"mask: shape \(9, 70\) is not C-contiguous", {"mask": np.asfortranarray(M)}),
    (r"mask: shape \(9, 69\), expected \(9, 70\)", {"mask": M[:, :69]}),
    (r"mask: 2 at row 3, token 5 of shape \(9, 70\)", {"mask": TWO}),
    (r"mask: -1 at row 0", {"mask": -M.astype("f4")}),
    (r"mask: 0.5 at row 0", {"mask": M * 0.5}),
    (r"mask: dtype is ", {"mask": M.astype(str)}),
    (r"mask: missing", {"mask": None}),
    (r"steps: give either", {"steps": [[]] * 9}),
    (r"entropy: dtype is int64", {"entropy": np.ones((9, 70), int)}),
    (r"entropy: dtype is complex128", {"entropy": H.astype(complex)}),
    (r"entropy: dtype is >f8", {"entropy": H.astype(">f8")}),
    (r"mask: dtype is >i4", {"mask": M.astype(">i4")}),
    (r"advantages: dtype is float32, expected float64 as entropy", {"advantages": SPREAD.astype("f4")}),
    (r"advantages: dtype is >f4, expected float64 as entropy", {"advantages": A.astype(">f4")}),
    (r"advantages: dtype is int64", {"advantages": np.ones(9, int)}),
    (rf"entropy of shape \(9, 70\): not finite at row 2, step 0, token {FIRST}", {"entropy": nan_at(2, FIRST, H)}),
    (r"entropy of shape \(9, 70\): not finite at row 2", {"entropy": np.where(np.arange(9)[:, None] == 2, np.inf, H)}),
    (r"advantages of shape \(9,\): not finite at row 0", {"advantages": A * np.nan}),
    (rf"advantages of shape \(9, 70\): not finite at row 2, step 0, token {FIRST}", {"advantages": nan_at(2, FIRST, SPREAD)}),
    (r"no row has a step", {"mask": np.zeros_like(M)}),
    (r"no row has a step", {"mask": None, "steps": [[]] * 9}),
    (r"entropy: shape \(1073741824, 0\): no row has a token", {"entropy": np.ones((2**30, 0)), "mask": np.ones((2**30, 0), bool)}),
    (r"the batch has no row", {"advantages": np.ones(0), "entropy": np.ones((0, 7)), "mask": np.ones((0, 7), bool)}),
    (r"steps: 2 rows, expected 9", {"mask": None, "steps": [[], []]}),
    (r"steps: row 1, step 0 of shape \(9, 70\): \(4, 4\) is empty", {"mask": None, "steps": [[], [(4, 4)]] + [[]] * 7}),
    (r"steps: row 0, step 1 of shape \(9, 70\) starts at 2", {"mask": None, "steps": [[(0, 3), (2, 5)]] + [[]] * 8}),
    (r"steps: row 0, step 0 of shape \(9, 70\) ends at 71", {"mask": None, "steps": [[(0, 71)]] + [[]] * 8}),
    (r"steps: row 0, step 0: expected whole numbers", {"mask": None, "steps": [[(-1, 4)]] + [[]] * 8}),
    (r"steps: row 0, step 0: expected whole numbers", {"mask": None, "steps": [[(1, 2, 3)]] + [[]] * 8}),
    (r"steps: row 0, step 0: expected whole numbers", {"mask": None, "steps": [[("a", "b")]] + [[]] * 8}),
    (r"steps: row 0: expected whole numbers", {"mask": None, "steps": [5] * 9}),
    (r"steps: shape \(4, 2\), expected \(steps, 3\)", {"mask": None, "steps": np.ones((4, 2), int)}),
    (r"steps: entry 0: row 9", {"mask": None, "steps": np.array([[9, 0, 1]])}),
    (r"steps: entry 0 has a negative number", {"mask": None, "steps": np.array([[0, -2, 1]])}),
    (r"offsets: -5 at row 1 is negative", {**FLAT, "offsets": [0, -5, 630]}),
    (r"offsets: row 1 of shape \(4,\) ends at 3", {**FLAT, "offsets": [0, 10, 3, 630]}),
    (r"offsets: shape \(2,\), they must begin with 0", {**FLAT, "offsets": [1, 630]}),
    (r"offsets: shape \(0,\), they must begin with 0", {**FLAT, "offsets": []}),
    (r"offsets: shape \(2,\), they end at 629", {**FLAT, "offsets": [0, 629]}),
    (r"offsets: dtype is float64, expected whole", {**FLAT, "offsets": [0.0, 630.0]}),
    (r"offsets: shape \(1, 2\), expected one", {**FLAT, "offsets": [[0, 630]]}),
    (r"entropy: shape \(9, 70\) with offsets", {"offsets": [0, 630]}),
    (r"trajectories: shape \(3,\), expected \(9,\)", {"trajectories": [1, 2, 3]}),
    (r"trajectories: -1 at row 8 is negative", {"trajectories": [*range(8), -1]}),
    (r"trajectories: dtype is", {"trajectories": list("abcdefghi")}),
    (r"first_step: -2 at row 0", {"first_step": [-2] * 9}),
    (r"first_step: 4294967296 at row 0 is too large", {"first_step": [2**32] * 9}),
    (r"first_step: row 0", {"first_step": [2**32 - 1] * 9}),
    (r"k: -1: must be finite", {"k": -1.0}),
    (r"k_f: NaN: must be finite", {"k_f": float("nan")}),
    (r"zeta: inf", {"zeta": float("inf")}),
    (r"quantile: 0.9: the lower must be below the upper", {"quantile": (0.9, 0.1)}),
    (r"quantile: 2", {"quantile": (0.0, 2.0)}),
    (r"quantile: \[0.1\], expected two numbers", {"quantile": [0.1]}),
    (r"quantile: \(0.1, 0.5, 0.9\), expected two", {"quantile": (0.1, 0.5, 0.9)}),
    (r"quantile: 0.9, expected two", {"quantile": 0.9}),
    (r"quantile: 'ab', expected two", {"quantile": "ab"}),
    (r"shape: \"cubic\"", {"shape": "cubic"}),
    (r"normalize: \"none\"", {"normalize": "none"}),
    (r"out: shape \(9,\), expected \(9, 70\)", {"out": np.ones(9)}),
    (r"out: dtype is float32, expected float64", {"out": np.ones((9, 70), "f4")}),
    (r"out: shape \(9, 70\) is not C-contiguous", {"out": np.ones((9, 140))[:, ::2]}),
    (r"out: the array is read-only", {"out": LOCKED}),
    (r"out: its memory overlaps that of entropy", {"out": H}),
    (r"out: its memory overlaps that of advantages", {"advantages": OVERLAP[:630].reshape(9, 70), "out": OVERLAP[1:631].reshape(9, 70)}),
    (r"out: its memory overlaps that of advantages", {"advantages": OVERLAP[:9], "out": OVERLAP[:630].reshape(9, 70)}),
    (r"out: its memory overlaps that of mask", {"mask": FLAGS, "out": FLAGS}),
]
# fmt: on


@pytest.mark.parametrize("message,change", CASES, ids=[message for message, _ in CASES])
def test_the_culprit_is_named(message: str, change: dict[str, Any]) -> None:
    arguments = {"advantages": A, "entropy": H, "mask": M, **change}
    if "offsets" in change and "entropy" in change and "advantages" not in change:
        arguments["advantages"] = H.ravel()
    with pytest.raises(ValueError, match=message):
        empg.modulate(**arguments)


@pytest.mark.parametrize("argument", ["advantages", "entropy", "mask", "out"])
@pytest.mark.parametrize("value", [[[0.0] * 70] * 9, 3.5, "text", object()], ids=type)
def test_what_is_no_array_is_a_type_error(argument: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{argument}: expected a numpy array or a torch tensor"):
        empg.modulate(**{"advantages": A, "entropy": H, "mask": M, argument: value})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_out_of_torch_overlaps_nothing_but_the_advantages(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    memory = torch.zeros(700, dtype=getattr(torch, dtype))

    def part(of: Any, start: int) -> Any:
        shared = memory[start : start + of.size].view(of.shape)
        shared.copy_(torch.from_numpy(of.astype(dtype)))
        return shared

    good = {
        "advantages": torch.from_numpy(SPREAD.astype(dtype)),
        "entropy": torch.from_numpy(H.astype(dtype)),
        "mask": torch.from_numpy(M.astype(dtype)),
    }
    wanted = empg.modulate(**good)
    places: list[tuple[str, Any, int, int]] = [
        ("entropy", H, 0, 0), ("entropy", H, 1, 0), ("mask", M, 0, 3), ("mask", M, 0, 0),
        ("advantages", SPREAD, 1, 0), ("advantages", SPREAD, 0, 1), ("advantages", A, 0, 0),
        ("advantages", A, 629, 0),
    ]  # fmt: skip
    for name, array, start, to in places:
        given = {**good, name: part(array, start)}
        before = memory.numpy().tobytes()
        with pytest.raises(ValueError, match=f"out: its memory overlaps that of {name}"):
            empg.modulate(**given, out=memory[to : to + 630].view(9, 70))
        assert memory.numpy().tobytes() == before
    # Beside each other in one storage, and in place.
    out = memory[60:690].view(9, 70)
    empg.modulate(**{**good, "advantages": part(A, 0)}, out=out)
    assert torch.equal(out, wanted)
    both = part(SPREAD, 5)
    assert empg.modulate(**{**good, "advantages": both}, out=memory[5:635].view(9, 70)) is not None
    assert torch.equal(both, wanted)


def test_sparse_tensors_are_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises((ValueError, RuntimeError)):
        empg.modulate(A, torch.from_numpy(H).to_sparse(), mask=M)


def odd(random: np.random.Generator) -> Any:
    """Any object that a program might pass by mistake, or a good one."""
    shapes: list[Any] = [(), (0,), (3,), (4,), (3, 4), (4, 3), (12,), (0, 4), (3, 0), (3, 4, 1)]
    kinds = ["f8", "f4", "f2", "i8", "i4", "u1", "bool", "u8", "c16", "U3", "O", ">f8", "M8[s]"]
    choice = int(random.integers(0, 10))
    if choice < 6:
        shape = shapes[random.integers(0, len(shapes))]
        array = random.integers(0, 2, shape) if choice % 2 else random.normal(size=shape) * 9
        with np.errstate(all="ignore"):
            array = np.asarray(array).astype(kinds[random.integers(0, len(kinds))])
        if choice == 4:
            array = array.T
        elif choice == 5 and array.ndim:
            array = array[::-1]
        return array
    extremes: list[Any] = [
        None, 0, -1, 2**70, 1.5, float("nan"), "", "exp", [], [[]], [[(0, 2)], [], [(1, 3)]],
        [0, 4, 8, 12], [0, 2**63], [2**64 - 1, 0, 1], [-(2**63), 1, 2], {}, b"x", (0.1, 0.9), True,
        [[(0, 2**63)], [], []], [[(0, None)]], [[[0, 1], [2, 3]], [], []], range(3), {1: 2}, 1j,
    ]  # fmt: skip
    return extremes[random.integers(0, len(extremes))]


def test_no_argument_makes_it_panic() -> None:
    names = [
        "mask", "steps", "offsets", "trajectories", "first_step", "table", "k", "k_f", "zeta",
        "shape", "normalize", "quantile", "gate_bonus", "out", "threads",
    ]  # fmt: skip
    random = np.random.default_rng(1)
    good: dict[str, Any] = {
        "advantages": np.ones(3),
        "entropy": np.ones((3, 4)),
        "mask": np.ones((3, 4), bool),
    }
    done = 0
    for _ in range(20_000):
        arguments = dict(good)
        for name in random.choice([*good, *names], int(random.integers(1, 4)), replace=False):
            arguments[name] = odd(random)
        if isinstance(arguments.get("threads"), int):
            arguments["threads"] = min(arguments["threads"], 3)
        for call in (empg.modulate, empg.explain, empg.StepTable.from_tokens):
            try:
                call(**arguments)
                done += 1
            # A panic is a BaseException, and would pass through.
            except Exception:
                pass
    assert done > 300
    for _ in range(5_000):
        one, other, third, fourth = (odd(random) for _ in range(4))
        calls: list[Any] = [
            lambda: empg.grpo(one, other),
            lambda: empg.flat_groups(one, other),
            lambda: empg.overlong_penalty(one, 10, 5),
            lambda: empg.steps_from_mask(one, offsets=other),
            lambda: empg.steps_from_chatml(one, header=other, end=third, lengths=fourth),
            lambda: empg.StepTable.from_arrays(one, other, third, fourth),
            lambda: empg.StepTable.from_bytes(one),
            lambda: empg.StepTable.gather(one),
        ]
        for call in calls:
            try:
                call()
            except Exception:
                pass
