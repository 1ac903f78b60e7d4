"""One environment as a `gymnasium.Env`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import gymnasium

from empg._core import Environments, Turns
from empg.envs.options import Options, as_seed, check, open_environments
from empg.envs.spaces import ACTION_LENGTH, OBSERVATION_LENGTH, AnyText
from empg.envs.vector import ResetError, no_beginning, raise_failure, task_ids

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TextEnv(gymnasium.Env[str, str]):
    """One text environment: observations and actions are str.

    ``info`` holds what `TextVectorEnv` puts into its arrays: ``admissible_commands``, ``task`` and
    ``task_type``; after a step also ``won`` and ``effect``, with ``parse`` ``action`` and ``valid``, and
    ``failed`` where the environment failed.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        As `empg.envs.make`.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, name: str, **options: Unpack[Options]) -> None:
        given = cast("dict[str, Any]", options)
        check(name, given)
        self.name = name
        seed = given.get("seed")
        self._first_seed = None if seed is None else as_seed(seed, "seed")
        self._raises = given.get("on_failure") == "raise"
        self._core: Environments = open_environments(
            name, 1, given, autoreset="Disabled", threads=1
        )
        self.observation_space = AnyText(OBSERVATION_LENGTH)
        self.action_space = AnyText(ACTION_LENGTH)
        self._seeded = False
        self._running = False
        self._task: tuple[str, str] | None = None

    @property
    def num_tasks(self) -> int | None:
        """How many tasks the split has; None where they are generated without end."""
        return self._core.num_tasks

    def task_ids(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Identifiers of the split's tasks; see `TextVectorEnv.task_ids`."""
        return task_ids(self._core, start, stop)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begins an episode.

        Parameters
        ----------
        seed
            Starts the order of tasks anew; without, the next task is played.
        options
            ``"task"``: the identifier of the task to play instead of the next one.

        Raises
        ------
        TypeError, ValueError
            An unknown task or option, a seed that is none.
        ResetError
            The episode cannot begin; the next reset goes on with the next task.
        RuntimeError
            The environment is closed.
        """
        task: str | None = None
        for key, value in (options or {}).items():
            if key != "task":
                raise ValueError(f"no reset option is called {key!r}: there is task")
            if value is not None and not isinstance(value, str):
                raise TypeError(f"options['task'] is {value!r}: it is a str or None")
            task = value
        if seed is None and not self._seeded:
            seed = self._first_seed
            if seed is None:
                seed = int(self.np_random.integers(0, 1 << 32))
        if seed is not None:
            seed = as_seed(seed, "seed")
            super().reset(seed=seed)
        turns = self._core.reset(None if seed is None else [seed], None if task is None else [task])
        self._seeded = True
        self._running = turns.failed is None
        info = self._info(turns)
        if turns.failed is not None:
            info["failed"] = turns.failed[0]
            error = ResetError(no_beginning(turns))
            error.observations, error.info = ("",), info
            raise error
        return turns.observations[0] or "", info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Plays an action.

        Raises
        ------
        TypeError
            An action that is no str.
        ValueError
            Text that is no valid Unicode.
        RuntimeError
            No episode is running; the environment is closed; a failure with ``on_failure="raise"``.
        """
        if self._seeded and not self._running:
            raise RuntimeError("the episode is over: call reset before the next step")
        turns = self._core.step([action])
        terminated, truncated = bool(turns.terminated[0]), bool(turns.truncated[0])
        self._running = not (terminated or truncated)
        if self._raises:
            raise_failure(turns)
        info = self._info(turns)
        info["won"] = bool(turns.won[0])
        info["effect"] = bool(turns.effect[0])
        if turns.projected is not None:
            actions, valid = turns.projected
            info["action"], info["valid"] = actions[0], bool(valid[0])
        if turns.failed is not None:
            info["failed"] = turns.failed[0]
        observation = turns.observations[0] or ""
        return observation, float(turns.rewards[0]), terminated, truncated, info

    def close(self) -> None:
        """Frees the environment; repeating it changes nothing."""
        if "_core" in self.__dict__:
            self._core.close()

    def _info(self, turns: Turns) -> dict[str, Any]:
        self._task = turns.tasks[0] or self._task
        task, kind = self._task if self._task is not None else (None, None)
        return {"admissible_commands": turns.commands[0], "task": task, "task_type": kind}
