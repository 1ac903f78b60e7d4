from collections.abc import Iterable, Sequence
from typing import Any, Literal, SupportsIndex, TypeVar, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A numpy array, a torch tensor or another array that speaks DLPack; results are of the same kind.
_Array = TypeVar("_Array")
_Shape = Literal["exp", "linear"]
_Normalize = Literal["minmax", "quantile"]
_Steps = Sequence[Iterable[Sequence[SupportsIndex]]] | NDArray[np.integer[Any]]
_Integers = ArrayLike

__version__: str

@final
class Credit:
    @property
    def row(self) -> NDArray[np.int64] | None: ...
    @property
    def start(self) -> NDArray[np.int64] | None: ...
    @property
    def end(self) -> NDArray[np.int64] | None: ...
    @property
    def trajectory(self) -> NDArray[np.uint64]: ...
    @property
    def step(self) -> NDArray[np.uint32]: ...
    @property
    def advantage(self) -> NDArray[np.float64]: ...
    @property
    def base(self) -> NDArray[np.float64]: ...
    @property
    def entropy(self) -> NDArray[np.float64]: ...
    @property
    def h_norm(self) -> NDArray[np.float64]: ...
    @property
    def g(self) -> NDArray[np.float64]: ...
    @property
    def f_next(self) -> NDArray[np.float64]: ...
    @property
    def bonus(self) -> NDArray[np.float64]: ...
    @property
    def centring(self) -> NDArray[np.float64]: ...
    @property
    def summary(self) -> dict[str, float]: ...
    def to_dict(self) -> dict[str, NDArray[Any]]: ...
    def describe(self, index: SupportsIndex) -> str: ...
    def __len__(self) -> int: ...

@final
class StepTable:
    __hash__: None  # type: ignore[assignment]
    @staticmethod
    def from_tokens(
        advantages: object,
        entropy: object,
        *,
        mask: object | None = None,
        steps: _Steps | None = None,
        offsets: _Integers | None = None,
        trajectories: _Integers | None = None,
        first_step: _Integers | None = None,
        threads: SupportsIndex = 0,
    ) -> StepTable: ...
    @staticmethod
    def gather(tables: Iterable[StepTable]) -> StepTable: ...
    def merge(self, other: StepTable) -> StepTable: ...
    def to_arrays(self) -> dict[str, NDArray[Any]]: ...
    @staticmethod
    def from_arrays(
        trajectory: _Integers, step: _Integers, entropy: ArrayLike, advantage: ArrayLike
    ) -> StepTable: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(data: bytes) -> StepTable: ...
    def credit(
        self,
        *,
        k: float = 1.0,
        k_f: float = 1.0,
        zeta: float = 0.1,
        shape: _Shape = "exp",
        normalize: _Normalize = "minmax",
        quantile: tuple[float, float] = (0.05, 0.95),
        gate_bonus: bool = False,
        center: bool = True,
    ) -> Credit: ...
    def __len__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

def modulate(
    advantages: _Array,
    entropy: object,
    *,
    mask: object | None = None,
    steps: _Steps | None = None,
    offsets: _Integers | None = None,
    trajectories: _Integers | None = None,
    first_step: _Integers | None = None,
    table: StepTable | None = None,
    k: float = 1.0,
    k_f: float = 1.0,
    zeta: float = 0.1,
    shape: _Shape = "exp",
    normalize: _Normalize = "minmax",
    quantile: tuple[float, float] = (0.05, 0.95),
    gate_bonus: bool = False,
    center: bool = True,
    paper_exact: bool = False,
    out: object | None = None,
    threads: SupportsIndex = 0,
) -> _Array: ...
def explain(
    advantages: object,
    entropy: object,
    *,
    mask: object | None = None,
    steps: _Steps | None = None,
    offsets: _Integers | None = None,
    trajectories: _Integers | None = None,
    first_step: _Integers | None = None,
    table: StepTable | None = None,
    k: float = 1.0,
    k_f: float = 1.0,
    zeta: float = 0.1,
    shape: _Shape = "exp",
    normalize: _Normalize = "minmax",
    quantile: tuple[float, float] = (0.05, 0.95),
    gate_bonus: bool = False,
    center: bool = True,
    paper_exact: bool = False,
    threads: SupportsIndex = 0,
) -> Credit: ...
def steps_from_mask(
    mask: object, *, offsets: _Integers | None = None
) -> list[list[tuple[int, int]]]: ...
def steps_from_chatml(
    tokens: object,
    *,
    header: _Integers,
    end: _Integers,
    lengths: _Integers | None = None,
    include_end: bool = False,
    start: Literal["detect", "inside", "outside"] = "detect",
) -> list[list[tuple[int, int]]]: ...
def grpo(
    rewards: ArrayLike, groups: object, ddof: SupportsIndex = 1, eps: float = 1e-6
) -> NDArray[np.float64]: ...
def dr_grpo(rewards: ArrayLike, groups: object) -> NDArray[np.float64]: ...
def rloo(rewards: ArrayLike, groups: object) -> NDArray[np.float64]: ...
def flat_groups(rewards: ArrayLike, groups: object) -> NDArray[np.bool_]: ...
def overlong_penalty(
    lengths: _Integers, max_length: SupportsIndex, buffer: SupportsIndex, penalty: float = 1.0
) -> NDArray[np.float64]: ...
