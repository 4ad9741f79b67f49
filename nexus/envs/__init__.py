"""Environments: making them, and the one place that handles autoreset."""
