from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import Any, Literal, SupportsIndex, TypeVar, final, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A numpy array, a torch tensor or another array that speaks DLPack; results are of the same kind.
_Array = TypeVar("_Array")
_Shape = Literal["exp", "linear"]
_Normalize = Literal["minmax", "quantile"]
_Steps = Sequence[Iterable[Sequence[SupportsIndex]]] | NDArray[np.integer[Any]]
_Integers = ArrayLike

__all__ = [
    "__version__",
    "Credit",
    "StepTable",
    "modulate",
    "explain",
    "steps_from_mask",
    "steps_from_chatml",
    "grpo",
    "dr_grpo",
    "rloo",
    "flat_groups",
    "overlong_penalty",
    "Environments",
    "Turns",
    "Ends",
    "Commands",
    "project",
    "environment_names",
    "RunReader",
    "Table",
]

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


def environment_names() -> list[str]: ...
def project(name: str, text: str) -> tuple[str, bool]: ...
@final
class Commands(Sequence[str]):
    def __new__(cls, texts: Sequence[str]) -> Commands: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int, /) -> str: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[str]: ...
    def __contains__(self, text: object, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __reversed__(self) -> Iterator[str]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[type[Commands], tuple[list[str]]]: ...
    def index(self, text: str) -> int: ...  # type: ignore[override]
    def count(self, text: str) -> int: ...

@final
class Environments:
    def __new__(
        cls,
        name: str,
        count: int = 1,
        *,
        data: str | PathLike[str] | None = None,
        corpus: str | PathLike[str] | None = None,
        world_seed: int = 0,
        split: str = "train",
        seed: int = 0,
        autoreset: str = "NextStep",
        parse: bool = False,
        admissible: bool = True,
        threads: int = 0,
        max_steps: int | None = None,
        data_version: str = "2.1.2+",
        mode: str = "text",
        human_goals: bool = False,
        goal_seed: int = 0,
        splits: str = "verl-agent",
        protocol: str = "verl-agent",
        topk: int = 3,
        observation_tokens: int = 500,
    ) -> Environments: ...
    def reset(
        self,
        seeds: Sequence[int | None] | None = None,
        tasks: Sequence[str | None] | None = None,
        mask: Sequence[bool] | None = None,
    ) -> Turns: ...
    def step(self, actions: Iterable[str]) -> Turns: ...
    def close(self) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def num_tasks(self) -> int | None: ...
    def task(self, index: int) -> tuple[str, str]: ...

@final
class Turns:
    @property
    def observations(self) -> tuple[str | None, ...]: ...
    @property
    def rewards(self) -> NDArray[np.float64]: ...
    @property
    def terminated(self) -> NDArray[np.bool_]: ...
    @property
    def truncated(self) -> NDArray[np.bool_]: ...
    @property
    def won(self) -> NDArray[np.bool_]: ...
    @property
    def effect(self) -> NDArray[np.bool_]: ...
    @property
    def began(self) -> NDArray[np.bool_]: ...
    @property
    def commands(self) -> list[Commands | None]: ...
    @property
    def tasks(self) -> list[tuple[str, str] | None]: ...
    @property
    def failed(self) -> list[str | None] | None: ...
    @property
    def projected(self) -> tuple[list[str | None], NDArray[np.bool_]] | None: ...
    @property
    def ends(self) -> Ends | None: ...

@final
class Ends:
    @property
    def observations(self) -> list[str | None]: ...
    @property
    def commands(self) -> list[Commands | None]: ...
    @property
    def failed(self) -> list[str | None] | None: ...
    @property
    def mask(self) -> NDArray[np.bool_]: ...

@final
class Table:
    @property
    def num_rows(self) -> int: ...
    @property
    def column_names(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def column(self, name: str) -> Any: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __arrow_c_schema__(self) -> object: ...

@final
class RunReader:
    def __new__(cls, path: str | PathLike[str]) -> RunReader: ...
    def refresh(self) -> None: ...
    def manifest(self) -> str: ...
    def config(self) -> str: ...
    @property
    def step(self) -> int | None: ...
    @property
    def trajectory_steps(self) -> list[int]: ...
    @property
    def panels(self) -> list[str]: ...
    def metrics(self, skip: Sequence[str]) -> Table: ...
    def nested(self, key: str) -> Table: ...
    def timings(self) -> Table: ...
    def panel(self, name: str) -> Table: ...
    def trajectories(self, steps: Sequence[int]) -> Table: ...
