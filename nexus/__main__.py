"""`python -m nexus`, where the command is not on the path."""

from nexus.cli.main import main

raise SystemExit(main())
