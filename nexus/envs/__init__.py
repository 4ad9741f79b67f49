"""Environments: making them, and handling autoreset in one place."""
