"""EMPG in verl 0.9: the default (synchronous V1) trainer, by one line of its configuration.

Installing the wheel is enough: verl loads this package through the entry point group
``verl.plugins``, in the driver and in every Ray worker. Nothing changes until a run asks for it::

    python -m verl.trainer.main_ppo … +algorithm.empg.enable=True

For trainers of one's own there is :func:`modulate_batch` (a ``DataProto`` or ``TensorDict`` in
place) and :class:`EmpgMixin`. Importing this package imports neither verl, torch nor ray.
"""

from .batch import modulate_batch, session_rows, step_table
from .hooks import check_config, install, register
from .options import EmpgConfig
from .trainer import EmpgMixin

__all__ = [
    "EmpgConfig",
    "EmpgMixin",
    "check_config",
    "install",
    "modulate_batch",
    "register",
    "session_rows",
    "step_table",
]
