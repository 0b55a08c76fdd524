"""Every error a user can meet, as a tree. The class decides the exit code of the command.

    AutomlVisionError          1    something inside went wrong
    ├── UsageError             2    an argument, a path or an option is wrong
    │   ├── ConfigError        2    a settings file or a setting is wrong
    │   ├── DataError          2    the images or labels cannot be used
    │   ├── ModelFileError     2    a model file is damaged, foreign or too new
    │   │   ├── FileTooLarge   2    a file of tensors is larger than what is read again
    │   │   └── ShortOfMemory  2    memory is too short at the moment for a file of tensors, which may be sound
    │   ├── ResolutionError    2    a network cannot take images of this size
    │   ├── WeightsError       2    pretrained weights are not here and cannot be fetched
    │   └── RunError           2    a run folder cannot be written, or cannot be resumed
    │       └── RunInUse      75    another process works in the run folder; try again when it has ended
    ├── ProcessLost            1    a process that trains the same model is gone; the run can be resumed
    ├── PartialFailure         3    some files failed, the rest is done
    ├── LeakFound              4    a leak was found under --fail-on-leak
    ├── BudgetExhausted        5    the budget (or the disk) ended before one usable model
    └── Interrupted          130    stopped by the user; the run can be resumed
        └── TakenAway         75    told to end (SIGTERM); start it again, or resume it, on any machine
    ImageReadError                  one image cannot be decoded (never leaves the data layer uncaught)

An error is three things: what went wrong, the value that was found, and the fix.
"""

from __future__ import annotations


class AutomlVisionError(Exception):
    """Base of all errors of this package.

    Args:
        what: what went wrong, one sentence without a full stop.
        value: the offending value, as the user wrote it; `None` where there is none.
        fix: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, value: object = None, fix: str = "") -> None:
        self.what = what
        self.value = value
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        value = "" if self.value is None else f": {self.value}"
        shown = self.what + value.replace(": \n", ":\n", 1)  # a list of values starts on its own line
        return f"{shown}\nFix: {self.fix}" if self.fix else shown


class UsageError(AutomlVisionError):
    """An argument, a path or an option is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A settings file or a setting is wrong; the message lists every problem at once."""


class DataError(UsageError):
    """The images or their labels cannot be used for what was asked."""


class ModelFileError(UsageError):
    """A model file is damaged, foreign or newer than this version."""


class FileTooLarge(ModelFileError):
    """A file of tensors would be larger than what is read again."""


class ShortOfMemory(ModelFileError):
    """Memory is too short at the moment to read a file of tensors: that says nothing about the file."""


class WeightsError(UsageError):
    """Pretrained weights are not on this machine and cannot be fetched."""


class ResolutionError(UsageError):
    """A network cannot take images of this size."""


class RunError(UsageError):
    """A run folder cannot be written, or cannot be resumed."""


class RunInUse(RunError):
    """Another process works in the run folder: nothing is wrong, and it is free when that has ended.

    The exit code is EX_TEMPFAIL of sysexits.h, which batch systems can be told to queue again: a job that was started
    once more while the one before it still tidies up.
    """

    exit_code = 75


class ProcessLost(AutomlVisionError):
    """A process that trains the same model is gone; torchrun starts all of them again."""


class PartialFailure(AutomlVisionError):
    """Some files failed; everything else is done."""

    exit_code = 3


class LeakFound(AutomlVisionError):
    """A leak across the user's split was found and the user asked to fail on it."""

    exit_code = 4


class BudgetExhausted(AutomlVisionError):
    """The budget, or the disk, ended before there was one usable model."""

    exit_code = 5


class Interrupted(AutomlVisionError):
    """The user stopped the run; it can be resumed."""

    exit_code = 130


class TakenAway(Interrupted):
    """The machine is taken away (SIGTERM): nothing is wrong, and whoever started the run is to start it again.

    The exit code is EX_TEMPFAIL of sysexits.h, which batch systems can be told to queue again.
    """

    exit_code = 75


class ImageReadError(Exception):
    """One image cannot be decoded.

    Args:
        kind: one of `IMAGE_FAULTS`.
        detail: what exactly was found, one line.
    """

    def __init__(self, kind: str, detail: str) -> None:
        if kind not in IMAGE_FAULTS:
            raise ValueError(f"unknown image fault, got {kind=}; use one of {sorted(IMAGE_FAULTS)}")
        self.kind = kind
        self.detail = detail
        super().__init__(f"{kind}: {detail}")


#: Why an image is quarantined, and what to do about it.
IMAGE_FAULTS: dict[str, str] = {
    "missing": "restore the file or remove its row",
    "unreadable": "check the permissions of the file",
    "not_a_file": "replace the pipe, device or folder by an image file",
    "empty": "the file has no bytes: copy it again from its source",
    "not_an_image": "the content is no JPEG, PNG, WebP, BMP, TIFF or GIF: convert or remove it",
    "truncated": "the file ends early or is damaged: copy it again from its source",
    "too_large": "over the pixel or byte limit, or over the free memory: scale it down, or free memory and run again",
}
