"""`python -m pillarbox` is the `pillarbox` command."""

from pillarbox.cli.main import main

main()
