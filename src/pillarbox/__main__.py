"""`python -m pillarbox` is the `pillarbox` command."""

import sys

from pillarbox.cli.launch import main

sys.exit(main())
