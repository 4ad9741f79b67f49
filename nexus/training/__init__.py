"""The loop, evaluation, run folders, logs and presets; agents are passed in through a Protocol."""
