"""Text of foreign origin in tables that people open in a spreadsheet, which would run some of it as a formula.

The remedy is an apostrophe before it, as OWASP's page on CSV injection advises; it is taken off again where this
program reads such a table itself.
"""

from __future__ import annotations

import re

#: What a spreadsheet takes for the start of a formula, with any apostrophes already before it. The last four are the
#: wide forms of the first four, which some programs take for them.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def disarmed(text: str) -> str:
    """The text with a `'` before it where a spreadsheet would run it; `rearmed` gives back the same text."""
    return f"'{text}" if _FORMULA.match(text) else text


def rearmed(text: str) -> str:
    """What `disarmed` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
