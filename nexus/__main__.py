"""`python -m nexus`, where the command is not on the path."""

import os
import sys
from pathlib import Path

# Python looks into the current folder first. The command does so for `module:Id` only, and never into a run's folder.
if sys.path[:1] == [os.getcwd()] and not Path(__file__).resolve().is_relative_to(Path.cwd()):
    del sys.path[0]

from nexus.cli.main import main

raise SystemExit(main())
