"""GRPO with Entropy-Modulated Policy Gradients, inside TRL's own trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from trl import GRPOConfig, GRPOTrainer

from .config import EMPGConfig
from .credit import credit_rows
from .host import check_arguments, check_order, check_trainer, no_checkpointing
from .options import EMPGOptions

__all__ = ["EMPGMixin", "EMPGTrainer"]

# The mixin stands before any GRPOTrainer; only the type checker needs to see which methods it calls.
_Host = GRPOTrainer if TYPE_CHECKING else object

#: What TRL's forward pass takes besides tokens, under the names that its batches use.
_FORWARD_INPUTS = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
    # TRL 1.0's name of the same.
    "pixel_position_ids",
)


class EMPGMixin(_Host):
    """Makes a subclass of ``GRPOTrainer`` modulate its advantages by step entropy.

    Stands first among the bases: ``class Mine(EMPGMixin, YourGRPOTrainer)``. Everything that the
    trainer does stays as it is, except that ``advantages`` of a training batch become (B, T):
    each run of model tokens in a completion is one step, credited by :func:`empg.modulate` with
    the statistics of the whole generation batch (all ranks, before it is cut into minibatches).

    Parameters
    ----------
    empg : EMPGOptions, dict or bool, optional
        Options; ``False`` trains plain GRPO. Default: the fields of :class:`EMPGConfig` where
        ``args`` is one, the paper's values otherwise.

    Raises
    ------
    TypeError, ValueError
        At construction: options that are none, a TRL setting or a loss that cannot carry
        per-token advantages. The message says what to set.
    """

    #: Set to True in a class with a loss of its own once that loss accepts (B, T) advantages.
    empg_per_token_loss: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_order(cls, EMPGMixin, GRPOTrainer)

    def __init__(
        self, *args: Any, empg: EMPGOptions | Mapping[str, Any] | bool | None = None, **kwargs: Any
    ) -> None:
        check_trainer(type(self), GRPOTrainer, self.empg_per_token_loss)
        for name in kwargs:
            if name.startswith("empg_"):
                option = name.removeprefix("empg_")
                raise TypeError(
                    f"{type(self).__name__}: {name} is a field of EMPGConfig; to the trainer give empg={{{option!r}: …}}"
                )
        given = None if empg is None or isinstance(empg, bool) else EMPGOptions.resolve(empg)
        arguments = next((value for value in (*args, *kwargs.values()) if isinstance(value, GRPOConfig)), None)
        config = arguments if isinstance(arguments, EMPGConfig) else None
        if config is not None and given is not None and given != config.empg_options():
            raise ValueError(
                "empg: options come both from empg= and from EMPGConfig, and they differ; set them in one place"
            )
        self.empg_options: EMPGOptions | None = given or (config.empg_options() if config else EMPGOptions())
        if empg is False or (empg is None and config is not None and not config.empg):
            self.empg_options = None
        if arguments is not None and self.empg_options is not None:
            check_arguments(type(self), arguments)
        # While a batch is scored: log-probabilities and entropies of each pass of the policy.
        self._empg_passes: list[tuple[torch.Tensor, torch.Tensor]] | None = None
        self._empg_unscorable: torch.Tensor | None = None
        super().__init__(*args, **kwargs)

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        passes = self._empg_passes
        if passes is None or model is not self.model:
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        kwargs["compute_entropy"] = True
        result = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        passes.append((result[0], result[1]))
        return result

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        rewards = super()._calculate_rewards(*args, **kwargs)
        self._empg_unscorable = torch.isnan(rewards).all(dim=1)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        options = self.empg_options
        # An evaluation batch is one slice of its set: it has no batch statistics, and keeps its base.
        if options is None or not self.model.training:
            return super()._generate_and_score_completions(inputs)
        passes: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._empg_passes, self._empg_unscorable = passes, None
        try:
            batch = super()._generate_and_score_completions(inputs)
        finally:
            self._empg_passes = None
        # The pass over the old policy, where TRL makes one: not that of a reference adapter.
        old = batch.get("old_per_token_logps")
        entropy = next((entropy for logps, entropy in passes if old is not None and logps is old), None)
        if entropy is None:
            entropy = self._empg_entropy(batch)
        mask = batch["completion_mask"]
        if "tool_mask" in batch:
            mask = mask * batch["tool_mask"]
        rows, rank = mask.shape[0], self.accelerator.process_index
        unscorable: torch.Tensor | None = None
        if self._empg_unscorable is not None:
            # TRL gives these 0 so that they do not move the policy; a bonus would.
            mine = self._empg_unscorable[rank * rows : (rank + 1) * rows]
            unscorable = mine.to(mask.device).unsqueeze(1)
            mask = mask.masked_fill(unscorable, 0)
        credited = credit_rows(
            batch["advantages"],
            entropy.detach(),
            mask,
            rank=rank,
            gather=lambda mine: list(gather_object([mine])),
            options=options,
        )
        advantages = credited.advantages
        if unscorable is not None:
            # Their tokens are in TRL's loss: there the paper's pseudo-code, outside steps, would move it too.
            advantages = advantages.masked_fill(unscorable.to(advantages.device), 0.0)
        batch["advantages"] = advantages
        for name, value in credited.metrics(options).items():
            self._metrics["train"][name].append(value)
        return batch

    def _empg_entropy(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """(B, T) entropies of the policy that sampled `batch`, by one more pass without gradients."""
        completions = batch["completion_ids"]
        given = {name: batch[name] for name in _FORWARD_INPUTS if batch.get(name) is not None}
        with torch.no_grad(), no_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            result = super()._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([batch["prompt_ids"], completions], dim=1),
                torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
                completions.size(1),
                batch_size=self.args.per_device_train_batch_size,
                compute_entropy=True,
                **given,
            )
        entropy: torch.Tensor = result[1]
        return entropy


class EMPGTrainer(EMPGMixin, GRPOTrainer):
    """TRL's ``GRPOTrainer`` with Entropy-Modulated Policy Gradients.

    Takes what ``GRPOTrainer`` takes, and ``empg=`` (see :class:`EMPGMixin`).
    """

    _tag_names = ["trl", "grpo", "empg"]
    _name = "EMPG"
    _paper = {
        "title": "Harnessing Uncertainty: Entropy-Modulated Policy Gradients for Long-Horizon LLM Agents",
        "id": "2509.09265",
        "citation": (
            "@article{wang2025harnessing,\n"
            "    title        = {{Harnessing Uncertainty: Entropy-Modulated Policy Gradients for Long-Horizon LLM "
            "Agents}},\n"
            "    author       = {Jiawei Wang and Jiacai Liu and Yuqian Fu and Yingru Li and Xintao Wang and Yuan Lin "
            "and Yu Yue and Lin Zhang and Yang Wang and Ke Wang},\n"
            "    year         = 2025,\n"
            "    eprint       = {arXiv:2509.09265},\n"
            "}"
        ),
    }
