"""A text space that any text is in."""

from __future__ import annotations

import string
from typing import Any, NoReturn

import numpy as np
from gymnasium.error import CustomSpaceError
from gymnasium.spaces import Text
from gymnasium.vector.utils import create_shared_memory
from numpy.typing import NDArray

#: Characters of samples; texts may hold any other.
SAMPLED = frozenset(string.ascii_letters + string.digits + " .,:;?!'\"-_/()[]<>\n")
#: The longest observation of the space, in characters.
OBSERVATION_LENGTH = 1 << 20
#: The longest action of the space, in characters.
ACTION_LENGTH = 1 << 16

_SAMPLE_LENGTH = 64


class AnyText(Text):
    """Texts of any characters, line breaks and non-ASCII ones included, up to a length.

    A charset of all of Unicode would hold a million entries in every copy of the space. Hence this
    space contains every str that is short enough, and only samples come from its charset.
    """

    def __init__(
        self, max_length: int, *, seed: int | np.random.Generator | None = None
    ) -> None:
        super().__init__(max_length, min_length=0, charset=SAMPLED, seed=seed)

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is a str of at most ``max_length`` characters."""
        return isinstance(x, str) and len(x) <= self.max_length

    def sample(
        self,
        mask: tuple[int | None, NDArray[np.int8] | None] | None = None,
        probability: tuple[int | None, NDArray[np.float64] | None] | None = None,
    ) -> str:
        """A short text of the charset; see `gymnasium.spaces.Text.sample`."""
        if mask is None and probability is None:
            length = int(self.np_random.integers(0, min(_SAMPLE_LENGTH, self.max_length) + 1))
            letters = self.np_random.choice(self.character_list, size=length)
            return "".join(letters)
        return super().sample(mask, probability)

    def __repr__(self) -> str:
        return f"AnyText({self.max_length})"

    def __eq__(self, other: object, /) -> bool:
        return isinstance(other, AnyText) and self.max_length == other.max_length


@create_shared_memory.register(AnyText)
def _no_shared_memory(space: AnyText, n: int = 1, ctx: Any = None) -> NoReturn:
    # Gymnasium's memory for texts holds characters of the charset only. Of this error its
    # AsyncVectorEnv makes one that names shared_memory=False.
    raise CustomSpaceError(
        f"{space} contains texts of any characters, which shared memory cannot hold: pass "
        "shared_memory=False to AsyncVectorEnv, or vector_kwargs={'shared_memory': False} to make_vec"
    )
