"""The error tree. Every error says what failed, why probably, and what to do next.

```
ProfilerError                 exit 1
├── UsageError                exit 2   the command line or an argument makes no sense
├── TargetError               exit 3   the target cannot be tapped
│   ├── TargetNotFound                 no such pid, zombie, kernel thread
│   ├── TargetNotPermitted             the operating system refuses
│   ├── TargetUnsupported              32-bit, static, musl, no torch, unknown architecture
│   ├── TargetBusy                     another debugger or another gputap holds it
│   └── AttachFailed                   permitted and supported, and yet it did not work
├── TargetGone                exit 1   the target ended while we were looking
├── CaptureError              exit 1   writing or reading a capture
│   ├── CaptureUnreadable              not a capture, damaged, or of a newer version
│   └── CaptureNotWritable             directory missing, not ours, or the disk is full
├── ExportError               exit 1   a destination refused or could not be reached
├── LossyCapture              exit 4   events were dropped and --strict was given
└── RegressionFound           exit 5   compare found a regression
```
"""

from __future__ import annotations

from typing import ClassVar


class ProfilerError(Exception):
    """Base of everything gputap raises on purpose. `exit_code` is the process's exit code."""

    exit_code: ClassVar[int] = 1
    help: ClassVar[str] = "Run with --verbose for the details."

    def __init__(self, message: str, *, hint: str | None = None, code: str = "") -> None:
        """Keep `message` (what failed and why) apart from `hint` (what to do next).

        `code` is a fixed word for programs, where one class has several causes.
        """
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint if hint is not None else type(self).help

    def __str__(self) -> str:
        """One line for logs; the CLI prints message and hint apart."""
        return f"{self.message} {self.hint}".strip()


class UsageError(ProfilerError):
    """The command line or an argument makes no sense."""

    exit_code = 2
    help = "See `gputap --help`."


class TargetError(ProfilerError):
    """The target cannot be tapped."""

    exit_code = 3
    help = "`gputap doctor PID` says what is possible for this process, and how to get more."


class TargetNotFound(TargetError):
    """There is no such process, or nothing of it is left but its exit code."""

    help = "`gputap ps` lists the PyTorch processes that can be tapped."


class TargetNotPermitted(TargetError):
    """The operating system refused to let us into the target."""

    help = "Run as the target's user or grant CAP_SYS_PTRACE; `gputap doctor PID` says which."


class TargetUnsupported(TargetError):
    """This kind of process cannot be tapped."""


class TargetBusy(TargetError):
    """Another debugger or another gputap holds the target."""

    help = (
        "Stop the other tool, or wait for it; `gputap detach PID` clears what a killed gputap left."
    )


class AttachFailed(TargetError):
    """Attach was permitted and yet did not work. The target runs on as before."""

    help = "The target was left as it was. Try again; if it repeats, run `gputap doctor PID`."


class TargetGone(ProfilerError):
    """The target ended while we were looking at it."""

    help = "What was captured up to then is kept."


class CaptureError(ProfilerError):
    """Writing or reading a capture failed."""


class CaptureUnreadable(CaptureError):
    """The directory is not a capture, is damaged, or was written by a newer gputap."""

    help = "Give the directory that `gputap attach -o DIR` wrote (it holds manifest.json)."


class CaptureNotWritable(CaptureError):
    """The capture cannot be written where it was asked for."""

    help = "Give another directory with `-o DIR`."


class ExportError(ProfilerError):
    """A destination refused the data or could not be reached. The capture itself is unharmed."""

    help = "The capture is complete on disk; `gputap export` sends it again."


class LossyCapture(ProfilerError):
    """Events were dropped and `--strict` was given."""

    exit_code = 4
    help = "Lower the rate (default mode instead of --full, no --shapes), or leave out --strict."


class RegressionFound(ProfilerError):
    """`compare` found a regression."""

    exit_code = 5
    help = ""
