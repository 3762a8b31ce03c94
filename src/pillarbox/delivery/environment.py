"""What programs of a dot-qmail file find in their environment (qmail-command(8)).

All values are raw: an address may hold any byte but NUL, and a program that pastes one into a command line is at fault.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pillarbox.delivery.job import Errand, delivered_to, return_path

_WEEKDAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_DASHES = bytes.maketrans(b" \t\n", b"---")


def from_line(sender: bytes, now: int) -> bytes:
    """The line that begins a message in an mbox file, UTC; qmail's UFLINE. `now`: seconds since 1970."""
    moment = datetime.fromtimestamp(now, UTC)
    day = b"%s %s %02d" % (_WEEKDAYS[moment.weekday()], _MONTHS[moment.month - 1], moment.day)
    clock = b"%02d:%02d:%02d %d" % (moment.hour, moment.minute, moment.second, moment.year)
    return b"From %s %s %s\n" % (sender.translate(_DASHES) or b"MAILER-DAEMON", day, clock)


def environment(errand: Errand, new_sender: bytes, now: int) -> dict[bytes, bytes]:
    """The variables, qmail-command's names. `new_sender`: envelope sender of forwards; `now`: seconds since 1970."""
    job, owner = errand.job, errand.owner
    local = job.recipient.rpartition(b"@")[0]
    values = {
        b"USER": owner.user,
        b"HOME": owner.home,
        b"LOCAL": local,
        b"HOST": job.domain,
        b"RECIPIENT": job.recipient,
        b"EXT": owner.ext,
        b"SENDER": job.sender,
        b"NEWSENDER": new_sender,
        b"DTLINE": delivered_to(job.recipient),
        b"RPLINE": return_path(job.sender),
        b"UFLINE": from_line(job.sender, now),
    }
    if errand.found.default is not None:
        values[b"DEFAULT"] = errand.found.default
    extension, host = owner.ext, job.domain
    for place in (b"2", b"3", b"4"):
        extension = extension.partition(b"-")[2]
        host = host[: host.rfind(b".")] if b"." in host else host
        values[b"EXT" + place] = extension
        values[b"HOST" + place] = host
    return {name: value.partition(b"\0")[0] for name, value in values.items()}
