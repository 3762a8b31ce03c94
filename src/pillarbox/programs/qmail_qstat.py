"""qmail-qstat: how many messages are in the queue, qmail-qstat(8)."""

from __future__ import annotations

import os

from pillarbox.cli.home import existing
from pillarbox.cli.queue import messages

NAME = "qmail-qstat"


def main(arguments: list[str]) -> int:
    """0 counted. Raises Failure. Nothing waits to be preprocessed: a message that is in the queue is scheduled."""
    print(f"messages in queue: {sum(1 for _ in messages(existing(os.environ)))}")
    print("messages in queue but not yet preprocessed: 0")
    return 0
