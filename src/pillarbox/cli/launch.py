"""The entry point of `pillarbox`, and of every program it is linked as.

`sendmail`, `qmail-inject` and the others are links to `pillarbox`: the name it is called by says which program is
meant. They and `pillarbox run PROGRAM` go straight there, past the command's grammar and what that imports: programs
on the machine wait for `sendmail`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from pillarbox.programs import catalogue

LATER = 111
NO_DESCRIPTORS = 111
_STREAMS = ("stdin", "stdout", "stderr")


def main() -> int:
    """Carry out the command line; the exit status."""
    complete_descriptors()
    words = program(sys.argv)
    if words is None:
        from pillarbox.cli.main import main

        main()  # ends the process itself
        return 0
    try:
        status = catalogue.run(words[0], words[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = _end_by_interrupt()
    except BaseException as trouble:
        status = _explained(trouble)
    sys.stderr.flush()
    os._exit(status)  # what the interpreter tidies up at its end, the kernel does at once


def complete_descriptors() -> None:
    """Whoever started us may have closed descriptors 0 to 2; they are /dev/null then, for us and for what we start, as
    the C library has it under a set-uid bit. Else the next file that is opened would be one of them, and hear our
    warnings or be what a program that we start reads; and a print to a sys.stderr that is None goes to sys.stdout, the
    client. Reading from 0 still fails, as from one that is closed: nothing to read would be an empty message."""
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            try:
                _open_nothing(number)
            except OSError:
                os._exit(NO_DESCRIPTORS)  # there is nowhere to say why
            setattr(sys, _STREAMS[number], os.fdopen(number, "w" if number else "r", closefd=False))


def _open_nothing(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR if number else os.O_WRONLY)
    if opened == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(opened, number)
        os.close(opened)


def _end_by_interrupt() -> int:
    """As a program ends by SIGINT that does not know of it: of some programs every status but theirs is a refusal."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    return LATER  # where it is blocked


def _explained(trouble: BaseException) -> int:
    """Why it ended, on standard error, and the exit status. Where there is no memory left for more than that it is
    temporary: 1, an interpreter's own end, would be a refusal to some callers."""
    try:
        from pillarbox.cli.main import explained

        return explained(trouble)
    except (MemoryError, ImportError, OSError):
        with suppress(OSError):
            os.write(2, b"out of memory\n")
        return LATER


def installed(name: str, home: str = "") -> None:
    """What a launcher of `pillarbox install` calls: this program, for that home unless the environment says another.
    Ends the process."""
    if home and not os.environ.get("PILLARBOX_HOME"):
        os.environ["PILLARBOX_HOME"] = home
    called = os.path.basename(sys.argv[0])
    sys.argv[0] = called if called in catalogue.LINKS else name  # mailq may be a link to sendmail
    main()


def program(argv: Sequence[str]) -> list[str] | None:
    """The program that is meant, with its arguments; None when it is the command itself."""
    name, arguments = os.path.basename(argv[0]), argv[1:]
    if name in catalogue.LINKS:
        return [*catalogue.LINKS[name], *arguments]
    if arguments[:1] == ["send"] and "--help" not in arguments:
        if arguments[1:2] == ["--home"] and len(arguments) > 2:
            os.environ["PILLARBOX_HOME"] = arguments[2]
            arguments = arguments[2:]
        return ["sendmail", *arguments[1:]]
    if len(arguments) > 1 and arguments[0] == "run" and arguments[1] in catalogue.PROGRAMS:
        return list(arguments[1:])
    return None
