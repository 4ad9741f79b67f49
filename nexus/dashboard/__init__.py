"""A live view of a folder of runs in a browser, from the files that runs write anyway."""
