"""The figures as text: for the terminal, and between the two marks in docs/benchmarks.md."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from statistics import median

from bench import machine, memory
from bench.accept import Rates
from bench.inject import Started
from bench.memory import Growth
from bench.relay import Through

PAGE = Path(__file__).parent.parent / "docs/benchmarks.md"
BEGIN, END = "<!-- measured: make bench writes what stands from here -->\n", "<!-- to here -->\n"

GOAL_ACCEPT = 2.5  # times Postfix
GOAL_GROWTH = 32 << 20  # octets, of each role but auth
GOAL_RELAY = 1.5  # times Postfix
GOAL_LOCAL = 1.0  # times Postfix
GOAL_INJECT = 0.060  # seconds
GOAL_START = 0.100  # seconds
GOAL_IDLE = 40_000  # octets of each connection


def conditions(scratch: Path) -> list[str]:
    """When and where."""
    return [
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {machine.description()}, {machine.filesystem(scratch)}, "
        f"Python {platform.python_version()}.",
        "",
    ]


def accepted(results: list[Rates]) -> list[str]:
    """A table of all targets, and Pillarbox beside the others."""
    rate = {result.name: result.rate for result in results}
    lines = [
        "| durable accept | accepted/s | each pass | x Postfix | of smtp-sink | in Maildir/s | last in Maildir | CPU |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(result, rate) for result in results),
        "",
    ]
    if "Postfix" in rate:
        times = rate["Pillarbox"] / rate["Postfix"]
        lines += [_verdict(f"Goal: at least {GOAL_ACCEPT} times Postfix", times >= GOAL_ACCEPT), ""]
    return lines


def _row(result: Rates, rate: dict[str, float]) -> str:
    cells = [
        result.name,
        f"{result.rate:.0f}",
        ", ".join(f"{accepted:.0f}" for accepted in result.accepted),
        f"{result.rate / rate['Postfix']:.2f}" if "Postfix" in rate else "-",
        f"{result.rate / rate['smtp-sink']:.0%}",
        f"{median(result.delivered):.0f}" if result.delivered else "-",
        f"{result.lag * 1000:.0f} ms after the last 250" if result.delivered else "-",
        f"{result.work * 1e6:.0f} us a message",
    ]
    return f"| {' | '.join(cells)} |"


def through(title: str, results: list[Through], goal: float) -> list[str]:
    """A table of all servers, and whether Pillarbox has `goal` times Postfix's rate."""
    rate = {result.name: result.rate for result in results}
    lines = [f"| {title} | messages/s | each pass | accepted/s | x Postfix |", "|---|---|---|---|---|"]
    for result in results:
        each = ", ".join(f"{passed:.0f}" for passed in result.passed)
        times = f"{result.rate / rate['Postfix']:.2f}" if "Postfix" in rate else "-"
        lines.append(f"| {result.name} | {result.rate:.0f} | {each} | {median(result.accepted):.0f} | {times} |")
    if "Postfix" in rate:
        wanted = "as fast as Postfix" if goal == 1 else f"{goal} times Postfix"
        lines += ["", _verdict(f"Goal: at least {wanted}", rate["Pillarbox"] >= goal * rate["Postfix"])]
    return [*lines, ""]


def injected(results: list[Started]) -> list[str]:
    """A table of both sendmails."""
    lines = ["| `sendmail -t` | median, ms | fastest, ms | slowest, ms |", "|---|---|---|---|"]
    for result in results:
        figures = (result.typical, min(result.seconds), max(result.seconds))
        lines.append(f"| {result.name} | {' | '.join(f'{figure * 1000:.1f}' for figure in figures)} |")
    ours = next(result for result in results if result.name == "Pillarbox")
    goal = f"Goal: under {GOAL_INJECT * 1000:.0f} ms from start to return"
    return [*lines, "", _verdict(goal, ours.typical < GOAL_INJECT), ""]


def greeted(results: list[Started]) -> list[str]:
    """A table of all programs, and whether each of ours is fast enough."""
    lines = ["| until it speaks | median, ms | fastest, ms | slowest, ms |", "|---|---|---|---|"]
    for result in results:
        figures = (result.typical, min(result.seconds), max(result.seconds))
        lines.append(f"| {result.name} | {' | '.join(f'{figure * 1000:.1f}' for figure in figures)} |")
    met = all(result.typical < GOAL_START for result in results)
    return [*lines, "", _verdict(f"Goal: each under {GOAL_START * 1000:.0f} ms", met), ""]


def grown(growths: list[Growth]) -> list[str]:
    """A table of all processes."""
    lines = ["| 100 MB in and out | before, MB | grew by at most, MB |", "|---|---|---|"]
    lines += [f"| {each.role} | {each.before / 1e6:.1f} | {each.growth / 1e6:.1f} |" for each in growths]
    most = max(each.growth for each in growths if each.role != "auth")
    return [*lines, "", _verdict("Goal: no role but auth grows by more than 32 MB", most <= GOAL_GROWTH), ""]


def idle(octets: float) -> list[str]:
    """One line."""
    said = f"{memory.IDLE} idle SMTP connections cost {octets / 1000:.1f} kB each, over all roles."
    return [said, "", _verdict("Goal: at most 40 kB", octets <= GOAL_IDLE), ""]


def _verdict(goal: str, met: bool) -> str:
    return f"{goal}: {'met' if met else 'NOT met'}."


def write(lines: list[str]) -> None:
    """Put the figures into the page, in place of the old ones."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines) + END + after)
