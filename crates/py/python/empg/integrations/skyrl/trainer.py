"""EMPG as an override of SkyRL's `compute_advantages_and_returns`.

SkyRL's trainer holds the whole batch in one process when it computes advantages, so the batch's
statistics need no communication. The base advantage is SkyRL's own (GRPO, RLOO, MAXRL).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import empg

from ..options import check_options, of_table

__all__ = ["EMPGMixin", "empg_trainer"]

# Estimators whose advantage is one number per trajectory, which EMPG scales step by step.
OUTCOME_ESTIMATORS = ("grpo", "rloo", "maxrl")
HOOKS = ("build_models", "fwd_logprobs_values_reward", "compute_advantages_and_returns")


class _Eavesdrop:
    """A dispatch that remembers what the policy's forward passes answered, in order of the rows."""

    def __init__(self, dispatch: Any) -> None:
        self._dispatch = dispatch
        # Chunks of each staged mini-batch, and how many rows it has.
        self._staged: list[tuple[Any, int]] = []
        self.samples: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dispatch, name)

    def _heard(self, model: str, output: Any, rows: int | None = None) -> Any:
        if model == "policy":
            self.samples.extend(output.loss_fn_outputs[:rows])
        return output

    def forward(self, model: str, *args: Any, **kwargs: Any) -> Any:
        return self._heard(model, self._dispatch.forward(model, *args, **kwargs))

    def stage_data(self, model: str, data: Any, mini_batch_boundaries: Any) -> Any:
        staged = self._dispatch.stage_data(model, data, mini_batch_boundaries)
        for chunks, (start, end) in zip(staged, mini_batch_boundaries, strict=True):
            self._staged.append((chunks, end - start))
        return staged

    def forward_from_staged(self, model: str, chunk_refs: Any, *args: Any, **kwargs: Any) -> Any:
        # Mini-batches are padded to a multiple of the ranks, each by itself and at its end.
        rows = next((rows for chunks, rows in self._staged if chunks is chunk_refs), None)
        output = self._dispatch.forward_from_staged(model, chunk_refs, *args, **kwargs)
        return self._heard(model, output, rows)


def step_rows(
    mask: NDArray[np.bool_], is_last_step: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Trajectory of each row, and the index within it of the row's first step.

    Parameters
    ----------
    mask
        (B, T): tokens of steps; a run is a step.
    is_last_step
        (B,): whether the row ends its trajectory (SkyRL's step-wise training, where a trajectory
        is several rows in order); None where each row is a trajectory.
    """
    rows = len(mask)
    if is_last_step is None:
        return np.arange(rows), np.zeros(rows, dtype=np.int64)
    trajectory = np.concatenate([[0], np.cumsum(is_last_step[:-1])]).astype(np.int64)
    begins = mask & ~np.pad(mask, ((0, 0), (1, 0)))[:, :-1]
    before = np.concatenate([[0], np.cumsum(begins.sum(axis=1))])[:-1]
    first_row = np.searchsorted(trajectory, trajectory, side="left")
    return trajectory, (before - before[first_row]).astype(np.int64)


class EMPGMixin:
    """EMPG for any subclass of SkyRL's `RayPPOTrainer`; write it first among the bases.

    Parameters
    ----------
    empg
        Options of `empg.modulate` (`k`, `k_f`, `zeta`, `normalize`, …); None takes the paper's,
        False trains without EMPG. All other arguments go to the trainer.

    Raises
    ------
    ValueError
        Options outside their domain; an advantage estimator, whitening or strategy that EMPG
        cannot work with.
    RuntimeError
        A version of SkyRL without the methods that are overridden.
    """

    def __init__(
        self, cfg: Any, *args: Any, empg: dict[str, Any] | bool | None = None, **kwargs: Any
    ) -> None:
        on = empg is not False
        self.empg_options: dict[str, Any] = dict(empg) if isinstance(empg, dict) else {}
        self.empg_on = on
        if on:
            _check_host(type(self))
            check_options(self.empg_options)
            _check_config(cfg, can_record=type(self).empg_entropy is EMPGMixin.empg_entropy)
        self._empg_samples: list[dict[str, Any]] = []
        super().__init__(cfg, *args, **kwargs)  # type: ignore[call-arg]

    def build_models(self, PolicyWorker: Any, CriticWorker: Any, RefWorker: Any) -> Any:
        """The host's, with policy workers that record entropies."""
        if self.empg_on and type(self).empg_entropy is EMPGMixin.empg_entropy:
            from .worker import recording_policy_worker

            PolicyWorker = recording_policy_worker(PolicyWorker)
        return super().build_models(PolicyWorker, CriticWorker, RefWorker)  # type: ignore[misc]

    def _skip_policy_forward(self, training_input: Any) -> bool:
        # Losses that use the rollout's log-probabilities make no policy pass: EMPG needs it.
        if self.empg_on:
            return False
        return bool(super()._skip_policy_forward(training_input))  # type: ignore[misc]

    def fwd_logprobs_values_reward(self, training_input: Any) -> Any:
        """The host's, which also keeps the entropies of the policy's pass as `entropy`."""
        if not self.empg_on:
            return super().fwd_logprobs_values_reward(training_input)  # type: ignore[misc]
        dispatch = self.dispatch
        self.dispatch: Any = _Eavesdrop(dispatch)
        try:
            training_input = super().fwd_logprobs_values_reward(  # type: ignore[misc]
                training_input
            )
            self._empg_samples = self.dispatch.samples
        finally:
            self.dispatch = dispatch
        training_input["entropy"] = self.empg_entropy(training_input)
        self._empg_samples = []
        return training_input

    def empg_entropy(self, training_input: Any) -> Any:
        """Entropies (nats) of the old policy, a (B, T) tensor aligned with `response_mask`.

        Those of the forward pass that just gave `action_log_probs`. Override it to bring them from
        elsewhere (a Megatron policy, the inference engine): full-vocabulary entropies of
        softmax(logits / temperature), not −log p of the sampled token.

        Raises
        ------
        RuntimeError
            The policy workers recorded none.
        """
        import torch

        if not self._empg_samples or "entropy" not in self._empg_samples[0]:
            raise RuntimeError(
                "the policy workers gave no entropies: build the models through this trainer's "
                "build_models, which SkyRL's BasePPOExp does, or override empg_entropy"
            )
        shape = training_input["response_mask"].shape
        entropy = torch.zeros(shape, dtype=torch.float32)
        for row, sample in enumerate(self._empg_samples[: shape[0]]):
            values = torch.as_tensor(sample["entropy"], dtype=torch.float32)
            entropy[row, : len(values)] = values
        return entropy

    def compute_advantages_and_returns(self, data: Any) -> Any:
        """The host's advantages, modulated; `returns` stay as they are.

        Steps are runs of `loss_mask`; in step-wise training a trajectory's rows are joined by
        `is_last_step`. Rows without trained tokens get 0 and do not count. A batch without any
        trained token is left as the host made it.
        """
        data = super().compute_advantages_and_returns(data)  # type: ignore[misc]
        if not self.empg_on:
            return data
        entropy = data.pop("entropy", None)
        if entropy is None:
            raise RuntimeError(
                "the batch has no `entropy`: compute_advantages_and_returns was called without "
                "this trainer's fwd_logprobs_values_reward before it"
            )
        mask = data["loss_mask"] > 0
        if not bool(mask.any()):
            self._empg_report(data, {"steps": 0.0})
            return data
        stepwise = bool(self.cfg.generator.step_wise_trajectories)  # type: ignore[attr-defined]
        last = np.asarray(data.metadata["is_last_step"], dtype=bool) if stepwise else None
        trajectory, first_step = step_rows(mask.cpu().numpy(), last)
        where: dict[str, Any] = {"mask": mask, "trajectories": trajectory, "first_step": first_step}
        base = data["advantages"]
        table = empg.StepTable.from_tokens(base, entropy, **where)
        credit = table.credit(**of_table(self.empg_options))
        data["advantages"] = empg.modulate(base, entropy, **where, table=table, **self.empg_options)
        self._empg_report(data, dict(credit.summary))
        return data

    def _empg_report(self, data: Any, summary: dict[str, Any]) -> None:
        metrics = {f"empg/{name}": float(value) for name, value in summary.items()}
        data.metadata.setdefault("metrics", {}).update(metrics)
        self.all_metrics.update(metrics)  # type: ignore[attr-defined]


def _check_host(trainer: type) -> None:
    behind = trainer.__mro__[trainer.__mro__.index(EMPGMixin) + 1 :]
    missing = [name for name in HOOKS if not any(name in vars(base) for base in behind)]
    if missing:
        raise RuntimeError(
            f"{trainer.__name__}: no {', '.join(missing)} behind EMPGMixin; write EMPGMixin before "
            "a subclass of skyrl.train.trainer.RayPPOTrainer (skyrl 0.3 or later)"
        )


def _check_config(cfg: Any, can_record: bool) -> None:
    algorithm = cfg.trainer.algorithm
    estimator = str(algorithm.advantage_estimator)
    if estimator in ("gae", "reinforce++"):
        raise ValueError(
            f"trainer.algorithm.advantage_estimator={estimator}: its advantages differ from token "
            f"to token, EMPG scales one per trajectory; use one of {', '.join(OUTCOME_ESTIMATORS)}"
        )
    if algorithm.advantage_batch_normalize:
        raise ValueError(
            "trainer.algorithm.advantage_batch_normalize=true whitens the advantages again after "
            "EMPG, over tokens and per mini-batch; set it to false"
        )
    if can_record and cfg.trainer.strategy != "fsdp":
        raise ValueError(
            f"trainer.strategy={cfg.trainer.strategy}: entropies are recorded by fsdp workers; "
            "use fsdp, or override empg_entropy"
        )


@lru_cache(maxsize=1)
def empg_trainer() -> type:
    """`RayPPOTrainer` with EMPG.

    Raises
    ------
    ImportError
        No `skyrl` with its trainer.
    """
    try:
        from skyrl.train.trainer import RayPPOTrainer
    except ModuleNotFoundError as error:
        raise ImportError(
            f"EMPGTrainer needs SkyRL's trainer: pip install 'skyrl[fsdp]>=0.3' ({error})"
        ) from error
    return type("EMPGTrainer", (EMPGMixin, RayPPOTrainer), {"__doc__": EMPGMixin.__doc__})
