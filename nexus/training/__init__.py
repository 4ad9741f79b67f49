"""The loop, evaluation, run folders, logs and presets; agents arrive by Protocol."""
