"""Environments with text observations and actions, batched natively."""
