"""The package's text environments as TRL's ``environment_factory`` wants them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from .host import check_environments

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from empg.envs import Options

__all__ = ["TextEnvironment", "environment_factory"]

_OVER = "The episode is over: no command has an effect any more."


class _Plays(Protocol):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Observation and info of a new episode."""
        ...

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated and info."""
        ...


class TextEnvironment:
    """One text environment with one tool, ``act``; TRL makes one instance per rollout.

    Parameters
    ----------
    env : gymnasium.Env
        Observations and actions are str.
    commands : bool
        Whether observations end with the admissible commands, where the environment lists them.
    """

    def __init__(self, env: _Plays, *, commands: bool = True) -> None:
        self._env = env
        self._commands = commands
        self._score = 0.0
        self._over = True

    def reset(self, **row: Any) -> str:
        """Begins the episode of a dataset row, which names it: completions of a group play the same.

        Parameters
        ----------
        **row
            The row's columns: ``task`` (an identifier of the environment's) or ``seed`` (int).

        Raises
        ------
        ValueError
            A row with neither.
        """
        task, seed = row.get("task"), row.get("seed")
        if task is None and seed is None:
            raise ValueError(
                "a row needs a column `task` or `seed`: without, each completion of a group would play another "
                f"task, and rewards would not compare; the row has {sorted(row)}"
            )
        seen, info = self._env.reset(
            seed=None if seed is None else int(seed), options=None if task is None else {"task": task}
        )
        self._score, self._over = 0.0, False
        return self._shown(seen, info)

    def act(self, command: str) -> str:
        """
        Plays one command in the environment.

        Args:
            command: The command, as the environment words it.

        Returns:
            What happens.
        """
        if self._over:
            return _OVER
        seen, reward, terminated, truncated, info = self._env.step(str(command))
        self._score += float(reward)
        self._over = terminated or truncated
        return f"{seen}\n{_OVER}" if self._over else self._shown(seen, info)

    def get_reward(self) -> float:
        """The sum of the episode's rewards: TRL takes it as the completion's."""
        return self._score

    def _shown(self, seen: str, info: dict[str, Any]) -> str:
        commands = info.get("admissible_commands") if self._commands else None
        return f"{seen}\nCommands: {', '.join(map(str, commands))}" if commands else seen


def environment_factory(
    name: str, *, commands: bool = True, **options: Unpack[Options]
) -> Callable[[], TextEnvironment]:
    """A factory for ``EMPGTrainer(environment_factory=…)`` and for TRL's own trainers.

    Parameters
    ----------
    name : str
        ``alfworld``, ``households``, ``webshop`` or ``search``.
    commands : bool
        See :class:`TextEnvironment`.
    **options
        Those of :func:`empg.envs.make`.

    Raises
    ------
    ImportError
        TRL before 1.8, which would offer ``get_reward`` to the model as a tool.
    ImportError, TypeError, ValueError, FileNotFoundError
        What :func:`empg.envs.make` raises, at the first environment.
    """
    check_environments()
    from empg.envs import make

    def one() -> TextEnvironment:
        return TextEnvironment(make(name, **options), commands=commands)

    return one
