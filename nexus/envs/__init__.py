"""Environments: making them, and the one place that knows how they reset themselves."""
