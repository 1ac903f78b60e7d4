"""Where verl is changed: the registry's ``sync`` entry, and the places that refuse bad settings.

Everything waits for verl to import its own modules, so that loading the plugin costs nothing in
processes that never train, and so that an error is raised where verl does not drop it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from .options import SECTION, EmpgConfig
from .trainer import EmpgMixin

SUPPORTED = (0, 9)
_PATCHED = "_empg_patched"
_REFUSE = "_empg_refuse"


def check_config(config: Any) -> EmpgConfig | None:
    """The settings of EMPG in a verl configuration, or None where it is not asked for.

    Parameters
    ----------
    config
        The whole configuration of the run.

    Raises
    ------
    ValueError
        EMPG is asked for, and this version, trainer or setting of verl cannot have it.
    """
    options = EmpgConfig.from_verl(config)
    if options is None:
        return None
    wanted = ".".join(map(str, SUPPORTED))
    if _version() != SUPPORTED:
        raise ValueError(
            f"EMPG ({SECTION}): needs verl {wanted}, but this is verl {_version_text()}"
        )

    def setting(path: str, default: Any = None) -> Any:
        value = config
        for name in path.split("."):
            value = value.get(name) if value is not None else None
        return default if value is None else value

    if not setting("trainer.use_v1", True):
        raise ValueError(
            f"EMPG ({SECTION}): the legacy trainer (trainer.use_v1=False) drops the entropies before "
            "it computes advantages; set trainer.use_v1=True"
        )
    mode = setting("trainer.v1.trainer_mode", "sync")
    if mode != "sync":
        raise ValueError(
            f"EMPG ({SECTION}): trainer.v1.trainer_mode={mode} mixes several policies in a batch, "
            "whose entropies are not those of the steps; set trainer.v1.trainer_mode=sync"
        )
    if not setting("actor_rollout_ref.hybrid_engine", True):
        raise ValueError(
            f"EMPG ({SECTION}): actor_rollout_ref.hybrid_engine=False is of the one-step-off and the "
            "fully asynchronous trainer, which are legacy trainers and do not apply it; train by "
            "verl.trainer.main_ppo and leave it True"
        )
    if setting("algorithm.rollout_correction.bypass_mode", False):
        raise ValueError(
            f"EMPG ({SECTION}): algorithm.rollout_correction.bypass_mode=True leaves out the pass that "
            "computes entropies; set it to False"
        )
    if setting("algorithm.use_pf_ppo", False):
        raise ValueError(
            f"EMPG ({SECTION}): algorithm.use_pf_ppo=True draws the rows anew, so that steps and rows "
            "no longer match; set it to False"
        )
    return options


def register(name: str = "sync") -> type:
    """Put EMPG into the trainer that is registered under ``name``, now; returns the new class.

    The plugin does this by itself; call it where plugins are switched off
    (``VERL_USE_EXTERNAL_PLUGINS=none``), in the process that builds the trainer.

    Raises
    ------
    ImportError
        verl (or its TransferQueue) is not installed.
    RuntimeError
        Another version of verl than 0.9, or no trainer of that name.
    """
    try:
        importlib.import_module("verl")
    except ModuleNotFoundError as error:
        if error.name != "verl":
            raise
        raise ImportError(
            "empg.integrations.verl needs verl 0.9: pip install 'empg[verl]'"
        ) from error
    if _version() != SUPPORTED:
        wanted = ".".join(map(str, SUPPORTED))
        raise RuntimeError(
            f"empg.integrations.verl needs verl {wanted}, but this is verl {_version_text()}"
        )
    install()
    registry = importlib.import_module("verl.trainer.ppo.v1.trainer_base").TRAINER_REGISTRY
    importlib.import_module("verl.trainer.ppo.v1")
    if name not in registry:
        raise RuntimeError(f"verl has no trainer {name!r} (it has: {', '.join(sorted(registry))})")
    return _put_mixin(registry, name)


def install() -> None:
    """Let verl's modules be changed when they are imported; those that are already, now. Idempotent."""
    for name, change in _CHANGES.items():
        module = sys.modules.get(name)
        spec = getattr(module, "__spec__", None)
        if module is not None and not getattr(spec, "_initializing", False):
            change(module)
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the modules of ``_CHANGES`` as the other finders do, and changes them once executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        change = _CHANGES.get(fullname)
        if change is None:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if isinstance(finder, _AfterImport) or find is None:
                continue
            spec: importlib.machinery.ModuleSpec | None = find(fullname, path, target)
            if spec is not None and spec.loader is not None:
                execute = spec.loader.exec_module

                def exec_module(module: ModuleType) -> None:
                    execute(module)
                    change(module)

                spec.loader.exec_module = exec_module  # type: ignore[method-assign]
                return spec
        return None


def _put_mixin(registry: dict[str, type], name: str) -> type:
    current = registry[name]
    if not issubclass(current, EmpgMixin):
        body = {"__module__": __name__, "__doc__": f"{current.__name__} with EMPG."}
        registry[name] = type(f"Empg{current.__name__}", (EmpgMixin, current), body)
    return registry[name]


def _change_registry(module: ModuleType) -> None:
    registry = getattr(
        sys.modules.get("verl.trainer.ppo.v1.trainer_base"), "TRAINER_REGISTRY", None
    )
    # Another version keeps its trainers as they are; what refuses EMPG there are the other hooks.
    if _version() == SUPPORTED and isinstance(registry, dict) and "sync" in registry:
        _put_mixin(registry, "sync")


def _change_v1(module: ModuleType) -> None:
    def refuse(trainer: Any, config: Any) -> None:
        if check_config(config) is not None and not isinstance(trainer, EmpgMixin):
            raise ValueError(
                f"EMPG ({SECTION}): {type(trainer).__name__} does not apply it; take the class from "
                "get_trainer_cls('sync'), or derive from empg.integrations.verl.EmpgMixin first"
            )

    _refuse_in_init(getattr(module, "PPOTrainer", None), refuse)


def _change_legacy(module: ModuleType) -> None:
    def refuse(trainer: Any, config: Any) -> None:
        if EmpgConfig.from_verl(config) is not None:
            raise ValueError(
                f"EMPG ({SECTION}): {type(trainer).__name__} is a legacy trainer, which drops the "
                "entropies before it computes advantages; train by verl.trainer.main_ppo with "
                "trainer.use_v1=True"
            )

    _refuse_in_init(getattr(module, "RayPPOTrainer", None), refuse)


def _change_validation(module: ModuleType) -> None:
    _check_first(module, "validate_config")


def _change_main(module: ModuleType) -> None:
    # Entry points of verl's other trainers go through here too, some without a validation.
    _check_first(module, "run_ppo")


def _check_first(module: ModuleType, name: str) -> None:
    function = getattr(module, name, None)
    if function is None or getattr(function, _PATCHED, False):
        return

    @functools.wraps(function)
    def checked(config: Any, *args: Any, **kwargs: Any) -> Any:
        check_config(config)
        return function(config, *args, **kwargs)

    setattr(checked, _PATCHED, True)
    setattr(module, name, checked)


def _refuse_in_init(cls: Any, refuse: Callable[[Any, Any], None]) -> None:
    """Let ``cls`` and what derives from it refuse configurations when they are built.

    Some of verl's trainers have an ``__init__`` that does not call its base's: every one is wrapped,
    when its class is made.
    """
    if not isinstance(cls, type) or _PATCHED in cls.__dict__:
        return

    def refuse_in(trainer: Any, init: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            given = inspect.signature(init).bind_partial(trainer, *args, **kwargs).arguments
        except TypeError:
            # What calls it will say better what is wrong.
            return
        config = given.get("config")
        if config is not None:
            refuse(trainer, config)

    def refuse_after(trainer: Any) -> None:
        # Where a class calls its configuration otherwise, it is known by now.
        refuse(trainer, getattr(trainer, "config", None))

    base: type[Any] = cls
    inherited = base.__dict__.get("__init_subclass__")

    def __init_subclass__(derived: type[Any], /, **kwargs: Any) -> None:
        if inherited is None:
            super(base, derived).__init_subclass__(**kwargs)
        else:
            inherited.__get__(None, derived)(**kwargs)
        if "__init__" in derived.__dict__:
            _wrap_init(derived)

    setattr(cls, _REFUSE, (refuse_in, refuse_after))
    _wrap_init(cls)
    setattr(cls, "__init_subclass__", classmethod(__init_subclass__))
    known: list[type[Any]] = base.__subclasses__()
    while known:
        derived = known.pop()
        known.extend(derived.__subclasses__())
        if "__init__" in derived.__dict__:
            _wrap_init(derived)


def _wrap_init(cls: Any) -> None:
    if _PATCHED in cls.__dict__:
        return
    init = cls.__init__

    # Ray ships the classes of actors by value, with this function in them. It names nothing of this
    # package, so that a node without the wheel can build them.
    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        before, after = getattr(type(self), _REFUSE, (None, None))
        if before is not None:
            before(self, init, args, kwargs)
        init(self, *args, **kwargs)
        if after is not None:
            after(self)

    setattr(cls, "__init__", __init__)
    setattr(cls, _PATCHED, True)


_CHANGES: dict[str, Callable[[ModuleType], None]] = {
    "verl.utils.config": _change_validation,
    "verl.trainer.main_ppo": _change_main,
    "verl.trainer.ppo.v1": _change_registry,
    "verl.trainer.ppo.v1.trainer_base": _change_v1,
    "verl.trainer.ppo.ray_trainer": _change_legacy,
}


def _version_text() -> str:
    return str(getattr(sys.modules.get("verl"), "__version__", "of an unknown version"))


def _version() -> tuple[int, ...] | None:
    try:
        return tuple(int(part) for part in _version_text().split(".")[:2])
    except ValueError:
        return None
