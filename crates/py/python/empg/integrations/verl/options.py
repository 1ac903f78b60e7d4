"""The settings under ``algorithm.empg`` of verl's configuration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

SECTION = "algorithm.empg"


@dataclass(frozen=True)
class EmpgConfig:
    """How advantages are modulated; the defaults are the paper's.

    Parameters
    ----------
    k, k_f, zeta
        Strengths of the scaling (Eq. 10), of the clarity (Eq. 11) and of the bonus (Eq. 8).
    shape
        ``"exp"`` or ``"linear"``.
    normalize
        ``"minmax"`` (Eq. 12) or ``"quantile"``, which an outlier does not flatten.
    quantile
        The two quantiles of ``"quantile"``.
    gate_bonus
        No bonus where the base advantage is 0.
    center
        Subtract the mean over the batch's steps (Eq. 7).
    threads
        Threads of the computation; 0 means all cores.
    """

    k: float = 1.0
    k_f: float = 1.0
    zeta: float = 0.1
    shape: str = "exp"
    normalize: str = "minmax"
    quantile: tuple[float, float] = (0.05, 0.95)
    gate_bonus: bool = False
    center: bool = True
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("k", "k_f", "zeta"):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not 0 <= value < float("inf")
            ):
                raise ValueError(
                    f"{SECTION}.{name}={value!r}: must be a number, finite and at least 0"
                )
        for name, allowed in (("shape", ("exp", "linear")), ("normalize", ("minmax", "quantile"))):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{SECTION}.{name}={value!r}: must be one of {', '.join(allowed)}")
        for name in ("gate_bonus", "center"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ValueError(f"{SECTION}.{name}={value!r}: must be True or False")
        try:
            low, high = (float(q) for q in self.quantile)
        except (TypeError, ValueError):
            low, high = 1.0, 0.0
        if not 0.0 <= low < high <= 1.0:
            raise ValueError(
                f"{SECTION}.quantile={self.quantile!r}: must be two numbers, 0 <= low < high <= 1"
            )
        object.__setattr__(self, "quantile", (low, high))
        if isinstance(self.threads, bool) or not isinstance(self.threads, int) or self.threads < 0:
            raise ValueError(
                f"{SECTION}.threads={self.threads!r}: must be an integer, 0 (all cores) or more"
            )

    @classmethod
    def from_mapping(cls, section: Mapping[str, Any]) -> EmpgConfig:
        """From a mapping of option names to values.

        Raises
        ------
        ValueError
            An unknown name (with the nearest known one), or a value outside its domain.
        """
        known = [field.name for field in fields(cls)]
        for name in section:
            if name not in known:
                near = difflib.get_close_matches(str(name), [*known, "enable"], n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"{SECTION}.{name}: no such setting{hint} (there are: enable, {', '.join(known)})"
                )
        return cls(**{str(name): value for name, value in section.items()})

    @classmethod
    def from_verl(cls, config: Any) -> EmpgConfig | None:
        """From the whole configuration of a verl run; None unless it asks for EMPG.

        Raises
        ------
        ValueError
            ``algorithm.empg`` is there but says neither ``enable=True`` nor ``enable=False``, or
            holds a setting that does not exist or a value outside its domain.
        """
        algorithm = _get(config, "algorithm")
        section = _get(algorithm, "empg")
        if section is None:
            return None
        if isinstance(section, bool):
            return cls() if section else None
        if not isinstance(section, Mapping):
            raise ValueError(
                f"{SECTION}={section!r}: must be True, False or settings such as enable and k"
            )
        # Plain values: omegaconf's containers are mappings and sequences of their own.
        settings = {str(name): _plain(section[name]) for name in section}
        enable = settings.pop("enable", None)
        if not isinstance(enable, bool):
            raise ValueError(
                f"{SECTION}.enable={enable!r}: settings of EMPG are given, so say "
                f"+{SECTION}.enable=True or +{SECTION}.enable=False"
            )
        options = cls.from_mapping(settings)
        return options if enable else None

    def modulation(self) -> dict[str, Any]:
        """The keyword arguments of ``empg.StepTable.credit``; ``threads`` is not among them."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "threads"
        }


def _get(config: Any, name: str) -> Any:
    if config is None:
        return None
    get = getattr(config, "get", None)
    return get(name) if callable(get) else getattr(config, name, None)


def _plain(value: Any) -> Any:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        return value
    return tuple(value)
