"""`make bench`: every figure of docs/benchmarks.md, measured side by side in one run."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from bench import accept, inject, local, machine, memory, relay, report, start

FIGURES = ("accept", "relay", "local", "inject", "start", "large", "idle")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("figures", nargs="*", help=f"some of: {' '.join(FIGURES)} (default: all)")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--messages", type=int, default=relay.MESSAGES, help="of relay and local (default: 2000)")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure")
    parser.add_argument("--keep", action="store_true", help="leave the servers' homes behind")
    return parser.parse_args()


def _peers() -> Path:
    """Where tools/peers unpacks programs of others."""
    return Path(os.environ.get("PILLARBOX_PEERS") or Path.home() / ".cache/pillarbox/peers")


def _postfix() -> Path | None:
    """Where tools/peers unpacked Postfix."""
    prefix = _peers() / "postfix"
    return prefix.resolve() if (prefix / "usr/sbin/postfix").exists() else None


def _accept(arguments: argparse.Namespace, directory: Path, root: bool) -> list[str]:
    if shutil.which("smtp-source") is None:
        print("bench: no smtp-source here, so no rates: run it as root once, which unpacks Debian's Postfix")
        return []
    prefix = _postfix() if root else None
    return report.accepted(accept.measure(directory, arguments.passes, prefix))


def _delivered(arguments: argparse.Namespace, directory: Path, wanted: set[str]) -> list[str]:
    """Mail that goes out, that reaches system users, and that programs of this machine send. Needs root."""
    lines = []
    prefix, passes, messages = _postfix(), arguments.passes, arguments.messages
    if "relay" in wanted and shutil.which("smtp-sink") is None:
        print("bench: no smtp-sink here, so no relay: it is of Debian's Postfix, which tools/peers unpacks")
    elif "relay" in wanted:
        lines += report.through("relay", relay.measure(directory, passes, prefix, messages), report.GOAL_RELAY)
    if "inject" in wanted:
        lines += report.injected(inject.measure(directory, prefix))
    if "local" in wanted:  # the last of them: it gives this process another /etc
        results = local.measure(directory, passes, prefix, messages=messages)
        lines += report.through("200 system users", results, report.GOAL_LOCAL)
    return lines


def main() -> None:
    """Measure, print, and as root write the page."""
    arguments = _arguments()
    wanted = set(arguments.figures or FIGURES)
    if not wanted <= set(FIGURES):
        raise SystemExit(
            f"bench: there is no figure {sorted(wanted - set(FIGURES))[0]!r}; there are: {' '.join(FIGURES)}"
        )
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is not compiled at each start
    root = os.getuid() == 0
    if not root:
        print("bench: not root: accept rate and start alone are measured, and docs/benchmarks.md stays as it is")
        wanted &= {"accept", "start"}
    with machine.scratch(arguments.scratch, keep=arguments.keep) as directory:
        lines = report.conditions(directory)
        if "accept" in wanted:
            lines += _accept(arguments, directory, root)
        lines += _delivered(arguments, directory, wanted)
        if "start" in wanted:
            lines += report.greeted(start.measure(directory, _peers()))
        if "large" in wanted:
            lines += report.grown(memory.large_message(directory / "large"))
        if "idle" in wanted:
            lines += report.idle(memory.idle_connections(directory / "idle"))
    print("\n".join(lines))
    if root and wanted == set(FIGURES) and arguments.messages == relay.MESSAGES:
        report.write(lines)


if __name__ == "__main__":
    main()
