"""A machine without accelerators as a platform of verl's, through verl's own registry of platforms.

`VERL_USE_EXTERNAL_MODULES` names this module, so that Ray workers know the platform as well.
"""

from __future__ import annotations

import types

import torch
from verl.plugin.platform.platform_cuda import PlatformCUDA
from verl.plugin.platform.platform_manager import PlatformRegistry


def _nothing(*_):
    return None


def _zero(*_):
    return 0


# What verl's engine asks of torch.cuda, answered for a device that has no memory of its own.
_DEVICE = types.SimpleNamespace(
    max_memory_allocated=_zero,
    max_memory_reserved=_zero,
    memory_allocated=_zero,
    memory_reserved=_zero,
    mem_get_info=lambda *_: (1, 1),
    empty_cache=_nothing,
    synchronize=_nothing,
    reset_peak_memory_stats=_nothing,
    manual_seed=_nothing,
    manual_seed_all=_nothing,
    get_rng_state=lambda *_: torch.get_rng_state(),
    set_rng_state=_nothing,
    get_device_name=lambda *_: "CPU",
    is_available=lambda: False,
    current_device=lambda: "cpu",
    device_count=lambda: 1,
)


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformCUDA):
    """torch on CPU, gloo between processes."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _DEVICE

    def is_available(self):
        return True

    def is_platform_available(self, use_smi_check=False):
        return True

    def current_device(self):
        return "cpu"

    def device_count(self):
        return 1

    def communication_backend_name(self):
        return "gloo"

    def set_device(self, device_index):
        pass

    def synchronize(self, device_index=None):
        pass

    def empty_cache(self):
        pass

    def set_allocator_settings(self, settings):
        pass

    def manual_seed(self, seed):
        pass

    def manual_seed_all(self, seed):
        pass
