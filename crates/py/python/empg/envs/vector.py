"""Many environments as a `gymnasium.vector.VectorEnv`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from empg._core import Ends, Environments, Turns
from empg.envs.options import Options, as_int, as_seed, check, open_environments
from empg.envs.spaces import ACTION_LENGTH, OBSERVATION_LENGTH, AnyText

if TYPE_CHECKING:
    from typing_extensions import Unpack

    AutoresetName = Literal["NextStep", "SameStep", "Disabled"] | AutoresetMode

Flags = NDArray[np.bool_]


class ResetError(RuntimeError):
    """Some environments could not begin their episodes; the others have begun theirs.

    Those that failed are reset with a ``reset_mask``; the others need not be reset again.
    """

    observations: tuple[str, ...]
    """What the reset would have returned; empty where an environment failed."""
    info: dict[str, Any]
    """With ``failed``: why."""


class TextVectorEnv(VectorEnv[tuple[str, ...], Sequence[str], NDArray[Any]]):
    """``num_envs`` text environments, stepped by one native call over threads.

    Observations are a tuple of str, actions any sequence of str, both of length ``num_envs``; rewards
    are float64, terminations and truncations bool, of shape ``(num_envs,)``. ``info`` follows
    Gymnasium's convention, arrays with a mask under the name with an underscore before it:

    - ``admissible_commands``: per environment a sequence of str, made into Python strings on access;
      empty where the environment cannot tell.
    - ``task``, ``task_type``: identifier and type of the task that is played now.
    - ``won``, ``effect``: whether the task is solved; whether the action was understood and changed
      or revealed something. Masked where a step only began an episode.
    - ``failed``: only where an environment failed, why; its episode is truncated.
    - ``action``, ``valid``: with ``parse``, what was played and whether the text kept the format.
    - ``final_obs``, ``final_info``: with ``"SameStep"``, the ends of episodes.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        As `empg.envs.make`.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(
        self,
        name: str,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetName = AutoresetMode.NEXT_STEP,
        threads: int = 0,
        **options: Unpack[Options],
    ) -> None:
        given = cast("dict[str, Any]", options)
        check(name, given)
        self.name = name
        self.num_envs = as_int(num_envs, "num_envs")
        if self.num_envs < 1:
            raise ValueError(f"num_envs is {self.num_envs}: at least one environment is needed")
        threads = as_int(threads, "threads")
        if threads < 0:
            raise ValueError(f"threads is {threads}: it is a number of threads, or 0 for every core")
        self.autoreset_mode = _autoreset(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        seed = given.get("seed")
        self._first_seed = None if seed is None else as_seed(seed, "seed")
        self._raises = given.get("on_failure") == "raise"
        self._core: Environments = open_environments(
            name,
            self.num_envs,
            given,
            autoreset=self.autoreset_mode.value,
            threads=threads,
        )
        self.single_observation_space = AnyText(OBSERVATION_LENGTH)
        self.single_action_space = AnyText(ACTION_LENGTH)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._seeded = np.zeros(self.num_envs, dtype=np.bool_)
        self._observations: tuple[str, ...] = ("",) * self.num_envs
        self._tasks = np.full(self.num_envs, None, dtype=object)
        self._kinds = np.full(self.num_envs, None, dtype=object)

    @property
    def num_tasks(self) -> int | None:
        """How many tasks the split has; None where they are generated without end."""
        return self._core.num_tasks

    def task_ids(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Identifiers of the split's tasks from ``start`` up to ``stop``.

        Raises
        ------
        ValueError
            No ``stop`` where tasks are without end, places that the split does not have.
        """
        return task_ids(self._core, start, stop)

    def reset(
        self,
        *,
        seed: int | Iterable[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Begins an episode in every environment, or in those of a mask.

        Parameters
        ----------
        seed
            An int gives environment ``i`` the seed ``seed + i``; a list gives each its own (None:
            it goes on as it was). Without, every environment plays its next task. Equal seeds give
            equal tasks: see ``docs/environments-python.md`` for the order.
        options
            ``"tasks"``: per environment the identifier of a task, or None for its next one.
            ``"reset_mask"``: bool array of shape ``(num_envs,)``; the others keep their episode.

        Raises
        ------
        TypeError, ValueError
            Lists of another length, an unknown task or option; nothing has changed then.
        ResetError
            An environment that cannot begin its episode. The others have begun theirs; those that
            failed have none, and go on with their next task at the next reset.
        RuntimeError
            The environments are closed.
        """
        tasks, mask = _reset_options(options, self.num_envs)
        begun = np.ones(self.num_envs, dtype=np.bool_) if mask is None else mask
        seeds = self._seeds(seed, begun)
        turns = self._core.reset(seeds, tasks, None if mask is None else mask.tolist())
        self._seeded |= begun
        if mask is None:
            self._observations = cast("tuple[str, ...]", turns.observations)
        else:
            self._observations = tuple(
                old if new is None else new
                for old, new in zip(self._observations, turns.observations, strict=True)
            )
        info = self._info(turns, mask)
        # Only now: the others have begun their episodes.
        if turns.failed is not None:
            error = ResetError(no_beginning(turns))
            error.observations, error.info = self._observations, info
            raise error
        return self._observations, info

    def step(
        self, actions: Sequence[str] | NDArray[Any]
    ) -> tuple[
        tuple[str, ...], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Plays one action in every environment.

        Raises
        ------
        TypeError
            Actions that are no str.
        ValueError
            Another number of actions, text that is no valid Unicode.
        RuntimeError
            No reset before; an episode that is over where auto-reset is disabled; closed
            environments; a failure with ``on_failure="raise"``.
        """
        turns = self._core.step(actions)
        ended = self._final(turns) if turns.ends is not None else None
        self._observations = cast("tuple[str, ...]", turns.observations)
        info = self._info(turns, None)
        # Only now: the others have played their action, and may have begun another task.
        if self._raises:
            raise_failure(turns)
        if ended is not None:
            info.update(ended)
        return self._observations, turns.rewards, turns.terminated, turns.truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        """Frees the environments."""
        # Gymnasium also closes what was refused before it was made.
        if "_core" in self.__dict__:
            self._core.close()

    def _seeds(self, seed: Any, begun: Flags) -> list[int | None] | None:
        fresh = begun & ~self._seeded
        if seed is None and not fresh.any():
            return None
        if seed is None and not self._seeded.any():
            seed = self._start()
        if seed is None:
            # A mask left these out before. The others go on as they were.
            seed = [None] * self.num_envs
        if hasattr(seed, "__index__"):
            first = as_seed(seed, "seed")
            super().reset(seed=first)
            return [(first + i) % (1 << 64) for i in range(self.num_envs)]
        if isinstance(seed, str) or not isinstance(seed, Iterable):
            raise TypeError(f"seed is {seed!r}: it is an int, or a list with one per environment")
        seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(
                f"seed has {len(seeds)} entries for {self.num_envs} environments: one of each is needed"
            )
        checked = [None if s is None else as_seed(s, f"seed[{i}]") for i, s in enumerate(seeds)]
        for i in np.flatnonzero(fresh).tolist():
            if checked[i] is None:
                checked[i] = (self._start() + i) % (1 << 64)
        return checked

    def _start(self) -> int:
        # Gymnasium's convention: without a seed, the first episodes are anybody's guess. It is
        # made once, for environments that a mask leaves for later too.
        if self._first_seed is None:
            self._first_seed = int(self.np_random.integers(0, 1 << 32))
        return self._first_seed

    def _info(self, turns: Turns, mask: Flags | None) -> dict[str, Any]:
        began = turns.began
        if began.any() or turns.ends is not None:
            for i, task in enumerate(turns.tasks):
                if task is not None:
                    self._tasks[i], self._kinds[i] = task
        shown = np.ones(self.num_envs, dtype=np.bool_) if mask is None else mask
        played = shown & ~began
        if turns.ends is not None:
            played &= ~turns.ends.mask
        info: dict[str, Any] = {}
        _put(info, "admissible_commands", _objects(turns.commands), shown)
        _put(info, "task", _where(shown, self._tasks), shown)
        _put(info, "task_type", _where(shown, self._kinds), shown)
        self._outcome(info, turns, played)
        if turns.failed is not None:
            failed = _objects(turns.failed)
            _put(info, "failed", failed, np.array([f is not None for f in turns.failed]))
        return info

    def _outcome(self, info: dict[str, Any], turns: Turns, played: Flags) -> None:
        if played.any():
            _put(info, "won", turns.won & played, played)
            _put(info, "effect", turns.effect & played, played)
            if turns.projected is not None:
                actions, valid = turns.projected
                _put(info, "action", _where(played, _objects(actions)), played)
                _put(info, "valid", valid & played, played)

    def _final(self, turns: Turns) -> dict[str, Any]:
        ends = cast("Ends", turns.ends)
        final: dict[str, Any] = {}
        _put(final, "admissible_commands", _objects(ends.commands), ends.mask)
        _put(final, "task", _where(ends.mask, self._tasks), ends.mask)
        _put(final, "task_type", _where(ends.mask, self._kinds), ends.mask)
        self._outcome(final, turns, ends.mask)
        if ends.failed is not None:
            failed = _objects(ends.failed)
            _put(final, "failed", failed, np.array([f is not None for f in ends.failed]))
        out: dict[str, Any] = {}
        _put(out, "final_obs", _objects(ends.observations), ends.mask)
        _put(out, "final_info", final, ends.mask)
        return out


def task_ids(core: Environments, start: int, stop: int | None) -> list[str]:
    """Identifiers of a split's tasks; see `TextVectorEnv.task_ids`."""
    total = core.num_tasks
    if stop is None:
        if total is None:
            raise ValueError("this split has tasks without end: say where to stop")
        stop = total
    if start < 0 or (total is not None and stop > total):
        raise ValueError(f"tasks {start} to {stop} were asked for: the split has {total}")
    return [core.task(index)[0] for index in range(start, stop)]


def raise_failure(turns: Turns) -> None:
    """Raises RuntimeError for the first environment that failed."""
    ends = turns.ends.failed if turns.ends is not None else None
    for failed in (ends, turns.failed):
        for index, reason in enumerate(failed or ()):
            if reason is not None:
                raise RuntimeError(f"environment {index} failed: {reason}")


def no_beginning(turns: Turns) -> str:
    """What is wrong with the first environment that could not begin its episode."""
    failed = turns.failed or ()
    index = next(i for i, reason in enumerate(failed) if reason is not None)
    task = turns.tasks[index]
    name = f' "{task[0]}"' if task is not None else " its episode"
    return f"environment {index} could not begin{name}: {failed[index]}"


def _autoreset(mode: Any) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    try:
        return AutoresetMode(mode)
    except ValueError:
        names = ", ".join(repr(known.value) for known in AutoresetMode)
        raise ValueError(f"autoreset_mode is {mode!r}: it is one of {names}") from None


def _reset_options(
    options: dict[str, Any] | None, count: int
) -> tuple[list[str | None] | None, Flags | None]:
    tasks: list[str | None] | None = None
    mask: Flags | None = None
    for key, value in (options or {}).items():
        if key == "tasks":
            tasks = _task_list(value, count)
        elif key == "reset_mask":
            if not isinstance(value, np.ndarray) or value.dtype != np.bool_:
                raise TypeError(
                    f"options['reset_mask'] is {type(value).__name__}: it is a numpy array of bool"
                )
            if value.shape != (count,):
                raise ValueError(
                    f"options['reset_mask'] has shape {value.shape}: it has shape ({count},)"
                )
            # The caller's array stays the caller's.
            mask = value.copy()
        else:
            raise ValueError(f"no reset option is called {key!r}: there are tasks and reset_mask")
    return tasks, mask


def _task_list(value: Any, count: int) -> list[str | None]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(
            f"options['tasks'] is {value!r}: it is a list with one task (or None) per environment"
        )
    tasks = list(value)
    for i, task in enumerate(tasks):
        if task is not None and not isinstance(task, str):
            raise TypeError(f"options['tasks'][{i}] is {task!r}: it is a str or None")
    if len(tasks) != count:
        raise ValueError(
            f"options['tasks'] has {len(tasks)} entries for {count} environments: one of each is needed"
        )
    return tasks


def _objects(items: Sequence[Any]) -> NDArray[Any]:
    # np.array would look into sequences for more dimensions.
    objects: NDArray[Any] = np.fromiter(items, dtype=object, count=len(items))
    return objects


def _where(mask: Flags, values: NDArray[Any]) -> NDArray[Any]:
    out: NDArray[Any] = values.copy()
    if not mask.all():
        out[~mask] = None
    return out


def _put(info: dict[str, Any], key: str, value: Any, mask: Flags) -> None:
    info[key] = value
    info[f"_{key}"] = mask.copy()
