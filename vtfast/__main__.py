"""`python -m vtfast`: the command line without its console script."""

import sys

from vtfast.cli import main

sys.exit(main())
