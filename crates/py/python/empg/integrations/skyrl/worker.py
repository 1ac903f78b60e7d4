"""Policy workers that hand out the entropies of the forward pass they make anyway.

SkyRL's inference forward computes log-probabilities only, although its model wrapper can compute
entropies from the same logits. The worker here asks for them: forward hooks on the model turn its
answer (B, T) into (B, 2, T), log-probabilities and entropies, which SkyRL's own micro-batching,
reordering and padding removal carry through untouched; `forward` splits them per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

__all__ = ["entropy_from_logits", "recording_policy_worker"]


def entropy_from_logits(
    logits: Any,
    requires_grad: bool = False,
    attention_mask: Any = None,
    chunk_size: int = 1024,
) -> Any:
    """Shannon entropy (nats) of softmax(logits) over the whole vocabulary, in float32.

    SkyRL's own function has the same signature but stores its result in the logits' dtype: under
    bfloat16 that keeps 8 bits of each entropy.

    Parameters
    ----------
    logits
        (B, T, V), already divided by the temperature.
    requires_grad
        Ignored: EMPG's entropies are detached.
    attention_mask
        (B, T) of 0/1; positions with 0 get entropy 0.
    chunk_size
        Positions whose float32 log-probabilities are held at once.
    """
    import torch

    with torch.no_grad():
        out = torch.zeros(logits.shape[:2], dtype=torch.float32, device=logits.device)
        for start in range(0, logits.shape[1], chunk_size):
            part = slice(start, start + chunk_size)
            logp = torch.log_softmax(logits[:, part].float(), dim=-1)
            # A masked vocabulary entry contributes 0, not exp(-inf) * -inf.
            logp.clamp_(min=-1e4)
            out[:, part] = -logp.exp().mul_(logp).sum(dim=-1)
        if attention_mask is not None:
            out *= attention_mask
    return out


@contextmanager
def _entropies(model: Any) -> Iterator[None]:
    """While open, `model(...)` returns (B, 2, T): action log-probabilities and entropies."""
    import torch

    def ask(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        kwargs.update(return_output=True, compute_entropy=True, entropy_requires_grad=False)
        return args, kwargs

    def answer(_module: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
        logprobs, output = result
        actions = logprobs.shape[1]
        entropy = output["entropy"][:, -actions - 1 : -1]
        return torch.stack([logprobs.float(), entropy.float()], dim=1)

    name = "chunked_entropy_from_logits_fn"
    owners = [module for module in model.modules() if name in vars(module)]
    own = [vars(module)[name] for module in owners]
    for module in owners:
        setattr(module, name, entropy_from_logits)
    # First among the hooks on the way in and last on the way out would both do: the host has none.
    handles = [
        model.register_forward_pre_hook(ask, with_kwargs=True),
        model.register_forward_hook(answer, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, function in zip(owners, own, strict=True):
            setattr(module, name, function)


def _recording(base: type) -> type:
    class EntropyRecorder(base):  # type: ignore[misc]
        """`base` whose forward pass adds `entropy` (nats, per response token) to each sample."""

        def forward(self, data: Any, loss_fn: str | None = None, *args: Any, **kwargs: Any) -> Any:
            if loss_fn is not None:
                return super().forward(data, loss_fn, *args, **kwargs)
            with _entropies(self.model):
                output = super().forward(data, None, *args, **kwargs)
            for sample in output.loss_fn_outputs:
                sample["logprobs"], sample["entropy"] = sample["logprobs"]
            return output

    EntropyRecorder.__name__ = EntropyRecorder.__qualname__ = f"Entropy{base.__name__}"
    return EntropyRecorder


@lru_cache(maxsize=None)
def _recording_once(base: type) -> type:
    return _recording(base)


def recording_policy_worker(worker: Any) -> Any:
    """`worker` (SkyRL's `PolicyWorker`, a class or a Ray actor class) with entropies recorded.

    Raises
    ------
    TypeError
        Not a policy worker of the `fsdp` strategy.
    """
    from skyrl.backends.skyrl_train.workers.worker import PolicyWorkerBase

    metadata = getattr(worker, "__ray_metadata__", None)
    plain = worker if metadata is None else metadata.modified_class
    plain = getattr(plain, "__ray_actor_class__", plain)
    if not (isinstance(plain, type) and issubclass(plain, PolicyWorkerBase)):
        raise TypeError(f"PolicyWorker: {plain!r} is no subclass of SkyRL's PolicyWorkerBase")
    if "megatron" in plain.__module__:
        raise TypeError(
            "PolicyWorker: Megatron workers compute log-probabilities per pipeline stage and give "
            "no entropies; use trainer.strategy=fsdp, or override empg_entropy"
        )
    recording = _recording_once(plain)
    if metadata is None:
        return recording
    import ray

    # SkyRL's actor group sets the resources of each actor; this is the class's own default.
    remote: Callable[[type], Any] = ray.remote(num_gpus=metadata.num_gpus or 0)
    return remote(recording)
