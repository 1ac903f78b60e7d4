"""Options of the environments: which there are, and which environment each belongs to."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from typing import Any, Literal, TypedDict

from empg._core import Environments, environment_names


class Options(TypedDict, total=False):
    """How an environment is made.

    For every environment:

    - ``split``: where tasks are drawn from, ``"train"`` (default), ``"seen"`` or ``"unseen"``;
      ALFWorld's ``"valid_seen"`` and ``"valid_unseen"`` mean the latter two.
    - ``seed``: environment ``i`` starts with seed ``seed + i``; None draws one.
    - ``max_steps``: an episode is truncated after so many; None is the environment's usual limit
      (50, WebShop 15, Deep Search 4, in a generated world 6), -1 none.
    - ``parse``: ``"verl"`` reads the action out of what a model wrote (see `empg.envs.project`);
      None plays the text as it is.
    - ``admissible``: whether ``info`` lists admissible commands; without, steps are faster.
    - ``on_failure``: ``"truncate"`` (default) ends the episode of an environment that failed and says
      why in ``info["failed"]``; ``"raise"`` raises RuntimeError.

    ``data`` is the folder of ALFWorld's games (needed), a shop or questions (generated where left out,
    from ``world_seed``). ``data_version`` is ALFWorld's and the households' wording, ``"2.1.1"`` or
    ``"2.1.2+"``. WebShop has ``mode`` (``"text"``, ``"text_rich"``), ``human_goals``, ``goal_seed`` and
    ``splits`` (``"verl-agent"``, ``"original"``); Deep Search ``corpus`` (a file, a folder of vectors,
    or a retriever's ``http://`` address), ``protocol`` (``"verl-agent"``, ``"search-r1"``), ``topk`` and
    ``observation_tokens``.
    """

    split: str
    seed: int | None
    max_steps: int | None
    parse: Literal["verl"] | None
    admissible: bool
    on_failure: Literal["truncate", "raise"]
    data: str | os.PathLike[str] | None
    world_seed: int
    data_version: str
    mode: Literal["text", "text_rich"]
    human_goals: bool
    goal_seed: int
    splits: Literal["verl-agent", "original"]
    corpus: str | os.PathLike[str] | None
    protocol: Literal["verl-agent", "search-r1"]
    topk: int
    observation_tokens: int


_SHARED = ("split", "seed", "max_steps", "parse", "admissible", "on_failure")
_OWN = {
    "alfworld": ("data", "data_version"),
    "households": ("data_version",),
    "webshop": ("data", "world_seed", "mode", "human_goals", "goal_seed", "splits"),
    "search": ("data", "corpus", "world_seed", "protocol", "topk", "observation_tokens"),
}
_SPLITS = ("train", "seen", "unseen", "valid_seen", "valid_unseen")
_INTEGERS = ("max_steps", "world_seed", "goal_seed", "topk", "observation_tokens")
_FLAGS = ("human_goals", "admissible")


def _hint(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def check_name(name: str) -> None:
    """Refuses a name that no environment has.

    Raises
    ------
    TypeError
        A name that is no str.
    ValueError
        An unknown name, with the nearest known.
    """
    if not isinstance(name, str):
        raise TypeError(f"name is {type(name).__name__}: it is a str such as 'alfworld'")
    if name not in environment_names():
        raise ValueError(f"no environment is called {name!r}: {_hint(name, environment_names())}")


def as_int(value: Any, what: str) -> int:
    """An integer of Python or numpy, but no bool.

    Raises
    ------
    TypeError
        Anything else.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what} is {value!r}: it is an int")
    return int(value.__index__())


def as_seed(value: Any, what: str) -> int:
    """A seed: an integer from 0 to 2^64 - 1.

    Raises
    ------
    TypeError
        No integer.
    ValueError
        One out of range.
    """
    seed = as_int(value, what)
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"{what} is {seed}: it is between 0 and 2**64 - 1")
    return seed


def check(name: str, given: dict[str, Any]) -> None:
    """Refuses options that the environment does not have, before any data is read.

    Raises
    ------
    TypeError
        An option that none has, a value of another type.
    ValueError
        An option of another environment, an unknown split, data that is missing.
    """
    check_name(name)
    known = (*_SHARED, *_OWN[name])
    for key in given:
        if key in known:
            continue
        owners = [env for env, own in _OWN.items() if key in own]
        if owners:
            raise ValueError(
                f"{name} has no option {key!r}: it belongs to {', '.join(owners)}"
            )
        raise TypeError(f"no option is called {key!r}: {_hint(key, known)}")
    split = given.get("split", "train")
    if split not in _SPLITS:
        raise ValueError(f"no split is called {split!r}: {_hint(str(split), _SPLITS)}")
    for key in _INTEGERS:
        if given.get(key) is not None:
            value = as_int(given[key], key)
            if key != "max_steps" and not 0 <= value < 1 << 32:
                raise ValueError(f"{key} is {value}: it is between 0 and 2**32 - 1")
            if key == "max_steps" and not -1 <= value < 1 << 32:
                raise ValueError(f"max_steps is {value}: it is a positive number, or -1 for no limit")
    for key in _FLAGS:
        if not isinstance(given.get(key, False), bool):
            raise TypeError(f"{key} is {given[key]!r}: it is True or False")
    if given.get("parse") not in (None, "verl"):
        raise ValueError(f"parse is {given['parse']!r}: it is 'verl' or None")
    if given.get("on_failure", "truncate") not in ("truncate", "raise"):
        raise ValueError(f"on_failure is {given['on_failure']!r}: it is 'truncate' or 'raise'")
    if name == "alfworld" and given.get("data") is None:
        raise ValueError(
            "alfworld needs data=FOLDER: the folder that `pip install alfworld` and "
            "`alfworld-download --data-dir FOLDER` fill"
        )


def _absolute(path: str) -> str:
    # Open data is shared by its path, so it must name the same file after os.chdir. Not
    # os.path.abspath: it takes link/.. for the folder that holds the link. An empty path names
    # nothing and stays so, to be refused.
    path = os.path.expanduser(path)
    return os.path.join(os.getcwd(), path) if path and not os.path.isabs(path) else path


def open_environments(
    name: str, count: int, given: dict[str, Any], *, autoreset: str, threads: int
) -> Environments:
    """The native environments of checked options.

    Raises
    ------
    TypeError, ValueError
        As `check`.
    FileNotFoundError
        Data that is not there.
    """
    check(name, given)
    rest = {k: v for k, v in given.items() if k not in ("seed", "parse", "on_failure")}
    for key in ("data", "corpus"):
        value = rest.get(key)
        if value is not None:
            path = os.fspath(value)
            if not isinstance(path, str):
                raise TypeError(f"{key} is {value!r}: it is a str or a path")
            rest[key] = _absolute(path) if key == "data" or "://" not in path else path
    return Environments(
        name,
        count,
        seed=0,
        autoreset=autoreset,
        threads=threads,
        parse=given.get("parse") is not None,
        **rest,
    )
