"""The secret that lets somebody ask the server, where others than this machine's users can reach it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from automl_vision.errors import UsageError

#: The variable that has it, where no option does: who lists the processes of a machine sees options.
VARIABLE = "AUTOML_VISION_TOKEN"
SHORTEST, LONGEST = 16, 512
#: What is answered without it: whether the server is up, and what the page that asks for the token loads.
OPEN_PATHS = frozenset({"/healthz", "/style.css", "/page.js", "/token.js", "/icon.svg"})


class Token:
    """A token.

    Args:
        text: `SHORTEST` to `LONGEST` visible ASCII characters.

    Raises:
        UsageError: it is none.
    """

    def __init__(self, text: str) -> None:
        if not SHORTEST <= len(text) <= LONGEST:
            raise UsageError(
                "a token has another length", value=f"{len(text)} characters", fix=f"use {SHORTEST} to {LONGEST}"
            )
        if not all("!" <= each <= "~" for each in text):
            raise UsageError(
                "a token has letters, digits and signs of ASCII only, and no space", fix="leave it out: one is made"
            )
        self.text = text
        self._known = text.encode("ascii")

    @classmethod
    def new(cls) -> Token:
        """One of 256 random bits."""
        return cls(secrets.token_urlsafe(32))

    def lets_in(self, path: str, authorizations: Sequence[str]) -> bool:
        """Whether a request is answered. How long that takes does not tell how much of a wrong token is right.

        Args:
            path: what is asked for.
            authorizations: all headers `Authorization`.
        """
        if path in OPEN_PATHS:
            return True
        scheme, _, given = authorizations[0].partition(" ") if len(authorizations) == 1 else ("", "", "")
        return secrets.compare_digest(given.strip().encode("utf-8"), self._known) and scheme.lower() == "bearer"
