"""Entropy-Modulated Policy Gradients for language-model agents."""

from empg._core import __version__

__all__ = ["__version__"]
