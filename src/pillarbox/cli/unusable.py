"""What keeps `serve` from starting: places that the roles could not work in. Asked of the kernel, as their users."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pillarbox.cli.layout import PLACES, unreachable
from pillarbox.cli.shell import quoted
from pillarbox.status import Failure, Status
from pillarbox.users.roles import User


class Unusable(Failure):
    """The home is not fit to serve from; the text says what to do."""

    status = Status(5, 3, 5)


def refuse_unusable(home: Path, users: Mapping[str, User]) -> None:
    """The queue must be its role's, and everybody must get to what he works with. Raises Unusable."""
    queue = home / "queue"
    owner = queue.stat().st_uid
    wanted = users["queue"]
    if owner != wanted.uid:
        raise Unusable(f"{queue}: belongs to uid {owner}, not to {wanted.name}: chown -R {wanted.name} {quoted(queue)}")
    everybodys = [home / place.name for place in PLACES if not place.owner]
    closed = unreachable(everybodys, users.values()) or unreachable([queue], [wanted])
    if closed is not None:
        raise Unusable(
            f"{closed.at}: the user {closed.user.name} of the server cannot enter it: "
            "chmod or chown it, or another --home"
        )
