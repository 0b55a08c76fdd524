"""Text of foreign origin in tables that people open in a spreadsheet, which would run some of it as a formula.

The remedy is an apostrophe before it, as OWASP's page on CSV injection advises; it is taken off again where this
program reads such a table itself. Where lists are separated by `;`, or a table is pasted, what follows a `;`, a tab or
a line break within a name is a cell of its own, and gets one, too.
"""

from __future__ import annotations

import re

#: What a spreadsheet takes for the start of a formula, with any apostrophes already before it. The last four are the
#: wide forms of the first four, which some programs take for them.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
#: The same within a text, where another cell may begin; a spreadsheet passes over blanks and a quote before it.
_LATER = re.compile(r"""(?<=[;\t\r\n])([ "]*)('*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])""")


def disarmed(text: str) -> str:
    """The text with a `'` before it where a spreadsheet would run it; `rearmed` gives back the same text."""
    within = _LATER.sub(r"\1'\2", text)
    return f"'{within}" if _FORMULA.match(within) else within


def rearmed(text: str) -> str:
    """What `disarmed` was given."""
    whole = text[1:] if text.startswith("'") and _FORMULA.match(text) else text
    return _LATER.sub(lambda found: found[1] + found[2][1:], whole)
