from __future__ import annotations

import pytest

from pillarbox.attempt import Attempt
from pillarbox.outcome import Outcome
from pillarbox.smtp.answers import Answer
from pillarbox.smtp.sender import Bring, Command, Dialogue, HangUp, Heard, Phase, Say, Secure, Sender, Trouble, Turn

GREETING = Say((Command(b"", Phase.GREETING),))
GROUP = Say((Command(b"MAIL\r\n", Phase.MAIL), Command(b"RCPT\r\n", Phase.RCPT), Command(b"DATA\r\n", Phase.DATA)))
DONE = Attempt((), Outcome.done(b""))


def led(*turns: Turn) -> tuple[Sender, list[Heard]]:
    """A sender that takes these turns, and what came of each."""
    heard: list[Heard] = []

    def dialogue() -> Dialogue:
        for turn in turns:
            came = yield turn
            heard.append(came)
            if came.trouble is not None:
                break
        return DONE

    return Sender(dialogue()), heard


def test_the_replies_to_a_group_come_together() -> None:
    sender, heard = led(GROUP)
    assert sender.data_to_send() == b"MAIL\r\nRCPT\r\nDATA\r\n"
    assert sender.data_to_send() == b""
    phases = [sender.phase]
    for reply in (b"250 a\r\n", b"550 b\r\n", b"354 c\r\n"):
        assert heard == []
        sender.receive(reply)
        phases.append(sender.phase)
    assert phases == [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.QUIT]
    assert heard == [Heard((Answer(250, (b"250 a",)), Answer(550, (b"550 b",)), Answer(354, (b"354 c",))))]


def test_the_outcome_is_there_before_quit_is_answered_and_stays() -> None:
    for end in (Sender.eof, Sender.timed_out, lambda sender: sender.receive(b"554 no\r\n"),
                lambda sender: sender.receive(b"nonsense\r\n")):  # fmt: skip
        sender, heard = led(GREETING)
        sender.receive(b"220 x\r\n")
        assert (sender.attempt, sender.finished) == (DONE, False)
        assert sender.data_to_send() == b"QUIT\r\n"
        end(sender)
        assert (sender.attempt, sender.finished, len(heard)) == (DONE, True, 1)


@pytest.mark.parametrize(
    ("end", "trouble"),
    [
        (Sender.eof, Trouble.HUNG_UP),
        (Sender.timed_out, Trouble.TIMED_OUT),
        (Sender.content_lost, Trouble.CONTENT_LOST),
    ],
)
def test_trouble_brings_the_replies_so_far_and_says_no_more(end: object, trouble: Trouble) -> None:
    sender, heard = led(GROUP)
    sender.receive(b"250 a\r\n550-b\r\n")
    assert callable(end)
    end(sender)
    assert heard == [Heard((Answer(250, (b"250 a",)),), trouble)]
    assert sender.finished
    assert sender.data_to_send() == b""
    sender.receive(b"250 too late\r\n")
    end(sender)
    assert len(heard) == 1


def test_what_is_no_reply_is_trouble_and_is_shown() -> None:
    sender, heard = led(GREETING)
    sender.receive(b"HTTP/1.1 400 Bad Request\r\n")
    assert heard == [Heard((), Trouble.NOT_SMTP, why=b"HTTP/1.1 400 Bad Request")]
    assert sender.finished


def test_content_goes_out_block_by_block_and_ends_with_the_dot() -> None:
    sender, heard = led(Bring())
    said = []
    for block in (b"a\n.b", b"", b"\r", b"c"):
        assert sender.wants_content
        assert sender.phase is Phase.CONTENT
        sender.content(block)
        said.append(sender.data_to_send())
    sender.end_of_content()
    said.append(sender.data_to_send())
    assert said == [b"a\r\n..b", b"", b"", b"\r\nc", b"\r\n.\r\n"]
    assert (sender.phase, sender.wants_content) == (Phase.END, False)
    sender.receive(b"250 ok\r\n")
    assert heard == [Heard((Answer(250, (b"250 ok",)),))]


def test_trouble_behind_the_final_dot_is_critical_and_ahead_of_it_is_not() -> None:
    for dot in (False, True):
        sender, heard = led(Bring())
        sender.content(b"x")
        if dot:
            sender.end_of_content()
        sender.eof()
        assert heard == [Heard((), Trouble.HUNG_UP, critical=dot)]
        assert sender.data_to_send() == b""


# A server that says 250 early would else have us believe that it took what it never saw.
@pytest.mark.parametrize("whole", [True, False])
def test_a_reply_amid_the_content_is_not_the_reply_to_the_dot(whole: bool) -> None:
    sender, heard = led(Bring())
    sender.content(b"x\n")
    sender.receive(b"250 ok\r\n" if whole else b"250 o")
    assert not sender.wants_content
    sender.content(b"a driver was reading this meanwhile\n")
    sender.end_of_content()
    assert b"\r\n.\r\n" not in sender.data_to_send()
    if not whole:
        assert not sender.finished
        sender.receive(b"k\r\n")
    assert heard == [Heard((Answer(250, (b"250 ok",)),), Trouble.OUT_OF_TURN, why=b"250 ok")]
    assert sender.finished


@pytest.mark.parametrize("rest", [b"250 ok\r\n", b"2"])
def test_a_reply_right_behind_354_is_not_the_reply_to_the_dot(rest: bytes) -> None:
    sender, heard = led(GREETING, Bring())
    sender.receive(b"354 go\r\n" + rest)
    assert not sender.wants_content
    sender.end_of_content()
    sender.eof()
    assert len(heard) == 2
    assert heard[1].trouble is not None
    assert not heard[1].critical


def test_tls_is_the_drivers_and_nothing_in_clear_counts_behind_it() -> None:
    sender, heard = led(GREETING, Secure(), GREETING)
    assert not sender.wants_tls
    sender.receive(b"220 go\r\n")
    assert (sender.wants_tls, sender.phase, sender.finished) == (True, Phase.TLS, False)
    sender.secured()
    assert not sender.wants_tls
    assert heard[1:] == [Heard()]
    sender.receive(b"250 x\r\n")
    assert len(heard) == 3


# RFC 3207 section 6: who stands in between could put his own EHLO reply there.
@pytest.mark.parametrize("octets", [b"250 AUTH PLAIN\r\n", b"2"])
@pytest.mark.parametrize("together", [True, False])
def test_octets_in_clear_behind_the_reply_to_starttls_end_it(octets: bytes, together: bool) -> None:
    sender, heard = led(GREETING, Secure(), GREETING)
    for piece in [b"220 go\r\n" + octets] if together else [b"220 go\r\n", octets]:
        sender.receive(piece)
    assert sender.finished
    assert [came.trouble for came in heard] == [None, Trouble.OUT_OF_TURN]


def test_a_failed_handshake_says_why() -> None:
    sender, heard = led(GREETING, Secure())
    sender.receive(b"220 go\r\n")
    sender.tls_failed(b"WRONG_VERSION_NUMBER")
    assert heard[1] == Heard((), Trouble.HANDSHAKE, why=b"WRONG_VERSION_NUMBER")
    assert sender.finished


def test_hanging_up_is_silent() -> None:
    sender, heard = led(GREETING, HangUp())
    sender.receive(b"220 x\r\n250 y\r\n")
    assert (sender.finished, sender.attempt, sender.data_to_send()) == (True, DONE, b"")
    assert heard[1].trouble is Trouble.HUNG_UP


def test_no_octets_are_no_event() -> None:
    sender, _ = led(Bring())
    sender.receive(b"")
    assert sender.wants_content


# A slow server that is asked for many recipients one by one has its time for each of them.
def test_every_whole_reply_is_progress_and_its_octets_are_not() -> None:
    recipient = Say((Command(b"RCPT\r\n", Phase.RCPT),))
    sender, _ = led(recipient, recipient, Bring())
    seen = []
    for octets in (b"250 x\r\n", b"250-a\r\n250 ", b"b\r\n"):
        sender.receive(octets)
        seen.append(sender.progress)
    assert seen[0] == seen[1] == (Phase.RCPT, 1)
    assert seen[2] == (Phase.CONTENT, 2)
    sender.end_of_content()
    assert sender.progress == (Phase.END, 2)


# one message after the other

FAILED = Attempt((), Outcome.later(b""))


def staying(end: Attempt) -> Sender:
    """A sender that stays, behind a message that ended so."""

    def dialogue() -> Dialogue:
        yield GREETING
        return end

    sender = Sender(dialogue(), stays=True)
    sender.receive(b"250 ok\r\n")
    return sender


def another() -> Dialogue:
    yield Say((Command(b"MAIL\r\n", Phase.MAIL),))
    return FAILED


def test_who_stays_says_nothing_until_there_is_more_to_bring() -> None:
    sender = staying(DONE)
    assert (sender.idle, sender.finished, sender.data_to_send(), sender.attempt) == (True, False, b"", DONE)
    sender.go_on(another())
    assert (sender.idle, sender.data_to_send(), sender.attempt) == (False, b"MAIL\r\n", None)
    sender.receive(b"250 ok\r\n")
    assert sender.attempt is FAILED
    sender = staying(DONE)
    sender.quit()
    assert (sender.idle, sender.data_to_send(), sender.phase) == (False, b"QUIT\r\n", Phase.QUIT)
    sender.receive(b"221 bye\r\n")
    assert (sender.finished, sender.attempt) == (True, DONE)


def test_nobody_stays_behind_a_message_that_was_not_taken() -> None:
    sender = staying(FAILED)
    assert (sender.idle, sender.data_to_send()) == (False, b"QUIT\r\n")


@pytest.mark.parametrize(
    "end",
    [Sender.eof, Sender.timed_out, lambda sender: sender.receive(b"421 bye\r\n"), lambda sender: sender.receive(b"2")],
)
def test_a_server_that_ends_it_changes_nothing_for_what_it_took(end: object) -> None:
    sender = staying(DONE)
    assert callable(end)
    end(sender)
    assert (sender.idle, sender.finished, sender.attempt, sender.data_to_send()) == (False, True, DONE, b"")


# It would be taken for the reply to the next message's MAIL.
@pytest.mark.parametrize("rest", [b"250 ok\r\n", b"2"])
def test_a_server_that_says_more_than_it_was_asked_gets_no_other_message(rest: bytes) -> None:
    def dialogue() -> Dialogue:
        yield GREETING
        return DONE

    sender = Sender(dialogue(), stays=True)
    sender.receive(b"250 ok\r\n" + rest)
    assert (sender.idle, sender.finished, sender.attempt) == (False, True, DONE)
