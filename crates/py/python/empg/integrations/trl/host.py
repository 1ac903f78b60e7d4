"""The TRL that is installed: present, new enough, and configured for per-token advantages."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["OLDEST", "check_arguments", "check_environments", "check_installed", "check_order", "check_trainer", "no_checkpointing"]

#: The oldest TRL that the tests have run with.
OLDEST = (1, 0)

#: The first TRL whose LUSPO loss sums over the tokens of a mask; earlier ones average over padding.
_LUSPO = (1, 10)

#: The first TRL that asks an environment's ``get_reward`` itself; earlier ones offer it to the model as a tool.
_REWARDS = (1, 8)


def _numbers(installed: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", installed)[:2])


def check_installed() -> None:
    """Raises ImportError, saying what to install, unless a TRL that is new enough is there."""
    wanted = f"TRL >= {OLDEST[0]}.{OLDEST[1]}"
    try:
        installed = version("trl")
    except PackageNotFoundError:
        raise ImportError(
            f"empg.integrations.trl needs {wanted}, and TRL is not installed: pip install 'empg[trl]'"
        ) from None
    if _numbers(installed) < OLDEST:
        raise ImportError(
            f"empg.integrations.trl needs {wanted}, and TRL {installed} is installed: "
            "pip install -U 'empg[trl]'"
        )


def check_environments() -> None:
    """Raises ImportError, saying what to install, unless TRL takes an environment's own reward."""
    installed = version("trl")
    if _numbers(installed) < _REWARDS:
        wanted = f"{_REWARDS[0]}.{_REWARDS[1]}"
        raise ImportError(
            f"empg.integrations.trl.environment_factory needs TRL >= {wanted}, and TRL {installed} is installed, which "
            f"would offer the environment's get_reward to the model as a tool: pip install -U 'trl>={wanted}'"
        )


def check_order(kind: type, mixin: type, grpo: type) -> None:
    """Raises TypeError for a class in which the trainer's methods hide those of the mixin."""
    order = kind.__mro__
    if grpo in order and order.index(grpo) < order.index(mixin):
        raise TypeError(
            f"{kind.__name__}: {mixin.__name__} after the trainer has no effect; "
            f"write class {kind.__name__}({mixin.__name__}, …) with the mixin first"
        )


def check_trainer(kind: type, grpo: type, loss_knows: bool) -> None:
    """Whether a trainer class hands per-token advantages to a loss that takes them.

    Parameters
    ----------
    kind, grpo : type
        The class that is being constructed, and TRL's ``GRPOTrainer``.
    loss_knows : bool
        The class declares that its own loss accepts advantages of shape (B, T).

    Raises
    ------
    TypeError
        Not a ``GRPOTrainer``, or a loss of its own that has not been declared.
    """
    if not issubclass(kind, grpo):
        raise TypeError(
            f"{kind.__name__}: EMPGMixin modulates the advantages of GRPOTrainer and its subclasses; "
            "write class Mine(EMPGMixin, YourGRPOTrainer)"
        )
    if not loss_knows:
        for method in ("_compute_loss", "compute_loss"):
            owner = next(base for base in kind.__mro__ if method in vars(base))
            if owner is not grpo and not issubclass(grpo, owner):
                raise TypeError(
                    f"{kind.__name__}: {owner.__name__} has a {method} of its own, and one that reads its "
                    "advantages as (B,) would broadcast EMPG's (B, T) wrongly without an error. Once you know "
                    f"that it takes (B, T), set empg_per_token_loss = True on {kind.__name__}"
                )


def check_arguments(kind: type, arguments: Any) -> None:
    """Raises ValueError for settings of TRL that cannot carry per-token advantages."""
    liger = any(getattr(arguments, name, False) for name in ("use_liger_kernel", "use_liger_loss"))
    if liger and hasattr(kind, "compute_liger_loss"):
        raise ValueError(
            "empg: this TRL computes its loss in Liger's fused kernel when use_liger_kernel=True, and that "
            "takes one advantage per completion; set use_liger_kernel=False, or use TRL >= 1.14, whose "
            "Liger kernels leave the loss to TRL"
        )
    if getattr(arguments, "loss_type", None) == "luspo" and _numbers(version("trl")) < _LUSPO:
        raise ValueError(
            f"empg: loss_type='luspo' of TRL {version('trl')} averages per-token advantages over padding; use "
            f"TRL >= {_LUSPO[0]}.{_LUSPO[1]}, or another loss_type"
        )


def no_checkpointing(model: Any, keywords: Any) -> AbstractContextManager[Any]:
    """TRL's switch for forward passes without gradients; nothing where this TRL has none."""
    try:
        from trl.models.utils import disable_gradient_checkpointing
    except ImportError:
        return nullcontext()
    switch: AbstractContextManager[Any] = disable_gradient_checkpointing(model, keywords)
    return switch
