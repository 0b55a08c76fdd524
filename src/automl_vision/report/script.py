"""The one script of the report: where it is, and the hash by which the page's own policy lets it run.

The page allows this text and no other: a script that a hostile name would bring has another hash.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from markupsafe import Markup


@cache
def script() -> Markup:
    """The text between the script tags."""
    text = (files("automl_vision.report") / "templates" / "thresholds.js").read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 - a file of this package # nosec B704


@cache
def script_hash() -> str:
    """Source expression for `script-src` of a Content-Security-Policy."""
    digest = hashlib.sha256(script().encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
