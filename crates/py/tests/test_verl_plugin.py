"""The plugin as verl loads it, and what it refuses before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from verl_cases import discoverable

discoverable()
pytest.importorskip("verl")
pytest.importorskip("transfer_queue")
from hydra import compose, initialize_config_module  # noqa: E402

from empg.integrations.verl import EmpgConfig, EmpgMixin, check_config, register  # noqa: E402

ON = "+algorithm.empg.enable=True"


def settings(*overrides, name="ppo_trainer"):
    """verl's own packaged configuration with these overrides, as its command line composes it."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(name, overrides=list(overrides))


def python(*arguments, **environment):
    env = {**os.environ, "HYDRA_FULL_ERROR": "1", **environment}
    return subprocess.run(
        [sys.executable, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


LOADED = """
import os
import sys
from importlib.metadata import entry_points
entry, = [entry for entry in entry_points(group="verl.plugins") if entry.name == "empg"]
entry.load()
heavy = [name for name in ("torch", "ray", "verl", "transformers", "transfer_queue") if name in sys.modules]
assert not heavy, heavy
import verl
from verl.utils.config import validate_config
assert validate_config._empg_patched
assert "verl.trainer.ppo.v1" not in sys.modules
print("loaded")
"""

UNTOUCHED = """
import sys
import verl
from verl.utils.config import validate_config
assert not any(name.startswith("empg") for name in sys.modules)
assert not hasattr(validate_config, "_empg_patched")
from empg.integrations.verl import install
install()
from verl.utils.config import validate_config
assert validate_config._empg_patched
print("untouched")
"""


def test_the_plugin_is_cheap_and_verl_loads_it():
    done = python("-c", LOADED)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "loaded"


def test_without_plugins_verl_is_untouched():
    done = python("-c", UNTOUCHED, VERL_USE_EXTERNAL_PLUGINS="none")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "untouched"


def test_of_verls_trainers_only_sync_is_changed():
    from verl.trainer.ppo.v1 import PPOTrainerColocateAsync, PPOTrainerSeparateAsync, PPOTrainerSync
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    assert sorted(TRAINER_REGISTRY) == ["colocate_async", "separate_async", "sync"]
    cls = get_trainer_cls("sync")
    assert cls.__name__ == "EmpgPPOTrainerSync" and issubclass(cls, PPOTrainerSync)
    assert get_trainer_cls("colocate_async") is PPOTrainerColocateAsync
    assert get_trainer_cls("separate_async") is PPOTrainerSeparateAsync


def test_register_does_by_hand_what_the_plugin_does(monkeypatch):
    from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    class Own(PPOTrainerSync):
        pass

    monkeypatch.setitem(TRAINER_REGISTRY, "sync", Own)
    cls = register()
    assert cls is get_trainer_cls("sync") is register()
    assert issubclass(cls, Own) and issubclass(cls, EmpgMixin)


def test_verls_command_refuses_the_legacy_trainer_before_ray_starts():
    quiet = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=disabled"]
    done = python("-m", "verl.trainer.main_ppo", "trainer.use_v1=False", ON, *quiet)
    assert done.returncode != 0
    assert (
        "drops the entropies before it computes advantages; set trainer.use_v1=True" in done.stderr
    )
    assert "ray init kwargs" not in done.stdout


def test_nothing_is_asked_for_by_default():
    assert check_config(settings()) is None
    assert check_config(settings("+algorithm.empg=False")) is None
    assert check_config(settings("+algorithm.empg.enable=False", "trainer.use_v1=False")) is None


def test_settings_come_from_the_command_line():
    assert (
        check_config(settings(ON)) == EmpgConfig() == check_config(settings("+algorithm.empg=True"))
    )
    config = settings(
        ON, "+algorithm.empg.k=2", "+algorithm.empg.zeta=0.05", "+algorithm.empg.normalize=quantile",
        "+algorithm.empg.quantile=[0.1,0.9]", "+algorithm.empg.gate_bonus=True",
    )  # fmt: skip
    wanted = EmpgConfig(k=2, zeta=0.05, normalize="quantile", quantile=(0.1, 0.9), gate_bonus=True)
    assert check_config(config) == wanted


def test_megatrons_configuration_takes_the_same_keys():
    assert check_config(settings(ON, name="ppo_megatron_trainer")) == EmpgConfig()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([ON, "trainer.use_v1=False"], "legacy trainer"),
        (
            [ON, "trainer.v1.trainer_mode=colocate_async"],
            "trainer_mode=colocate_async mixes several policies",
        ),
        (
            [ON, "trainer.v1.trainer_mode=separate_async"],
            "trainer_mode=separate_async mixes several policies",
        ),
        (
            [ON, "algorithm.rollout_correction.bypass_mode=True"],
            "bypass_mode=True leaves out the pass",
        ),
        # As verl's one-step-off and fully asynchronous trainers are set.
        (
            [
                ON,
                "actor_rollout_ref.hybrid_engine=False",
                "algorithm.rollout_correction.bypass_mode=False",
            ],
            "hybrid_engine=False is of the one-step-off",
        ),
        ([ON, "algorithm.use_pf_ppo=True"], "use_pf_ppo=True draws the rows anew"),
        ([ON, "+algorithm.empg.zetta=1"], "did you mean zeta"),
        ([ON, "+algorithm.empg.k=-1"], "algorithm.empg.k=-1"),
        (["+algorithm.empg.k=1"], "say .algorithm.empg.enable=True or"),
        (["+algorithm.empg.enable=maybe"], "enable='maybe'"),
        (["+algorithm.empg=2"], "algorithm.empg=2"),
    ],
)
def test_verls_own_validation_refuses_what_cannot_be_had(overrides, message):
    from verl.utils.config import validate_config

    with pytest.raises(ValueError, match=message):
        validate_config(settings(*overrides), use_reference_policy=False, use_critic=False)


def test_a_version_that_is_not_known_is_refused(monkeypatch):
    import verl

    monkeypatch.setattr(verl, "__version__", "0.10.0")
    with pytest.raises(ValueError, match=r"needs verl 0\.9, but this is verl 0\.10\.0"):
        check_config(settings(ON))
    assert check_config(settings()) is None
    with pytest.raises(RuntimeError, match=r"needs verl 0\.9, but this is verl 0\.10\.0"):
        register()
    monkeypatch.setattr(verl, "__version__", "nightly")
    with pytest.raises(ValueError, match="this is verl nightly"):
        check_config(settings(ON))


def test_trainers_that_would_ignore_empg_are_refused_when_they_are_built():
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer
    from verl.trainer.ppo.v1 import PPOTrainerColocateAsync, PPOTrainerSync

    with pytest.raises(ValueError, match="RayPPOTrainer is a legacy trainer"):
        RayPPOTrainer(settings(ON), None, {}, None)
    with pytest.raises(ValueError, match="PPOTrainerSync does not apply it"):
        PPOTrainerSync(config=settings(ON))
    with pytest.raises(ValueError, match="trainer_mode=colocate_async"):
        PPOTrainerColocateAsync(settings(ON, "trainer.v1.trainer_mode=colocate_async"))


def test_trainers_that_do_not_call_the_init_of_their_base_are_refused_too():
    from verl.experimental.fully_async_policy.fully_async_rollouter import FullyAsyncRollouter
    from verl.experimental.fully_async_policy.fully_async_trainer import FullyAsyncTrainer
    from verl.experimental.one_step_off_policy.ray_trainer import OneStepOffRayTrainer
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer
    from verl.trainer.ppo.v1 import PPOTrainerSync

    asked = settings(ON, "actor_rollout_ref.hybrid_engine=False")
    with pytest.raises(ValueError, match="OneStepOffRayTrainer is a legacy trainer"):
        OneStepOffRayTrainer(asked, None, {}, None)
    # Actors: Ray keeps the class that it was given.
    trainer, rollouter = (
        actor.__ray_metadata__.modified_class for actor in (FullyAsyncTrainer, FullyAsyncRollouter)
    )
    with pytest.raises(ValueError, match="FullyAsyncTrainer is a legacy trainer"):
        trainer(config=asked, tokenizer=None, role_worker_mapping={}, resource_pool_manager=None)
    with pytest.raises(ValueError, match="FullyAsyncRollouter is a legacy trainer"):
        rollouter(config=asked, tokenizer=None)

    class Own(RayPPOTrainer):
        def __init__(self, settings):
            self.config = settings

    class OwnV1(PPOTrainerSync):
        def __init__(self, config):
            self.config = config

    with pytest.raises(ValueError, match="Own is a legacy trainer"):
        Own(asked)
    with pytest.raises(ValueError, match="OwnV1 does not apply it"):
        OwnV1(settings(ON))
    assert Own(settings()).config == OwnV1(settings()).config == settings()


def test_the_way_in_of_verls_other_trainers_refuses_before_ray_starts():
    import ray
    from verl.trainer.main_ppo import run_ppo

    with pytest.raises(ValueError, match="hybrid_engine=False is of the one-step-off"):
        run_ppo(settings(ON, "actor_rollout_ref.hybrid_engine=False"), task_runner_class=None)
    assert not ray.is_initialized()


ELSEWHERE = """
import pickle, sys
import verl
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
assert not any(name.startswith("empg") for name in sys.modules)
cls = pickle.loads(bytes.fromhex(sys.argv[1]))
assert issubclass(cls, RayPPOTrainer)
assert cls(config="settings").config == "settings"
assert not any(name.startswith("empg") for name in sys.modules)
print("built")
"""


def test_an_actors_class_can_be_built_where_the_plugin_is_not():
    from ray import cloudpickle
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    class Own(RayPPOTrainer):
        def __init__(self, config):
            self.config = config

    shipped = cloudpickle.dumps(Own).hex()
    done = python("-c", ELSEWHERE, shipped, VERL_USE_EXTERNAL_PLUGINS="none")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "built"


def test_the_registered_trainer_is_built_with_and_without_empg():
    from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls

    cls = get_trainer_cls("sync")
    for overrides in ([], [ON]):
        trainer = cls(config=settings("algorithm.adv_estimator=grpo", *overrides))
        assert isinstance(trainer, EmpgMixin) and trainer.trainer_mode == "sync"
    assert PPOTrainerSync(config=settings("algorithm.adv_estimator=grpo")).trainer_mode == "sync"


def test_register_knows_verls_trainers():
    with pytest.raises(
        RuntimeError, match="no trainer 'syncc'.*colocate_async, separate_async, sync"
    ):
        register("syncc")


@pytest.mark.skipif(os.name != "posix", reason="the example is a shell script")
def test_the_example_is_a_configuration_that_verl_knows(tmp_path):
    script = Path(__file__).parents[3] / "examples" / "python" / "verl_empg.sh"
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "DATA": "/data", "MODEL": "m"}
    done = subprocess.run(
        ["bash", str(script)], env=env, capture_output=True, text=True, check=True
    )
    module, *overrides = done.stdout.split("\n")[1:-1]
    assert module == "verl.trainer.main_ppo"
    assert check_config(settings(*overrides)) == EmpgConfig()
