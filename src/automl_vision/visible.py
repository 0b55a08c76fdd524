"""Names of foreign origin made safe to look at."""

from __future__ import annotations


def visible(text: str) -> str:
    """A file or class name on one line: control characters, marks that turn the direction of writing, and bytes that
    are no text are shown as escapes."""
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # a byte of a file name that is no text
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
