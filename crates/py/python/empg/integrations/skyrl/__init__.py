"""EMPG inside SkyRL's trainer (`skyrl` ≥ 0.3, strategy `fsdp`).

In an entrypoint of your own::

    from empg.integrations.skyrl import EMPGTrainer

    class Experiment(BasePPOExp):
        def get_trainer(self, *args, **kwargs):
            return EMPGTrainer(*args, **kwargs)

or without one: `python -m skyrl.train.entrypoints.main_base
trainer.override_entrypoint=empg.integrations.skyrl empg.k=1.0 …`.

SkyRL is imported when `EMPGTrainer` or `main` is first used; `EMPGMixin` needs no host to be
imported and goes in front of any subclass of `RayPPOTrainer`.
"""

from __future__ import annotations

from typing import Any

from .trainer import EMPGMixin

__all__ = ["EMPGMixin", "EMPGTrainer", "main"]


def __getattr__(name: str) -> Any:
    if name == "EMPGTrainer":
        from .trainer import empg_trainer

        return empg_trainer()
    if name == "main":
        from .entrypoint import main

        return main
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
