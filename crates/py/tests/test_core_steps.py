"""Finding steps by masks and by markers."""

from __future__ import annotations

import numpy as np
import pytest
from batches import batch
from reference import runs

import empg


def test_runs_of_one_are_steps() -> None:
    for seed in range(20):
        _, _, mask = batch(seed, width=5 + 13 * seed)
        assert empg.steps_from_mask(mask) == runs(mask)
        assert empg.steps_from_mask(mask[0].astype("i8")) == runs(mask[:1])
    assert empg.steps_from_mask(np.array([[0, 1, 1, 0, 1]])) == [[(1, 3), (4, 5)]]
    assert empg.steps_from_mask(np.array([1, 1, 1], "u1"), offsets=[0, 2, 2, 3]) == [
        [(0, 2)],
        [],
        [(0, 1)],
    ]


def test_turns_lie_between_markers() -> None:
    # 1 = <|im_start|>, 2 = assistant, 3 = newline, 9 = <|im_end|>, 4 = user
    whole = [1, 4, 3, 70, 9, 3, 1, 2, 3, 50, 51, 9, 3, 1, 2, 3, 60]
    inside = [50, 51, 9, 3, 1, 4, 3, 70, 9, 3, 1, 2, 3, 60, 9, 0, 0]
    tokens = np.array([whole, inside])
    found = empg.steps_from_chatml(tokens, header=[1, 2, 3], end=[9], lengths=[17, 15])
    assert found == [[(9, 11), (16, 17)], [(0, 2), (13, 14)]]
    found = empg.steps_from_chatml(tokens, header=[1, 2, 3], end=[9], include_end=True)
    assert found[1] == [(0, 3), (13, 15)]
    found = empg.steps_from_chatml([inside], header=[1, 2, 3], end=[9], start="outside")
    assert found == [[(13, 14)]]
    assert empg.steps_from_chatml([[], [5]], header=[1], end=[9]) == [[], [(0, 1)]]


def test_a_response_may_end_in_padding_that_looks_like_text() -> None:
    torch = pytest.importorskip("torch")
    tokens = torch.tensor([[50, 51, 0, 0]])
    assert empg.steps_from_chatml(tokens, header=[1], end=[9], lengths=[2]) == [[(0, 2)]]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="end: the end token sequence is empty"):
        empg.steps_from_chatml([[1]], header=[1], end=[])
    with pytest.raises(ValueError, match="header"):
        empg.steps_from_chatml([[1]], header=[], end=[1])
    with pytest.raises(ValueError, match="row 1 of tokens: .*-4"):
        empg.steps_from_chatml([[1], [-4]], header=[1], end=[2])
    with pytest.raises(ValueError, match="lengths: 3 at row 0"):
        empg.steps_from_chatml([[1]], header=[1], end=[2], lengths=[3])
    with pytest.raises(ValueError, match="start"):
        empg.steps_from_chatml([[1]], header=[1], end=[2], start="here")
    with pytest.raises(TypeError, match="tokens"):
        empg.steps_from_chatml(7, header=[1], end=[2])
    with pytest.raises(TypeError, match="mask"):
        empg.steps_from_mask([[0, 1]])
    with pytest.raises(ValueError, match="mask: 2 at row 1, token 0"):
        empg.steps_from_mask(np.array([[0, 1], [2, 0]]))
