"""What `pillarbox check` says of control/tcprules and control/rbl: who may come, and what is not understood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pillarbox.cli.finding import Finding, Premises, note, ok, problem
from pillarbox.cli.layout import unreadable
from pillarbox.cli.output import printable
from pillarbox.cli.shell import quoted
from pillarbox.tcprules import UNDERSTOOD, Rule, Rules, Unreadable


def clients(premises: Premises) -> Iterator[Finding]:
    """The table of control/tcprules, and the lists of control/rbl."""
    settings = premises.settings
    if settings.tcprules is not None:
        yield from _table(premises, premises.home / settings.tcprules)
    for source in settings.rbl:
        asked = f"asked for {source.kind.value} records about every client of port 25"
        yield ok(f"control/rbl: {printable(source.base)}", asked)


def _table(premises: Premises, file: Path) -> Iterator[Finding]:
    remedy = f"tcprules {quoted(file)} {quoted(f'{file}.tmp')} < RULES, or remove control/tcprules"
    if not file.exists():
        yield problem(str(file), "missing, but control/tcprules names it: nobody is let in", remedy)
        return
    (closed,) = unreadable([file], [premises.users["smtpd"], premises.users["pop3d"]])
    if closed is not None:
        opened = f"chmod o+{'x' if closed.at.is_dir() else 'r'} {quoted(closed.at)}"
        yield problem(str(file), f"{closed.user.name} cannot read it: nobody is let in", opened)
    try:
        yield from _rules(file, dict(Rules(file).items()))
    except Unreadable as failure:
        yield problem(failure.text, "nobody is let in", remedy)


def _rules(file: Path, rules: dict[bytes, Rule]) -> Iterator[Finding]:
    everybody = rules.get(b"", Rule())
    if not everybody.denied and everybody.value(b"RELAYCLIENT") is not None:
        wrong = "its rule for everybody sets RELAYCLIENT: anybody may send anywhere through this server"
        yield problem(str(file), wrong, "give RELAYCLIENT to the addresses that may, and make it again with tcprules")
    else:
        yield ok(str(file), f"rules about clients: {len(rules)}")
    ignored = Counter(name for rule in rules.values() for name, _value in rule.variables if name not in UNDERSTOOD)
    if ignored:
        named = ", ".join(sorted(map(printable, ignored)))
        yield note(str(file), f"sets {named}, which mean nothing to serve")
    asking = [key for key in rules if b"@" in key]
    if asking:
        yield note(str(file), f"serve asks no identd: rules such as {printable(asking[0])} hold for nobody")
