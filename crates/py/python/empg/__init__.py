"""Entropy-Modulated Policy Gradients for language-model agents.

`modulate` turns base advantages into EMPG's, `explain` says how; `StepTable` makes the statistics of
data-parallel workers those of the whole batch. `read_run` reads a run's directory. `empg.envs` has the environments,
`empg.integrations` the trainers.
"""

from empg._core import (
    Credit,
    StepTable,
    __version__,
    dr_grpo,
    explain,
    flat_groups,
    grpo,
    modulate,
    overlong_penalty,
    rloo,
    steps_from_chatml,
    steps_from_mask,
)
from empg.runs import Frame, Run, read_run

__all__ = [
    "Credit",
    "Frame",
    "Run",
    "StepTable",
    "__version__",
    "dr_grpo",
    "explain",
    "flat_groups",
    "grpo",
    "modulate",
    "overlong_penalty",
    "read_run",
    "rloo",
    "steps_from_chatml",
    "steps_from_mask",
]
