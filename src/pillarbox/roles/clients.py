"""Who may come, before a word is said: control/tcprules and control/rbl, for smtpd and pop3d.

The rule that must stay true: no client waits for DNS longer than PATIENCE, and a home without these files asks nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from pillarbox import blocklists
from pillarbox.blocklists import Kind, Question, Source
from pillarbox.net.names import NameTrouble, NoSuchName
from pillarbox.net.resolver import Resolver, Server
from pillarbox.roles.house import House
from pillarbox.status import Refusal
from pillarbox.tcprules import ALLOWED, Rule, Rules, Unreadable

PATIENCE = 20.0  # seconds that all questions about one client may take
QUESTION_TIME = 8.0  # seconds for one of them

Asked = TypeVar("Asked")
Found = TypeVar("Found")


class Verdict(NamedTuple):
    """About one client. `away`: why it is turned away without a word, "" when it is let in. `relayclient` and
    `databytes`: qmail-smtpd's variables. `blocked`: what it hears at RCPT."""

    away: str = ""
    relayclient: bytes | None = None
    databytes: int | None = None
    blocked: Refusal | None = None


WELCOME = Verdict()


class Clients:
    """The settings' word about clients. Belongs to one loop."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._settle()

    @property
    def anybody(self) -> bool:
        """Nothing is to be asked about anybody."""
        if self._settings is not self._house.settings:
            self._settle()
        return self._open

    @property
    def trouble(self) -> str:
        """Why nobody is let in; "" when the table of control/tcprules can be read, or there is none."""
        if self.anybody or self._rules is None:
            return ""
        try:
            self._rules.about("")
        except Unreadable as failure:
            return f"control/tcprules: {failure.text}"
        return ""

    def verdict(self, service: str, address: str) -> Verdict | None:
        """About a client with this IP address; None: it has to be looked up in DNS."""
        if self.anybody:
            return WELCOME
        try:
            if self._rules is not None and self._rules.by_name:
                return None
            rule = self._rule(address, None)
        except Unreadable as failure:
            return Verdict(away=f"control/tcprules: {failure.text}")
        if not rule.denied and self._sources_for(service, rule):
            return None
        return _verdict(rule, _announced(service, rule))

    async def look_up(self, service: str, address: str) -> Verdict:
        """The same, with what DNS knows."""
        asking = _Asking(self._resolver)
        try:
            by_name = self._rules is not None and self._rules.by_name
            rule = self._rule(address, await asking.name(address) if by_name else None)
        except Unreadable as failure:
            return Verdict(away=f"control/tcprules: {failure.text}")
        sources = self._sources_for(service, rule)
        if rule.denied or not sources:
            return _verdict(rule, _announced(service, rule))
        return _verdict(rule, await asking.lists(sources, address))

    def _rule(self, address: str, host: bytes | None) -> Rule:
        return ALLOWED if self._rules is None else self._rules.about(address, host)

    def _sources_for(self, service: str, rule: Rule) -> tuple[Source, ...]:
        """Who comes to a submission service will say who he is; and $RBLSMTPD decides for itself."""
        return self._settings.rbl if service == "smtp" and rule.value(b"RBLSMTPD") is None else ()

    def _settle(self) -> None:
        """Derive what is needed from the settings as they are now."""
        settings = self._settings = self._house.settings
        self._rules = None if settings.tcprules is None else Rules(self._house.home / settings.tcprules)
        self._open = self._rules is None and not settings.rbl
        self._resolver = Resolver([Server(*server) for server in settings.resolvers], QUESTION_TIME)


def _announced(service: str, rule: Rule) -> Refusal | None:
    variable = rule.value(b"RBLSMTPD") if service == "smtp" else None
    return None if variable is None else blocklists.announced(variable)


def _verdict(rule: Rule, blocked: Refusal | None) -> Verdict:
    if rule.denied:
        return Verdict(away="denied by control/tcprules")
    return Verdict("", rule.value(b"RELAYCLIENT"), rule.databytes, blocked)


class _Asking:
    """The questions about one client, and the time that is left for them."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._end = asyncio.get_running_loop().time() + PATIENCE

    async def name(self, address: str) -> bytes | None:
        """The host name of a client, if it has that address: anybody may call his addresses as he likes."""
        try:
            own = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:  # of no network that has names
            return None
        for name in await self._answer(self._resolver.names, str(own)) or []:
            addresses = await self._answer(self._resolver.addresses, name)
            if str(own) in (addresses or ()):
                return name
        return None

    async def lists(self, sources: tuple[Source, ...], address: str) -> Refusal | None:
        """What the block lists say of a client."""
        judging = blocklists.judge(sources, address)
        answer = None
        try:
            while True:
                answer = await self._about(judging.send(answer))
        except StopIteration as decision:
            blocked: Refusal | None = decision.value
            return blocked

    async def _about(self, question: Question) -> blocklists.Answer:
        if question.kind is Kind.BLOCKS:
            texts = await self._answer(self._resolver.texts, question.name)
            return None if texts is None else b"".join(texts)
        addresses = await self._answer(self._resolver.ipv4, question.name)
        return None if addresses is None else "".join(addresses).encode()

    async def _answer(self, ask: Callable[[Asked], Awaitable[list[Found]]], subject: Asked) -> list[Found] | None:
        """The records, none where the name does not exist; None: no answer in time."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(self._end, now + QUESTION_TIME)):
                return await ask(subject)
        except NoSuchName:
            return []
        except (NameTrouble, TimeoutError):
            return None
