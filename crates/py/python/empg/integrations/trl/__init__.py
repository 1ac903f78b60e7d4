"""EMPG for TRL: ``EMPGTrainer`` in the place of ``GRPOTrainer``.

>>> from empg.integrations.trl import EMPGTrainer
>>> trainer = EMPGTrainer(model, reward_funcs=reward, args=config, train_dataset=prompts)

Importing this module imports TRL and torch.
"""

from .host import check_installed

check_installed()

from .config import EMPGConfig  # noqa: E402
from .credit import Credited, credit_rows  # noqa: E402
from .environment import TextEnvironment, environment_factory  # noqa: E402
from .options import EMPGOptions  # noqa: E402
from .trainer import EMPGMixin, EMPGTrainer  # noqa: E402

__all__ = [
    "Credited",
    "EMPGConfig",
    "EMPGMixin",
    "EMPGOptions",
    "EMPGTrainer",
    "TextEnvironment",
    "credit_rows",
    "environment_factory",
]
