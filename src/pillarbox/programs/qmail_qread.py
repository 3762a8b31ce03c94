"""qmail-qread: every message in the queue with its recipients, qmail-qread(8). `mailq` and `sendmail -bp` are this.

Only root, the home's owner and the server's user may look, as in qmail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from pillarbox.cli.home import existing
from pillarbox.cli.layout import settings_of
from pillarbox.cli.output import printable
from pillarbox.cli.queue import messages
from pillarbox.header import date
from pillarbox.queue.inquiry import octets
from pillarbox.routing import Local, Routing

NAME = "qmail-qread"
_OVER = ("done", "failed")  # states of recipients that are not tried again
_ZONE = " -0000"


def main(arguments: list[str]) -> int:
    """0 listed. Raises Failure. Arguments are ignored, as in qmail."""
    home = existing(os.environ)
    routing = Routing(settings_of(home))
    for head, recipients in messages(home):
        for line in lines(head, recipients, routing):
            print(line)
    return 0


def lines(head: Mapping[str, object], recipients: Sequence[Mapping[str, object]], routing: Routing) -> Iterator[str]:
    """One message as qmail shows it; what could steer a terminal is escaped."""
    moment = date(int(str(head["born"]))).decode().removesuffix(_ZONE)
    bouncing = " bouncing" if any(recipient["state"] == "failed" for recipient in recipients) else ""
    yield f"{moment} GMT  #{head['id']}  {head['size']}  <{printable(str(head['sender']))}> {bouncing}"
    for recipient in recipients:
        address = str(recipient["recipient"])
        channel = "local" if isinstance(routing.route(octets(address)), Local) else "remote"
        yield f"{'  done' if recipient['state'] in _OVER else ''}\t{channel}\t{printable(address)}"
