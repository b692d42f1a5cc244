"""Writes the page of ``make gpu-check`` from its JSON file."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench import account, update

_BESIDES = ("check", "ok", "seconds", "error")
"""Keys that the result of every part has. The other keys are what the part has found."""
GOAL = 1.3
"""The goal for the tokens/s of an update, as a multiple of the tokens/s that prime-rl publishes."""


def page(report: Mapping[str, Any]) -> str:
    """Return the page in Markdown. ``report`` is the content of ``gpu-check.json``."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    found: dict[str, Any] = report["parts"]
    failed = [name for name, one in found.items() if not one["ok"]]
    yield "# What a GPU measured"
    yield ""
    trial = "a CPU, as a trial" if report["device"] == "cpu" else "a machine whose GPU is not known"
    yield f"Written by `make gpu-check`, on {found.get('versions', {}).get('gpu') or trial}."
    if report["left"]:
        yield f"**Not run yet:** {', '.join(report['left'])}. Repeat the command to run these parts."
    yield f"**Failed:** {', '.join(failed)}." if failed else "No part failed."
    yield ""
    yield "| part | passed | seconds | error |"
    yield "|---|---|--:|---|"
    for name, one in found.items():
        yield f"| {name} | {_yes(one['ok'])} | {one['seconds']:.0f} | {_cell(one.get('error', ''))} |"
    yield from _versions(found.get("versions", {}))
    yield from _kernels({name: one for name, one in found.items() if name.startswith("kernels: ")})
    yield from _arithmetic(found.get("arithmetic", {}))
    yield from _memory({name: found.get(name, {}) for name in ("arithmetic", "planner")})
    yield from _updates({name: one for name, one in found.items() if "outcome" in one})


def _versions(found: Mapping[str, Any]) -> Iterator[str]:
    if "packages" in found:
        yield "\n## Versions\n"
        yield "| package | installed version | locked version | oldest that works | comparison |"
        yield "|---|---|---|---|---|"
        for name, one in found["packages"].items():
            cells = (one[key] or "-" for key in ("here", "locked", "oldest", "is"))
            yield f"| {name} | {' | '.join(cells)} |"


def _kernels(found: Mapping[str, Any]) -> Iterator[str]:
    if found:
        yield "\n## Kernels against the dense path\n"
        yield "| check | largest error |"
        yield "|---|--:|"
    for name, one in found.items():
        errors = list(_numbers(one, "errors"))
        if errors:
            yield f"| {name.removeprefix('kernels: ')} | {max(errors):.2g} |"
    times = found.get("kernels: times", {})
    shown = {name: value for name, value in times.items() if name not in _BESIDES}
    if shown:
        yield "\n| forward and backward pass | ms |"
        yield "|---|--:|"
    for name, value in shown.items():
        yield f"| {name} | {f'{value:.2f}' if isinstance(value, int | float) else _cell(value)} |"


def _numbers(found: Any, below: str | None) -> Iterator[float]:
    """Yield all numbers in a JSON value. With ``below``, yield only numbers within an entry of this name."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from _numbers(value, None if name == below else below)
    elif isinstance(found, list):
        for value in found:
            yield from _numbers(value, below)
    elif isinstance(found, int | float) and below is None:
        yield float(found)


def _arithmetic(found: Mapping[str, Any]) -> Iterator[str]:
    if "steps" in found:
        yield "\n## Arithmetic\n"
        yield (
            f"In {found['steps']} steps the reward went from {found['rewardFirst']:.3f} (mean of the first"
            f" quarter) to {found['rewardLast']:.3f} (of the last)."
        )
        yield (
            f"The largest `mismatchKl` was {found['mismatchKl']:.2g}. Every update was published:"
            f" {_yes(found['applied'])}. A step took {found['secondsPerStep']:.2f} s, and the sampler made"
            f" {found['sampledPerSecond']:,.0f} tokens/s, both medians."
        )


def _memory(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    runs = {
        name: one.get("memory", one) for name, one in found.items() if one.get("memory", one).get("planned")
    }
    if runs:
        yield "\n## Planned and measured memory\n"
        yield "| run | role | planned MiB | measured MiB | planned / measured | fits |"
        yield "|---|---|--:|--:|--:|---|"
    for name, one in runs.items():
        for role, measured in one["measured"].items():
            planned = one["planned"].get(role, 0)
            ratio = f"{planned / measured:.2f}" if measured else "-"
            fits = _yes(one["fits"][role]) if role in one["fits"] else "-"
            yield f"| {name} | {role} | {planned:,} | {measured:,} | {ratio} | {fits} |"


def _updates(found: Mapping[str, Any]) -> Iterator[str]:
    outcomes = [update.outcome_of(one["outcome"]) for one in found.values()]
    if outcomes:
        yield "\n## The update\n"
        yield from update.HEAD
        yield from map(update.line, outcomes)
    for one in outcomes:
        published = account.PUBLISHED.get(one.case.model)
        if published and (one.case.layout, one.case.settings) == ("long", "plain"):
            times = one.tokens / one.median / published
            reached = "reached" if times >= GOAL else "not reached"
            yield (
                f"\n{one.case.model}: {times:.2f} times the {published:,} tokens/s that prime-rl publishes"
                f" for one H100. The goal of {GOAL} is {reached}."
            )


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"


def _cell(text: object) -> str:
    """Return a text for a cell of a Markdown table: one line of at most 200 characters, without ``|``."""
    return " ".join(str(text).split()).replace("|", "/")[:200]
