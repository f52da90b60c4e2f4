"""Checkpoints: saved whole or not at all, announced, kept by what recovery needs."""
