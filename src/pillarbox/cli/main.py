"""The `pillarbox` command: its grammar, and the last line between trouble and the person who called.

Each command imports what it needs when it runs, so that every one starts quickly. Exit statuses: 0 done; 1 `check`
found problems; 100 it cannot be done as asked; 111 not now, try again (qmail's numbers); 130 interrupted.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pillarbox import __version__
from pillarbox.cli.home import resolve
from pillarbox.cli.output import complain
from pillarbox.status import Failure

PERMANENT = 100
TEMPORARY = 111
INTERRUPTED = 130
_REMEDIES = {
    errno.EACCES: "; run this as root, or as the home's owner",
    errno.EPERM: "; run this as root, or as the home's owner",
    errno.ENOSPC: "; make room on that disk",
    errno.EDQUOT: "; make room in that quota",
}
NOBODY_READS = 141  # as a program that SIGPIPE ended

_home = click.option("--home", metavar="DIR", help="Pillarbox's directory (default: $PILLARBOX_HOME, else found).")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, message="pillarbox %(version)s")
def cli() -> None:
    """Pillarbox, a mail server in the tradition of qmail."""


@cli.command()
@_home
def serve(home: str | None) -> int:
    """Run the server; the first start creates its home."""
    from pillarbox.cli.serve import serve

    return serve(_where(home))


@cli.command()
@_home
@click.option("--me", metavar="HOST", help="This machine's full name, like mail.example.org.")
@click.option("--standard-ports", is_flag=True, help="Listen on 25, 587, 465, 110 and 995 of all addresses.")
def init(home: str | None, me: str | None, standard_ports: bool) -> int:
    """Create the home, or what is missing of it."""
    from pillarbox.cli.init import init

    return init(_where(home), me, standard_ports=standard_ports)


@cli.command()
@_home
def check(home: str | None) -> int:
    """Say of every part of the home: ok, or what to do."""
    from pillarbox.cli.check import check

    return check(_where(home))


@cli.command()
@click.argument("name", required=False)
@_home
def unit(home: str | None, name: str | None) -> int:
    """Print the file by which systemd, supervise, runit or s6 runs the server."""
    from pillarbox.cli.unit import unit

    return unit(_where(home), name)


@cli.command()
@click.option("--into", metavar="DIR", help="A qmail's directory (/var/qmail), or a directory of programs (.../sbin).")
@click.option("--only", metavar="NAME,...", help="These programs alone.")
@click.option(
    "--dry-run", is_flag=True, help="Change nothing; say what would be done, and what would behave otherwise."
)
@click.option("--undo", is_flag=True, help="Put back the programs that were replaced.")
@click.option("--setuid", metavar="USER", help="Give cmd5checkpw the rights of USER, who owns its password file.")
def install(into: str | None, only: str | None, dry_run: bool, undo: bool, setuid: str | None) -> int:
    """Put our programs in the place of a qmail's own."""
    from pillarbox.cli import install

    if into is None:
        raise click.UsageError("say where: --into /var/qmail, or wherever your qmail is")
    names = tuple(name for name in (only or "").replace(",", " ").split())
    if undo:
        return install.undo(Path(into), names, dry_run=dry_run)
    return install.install(Path(into), names, dry_run=dry_run, owner=setuid or "")


@cli.group()
def account() -> None:
    """Mail accounts: add, list, remove, password."""


@account.command("add")
@click.argument("address")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")
@_home
def account_add(home: str | None, address: str, password_stdin: bool) -> int:
    """Create the account ADDRESS with its mailbox."""
    from pillarbox.cli import account

    return account.add(_where(home), address, stdin=password_stdin)


@account.command("list")
@_home
def account_list(home: str | None) -> int:
    """Show all accounts."""
    from pillarbox.cli import account

    return account.show(_where(home))


@account.command("remove")
@click.argument("address")
@_home
def account_remove(home: str | None, address: str) -> int:
    """Take the account ADDRESS away; its mail stays on disk."""
    from pillarbox.cli import account

    return account.remove(_where(home), address)


@account.command("password")
@click.argument("address")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")
@_home
def account_password(home: str | None, address: str, password_stdin: bool) -> int:
    """Set a new password for ADDRESS."""
    from pillarbox.cli import account

    return account.password(_where(home), address, stdin=password_stdin)


@cli.group("queue")
def queue_group() -> None:
    """Messages on their way: list, show, retry, remove, bounce."""


def _queue_options(command: Callable[..., int]) -> Callable[..., int]:
    """What every queue command takes."""
    for option in (
        _home,
        click.option(
            "--from", "sender", metavar="ADDRESS", help="Messages from ADDRESS or its domain; <> for bounces."
        ),
        click.option("--to", metavar="DOMAIN", help="Recipients at DOMAIN, or one address."),
        click.argument("ids", metavar="[ID]...", nargs=-1, type=int),
    ):
        command = option(command)
    return command


def _queue(verb: str, home: str | None, ids: tuple[int, ...], to: str | None, sender: str | None) -> int:
    from pillarbox.cli.queue import queue

    return queue(_where(home), verb, ids, to, sender)


@queue_group.command("list")
@_queue_options
def queue_list(**chosen: Any) -> int:
    """Show what is in the queue."""
    return _queue("list", **chosen)


@queue_group.command("show")
@_queue_options
def queue_show(**chosen: Any) -> int:
    """Show messages with every recipient, and why each waits."""
    return _queue("show", **chosen)


@queue_group.command("retry")
@_queue_options
def queue_retry(**chosen: Any) -> int:
    """Try messages again now, held ones too."""
    return _queue("retry", **chosen)


@queue_group.command("remove")
@_queue_options
def queue_remove(**chosen: Any) -> int:
    """Forget messages, without a bounce; with --to only those recipients."""
    return _queue("remove", **chosen)


@queue_group.command("bounce")
@_queue_options
def queue_bounce(**chosen: Any) -> int:
    """Give messages up and tell their senders; with --to only those recipients."""
    return _queue("bounce", **chosen)


@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}, add_help_option=False)
@click.argument("program", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(program: str | None, arguments: tuple[str, ...]) -> int:
    """Run one of qmail's programs by its name."""
    from pillarbox.programs.catalogue import run

    return run(program, list(arguments))


@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_home
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def send(home: str | None, arguments: tuple[str, ...]) -> int:
    """Send the message on standard input, as sendmail does: -t, or recipients."""
    from pillarbox.programs.catalogue import run

    if home:
        os.environ["PILLARBOX_HOME"] = home
    return run("sendmail", list(arguments))


def _where(home: str | None) -> Path:
    return resolve(home, os.environ)


def main() -> None:
    """The command: always ends the process with a status, never with a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not fit the terminal's alphabet
    sys.exit(status(sys.argv[1:]))


def status(arguments: list[str]) -> int:
    """Carry out one command line; its exit status. Whatever goes wrong becomes one line on standard error."""
    try:
        ended = cli.main(arguments, prog_name="pillarbox", standalone_mode=False)
        sys.stdout.flush()
        return ended or 0
    except BaseException as trouble:
        return explained(trouble)


def explained(trouble: BaseException) -> int:
    """Say in one line on standard error why a command or program ended so; its exit status."""
    try:
        raise trouble
    except click.exceptions.NoArgsIsHelpError as problem:
        click.echo(problem.ctx.get_help() if problem.ctx else "", err=True)
        return PERMANENT
    except click.ClickException as problem:
        return _complain(problem.format_message(), PERMANENT)
    except Failure as failure:
        return _complain(failure.text, PERMANENT if failure.status.kind == 5 else TEMPORARY)
    except SystemExit:
        return NOBODY_READS  # click's own way to end when the output is a broken pipe
    except BrokenPipeError:
        # What is still buffered would raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    except OSError as problem:
        where = f"{os.fsdecode(problem.filename)}: " if isinstance(problem.filename, str | bytes) else ""
        remedy = _REMEDIES.get(problem.errno or 0, "")
        return _complain(where + (problem.strerror or str(problem)) + remedy, TEMPORARY)
    except (KeyboardInterrupt, click.Abort):
        return _complain("interrupted", INTERRUPTED)
    except Exception as bug:
        # The last resort: a bug of ours is one line too, and temporary, so that no mail is lost to it.
        return _bug(bug)


def _complain(text: str, status: int) -> int:
    complain(" ".join(text.split()))
    return status


def _bug(bug: Exception) -> int:
    if os.environ.get("PILLARBOX_TRACEBACK"):
        traceback.print_exception(bug)
    frames = traceback.extract_tb(bug.__traceback__)
    at = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    return _complain(
        f"this is a bug: {type(bug).__name__}: {bug}{at}; PILLARBOX_TRACEBACK=1 shows more, for a report", TEMPORARY
    )
