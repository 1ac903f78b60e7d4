"""The step of verl's V1 trainer that can see entropies, and advantages, and every row."""

from __future__ import annotations

import importlib
from typing import Any

from .batch import modulate_batch
from .options import EmpgConfig


class EmpgMixin:
    """EMPG for a V1 trainer: ``class MyTrainer(EmpgMixin, PPOTrainerSync)``.

    The advantages are the base class's (any estimator of verl's), then modulated with statistics
    over every row of the batch. The class does nothing where ``algorithm.empg`` is not enabled.
    """

    config: Any

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """The base's advantages, modulated; reads and writes TransferQueue.

        Parameters
        ----------
        batch : KVBatchMeta
            Keys of the rows; entropies are those of the pass that computed ``old_log_probs``.
        metrics
            Receives ``empg/…``.

        Raises
        ------
        ValueError
            The batch has no entropies, or they are not finite inside a step.
        """
        compute_base = super()._compute_advantage  # type: ignore[misc]
        options = EmpgConfig.from_verl(self.config)
        if options is None:
            return compute_base(batch, metrics=metrics)

        queue = importlib.import_module("transfer_queue")
        rows = {"keys": batch.keys, "partition_id": batch.partition_id}
        # Rejection sampling, a part of the base's work, rewrites the mask: the steps are in this copy.
        data = queue.kv_batch_get(**rows, select_fields=["response_mask", "entropy"])
        if "entropy" not in data.keys():
            raise ValueError(
                "EMPG: the batch has no entropy. The pass that computes old_log_probs writes it; "
                "algorithm.rollout_correction.bypass_mode=True leaves that pass out"
            )
        mask = data["response_mask"].clone()

        keys = list(batch.keys)
        batch = compute_base(batch, metrics=metrics)
        after = queue.kv_batch_get(**rows, select_fields=["response_mask", "advantages"])
        data["response_mask"], data["advantages"] = after["response_mask"], after["advantages"]
        metrics.update(modulate_batch(data, options, keys=keys, mask=mask))
        return queue.kv_batch_put(**rows, fields=data.select("advantages"))
