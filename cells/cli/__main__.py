"""`python -m cells.cli`: the celltree command, where it is not on the path."""

import sys

from cells.cli.main import main

sys.exit(main())
