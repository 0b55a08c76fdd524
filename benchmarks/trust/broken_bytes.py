"""Damage and edits of files: bytes, archives, the programs in them, JSON; drawn at random, from a seed."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

Edit = Callable[[random.Random, bytes, bytes], bytes]

#: What stands where a number, a name or a list was.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 2**31, 2**63, 10**30, 0.0, -0.5, 1e-300, 1e300, 1.5, 4096, 65535),
    *(float("nan"), float("inf"), "", "x", "\0", "../../../etc/passwd", "/etc/passwd", "linear", "mlp:8-gelu"),
    *("mlp:999999999-gelu", "hf-hub:timm/resnet18", "local-dir:/etc", "file:///etc/passwd", "https://127.0.0.1/x"),
    *("resnet18", "vit_tiny_patch16_224", "test_vit", "test_efficientnet", "squash", "middle", "__import__('os')"),
    *("\ud800", "\u202e", "<script>", "=cmd()", "a" * 2000, "a\nb", [], [[]], {}, {"a": 1}, [1, 2, 3], [0.5, 0.5, 0.5]),
    *([float("nan")] * 3 for _ in range(1)),
)


def flip(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """One to eight bits."""
    changed = bytearray(data)
    for _each in range(rng.choice((1, 1, 1, 2, 8))):
        changed[_place(rng, len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def replace_byte(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """A byte by one that often stands at a border."""
    changed = bytearray(data)
    changed[_place(rng, len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
    return bytes(changed)


def truncate(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Cut off anywhere."""
    return data[: rng.randrange(len(data))]


def truncate_and_fill(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Cut off, and of the same length: a disk that was full, a machine that lost power."""
    keep = rng.randrange(len(data))
    return data[:keep] + bytes([rng.choice((0, 0xFF))]) * (len(data) - keep)


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A piece of another file over a piece of this."""
    start, length = _place(rng, len(data)), rng.choice((1, 4, 30, 500, 20_000))
    begin = rng.randrange(len(other))
    piece = other[begin : begin + length]
    return data[:start] + piece + data[start + len(piece) :]


def halves(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The beginning of this, the rest of another."""
    where = rng.randrange(min(len(data), len(other)))
    return data[:where] + other[where:]


def insert(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Bytes that were not there."""
    where = _place(rng, len(data))
    return data[:where] + rng.randbytes(rng.choice((1, 2, 7, 64))) + data[where:]


def delete(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Bytes that are there no more."""
    where = _place(rng, len(data))
    return data[:where] + data[where + rng.choice((1, 2, 7, 64)) :]


def append(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Something behind the end."""
    return data + rng.choice((b"\0", rng.randbytes(30), other, data))


def prepend(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Something before the beginning."""
    return rng.choice((b"\0", rng.randbytes(30), other, data[: rng.randrange(1, 2000)])) + data


def numbers(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Four or eight bytes by a number that something may take for a size or a place."""
    where, wide = _place(rng, len(data)), rng.random() < 0.4
    value = rng.choice((0, 1, len(data), len(data) - 22, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)))
    number = struct.pack("<Q" if wide else "<I", value if not wide else value | rng.choice((0, 1 << 32, 1 << 63)))
    return data[:where] + number + data[where + len(number) :]


#: Edits that know nothing of what a file is.
BYTE_EDITS: Mapping[str, Edit] = {
    "bits": flip,
    "byte": replace_byte,
    "cut": truncate,
    "cut and filled": truncate_and_fill,
    "spliced": splice,
    "halves": halves,
    "inserted": insert,
    "deleted": delete,
    "appended": append,
    "prepended": prepend,
    "number": numbers,
}


def _place(rng: random.Random, length: int) -> int:
    """Anywhere; half of the time where the structure of most files is: near an end."""
    near = min(length, 1500)
    return rng.choice(
        (rng.randrange(length), rng.randrange(length), rng.randrange(near), length - 1 - rng.randrange(near))
    )


# --- archives -------------------------------------------------------------------------------------------------------

Records = list[tuple[str, bytes]]


def records_of(data: bytes) -> Records:
    """Names and contents, in their order."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(each.filename, archive.read(each)) for each in archive.infolist()]


def zipped(records: Sequence[tuple[str, bytes]], packed: Collection[str] = ()) -> bytes:
    """An archive of these records with sound checksums, some of them compressed."""
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # twice the same name
        with zipfile.ZipFile(written, "w") as archive:
            for name, content in records:
                archive.writestr(name, content, zipfile.ZIP_DEFLATED if name in packed else zipfile.ZIP_STORED)
    return written.getvalue()


def edit_archive(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Records renamed, dropped, doubled, compressed, swapped, of another archive, in another order, changed."""
    records = records_of(data)
    at = rng.randrange(len(records))
    name, content = records[at]
    root = name.split("/")[0]
    strangers = records_of(other if zipfile.is_zipfile(io.BytesIO(other)) else data)
    edits: tuple[Callable[[], bytes], ...] = (
        lambda: zipped([*records[:at], *records[at + 1 :]]),
        lambda: zipped([*records, records[at]]),
        lambda: zipped([*records, (name.swapcase(), content)]),
        lambda: zipped([*records, (f"{root}/x/{name.split('/')[-1]}", content)]),
        lambda: zipped(records, (name,)),
        lambda: zipped(records, [each for each, _ in records]),
        lambda: zipped(rng.sample(records, len(records))),
        lambda: zipped(
            [
                *records[:at],
                (rng.choice((f"../{name}", f"/{name}", name.upper(), "x")), content),
                *records[at + 1 :],
            ]
        ),
        lambda: zipped([*records[:at], rng.choice(strangers), *records[at + 1 :]]),
        lambda: zipped([*records[:at], (name, rng.choice(strangers)[1]), *records[at + 1 :]]),
        lambda: zipped([*records[:at], (name, flip(rng, content or b"\0", b"")), *records[at + 1 :]]),
        lambda: zipped([*records[:at], (name, content[: len(content) // 2]), *records[at + 1 :]]),
        lambda: zipped([*records[:at], (name, content * 2), *records[at + 1 :]]),
        lambda: zipped([(each, b"big" if each.endswith("byteorder") else kept) for each, kept in records]),
        lambda: zipped([*records, (f"{root}/constants.pkl", b"\x80\x02).")]),
        lambda: zipped([*records, (f"{root}/code/x.py", b"import os")]),
        lambda: zipped(strangers) + zipped(records),
        lambda: data + zipped(records),
        lambda: zipped(records)[:-2] + b"\x04\0abcd",
    )
    return rng.choice(edits)()


# --- the program in an archive --------------------------------------------------------------------------------------

#: Programs that a reader must not obey. What they would do leaves a trace: a file, a process, a connection.
PROGRAMS: tuple[bytes, ...] = (
    *(f"\x80\x02}}X\1\0\0\0ac{module}\n{name}\n(X\x05\0\0\0x.txttRs.".encode("latin-1") for module, name in (
        ("os", "system"), ("posix", "mkdir"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "open"),
        ("subprocess", "Popen"), ("importlib", "import_module"), ("torch", "load"), ("torch.hub", "load"),
        ("timm.models", "create_model"), ("ctypes", "CDLL"), ("socket", "create_connection"), ("pathlib", "Path"),
        ("webbrowser", "open"), ("builtins", "getattr"), ("torch._utils", "_rebuild_qtensor"), ("_codecs", "encode"),
    )),
    b"\x80\x02}X\1\0\0\0ac__builtin__\nbytearray\nJ\0\0\0\x40\x85Rs.",
    b"\x80\x02}X\1\0\0\0aJ\xff\xff\xff\x7fs.",
    b"\x80\x02}(X\1\0\0\0a" + b"]" * 50_000 + b"s.",
    b"\x80\x02}K\x00K\x00\x86q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60)) + b"K\x01s.",
    b"\x80\x02" + b"N" * 300_000 + b".",
    b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x8c\x06system\x93.",
    b"", b".", b"\x80\x02.", b"\x80\x02}.", b"\x80\x02]q\x00h\x00a.",
)  # fmt: skip


def edit_program(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The index changed, with a sound checksum: another program, or a byte of this one."""
    records = dict(records_of(data))
    name = next(each for each in records if each.endswith("data.pkl"))
    program = records[name]
    strangers = dict(records_of(other if zipfile.is_zipfile(io.BytesIO(other)) else data))
    edit = rng.choice((flip, replace_byte, insert, delete, splice, numbers))
    changed = rng.choice(PROGRAMS) if rng.random() < 0.4 else edit(rng, program, strangers.get(name, program))
    if rng.random() < 0.2:  # Python's reader finds the sound one behind it
        return zipped(list({**records, name: changed.ljust(len(program), b"\0")}.items())) + zipped(
            list(records.items())
        )
    return zipped(list({**records, name: changed}.items()))


# --- JSON -----------------------------------------------------------------------------------------------------------


def edit_json(rng: random.Random, text: str) -> str:
    """A value somewhere in it replaced, left out or doubled; or the text itself made another."""
    how = rng.random()
    if how < 0.05:
        return rng.choice(("", "null", "[]", "{}", "[" * 100_000, '{"a":' * 50_000, text[: len(text) // 2], "9" * 5000))
    if how < 0.1:
        return text[:-1] + f", {json.dumps(rng.choice(list(json.loads(text))))}: {json.dumps(rng.choice(ODD_VALUES))}}}"
    whole = json.loads(text)
    inner, key = _somewhere(rng, whole)
    if how < 0.2 and isinstance(inner, dict):
        del inner[key]
    elif how < 0.25 and isinstance(inner, dict):
        inner[rng.choice(("__class__", "x", "", "path", "url", "file", "\ud800"))] = rng.choice(ODD_VALUES)
    else:
        inner[key] = rng.choice(ODD_VALUES)
    return json.dumps(whole)


def _somewhere(rng: random.Random, value: Any) -> tuple[Any, Any]:
    """A container in it, and one of its keys."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.4:
            return value, key
        value = inner
