"""The environments in Gymnasium's registry, under ids such as ``empg/alfworld-v0``.

Importing this module registers them, hence
``gymnasium.make("empg.envs.registration:empg/alfworld-v0", data=…)`` works as it is.
"""

from __future__ import annotations

import gymnasium
from gymnasium.envs.registration import registry

from empg._core import environment_names


def register_all() -> None:
    """Registers every environment that is not registered yet."""
    for name in environment_names():
        if f"empg/{name}-v0" not in registry:
            gymnasium.register(
                id=f"empg/{name}-v0",
                entry_point="empg.envs.single:TextEnv",
                vector_entry_point="empg.envs.vector:TextVectorEnv",
                kwargs={"name": name},
            )


register_all()
