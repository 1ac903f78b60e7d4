"""EMPG's options as TRL users set them: an object, a dict or fields of the configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

__all__ = ["EMPGOptions"]

_SHAPES = ("exp", "linear")
_NORMALIZERS = ("minmax", "quantile")


@dataclass(frozen=True)
class EMPGOptions:
    """What EMPG does to a trainer's advantages; the defaults are the paper's.

    Attributes
    ----------
    k, k_f : float
        Sharpness of the scaling g = exp(-k·Hn) and of the future clarity f = exp(-k_f·Hn).
        ``k=0`` leaves the bonus only.
    zeta : float
        Weight of the future clarity bonus; 0 leaves the scaling only.
    shape : {"exp", "linear"}
        Form of g and f.
    normalize : {"minmax", "quantile"}
        Bounds of the step entropies: the extremes, or the quantiles ``quantile``, which one
        outlier cannot move.
    quantile : tuple of float
        The two levels, in [0, 1].
    gate_bonus : bool
        No bonus where the base advantage is 0 (a group whose rewards are all equal).
    center : bool
        Subtract the mean over all steps of the batch.
    paper_exact : bool
        Reproduce the paper's pseudo-code including what it does outside steps.

    Raises
    ------
    ValueError
        A value outside its domain; the message names the option.
    """

    k: float = 1.0
    k_f: float = 1.0
    zeta: float = 0.1
    shape: str = "exp"
    normalize: str = "minmax"
    quantile: tuple[float, float] = (0.05, 0.95)
    gate_bonus: bool = False
    center: bool = True
    paper_exact: bool = False

    def __post_init__(self) -> None:
        for name in ("k", "k_f", "zeta"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ValueError(f"empg: {name} must be a number, not {value!r}")
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"empg: {name} must be finite and at least 0, not {value!r}")
            object.__setattr__(self, name, float(value))
        for name, allowed in (("shape", _SHAPES), ("normalize", _NORMALIZERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"empg: {name} must be one of {allowed}, not {getattr(self, name)!r}")
        for name in ("gate_bonus", "center", "paper_exact"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"empg: {name} must be true or false, not {getattr(self, name)!r}")
        try:
            low, high = (float(level) for level in self.quantile)
        except (TypeError, ValueError):
            low, high = 1.0, 0.0
        if not 0.0 <= low < high <= 1.0:
            raise ValueError(f"empg: quantile must be two rising levels in [0, 1], not {self.quantile!r}")
        object.__setattr__(self, "quantile", (low, high))

    @classmethod
    def resolve(cls, given: EMPGOptions | Mapping[str, Any]) -> EMPGOptions:
        """Options from an object or from a mapping of option names to values.

        Raises
        ------
        ValueError
            An unknown name; the message lists the known ones.
        TypeError
            Neither options nor a mapping.
        """
        if isinstance(given, EMPGOptions):
            return given
        if not isinstance(given, Mapping):
            raise TypeError(
                f"empg= takes EMPGOptions, a dict of options, True or False, not {type(given).__name__}"
            )
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise ValueError(f"empg: unknown option {name!r}; the options are {', '.join(known)}")
        return cls(**given)

    def keywords(self) -> dict[str, Any]:
        """The options as keyword arguments of :func:`empg.modulate`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def statistics(self) -> dict[str, Any]:
        """Those of them that :meth:`empg.StepTable.credit` takes: what happens outside steps is none."""
        return {name: value for name, value in self.keywords().items() if name != "paper_exact"}
