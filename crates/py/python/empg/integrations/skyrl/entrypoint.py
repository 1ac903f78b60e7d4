"""SkyRL's training entrypoint with EMPG in it, for runs that need no code of their own."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["experiment", "main", "split_arguments"]


def split_arguments(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """SkyRL's arguments, and the options that `empg.NAME=VALUE` among them name.

    Values are Python literals or plain strings: `empg.zeta=0.05 empg.normalize=quantile`.

    Raises
    ------
    ValueError
        An `empg.` argument without a value, or one that occurs twice.
    """
    import ast

    rest: list[str] = []
    options: dict[str, Any] = {}
    for argument in arguments:
        if argument.startswith("trainer.override_entrypoint="):
            continue
        if not argument.startswith("empg."):
            rest.append(argument)
            continue
        name, equals, text = argument.removeprefix("empg.").partition("=")
        if not equals or not text:
            raise ValueError(f"{argument}: write empg.NAME=VALUE")
        if name in options:
            raise ValueError(f"empg.{name} is given twice")
        lowered = {"true": "True", "false": "False"}.get(text, text)
        try:
            options[name] = ast.literal_eval(lowered)
        except (SyntaxError, ValueError):
            options[name] = text
    return rest, options


def experiment(options: dict[str, Any]) -> type:
    """SkyRL's `BasePPOExp` whose trainer is `EMPGTrainer` with these options."""
    from skyrl.train.entrypoints.main_base import BasePPOExp

    class EMPGExperiment(BasePPOExp):  # type: ignore[misc]
        def get_trainer(self, *args: Any, **kwargs: Any) -> Any:
            from .trainer import empg_trainer

            return empg_trainer()(*args, empg=options, **kwargs)

    return EMPGExperiment


def main() -> None:
    """Trains with EMPG: SkyRL's own arguments, and `empg.NAME=VALUE` for EMPG's options."""
    import ray
    from skyrl.train.config import SkyRLTrainConfig
    from skyrl.train.utils import validate_cfg
    from skyrl.train.utils.utils import initialize_ray

    from ..options import check_options
    from .trainer import _check_config

    arguments, options = split_arguments(sys.argv[1:])
    cfg = SkyRLTrainConfig.from_cli_overrides(arguments)
    # Before Ray starts and a model is loaded.
    check_options(options)
    # First SkyRL, which also gives settings by older names their present ones.
    validate_cfg(cfg)
    _check_config(cfg, can_record=True)
    initialize_ray(cfg)

    @ray.remote(num_cpus=1)
    def train(cfg: Any, options: dict[str, Any]) -> None:
        experiment(options)(cfg).run()

    ray.get(train.remote(cfg, options))


if __name__ == "__main__":
    main()
