"""Text environments as Gymnasium environments: ALFWorld, households, WebShop and Deep Search.

`make(name, num_envs=N)` gives a `gymnasium.vector.VectorEnv` whose environments are stepped by one
native call over threads; without ``num_envs`` it gives a `gymnasium.Env`. Gymnasium is imported by
the first call that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from empg._core import Commands, environment_names
from empg._core import project as _project
from empg.envs.options import Options, check_name

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from empg.envs.single import TextEnv
    from empg.envs.vector import AutoresetName, ResetError, TextVectorEnv

__all__ = [
    "NAMES",
    "Commands",
    "Options",
    "ResetError",
    "TextEnv",
    "TextVectorEnv",
    "make",
    "make_single",
    "project",
    "register",
]

#: The environments that `make` knows.
NAMES: tuple[str, ...] = tuple(environment_names())


@overload
def make(
    name: str,
    *,
    num_envs: int,
    autoreset_mode: AutoresetName = ...,
    threads: int = ...,
    **options: Unpack[Options],
) -> TextVectorEnv: ...


@overload
def make(name: str, *, num_envs: None = ..., **options: Unpack[Options]) -> TextEnv: ...


def make(name: str, *, num_envs: int | None = None, **options: Any) -> TextVectorEnv | TextEnv:
    """An environment by name: a vector of ``num_envs``, or a single one.

    Parameters
    ----------
    name
        ``alfworld``, ``households``, ``webshop`` or ``search``.
    num_envs
        How many environments are stepped together; None gives a single `gymnasium.Env`.
    autoreset_mode
        Vectors only: ``"NextStep"`` (default), ``"SameStep"``, ``"Disabled"``, or Gymnasium's
        `AutoresetMode`.
    threads
        Vectors only: threads that step them; 0 takes one per core.
    **options
        See `Options`.

    Raises
    ------
    ValueError
        An unknown name, an option of another environment, a value out of range.
    TypeError
        An unknown option.
    FileNotFoundError
        Data that is not there.
    ImportError
        Gymnasium is not installed.
    """
    if num_envs is None:
        for key in ("autoreset_mode", "threads"):
            if key in options:
                raise TypeError(f"{key} belongs to a vector: give num_envs as well")
        return make_single(name, **options)
    _need_gymnasium()
    from empg.envs.vector import TextVectorEnv

    return TextVectorEnv(name, num_envs=num_envs, **options)


def make_single(name: str, **options: Unpack[Options]) -> TextEnv:
    """A single environment as a `gymnasium.Env`; `make` without ``num_envs``."""
    _need_gymnasium()
    from empg.envs.single import TextEnv

    return TextEnv(name, **options)


def project(name: str, text: str) -> tuple[str, bool]:
    """The action in what a model wrote, and whether the text keeps the format.

    Parameters
    ----------
    name
        Whose convention: ALFWorld, households and WebShop read ``<think>…</think><action>…</action>``,
        Deep Search ``<search>…</search>`` or ``<answer>…</answer>``.
    text
        What the model wrote.

    Returns
    -------
    action, valid
        Without a readable action the convention's fallback, and False.
    """
    check_name(name)
    return _project(name, text)


def register() -> None:
    """Registers ``empg/alfworld-v0`` and the others with Gymnasium; repeating it changes nothing."""
    _need_gymnasium()
    from empg.envs import registration

    registration.register_all()


def _need_gymnasium() -> None:
    try:
        import gymnasium  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "empg.envs needs gymnasium: pip install 'empg[envs]' (or gymnasium>=1.1)"
        ) from error


def __getattr__(name: str) -> Any:
    if name in ("TextVectorEnv", "ResetError"):
        _need_gymnasium()
        from empg.envs import vector

        return getattr(vector, name)
    if name == "TextEnv":
        _need_gymnasium()
        from empg.envs.single import TextEnv

        return TextEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
