"""`make bench`: every figure of docs/benchmarks.md, measured side by side in one run."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from bench import accept, machine, memory, report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("figures", nargs="*", help="some of: accept large idle (default: all)")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure")
    parser.add_argument("--keep", action="store_true", help="leave the servers' homes behind")
    return parser.parse_args()


def _postfix() -> Path | None:
    """Where tools/peers unpacked Postfix."""
    peers = os.environ.get("PILLARBOX_PEERS") or Path.home() / ".cache/pillarbox/peers"
    prefix = Path(peers) / "postfix"
    return prefix.resolve() if (prefix / "usr/sbin/postfix").exists() else None


def _accept(arguments: argparse.Namespace, directory: Path, root: bool) -> list[str]:
    if shutil.which("smtp-source") is None:
        print("bench: no smtp-source here, so no rates: run it as root once, which unpacks Debian's Postfix")
        return []
    prefix = _postfix() if root else None
    return report.accepted(accept.measure(directory, arguments.passes, prefix))


def main() -> None:
    """Measure, print, and as root write the page."""
    arguments = _arguments()
    wanted = set(arguments.figures) or {"accept", "large", "idle"}
    root = os.getuid() == 0
    if not root:
        print("bench: not root: Postfix and memory are skipped, and docs/benchmarks.md stays as it is")
        wanted &= {"accept"}
    with machine.scratch(arguments.scratch, keep=arguments.keep) as directory:
        lines = report.conditions(directory)
        if "accept" in wanted:
            lines += _accept(arguments, directory, root)
        if "large" in wanted:
            lines += report.grown(memory.large_message(directory / "large"))
        if "idle" in wanted:
            lines += report.idle(memory.idle_connections(directory / "idle"))
    print("\n".join(lines))
    if root and wanted == {"accept", "large", "idle"}:
        report.write(lines)


if __name__ == "__main__":
    main()
