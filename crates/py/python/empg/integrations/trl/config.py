"""``GRPOConfig`` with EMPG's options, for scripts whose settings come from flags or YAML."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from trl import GRPOConfig

from .options import EMPGOptions

__all__ = ["EMPGConfig"]


@dataclass
class EMPGConfig(GRPOConfig):
    """TRL's ``GRPOConfig``; fields that begin with ``empg`` are those of :class:`EMPGOptions`.

    Raises
    ------
    ValueError
        An option outside its domain.
    """

    empg: bool = field(
        default=True, metadata={"help": "Modulate the advantages. False trains plain GRPO with the same script."}
    )
    empg_k: float = field(default=1.0, metadata={"help": "Sharpness of the scaling by step entropy; 0 turns it off."})
    empg_k_f: float = field(default=1.0, metadata={"help": "Sharpness of the future clarity bonus."})
    empg_zeta: float = field(default=0.1, metadata={"help": "Weight of the future clarity bonus; 0 turns it off."})
    empg_shape: str = field(
        default="exp",
        metadata={"help": "Form of scaling and bonus: exp or linear.", "choices": ["exp", "linear"]},
    )
    empg_normalize: str = field(
        default="minmax",
        metadata={"help": "Bounds of the entropies: minmax or quantile.", "choices": ["minmax", "quantile"]},
    )
    empg_quantile: list[float] = field(
        default_factory=lambda: [0.05, 0.95], metadata={"help": "The two levels of empg_normalize=quantile."}
    )
    empg_gate_bonus: bool = field(
        default=False, metadata={"help": "No bonus where the base advantage is 0 (as where all rewards of a group are equal)."}
    )
    empg_center: bool = field(default=True, metadata={"help": "Subtract the mean over all steps of the batch."})
    empg_paper_exact: bool = field(
        default=False, metadata={"help": "Reproduce the paper's pseudo-code including what it does outside steps."}
    )

    def __post_init__(self) -> None:
        self.empg_options()
        super().__post_init__()

    def empg_options(self) -> EMPGOptions:
        """The options as an object."""
        values: dict[str, Any] = {name.name: getattr(self, f"empg_{name.name}") for name in fields(EMPGOptions)}
        return EMPGOptions(**values)
