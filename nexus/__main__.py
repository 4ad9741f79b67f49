"""`python -m nexus`, for when the command is not on the path."""

import os
import sys
from pathlib import Path

# Python searches the current folder first. The command does so only for `module:Id`, and never in a run's folder.
if sys.path[:1] == [os.getcwd()] and not Path(__file__).resolve().is_relative_to(Path.cwd()):
    del sys.path[0]

from nexus.cli.main import main

raise SystemExit(main())
