"""Asking auth who a client is: shared by smtpd and pop3d."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pillarbox.credentials import Credentials, Identity, Password
from pillarbox.roles.link import Frame, refusal
from pillarbox.roles.log import Log, safe
from pillarbox.roles.looplink import Questions
from pillarbox.roles.verbs import Verb
from pillarbox.status import Refusal, Status

AWAY = Refusal(Status(4, 7, 0), "temporary authentication failure")
PASSWORD = b"PASSWORD"  # the mechanism word for a Password on the link


class Logins:
    """auth as the sessions of this process see it."""

    def __init__(self, role: str, log: Log) -> None:
        self.questions = Questions()
        self._role, self._log = role, log

    def ask(
        self, client: str, credentials: Credentials, done: Callable[[Any], None], use: Callable[[Frame], None] | None
    ) -> None:
        """`done` gets an Identity or a Refusal. `use` is given the frame of a good login first: pop3d takes the
        maildrop's socket from it."""

        def answered(frame: Frame | None) -> None:
            done(self._result(client, credentials, frame, use))

        self.questions.ask(answered, Verb.LOGIN, client.encode(), *_fields(credentials))

    def _result(
        self, client: str, credentials: Credentials, frame: Frame | None, use: Callable[[Frame], None] | None
    ) -> Identity | Refusal:
        login = safe(credentials.login[:256])
        if frame is None or frame.verb is not Verb.IDENTITY:
            refused = AWAY if frame is None else refusal(frame.fields)
            text = f"{self._role}: login failed for {login} from {client}: {refused.status} {refused.text}"
            self._log.say(text, "login-failed", login=login, client=client, why=refused.text)
            return refused
        self._log.say(f"{self._role}: login {login} from {client}", "login", login=login, client=client)
        if use is not None:
            use(frame)
        name, address, extension, domains, *sendas = frame.fields
        return Identity(name, address, extension, tuple(sendas), tuple(domains.split()))


def _fields(credentials: Credentials) -> tuple[bytes, ...]:
    if isinstance(credentials, Password):
        return (PASSWORD, credentials.login, b"", credentials.password)
    return (credentials.mechanism, credentials.login, credentials.challenge, credentials.response)
