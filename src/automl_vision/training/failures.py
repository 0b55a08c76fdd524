"""Why a candidate cannot be trained."""

from __future__ import annotations


class TrialFailed(Exception):
    """This candidate cannot be trained on; the search goes on without it."""


class TooLittleMemory(TrialFailed):
    """Not even one image at a time fits into memory."""
