"""Bytes under digests of what they were made from, in one SQLite file that several processes may use at once.

A cache: whatever is wrong with its file costs time, and is noted for the user; it never costs a result. So nothing
here raises, and each value carries a digest of its own, so that a damaged one is not believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

#: What the header of the file says that it belongs to.
_APPLICATION = int.from_bytes(b"avcs", "big")
#: Seconds to wait for another process that writes.
_PATIENCE = 10.0
#: Values that are held back to be written at once; a process that is killed loses no more.
_HELD_BACK = 256
_CHECK_BYTES = 8
#: The file, and what SQLite leaves beside it where a process was killed.
_FILES = ("", "-journal", "-wal", "-shm")
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
#: What SQLite says of a file that it cannot use; the last where its message quotes damaged names.
_TROUBLE = (sqlite3.Error, OSError, UnicodeDecodeError)


def remove_store(file: Path) -> None:
    """Remove the file and what lies beside it; nothing where there is none.

    Raises:
        OSError: it cannot be removed.
    """
    for ending in _FILES:
        file.with_name(file.name + ending).unlink(missing_ok=True)


class Store(Protocol):
    """What `ContentStore` and `NothingKept` have in common."""

    def get(self, key: bytes) -> bytes | None:
        """What was put under `key`; None where nothing was, or it is lost."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value, which must follow from the key alone."""
        ...


class NothingKept:
    """A store that forgets everything at once."""

    def get(self, key: bytes) -> bytes | None:
        """Nothing."""

    def put(self, key: bytes, value: bytes) -> None:
        """Forget it."""


class _Damaged(sqlite3.DatabaseError):
    """The file is none of ours, or a value is not what was put."""


class ContentStore:
    """Values under keys, for all threads of a process and for several processes.

    Attributes:
        notes: what the user should know: why nothing is kept, or was lost.
    """

    def __init__(self, file: Path, version: str) -> None:
        """Open or make the file.

        Args:
            file: its place; folders above are made.
            version: letters and digits that name how values are made. What other versions left is dropped.
        """
        self.notes: list[str] = []
        self._file = file
        self._table = f"made_by_{version}"
        self._lock = threading.RLock()
        self._held_back: dict[bytes, bytes] = {}
        self._connection: sqlite3.Connection | None = None
        self._writes = True
        self._begun_anew = False
        self._open()

    def get(self, key: bytes) -> bytes | None:
        """What was put under `key`; None where nothing was, or it is lost."""
        with self._lock:
            if key in self._held_back:
                return self._held_back[key]
            if self._connection is None:
                return None
            try:
                return self._read(self._connection, key)
            except _TROUBLE as error:
                self._give_up(error)
                return None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value, which must follow from the key alone; it is written with the next few hundred."""
        with self._lock:
            if self._connection is None or not self._writes:
                return
            self._held_back[key] = value
            if len(self._held_back) >= _HELD_BACK:
                self._write()

    def close(self) -> None:
        """Write what was held back, and let go of the file."""
        with self._lock:
            self._write()
            self._disconnect()

    def _open(self) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = sqlite3.connect(
                self._file, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._make_table(self._connection)
        except _TROUBLE as error:
            self._give_up(error)

    def _make_table(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = NORMAL")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        if owner != _APPLICATION and (tables or owner):
            raise _Damaged("it is not a file of ours")
        if tables == {self._table}:
            return  # nothing to write: it may lie where nothing can be written
        with _transaction(connection):
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            for other in tables - {self._table}:
                connection.execute(f'DROP TABLE IF EXISTS "{other}"')
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
            )

    def _read(self, connection: sqlite3.Connection, key: bytes) -> bytes | None:
        query = f"SELECT value FROM {self._table} WHERE key = ?"  # noqa: S608 - the name is ours # nosec B608
        found = connection.execute(query, (key,)).fetchone()
        if found is None:
            return None
        stored = found[0]
        if not isinstance(stored, bytes) or stored[:_CHECK_BYTES] != _check(key, stored[_CHECK_BYTES:]):
            raise _Damaged("a value is not what was written")
        return stored[_CHECK_BYTES:]

    def _write(self) -> None:
        if self._connection is None or not self._held_back:
            return
        rows = [(key, _check(key, value) + value) for key, value in self._held_back.items()]
        try:
            with _transaction(self._connection):
                self._connection.executemany(f"INSERT OR REPLACE INTO {self._table} VALUES (?, ?)", rows)  # noqa: S608
        except _TROUBLE as error:
            if _is_damage(error):
                self._give_up(error)
            else:
                self._writes = False  # what is there can still be read
                self._note_not_kept(error)
        self._held_back.clear()

    def _give_up(self, error: Exception) -> None:
        """Begin anew where the file is damaged, once; else go on without it."""
        self._disconnect()
        if not _is_damage(error) or self._begun_anew:
            self._note_not_kept(error)
            return
        self._begun_anew = True
        try:
            remove_store(self._file)
        except OSError as refused:
            self._note_not_kept(refused)
            return
        self.notes.append(f"a damaged file of kept comparisons was removed: {self._file} ({error})")
        self._open()

    def _note_not_kept(self, error: Exception) -> None:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        self.notes.append(f"comparisons of pictures are not kept: {self._file} cannot be used ({reason})")

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(*_TROUBLE):  # it is given up in any case
                self._connection.close()
        self._connection = None


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and nobody else writes meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, _Damaged | UnicodeDecodeError) or (code is not None and code & 0xFF in _DAMAGED)


def _check(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(value, key=key[:64], digest_size=_CHECK_BYTES).digest()
