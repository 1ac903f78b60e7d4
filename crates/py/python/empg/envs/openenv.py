"""The client of `empg serve env` for `openenv`: typed actions, observations and state.

Needs openenv-core (`pip install openenv-core`); nothing else of `empg` does.
"""

from __future__ import annotations

from typing import Any

try:
    from openenv.core import EnvClient
    from openenv.core.client_types import StepResult
    from openenv.core.env_server.types import Action, Observation, State
    from pydantic import Field
except ImportError as error:
    raise ImportError(
        f"empg.envs.openenv needs openenv-core ({error}): pip install openenv-core"
    ) from error

__all__ = ["EmpgAction", "EmpgEnv", "EmpgObservation", "EmpgState"]


class EmpgAction(Action):
    """What the agent writes: one text."""

    text: str = Field(description="The command")


class EmpgObservation(Observation):
    """What the agent sees, with what else the environment tells.

    `reward` is None after a reset; `admissible` is empty where the environment cannot tell.
    """

    text: str = Field(default="", description="As the environment prints it")
    admissible: list[str] = Field(
        default_factory=list, description="Commands that would have an effect now"
    )
    won: bool = Field(default=False, description="Whether the task is solved")
    effect: bool = Field(default=True, description="Whether the command was understood")
    truncated: bool = Field(default=False, description="Whether a limit ended the episode")
    task_id: str = Field(default="", description="The task; `reset(task_id=…)` takes it")
    task_type: str = Field(default="", description="What kind of task it is")


class EmpgState(State):
    """Where the episode stands; before the first reset there is no task."""

    task_id: str | None = None
    task_type: str | None = None
    done: bool = False


class EmpgEnv(EnvClient[EmpgAction, EmpgObservation, EmpgState]):
    """A session with a server that `empg serve env NAME` started.

    Asynchronous; `.sync()` gives the synchronous form. Both are context managers. `reset` takes
    `seed` (equal seeds give equal tasks), `split` ("train", "seen", "unseen"), `task_id` and
    `episode_id`.

    Raises
    ------
    ConnectionError
        The server cannot be reached.
    RuntimeError
        The server refuses: a step without an episode, an unknown task, too many sessions.

    Examples
    --------
    >>> with EmpgEnv(base_url="http://127.0.0.1:8000").sync() as env:  # doctest: +SKIP
    ...     result = env.reset(seed=7)
    ...     result = env.step(EmpgAction(text="look"))
    """

    def _step_payload(self, action: EmpgAction | str) -> dict[str, Any]:
        """The message's data; a text stands for the action that says it."""
        return {"text": action if isinstance(action, str) else action.text}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[EmpgObservation]:
        fields = dict(payload.get("observation") or {})
        reward, done = payload.get("reward"), bool(payload.get("done", False))
        # A server of a later version may tell more.
        known = {k: v for k, v in fields.items() if k in EmpgObservation.model_fields}
        observation = EmpgObservation(**{**known, "reward": reward, "done": done})
        return StepResult(observation=observation, reward=reward, done=done)

    def _parse_state(self, payload: dict[str, Any]) -> EmpgState:
        return EmpgState(**payload)
