"""qmail-remote's words for what became of a message at a host, as `Outcome` and `Attempt` values.

Reports are bytes, every line ended by LF; they go into the log and into bounces. The rule that must stay true: a reply
of the host stands there bounded, and with no secret of ours that it may have echoed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pillarbox.attempt import Advice, Attempt
from pillarbox.outcome import Outcome
from pillarbox.sasl.claim import Step
from pillarbox.smtp.answers import Answer
from pillarbox.smtp.sender import Heard, Trouble
from pillarbox.status import Status

MOST_TEXT: Final = 5000
"""Octets of a host's reply that a report keeps: qmail-remote's HUGESMTPTEXT."""

TAKEN: Final = Outcome.done(b"")
"""What RCPT brings to a recipient who was taken: qmail-remote's `r`."""

_CLOSING: Final = 421
_TOO_MANY: Final = 552
_MAILBOX: Final = 2  # RFC 3463: X.2.X

_Recipients = tuple[Outcome | None, ...]


def recipient(host: bytes, answer: Answer, *, another_taken: bool) -> Outcome:
    """What the reply to RCPT means for one recipient. RFC 5321 section 4.5.3.1.10: 552 to one behind others who were
    taken means too many of them, unless it tells of his mailbox."""
    if answer.positive:
        return TAKEN
    report = host + b" does not like recipient.\n"
    if answer.code == _TOO_MANY and another_taken and answer.status(5).subject != _MAILBOX:
        return Outcome.later(report + _said(answer), Status(4, 5, 3))
    return _told(report, answer)


def without_421(heard: Heard) -> Heard:
    """The replies ahead of a 421, and the host's going away in its place."""
    for number, answer in enumerate(heard.answers):
        if answer.code == _CLOSING:
            return Heard(heard.answers[:number], Trouble.HUNG_UP, why=answer.whole)
    return heard


def giving_up(host: bytes) -> Outcome:
    """Of the whole message, when every recipient was refused: whether for good, each one's own outcome says."""
    return Outcome.never(b"Giving up on " + host + b".\n")


def unsayable(host: bytes) -> Outcome:
    """An address that no line can hold."""
    return Outcome.never(
        host + b" was not told: an address with a line end or NUL cannot be sent. (#5.1.3)\n", Status(5, 1, 3)
    )


def needs_utf8(host: bytes) -> Outcome:
    """RFC 6531 section 3.2: the message goes to nobody who does not offer SMTPUTF8."""
    return Outcome.never(
        b"Connected to " + host + b" but it does not take addresses beyond ASCII. (#5.6.7)\n", Status(5, 6, 7)
    )


def too_large(host: bytes, limit: int) -> Outcome:
    """RFC 1870 section 6.1: no need to bring what it will not take."""
    return Outcome.never(
        b"Connected to " + host + b" but it takes no more than %d octets. (#5.3.4)\n" % limit, Status(5, 3, 4)
    )


def unusable(host: bytes, what: bytes, heard: Heard, count: int) -> Attempt:
    """Greeting or EHLO failed: temporary whatever the host said, so that a host out of order bounces nothing."""
    if heard.trouble is not None:
        return died(host, heard, (None,) * count)
    report = b"Connected to " + host + b" " + what + b".\n" + _said(heard.answers[-1])
    return Attempt((None,) * count, Outcome.later(report, Status(4, 0, 0)), Advice.NEXT_HOST, destination_failed=True)


def deaf_to_ehlo(host: bytes, count: int) -> Attempt:
    """It hung up on EHLO: old firewalls do."""
    return Attempt((None,) * count, _died(host, Heard()), Advice.WITHOUT_EHLO, destination_failed=True)


def handshake_failed(host: bytes, heard: Heard, count: int, *, insist: bool) -> Attempt:
    """STARTTLS was agreed to, and then it did not work."""
    if heard.trouble is Trouble.OUT_OF_TURN:
        return died(host, heard, (None,) * count)
    why = b": " + heard.why if heard.why else b""
    report = b"Connected to " + host + b" but TLS failed" + why + b". (#4.7.5)\n"
    advice = Advice.NEXT_HOST if insist else Advice.WITHOUT_TLS
    return Attempt((None,) * count, Outcome.later(report, Status(4, 7, 5)), advice, destination_failed=insist)


def insecure(host: bytes, count: int) -> Attempt:
    """TLS must be, and is not to be had."""
    report = b"Connected to " + host + b" but it does not offer TLS, which this route needs. (#4.7.4)\n"
    return Attempt((None,) * count, Outcome.later(report, Status(4, 7, 4)), Advice.NEXT_HOST, destination_failed=True)


def no_way_to_log_in(host: bytes, count: int, *, private: bool) -> Attempt:
    """There are credentials, and no mechanism that may be used."""
    if private:
        what = b"it offers no way to log in that is known here. (#4.7.4)\n"
    else:
        what = b"it does not offer TLS: no password is sent in clear, see control/cleartextroutes. (#4.7.11)\n"
    status = Status(4, 7, 4 if private else 11)
    outcome = Outcome.later(b"Connected to " + host + b" but " + what, status)
    return Attempt((None,) * count, outcome, destination_failed=True)


def login_refused(host: bytes, step: Step, password: bytes, heard: Heard, count: int) -> Attempt:
    """AUTH failed at this step."""
    heard = without_421(heard)
    if heard.trouble is not None:
        return died(host, heard, (None,) * count)
    said = heard.answers[-1].whole
    if step.secret:  # some servers repeat what they do not understand
        for secret in (step.line, step.line.rpartition(b" ")[2], password):
            said = said.replace(secret, b"*") if secret else said
    report = b"Connected to " + host + b" but authentication was rejected (" + step.name + b").\n" + _quoted(said)
    return Attempt((None,) * count, Outcome.later(report, Status(4, 7, 8)), destination_failed=True)


def sender_refused(host: bytes, heard: Heard, recipients: _Recipients) -> Attempt:
    """MAIL failed. `recipients` has only what was known before."""
    if not heard.answers:
        return died(host, heard, recipients)
    answer = heard.answers[0]
    return Attempt(recipients, _told(b"Connected to " + host + b" but sender was rejected.\n", answer))


def data_refused(host: bytes, heard: Heard, recipients: _Recipients) -> Attempt:
    """DATA was answered with something else than 354."""
    return Attempt(recipients, _told(host + b" failed on DATA command.\n", heard.answers[-1]))


def delivered(host: bytes, heard: Heard, recipients: _Recipients) -> Attempt:
    """The reply to the final dot, or what came instead of it."""
    if heard.trouble is not None:
        # What it does not bear may be this very content; others need not wait for that.
        return replace(died(host, heard, recipients), destination_failed=False)
    answer = heard.answers[-1]
    if answer.positive:
        return Attempt(recipients, Outcome.done(host + b" accepted message.\n" + _said(answer)))
    return Attempt(recipients, _told(host + b" failed after I sent the message.\n", answer))


def died(host: bytes, heard: Heard, recipients: _Recipients) -> Attempt:
    """Trouble: the next host may do better, unless this one may have taken the message already."""
    if heard.trouble is Trouble.CONTENT_LOST:
        return Attempt(recipients, Outcome.later(b"Unable to read message. (#4.3.0)\n"))
    outcome = _died(host, heard)
    if heard.critical:
        return Attempt(recipients, outcome)
    return Attempt(recipients, outcome, Advice.NEXT_HOST, destination_failed=True)


def _died(host: bytes, heard: Heard) -> Outcome:
    duplicate = b"Possible duplicate! " if heard.critical else b""
    match heard.trouble:
        case Trouble.NOT_SMTP:
            what, status = b"it does not speak SMTP. ", Status(4, 5, 0)
        case Trouble.OUT_OF_TURN:
            what, status = b"it spoke out of turn. ", Status(4, 5, 0)
        case _:
            what, status = b"connection died. ", Status(4, 4, 2)
    said = _quoted(heard.why) if heard.why else b""
    report = b"Connected to " + host + b" but " + what + duplicate + b"(#%d.%d.%d)\n" % status + said
    return Outcome.later(report, status)


def _told(report: bytes, answer: Answer) -> Outcome:
    """NEVER for a 5xx, LATER for everything else; only for replies that are no success."""
    report += _said(answer)
    if answer.permanent:
        return Outcome.never(report, answer.status(5))
    return Outcome.later(report, answer.status(4))


def _said(answer: Answer) -> bytes:
    return _quoted(answer.whole)


def _quoted(text: bytes) -> bytes:
    return b"Remote host said: " + text.replace(b"\r", b"").replace(b"\0", b"?")[:MOST_TEXT] + b"\n"
