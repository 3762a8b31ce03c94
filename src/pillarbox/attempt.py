"""What one attempt to bring one message to one host brought: the recipients' outcomes, and what to try next.

The values of qmail-remote's report (`r`, `h`, `s` for each recipient, then `K`, `Z` or `D`), and how qmail-rspawn
makes one outcome of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pillarbox.outcome import Outcome, Verdict


class Advice(Enum):
    """What may be tried at once for the recipients that are `unsettled`."""

    NOTHING = "nothing"
    """The outcomes stand."""
    NEXT_HOST = "next host"
    """This host does not work: go on with the next address. With none left the outcomes stand."""
    WITHOUT_TLS = "without TLS"
    """The handshake failed and nobody insists on it: connect to the same address again, and stay in clear."""
    WITHOUT_EHLO = "without EHLO"
    """The host hung up when it heard EHLO: connect to the same address again, and say HELO."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The end of one conversation with one host.

    `recipients` has one entry for each recipient, in order: what RCPT brought him. None: he was not asked. DONE with an
    empty report (qmail-remote's `r`): the host took him, so `message` is his outcome. LATER (`s`) and NEVER (`h`): his
    own outcome, whatever became of the others. Reports are qmail-remote's texts, bytes, every line ended by LF.

    `destination_failed`: the host itself does not work now (no greeting, hung up, too slow, refuses our name, our
    password or everybody), so it counts as down and other messages need not try it.
    """

    recipients: tuple[Outcome | None, ...]
    message: Outcome
    advice: Advice = Advice.NOTHING
    destination_failed: bool = False

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcome of each recipient, as qmail-rspawn says it: where all were refused, the message's own report
        ("Giving up on ...") stands behind each one's."""
        alone = all(map(_refused, self.recipients))
        return tuple(self._outcome(recipient, alone) for recipient in self.recipients)

    @property
    def unsettled(self) -> tuple[int, ...]:
        """Indices of the recipients that `advice` is for: everybody whom the host did not refuse by himself."""
        if self.advice is Advice.NOTHING:
            return ()
        return tuple(number for number, recipient in enumerate(self.recipients) if not _refused(recipient))

    def _outcome(self, recipient: Outcome | None, alone: bool) -> Outcome:
        if recipient is None and self.message.verdict is Verdict.DONE:
            return Outcome.later(b"The host was not told of this recipient.\n")  # what others got is not his
        if recipient is None or not _refused(recipient):
            return self.message
        return recipient._replace(report=recipient.report + self.message.report) if alone else recipient


def _refused(recipient: Outcome | None) -> bool:
    return recipient is not None and recipient.verdict is not Verdict.DONE
