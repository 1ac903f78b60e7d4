"""EMPG inside other trainers; each module imports its host only when it is itself imported."""
