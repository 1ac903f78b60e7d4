"""The examples of docs/python.md do what they say."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[3] / "docs" / "python.md"


def test_the_examples_of_the_page_run() -> None:
    with np.printoptions(precision=4, suppress=True, linewidth=100):
        result = doctest.testfile(
            str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
        )
    assert result.attempted > 20 and result.failed == 0
