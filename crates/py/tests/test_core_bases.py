"""Base advantages, DAPO's filter and shaping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import empg

REWARDS = np.array([1.0, 5.0, 0.0, 7.5, 0.25, 3.0])
GROUPS: list[Any] = [
    np.array([0, 3, 0, 3, 0, 3]),
    ["a", "b", "a", "b", "a", "b"],
    np.array(["x y", "'", "x y", "'", "x y", "'"], object),
    [(1, 2), (1, 3), (1, 2), (1, 3), (1, 2), (1, 3)],
]


@pytest.mark.parametrize("groups", GROUPS, ids=str)
def test_rows_are_compared_within_their_group(groups: Any) -> None:
    one, other = [0, 2, 4], [1, 3, 5]
    for members in (one, other):
        own = REWARDS[members]
        wanted = (own - own.mean()) / (own.std(ddof=1) + 1e-6)
        assert np.allclose(empg.grpo(REWARDS, groups)[members], wanted, atol=1e-12)
        wanted = (own - own.mean()) / (own.std() + 1e-4)
        got = empg.grpo(REWARDS, groups, ddof=0, eps=1e-4)[members]
        assert np.allclose(got, wanted, atol=1e-12)
        assert np.allclose(empg.dr_grpo(REWARDS, groups)[members], own - own.mean(), atol=1e-12)
        others = [np.mean(np.delete(own, i)) for i in range(3)]
        assert np.allclose(empg.rloo(REWARDS, groups)[members], own - others, atol=1e-12)


@pytest.mark.parametrize(
    "pair",
    [
        (1, np.int64(1)),
        (1, 1.0),
        ("a", np.str_("a")),
        ([1, 2], (1, 2)),
        ((1, np.int64(2)), np.array([1, 2])),
        (frozenset({"a", "b"}), frozenset({"b", "a"})),
    ],
    ids=str,
)
def test_equal_ids_are_one_group(pair: tuple[Any, Any]) -> None:
    assert empg.dr_grpo([1.0, 0.0], list(pair)).tolist() == [0.5, -0.5]


def test_ids_that_print_alike_are_two_groups() -> None:
    # Arrays of more than a thousand numbers are printed without their middle.
    ids = [np.array([1, 2, 3, *[i] * 1100, 7, 8, 9]) for i in (0, 0, 1, 1)]
    assert repr(ids[0]) == repr(ids[2])
    assert empg.dr_grpo([1.0, 0.0, 5.0, 5.0], ids).tolist() == [0.5, -0.5, 0.0, 0.0]


def test_ids_that_cannot_be_compared_are_named() -> None:
    with pytest.raises(ValueError, match="groups: row 1: .*unhashable"):
        empg.dr_grpo([1.0, 0.0], [1, {"a": 1}])
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="groups: row 0: .*nested too deeply"):
        empg.dr_grpo([1.0], [endless])


def test_flat_groups_have_no_advantage() -> None:
    rewards, groups = [0.1, 0.1, 1.0, 0.0, 4.0], [7, 7, 8, 8, 9]
    assert empg.flat_groups(rewards, groups).tolist() == [True, True, False, False, True]
    assert empg.grpo(rewards[:4], groups[:4])[:2].tolist() == [0.0, 0.0]
    assert empg.dr_grpo(rewards, groups)[4] == 0.0
    assert len(empg.grpo([], [])) == 0


def test_long_answers_are_punished_softly() -> None:
    got = empg.overlong_penalty([0, 80, 90, 100, 500], 100, 20, penalty=2.0)
    assert got.tolist() == [0.0, 0.0, -1.0, -2.0, -2.0]


def test_tensors_are_read() -> None:
    torch = pytest.importorskip("torch")
    groups = torch.tensor([0, 3, 0, 3, 0, 3])
    assert np.array_equal(
        empg.rloo(torch.from_numpy(REWARDS), groups), empg.rloo(REWARDS, groups.numpy())
    )


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="groups: the group of row 2 has no other row"):
        empg.grpo([1.0, 2.0, 3.0], [0, 0, 1])
    with pytest.raises(ValueError, match=r"rewards: NaN at row 1 of shape \(2,\)"):
        empg.rloo([1.0, np.nan], [0, 0])
    with pytest.raises(ValueError, match="rewards: NaN at row 1"):
        empg.flat_groups([1.0, np.nan], [0, 0])
    with pytest.raises(ValueError, match=r"groups: shape \(1,\), expected \(2,\)"):
        empg.grpo([1.0, 2.0], [0])
    with pytest.raises(ValueError, match="ddof"):
        empg.grpo([1.0, 2.0], [0, 0], ddof=2)
    with pytest.raises(ValueError, match="eps"):
        empg.grpo([1.0, 2.0], [0, 0], eps=-1.0)
    with pytest.raises(ValueError, match="rewards: dtype"):
        empg.grpo(["good", "bad"], [0, 0])
    with pytest.raises(ValueError, match="buffer: 11: must not exceed max_length"):
        empg.overlong_penalty([1], 10, 11)
    with pytest.raises(ValueError, match="lengths: -3 at row 1 is negative"):
        empg.overlong_penalty([1, -3], 10, 2)
