"""Finding: one thing that was looked at, what is to be said of it, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from infra.errors import InfraError

OK, NOTE, WRONG = "ok", "note", "wrong"
TRY = "\n  try: "  # in errors of the API, before the command that helps


@dataclass(frozen=True, kw_only=True)
class Finding:
    """``level`` is OK, NOTE (it costs, or may be meant) or WRONG; ``status`` is the exit status of that."""

    check: str
    level: str
    said: str
    fix: str = ""
    status: int = 0


def ok(check: str, said: str) -> Finding:
    return Finding(check=check, level=OK, said=said)


def note(check: str, said: str, fix: str) -> Finding:
    return Finding(check=check, level=NOTE, said=said, fix=fix)


def wrong(check: str, said: str, fix: str, *, status: int = InfraError.exit_status) -> Finding:
    return Finding(check=check, level=WRONG, said=said, fix=fix, status=status)


def of_error(check: str, error: InfraError) -> Finding:
    """What ``error`` says, with the command in it as the fix."""
    said, _, fix = str(error).partition(TRY)
    return wrong(check, said.strip(), fix.strip(), status=error.exit_status)


def safely(check: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of ``look``; an error that ends it is one of them."""
    try:
        yield from look()
    except InfraError as error:
        yield of_error(check, error)
