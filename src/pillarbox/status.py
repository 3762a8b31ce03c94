"""Why something did or did not happen: RFC 3463 statuses, refusals as values, failures as exceptions.

The rule that must stay true: a failure nobody foresaw is temporary. Mail is never bounced for our own trouble.
"""

from __future__ import annotations

import errno
from typing import NamedTuple


class Status(NamedTuple):
    """An enhanced status code, RFC 3463 section 2: class.subject.detail."""

    kind: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.kind}.{self.subject}.{self.detail}"


class Refusal(NamedTuple):
    """No, as a value: why, in the two languages of mail (a status for programs, printable ASCII text for people)."""

    status: Status
    text: str

    @property
    def permanent(self) -> bool:
        """True when trying again cannot help."""
        return self.status.kind == 5


class Failure(Exception):
    """A failure inside one process. At the edge of a session or role it becomes a Refusal: see `refusal`."""

    status = Status(4, 3, 0)

    def __init__(self, text: str, status: Status | None = None) -> None:
        super().__init__(text)
        self.text = text
        if status is not None:
            self.status = status

    @property
    def refusal(self) -> Refusal:
        """The same failure as a value that may cross an edge."""
        return Refusal(self.status, self.text)


class SystemTrouble(Failure):
    """The operating system could not: always temporary, whatever the errno."""

    @classmethod
    def of(cls, problem: OSError) -> SystemTrouble:
        """Turn an OSError into a Failure: 4.3.1 when the disk or quota is full (RFC 3463 section 3.4), else 4.3.0."""
        full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = problem.strerror or type(problem).__name__
        return cls(f"system trouble: {reason}", Status(4, 3, 1) if full else Status(4, 3, 0))


def mailbox_status(problem: OSError) -> Status:
    """Of a mailbox that could not be written (RFC 3463): 4.3.1 for a full disk, 4.2.2 for a full quota, else 4.3.0."""
    if problem.errno == errno.ENOSPC:
        return Status(4, 3, 1)
    return Status(4, 2, 2) if problem.errno == errno.EDQUOT else Status(4, 3, 0)
