"""What can go wrong with machines, as one tree, and the exit status each ends in.

    InfraError                      6
    ├── UsageError                  2   an impossible option or argument
    │   ├── ClusterNotFound         2   no resource carries that cluster's tag
    │   └── ClusterBusy             2   somebody else is launching one of that name
    ├── CredentialsError            3   none, expired, or not allowed to make the call
    ├── QuotaError                  4   the account's limit is below what was asked for
    ├── CapacityError               5   no pool had the machines
    │   └── PriceTooLow             5   the spot price is above the given maximum
    ├── SetupError                  6   machines were there, something on the way to a cluster failed
    │   ├── CloudError              6   an answer of the EC2 API that fits none of the above
    │   ├── DeadlineExceeded        6   a wait ended before what it waited for came
    │   ├── Leftovers               6   something could not be removed
    │   ├── ChecksFailed            6   nodes that cannot compute, write, reach or agree with each other
    │   ├── HostError               6   one host, named
    │   │   ├── HostRefused         6   nothing listens there (still booting, or no sshd)
    │   │   ├── HostUnreachable     6   no answer: security group, route or address
    │   │   ├── HostRejectedLogin   6   wrong user or key
    │   │   ├── HostKeyChanged      6   another machine answers at that address
    │   │   ├── CommandFailed       6   a command ended with a status other than 0
    │   │   └── CommandTimedOut     6   a command was still running at its deadline
    │   └── HostsFailed             6   several hosts, each named with its own error
    └── JobError                    7   the submitted program failed

    Interrupted (BaseException)   130   Ctrl-C, SIGTERM or SIGHUP: nobody who handles errors may swallow it

A message says what is wrong, where, and what to do about it, in one sentence where one is enough.
``exit_status`` is what the command leaves with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class InfraError(Exception):
    """Base of everything ``infra`` raises on purpose.

    ``nodes``: names of the nodes it is about; with others in their place it may not come again.
    """

    exit_status = 6
    nodes: tuple[str, ...] = ()


class UsageError(InfraError):
    """An impossible option or argument."""

    exit_status = 2


class ClusterNotFound(UsageError):  # noqa: N818 - named for what happened
    """No resource carries that cluster's tag."""


class ClusterBusy(UsageError):  # noqa: N818
    """Somebody else is launching a cluster of that name."""


class CredentialsError(InfraError):
    """No credentials, expired ones, or ones that may not make the call."""

    exit_status = 3


class QuotaError(InfraError):
    """The account's limit is below what was asked for."""

    exit_status = 4


class CapacityError(InfraError):
    """No pool had the machines."""

    exit_status = 5


class PriceTooLow(CapacityError):  # noqa: N818
    """The spot price is above the given maximum."""


class SetupError(InfraError):
    """Machines were there; something on the way to a cluster failed."""


class CloudError(SetupError):
    """An answer of the EC2 API, with the ``code`` it carries and the ``operation`` that got it."""

    def __init__(self, message: str, *, code: str = "", operation: str = "") -> None:
        self.code, self.operation = code, operation
        super().__init__(message)


class DeadlineExceeded(SetupError):  # noqa: N818
    """A wait ended before what it waited for came; ``nodes`` are those that kept it waiting."""

    def __init__(self, message: str, *, nodes: Iterable[str] = ()) -> None:
        self.nodes = tuple(nodes)
        super().__init__(message)


class Leftovers(SetupError):  # noqa: N818
    """Something could not be removed; the message lists it."""


class ChecksFailed(SetupError):  # noqa: N818
    """Nodes that cannot compute, write, reach or agree with each other; the message is a table of them."""

    def __init__(self, message: str, *, nodes: Iterable[str] = ()) -> None:
        self.nodes = tuple(nodes)
        super().__init__(message)


class HostError(SetupError):
    """Something about one host; ``host`` is its name."""

    def __init__(self, host: str, message: str) -> None:
        self.host, self.said, self.nodes = host, message, (host,)
        super().__init__(f"{host}: {message}")


class HostRefused(HostError):  # noqa: N818
    """Nothing listens there: still booting, or no sshd."""


class HostUnreachable(HostError):  # noqa: N818
    """No answer: security group, route or address."""


class HostRejectedLogin(HostError):  # noqa: N818
    """The user or the key is not accepted."""


class HostKeyChanged(HostError):  # noqa: N818
    """Another machine answers at that address."""


class CommandFailed(HostError):  # noqa: N818
    """A command ended with a status other than 0; the end of its output is in the message."""

    def __init__(self, host: str, command: str, status: int, output: str = "") -> None:
        self.command, self.status, self.output = command, status, output
        ending = last_lines(output)
        super().__init__(
            host, f"`{shorten(command)}` ended with status {status}" + (f":\n{ending}" if ending else "")
        )


class CommandTimedOut(HostError):  # noqa: N818
    """A command was still running at its deadline, and was stopped."""

    def __init__(self, host: str, command: str, seconds: float, output: str = "") -> None:
        self.command, self.seconds, self.output = command, seconds, output
        ending = last_lines(output)
        super().__init__(
            host,
            f"`{shorten(command)}` was still running after {seconds:g} s"
            + (f"; its last lines:\n{ending}" if ending else ""),
        )


class HostsFailed(SetupError):  # noqa: N818
    """Several hosts failed; ``failures`` maps each host's name to its own error."""

    def __init__(self, failures: Mapping[str, Exception], total: int) -> None:
        self.failures, self.total, self.nodes = dict(failures), total, tuple(failures)
        super().__init__(f"{len(failures)} of {total} nodes failed{_reasons(self.failures)}")


class JobError(InfraError):
    """The submitted program failed, or there is no such job."""

    exit_status = 7


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM or SIGHUP; like KeyboardInterrupt it is no error."""

    exit_status = 130


def last_lines(output: str, count: int = 20) -> str:
    """The end of ``output``, indented, as it is shown under a failure."""
    return "\n".join(f"    {line}" for line in output.strip().splitlines()[-count:])


def shorten(command: str, width: int = 120) -> str:
    """One line of ``command``, cut at ``width`` characters."""
    line = " ".join(command.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _reasons(failures: Mapping[str, Exception]) -> str:
    """Each node's own error; once for all if all of them said the same."""
    said = {error.output.strip() if isinstance(error, CommandFailed) else "" for error in failures.values()}
    if len(failures) > 1 and len(said) == 1 and said != {""}:
        return f" ({', '.join(failures)}), and all of them say:\n{last_lines(said.pop())}"
    lines = (
        str(error) if str(error).startswith(name) else f"{name}: {error}" for name, error in failures.items()
    )
    return ":\n" + "\n".join(lines)
