"""The smtpd role: SMTP sessions on the network. Drafts go to the queue, questions to users and auth; it opens neither
queue nor mailbox nor password file."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pillarbox import sasl
from pillarbox.admission import Admission
from pillarbox.control.morercpthosts import MoreHosts
from pillarbox.control.table import Listener
from pillarbox.roles import connections
from pillarbox.roles.clients import Verdict
from pillarbox.roles.connections import Connections
from pillarbox.roles.conversation import LATE, PENDING, Conversation
from pillarbox.roles.drafts import Draft, QueueLink
from pillarbox.roles.house import House
from pillarbox.roles.link import Frame, Link, refusal
from pillarbox.roles.log import Log
from pillarbox.roles.logins import Logins
from pillarbox.roles.looplink import Questions
from pillarbox.roles.verbs import Verb
from pillarbox.sessions import effects
from pillarbox.sessions.reception import Exchange, Reception
from pillarbox.smtp import replies as r
from pillarbox.smtp.receiver import Receiver
from pillarbox.smtp.reply import Dialect
from pillarbox.status import Refusal, Status

TOTAL = 4 * 3600.0  # seconds of one session
KNOWN_TIME = 2.0  # seconds that a recipient who exists is not asked about again
KNOWN_LIMIT = 10_000  # recipients, and clients, remembered
USERS_AWAY = Refusal(Status(4, 3, 0), "cannot look up recipients now, try again later")


@dataclass(frozen=True, slots=True)
class Patience:
    """What an SMTP client is given."""

    idle: float
    farewell: bytes
    total: float = TOTAL


class ReceptionExecutor:
    """Carries out one SMTP session's effects."""

    __slots__ = ("_client", "_conversation", "_draft", "_role")

    def __init__(self, role: Smtpd, client: str) -> None:
        self._role, self._client = role, client
        self._conversation: Conversation | None = None
        self._draft: Draft | None = None

    def attach(self, conversation: Conversation) -> None:
        """Whose effects these are."""
        self._conversation = conversation

    def execute(self, effect: effects.Effect) -> Any:
        """The result, or PENDING."""
        return _ERRANDS[type(effect)](self, effect)

    def _check_recipient(self, effect: effects.CheckRecipient) -> Any:
        assert self._conversation is not None
        return self._role.check_recipient(effect.address, self._conversation.resumer)

    def _open_draft(self, _effect: effects.OpenDraft) -> Any:
        if self._draft is not None:
            self._abandon()
        refused = self._role.queue.refuses
        if refused is None:
            assert self._conversation is not None
            self._draft = Draft(self._role.queue, self._conversation.resumer)
        return refused

    def _write_block(self, effect: effects.WriteBlock) -> Any:
        assert self._draft is not None
        return self._draft.write(effect.block)

    def _commit(self, effect: effects.Commit) -> Any:
        assert self._draft is not None
        draft, self._draft = self._draft, None
        return draft.commit(*effect)

    def _abort(self, _effect: effects.Abort) -> None:
        self._abandon()

    def _authenticate(self, effect: effects.Authenticate) -> Any:
        assert self._conversation is not None
        self._role.logins.ask(self._client, effect.credentials, self._conversation.resumer(), None)
        return PENDING

    def _pause(self, effect: effects.Pause) -> Any:
        assert self._conversation is not None
        self._role.loop.call_later(effect.seconds, self._conversation.resumer(), None)
        return PENDING

    def _abandon(self) -> None:
        if self._draft is not None:
            self._draft.abort()
            self._draft = None

    def give_up(self, effect: effects.Effect) -> Refusal:
        """The effect took too long. What was not committed is forgotten; a commit under way may still happen, and
        451 makes the client send it again."""
        if isinstance(effect, effects.WriteBlock):
            self._abandon()
        return LATE

    def lost(self) -> None:
        """The client is gone: so is its draft, unless it is being committed."""
        if self._draft is not None:
            self._abandon()
        self._conversation = None  # which has us: both go now, and not when a collection of garbage finds them


# effect -> who sees to it; Any: the key says which effect a method takes
_ERRANDS: dict[type[effects.Effect], Callable[[ReceptionExecutor, Any], Any]] = {
    effects.CheckRecipient: ReceptionExecutor._check_recipient,
    effects.OpenDraft: ReceptionExecutor._open_draft,
    effects.WriteBlock: ReceptionExecutor._write_block,
    effects.Commit: ReceptionExecutor._commit,
    effects.Abort: ReceptionExecutor._abort,
    effects.Authenticate: ReceptionExecutor._authenticate,
    effects.Pause: ReceptionExecutor._pause,
}


class Smtpd:
    """All SMTP sessions of this process."""

    def __init__(self, house: House, control: socket.socket) -> None:
        self._house = house
        self.loop = asyncio.get_running_loop()
        self._log = Log("smtpd", house.settings.logformat == "json")
        self.queue = QueueLink(self.loop)
        self.users = Questions()
        self._known: dict[bytes, float] = {}
        self.logins = Logins("smtpd", self._log)
        self._connections = Connections(
            "smtpd", house, control, welcome=self._welcome, attach=self._attach,
            full=r.BUSY.encode(Dialect.MODERN), descriptors=1, log=self._log,
        )  # fmt: skip
        self._settle()

    async def serve(self) -> None:
        """To the role's end."""
        await self._connections.serve()

    def _attach(self, peer: str, link: Link) -> None:
        if peer == "queue":
            self.queue.attach(link)
        else:
            {"users": self.users, "auth": self.logins.questions}[peer].attach(self.loop, link)

    def check_recipient(self, address: bytes, resumer: Callable[[], Callable[[Any], None]]) -> Any:
        """Ask users; PENDING, or None at once for one that was known a moment ago. A no is never remembered: a new
        account can be used at once."""
        now = time.monotonic()
        if self._known.get(address, 0.0) > now:
            return None
        self._ask_users(address, now, resumer())
        return PENDING

    def _ask_users(self, address: bytes, now: float, done: Callable[[Any], None]) -> None:
        def answered(frame: Frame | None) -> None:
            if frame is None:
                done(USERS_AWAY)
            elif frame.verb is Verb.KNOWN:
                if len(self._known) >= KNOWN_LIMIT:
                    self._known.clear()
                self._known[address] = now + KNOWN_TIME
                done(None)
            else:
                done(refusal(frame.fields))

        self.users.ask(answered, Verb.RECIPIENT, address)

    def _welcome(
        self, listener: Listener, client: str, verdict: Verdict, gone: Callable[[Conversation], None]
    ) -> Conversation:
        house, context = self._house, self._connections.context
        if self._settings is not house.settings:
            self._settle()
        implicit = listener.service == "submissions"
        known = (listener.service, client, context is not None, verdict)
        facts = self._exchanges.get(known)
        if facts is None:
            if len(self._exchanges) >= KNOWN_LIMIT:
                self._exchanges.clear()
            facts = self._exchanges[known] = self._exchange(*known)
        machine = Receiver(house.settings.me, greeting=house.settings.smtpgreeting, offer=facts.offer)
        parts = (machine, Reception(facts), ReceptionExecutor(self, client))
        return Conversation(self.loop, parts, self._patience, context, implicit, gone)

    def _exchange(self, service: str, client: str, certified: bool, verdict: Verdict) -> Exchange:
        return Exchange(
            service=service,
            me=self._settings.me,
            client=client.encode("ascii", "replace"),
            admission=self._admission_for(verdict.databytes),
            clock=time.time,
            token=_token,
            starttls=certified and service != "submissions",
            mechanisms=self._mechanisms,
            cleartext=self._settings.authcleartext,
            blocked=verdict.blocked,
            relayclient=verdict.relayclient,
        )

    def _admission_for(self, databytes: int | None) -> Admission:
        """`databytes`: what control/tcprules says of a client, in place of control/databytes."""
        if databytes is None or databytes == self._settings.databytes:
            return self._admission
        if databytes not in self._admissions:
            if len(self._admissions) >= KNOWN_LIMIT:
                self._admissions.clear()
            self._admissions[databytes] = Admission(replace(self._settings, databytes=databytes), self._more_hosts)
        return self._admissions[databytes]

    def _settle(self) -> None:
        """Derive what sessions need from the settings as they are now."""
        settings = self._settings = self._house.settings
        self._known.clear()
        self._exchanges: dict[tuple[str, str, bool, Verdict], Exchange] = {}
        self._more_hosts = MoreHosts(self._house.home / "control" / "morercpthosts.cdb")
        self._admission = Admission(settings, self._more_hosts)
        self._admissions: dict[int, Admission] = {}
        self._mechanisms = sasl.OFFERED_PLAIN + (sasl.OFFERED_KEYED if settings.crammd5 else ())
        self._patience = Patience(float(settings.timeoutsmtpd), r.TIMEOUT.encode(Dialect.MODERN))


def _token() -> bytes:
    """Printable bytes never given before: process-unique time and chance."""
    return b"%d.%s" % (time.time(), secrets.token_hex(8).encode())


def run(house: House, control: socket.socket) -> None:
    """The role, to its end."""

    async def serve() -> None:
        await Smtpd(house, control).serve()

    connections.run(serve)
