"""verl's actor worker on CPU: its own FSDP engine, two processes over gloo."""

from __future__ import annotations

import os

import torch
from verl.models.transformers import monkey_patch
from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker

import empg
from empg.integrations.verl import modulate_batch, step_table


class CpuActor(ActorRolloutRefWorker):
    """The actor, and beside it one shard of a batch that is credited from everybody's steps."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self):
        # verl knows its engine under the name of the accelerator; and its own process group would
        # name the CPU twice.
        os.environ["VERL_ENGINE_DEVICE"] = "cuda"
        torch.set_num_threads(1)
        # Where TRL is installed, verl changes a class of it that TRL 1.16 no longer has.
        monkey_patch.is_trl_available = lambda: False
        torch.distributed.init_process_group("gloo")
        super().init_model()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def parameters(self):
        """The whole model, gathered from all ranks."""
        return {
            name: parameter.full_tensor().detach().clone()
            for name, parameter in self.actor.engine.module.named_parameters()
        }

    def hold(self, data, keys):
        self.data, self.keys = data, keys
        return step_table(data, keys=keys)

    def modulate(self, tables, options):
        table = empg.StepTable.gather(tables)
        metrics = modulate_batch(self.data, options, keys=self.keys, table=table)
        return self.data, metrics

    def trainer_name(self):
        from verl.trainer.ppo.v1 import get_trainer_cls

        return get_trainer_cls("sync").__name__
