"""What tells the runs that this user made on this machine from those of others: a seal that only this user can make.

It is an HMAC (RFC 2104) over those settings of a run that reach out of its folder, with a key that lies in the user's
state folder. Whoever sends somebody a run can write any settings into it, and no seal.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automl_vision.user_state import state_folder

_KEY_BYTES = 32


def seal_of(values: Mapping[str, Any]) -> str:
    """The seal of this user on this machine; empty where no key can be kept, so that nothing is taken for sealed.

    Args:
        values: plain types.
    """
    try:
        return _sealed(values, _key() or _new_key())
    except OSError:
        return ""


def is_sealed(values: Mapping[str, Any], seal: object) -> bool:
    """Whether this user sealed just these values on this machine."""
    try:
        key = _key()
    except OSError:
        return False
    return key is not None and isinstance(seal, str) and hmac.compare_digest(_sealed(values, key), seal)


def _sealed(values: Mapping[str, Any], key: bytes) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=True)
    return hmac.new(key, text.encode("ascii"), hashlib.sha256).hexdigest()


def _file() -> Path:
    return state_folder() / "key"


def _key() -> bytes | None:
    """None where there is none yet, or half of one, which a machine that lost power left."""
    file = _file()
    key = file.read_bytes() if file.is_file() else b""
    return key if len(key) == _KEY_BYTES else None


def _new_key() -> bytes:
    """Made by one process where two want one at once: the other takes it."""
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as made:
        made.write(secrets.token_bytes(_KEY_BYTES))
        made.flush()
        os.fsync(made.fileno())
    try:
        if _key() is None:
            unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    return _key() or b""
