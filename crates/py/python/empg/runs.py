"""Reading a run directory: metrics, timings, evaluations and trajectories as tables."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from empg._core import RunReader
from empg._core import Table as _Table

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = ["Frame", "Run", "read_run"]


class Frame:
    """An immutable table.

    ``frame[name]`` gives a column: numbers and flags as a numpy array, texts and lists as a list; a
    number that is missing is NaN there, anything else None. Iterating gives the names of columns,
    ``len`` the number of rows. `to_pandas`, `to_polars` and `to_arrow`
    import their package when they are called. Whatever reads Arrow's C stream interface takes the
    frame itself: ``polars.DataFrame(frame)``, ``pyarrow.table(frame)``, ``duckdb.sql("from frame")``.
    """

    def __init__(self, table: _Table) -> None:
        self._table = table

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return self._table.num_rows

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in order."""
        return self._table.column_names

    def __getitem__(self, name: str) -> Any:
        return self._table.column(name)

    def __contains__(self, name: object) -> bool:
        return name in self._table.column_names

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.column_names)

    def __len__(self) -> int:
        return self._table.num_rows

    def __repr__(self) -> str:
        names = self.column_names
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        return f"Frame({self.num_rows} rows × {len(names)} columns: {shown})"

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._table.__arrow_c_schema__()

    def to_dict(self) -> dict[str, Any]:
        """The columns by name."""
        return {name: self[name] for name in self}

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas frame.

        Raises
        ------
        ImportError
            pandas is not installed.
        """
        made = _need("pandas")
        columns = {name: made.Series(self[name]) for name in self}
        frame: pandas.DataFrame = made.DataFrame(columns, columns=self.column_names)
        return frame

    def to_polars(self) -> polars.DataFrame:
        """A Polars frame.

        Raises
        ------
        ImportError
            Polars is not installed.
        """
        frame: polars.DataFrame = _need("polars").DataFrame(self)
        return frame

    def to_arrow(self) -> pyarrow.Table:
        """A pyarrow table.

        Raises
        ------
        ImportError
            pyarrow is not installed.
        """
        return _need("pyarrow").table(self)


class Run:
    """A run directory, as far as it was committed when it was opened; see `read_run`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.expanduser(os.fspath(path))
        self._reader = RunReader(self._path)

    def __repr__(self) -> str:
        return f"Run({self._path!r}, step={self.step})"

    @property
    def path(self) -> str:
        """The directory."""
        return self._path

    @property
    def step(self) -> int | None:
        """The last committed training step; None before the first."""
        return self._reader.step

    def refresh(self) -> Run:
        """Looks again at what is committed, and returns itself."""
        self._reader.refresh()
        return self

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, with every default."""
        return _object(self._reader.config())

    @property
    def manifest(self) -> dict[str, Any]:
        """What is committed: steps, checkpoints, files, and the creator's facts under ``info``."""
        return _object(self._reader.manifest())

    @property
    def metrics(self) -> Frame:
        """One row per step: what a repetition of the run gives again to the bit.

        Nested metrics have dotted names (``entropy.mean``); what a line does not have is null.
        Evaluations are in `evaluations`.
        """
        return Frame(self._reader.metrics(["eval"]))

    @property
    def evaluations(self) -> Frame:
        """One row per evaluation: ``step``, ``split``, ``success``, and per type of task
        ``by_task.TYPE.success``."""
        return Frame(self._reader.nested("eval"))

    @property
    def timings(self) -> Frame:
        """One row per step: seconds of its phases and tokens per second."""
        return Frame(self._reader.timings())

    @property
    def trajectory_steps(self) -> list[int]:
        """Training steps whose trajectories were recorded."""
        return self._reader.trajectory_steps

    def trajectories(self, steps: int | Sequence[int] | None = None) -> Frame:
        """One row per agent step, with its tokens, entropies and every part of its credit.

        Parameters
        ----------
        steps
            A training step or several; None reads all that were recorded.

        Raises
        ------
        ValueError
            A step without trajectories, a damaged file.
        """
        if steps is None:
            wanted = self._reader.trajectory_steps
        elif isinstance(steps, (str, bytes)):
            raise TypeError(f"steps is {steps!r}: it is an int or a list of int")
        else:
            many = steps if isinstance(steps, (Sequence, range)) else _several(steps)
            wanted = [_step(step) for step in many]
        return Frame(self._reader.trajectories(wanted))

    @property
    def panels(self) -> list[str]:
        """Names of the fixed task lists that evaluations used."""
        return self._reader.panels

    def panel(self, name: str) -> Frame:
        """The tasks of a panel, one row each.

        Raises
        ------
        ValueError, OSError
            A name that is none, a file that cannot be read.
        """
        return Frame(self._reader.panel(name))


def read_run(path: str | os.PathLike[str]) -> Run:
    """Opens the directory of a run, finished or being written; nothing in it is changed or locked.

    Parameters
    ----------
    path
        The directory, with its ``manifest.json``.

    Raises
    ------
    FileNotFoundError
        No run is there.
    ValueError
        Its manifest is damaged, or of another format.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path is {type(path).__name__}: it is a str or a path")
    return Run(path)


def _several(steps: Any) -> list[Any]:
    # An int, one of numpy, or an array of them.
    return list(steps) if hasattr(steps, "__iter__") else [steps]


def _step(step: Any) -> int:
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        raise TypeError(f"steps holds {step!r}: a training step is an int")
    value = int(step.__index__())
    if value < 0:
        raise ValueError(f"steps holds {value}: training steps are counted from 0")
    return value


def _object(text: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(text)
    return value


def _need(package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"this needs {package}: pip install {package}") from error
