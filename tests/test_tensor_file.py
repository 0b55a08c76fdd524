"""The door to `torch.load`: what is written comes back, and nothing else comes in."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision import tensor_file
from automl_vision.data.manifest import LARGEST_CLASS_NAMES, MOST_CLASSES
from automl_vision.errors import FileTooLarge, ModelFileError
from automl_vision.tensor_file import load_tensors, load_tensors_of_others, save_tensors

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=12,
)
CONTENT: dict[str, Any] = {
    "magic": "something",
    "state": {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(3), "half": torch.ones(2).half()},
    "list": [1, 2.5, None, True, "ä\n", (1, (2,))],
}

# --- what comes back ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensors")


@given(values=st.dictionaries(st.text(), VALUES, max_size=4))
@settings(deadline=None, max_examples=60)
def test_plain_values_come_back_equal_and_of_the_same_type(folder: Path, values: dict[str, Any]) -> None:
    save_tensors(folder / "values.pt", values)
    loaded = load_tensors(folder / "values.pt")
    assert loaded == values
    assert repr(loaded) == repr(values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_tensors_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.arange(int(np.prod(shape))).reshape(shape).to(dtype)
    save_tensors(tmp_path / "a.pt", {"t": tensor})
    loaded = load_tensors(tmp_path / "a.pt")["t"]
    assert loaded.dtype == dtype
    assert torch.equal(loaded, tensor)


def test_what_is_shared_is_written_out(tmp_path: Path) -> None:
    """The optimizer's groups share their constants; a reader refuses what is named twice."""
    shared = (0.9, 0.999)
    inner = [1, 2]
    save_tensors(tmp_path / "a.pt", {"groups": [{"betas": shared}, {"betas": shared}], "a": inner, "b": inner})
    loaded = load_tensors(tmp_path / "a.pt")
    assert loaded == {"groups": [{"betas": shared}, {"betas": shared}], "a": inner, "b": inner}


def test_relatives_of_plain_types_become_plain(tmp_path: Path) -> None:
    values = {"rate": np.float64(0.5), "shape": torch.Size([2, 3]), "state": OrderedDict(weight=torch.ones(1))}
    save_tensors(tmp_path / "a.pt", values)
    loaded = load_tensors(tmp_path / "a.pt")
    assert [type(value) for value in loaded.values()] == [float, tuple, dict]


@pytest.mark.parametrize(
    "value", [{1, 2}, b"bytes", Path("x"), np.zeros(2), object(), lambda: None], ids=lambda value: type(value).__name__
)
def test_other_types_are_not_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError):
        save_tensors(tmp_path / "a.pt", {"deep": [{"value": value}]})
    assert not list(tmp_path.iterdir())


def test_what_would_not_be_read_again_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_file, "LARGEST_FILE", 10_000)
    save_tensors(tmp_path / "a.pt", {"kept": torch.zeros(1000)})
    with pytest.raises(FileTooLarge, match=r"12000 bytes, over the limit of 10000(.|\n)*a\.pt"):
        save_tensors(tmp_path / "a.pt", {"average": [torch.zeros(1000), {"step": (torch.zeros(2000),)}]})
    assert load_tensors(tmp_path / "a.pt")["kept"].shape == (1000,)


def test_as_many_classes_as_data_may_have_are_read_again(tmp_path: Path) -> None:
    length = LARGEST_CLASS_NAMES // MOST_CLASSES
    names = [f"{number:0{length}d}" for number in range(MOST_CLASSES)]
    recall = {f"{name}": {"value": 0.3, "low": 0.1, "high": 0.9, "n": 1000 + i} for i, name in enumerate(names)}
    values = {"class_names": names, "class_bias": [i / 7 for i in range(MOST_CLASSES)], "test": {"recall": recall}}
    save_tensors(tmp_path / "a.pt", values)
    assert load_tensors(tmp_path / "a.pt") == values


def test_a_file_that_the_memory_has_no_room_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tensors(tmp_path / "a.pt", {"kept": torch.zeros(1000)})
    monkeypatch.setattr(tensor_file, "available_memory", lambda: 4000)
    with pytest.raises(ModelFileError, match="4000 bytes of memory are left"):
        load_tensors(tmp_path / "a.pt")


def test_an_optimizer_s_state_comes_back(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_tensors(tmp_path / "a.pt", {"optimizer": optimizer.state_dict(), "network": layer.state_dict()})
    loaded = load_tensors(tmp_path / "a.pt")
    optimizer.load_state_dict(loaded["optimizer"])
    layer.load_state_dict(loaded["network"])


# --- what does not come in ------------------------------------------------------------------------------------------

FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "subprocess.", "socket.", "pty.")
_events: list[str] = []
_watching = False


def _watch(event: str, arguments: object) -> None:
    if _watching and event.startswith(FORBIDDEN):
        _events.append(event)


sys.addaudithook(_watch)


@pytest.fixture
def watched() -> Iterator[list[str]]:
    """Processes, sockets and removed files since the test began."""
    global _watching  # an audit hook cannot be taken away again
    _events.clear()
    _watching = True
    yield _events
    _watching = False


@pytest.fixture(scope="module")
def whole() -> bytes:
    file = io.BytesIO()
    torch.save(CONTENT, file)
    return file.getvalue()


def rezipped(
    whole: bytes,
    changes: dict[str, bytes] | None = None,
    *,
    compression: int = zipfile.ZIP_STORED,
    rename: Callable[[str], str] = lambda name: name,
    twice: str = "",
    without: str = "",
) -> bytes:
    """The same archive with some records changed, added, renamed, doubled or left out."""
    result = io.BytesIO()
    archive = zipfile.ZipFile(result, "w", compression)
    with warnings.catch_warnings(), zipfile.ZipFile(io.BytesIO(whole)) as old, archive as new:
        records = {name: old.read(name) for name in old.namelist()}
        prefix = next(iter(records)).split("/")[0]
        records |= {f"{prefix}/{name}": data for name, data in (changes or {}).items()}
        for name, data in records.items():
            if not without or not name.endswith(without):
                new.writestr(rename(name), data)
        if twice:
            warnings.simplefilter("ignore", UserWarning)
            new.writestr(f"{prefix}/{twice}", records.get(f"{prefix}/data.pkl", b""))
    return result.getvalue()


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


class Call:
    """Unpickling this calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def program(value: object) -> bytes:
    """The file of an attacker who writes `data.pkl` by hand."""
    return rezipped(saved({"a": torch.ones(2)}), {"data.pkl": pickle.dumps(value, protocol=2)})


def laughs(of: Callable[[Any, Any], Any], levels: int = 60) -> object:
    """A container that holds the same container twice, and so on: it would unfold to 2**levels."""
    value: object = of(0, 0)
    for _ in range(levels):
        value = of(value, value)
    return value


def with_flag_of_encryption(whole: bytes) -> bytes:
    data = bytearray(whole)
    position = data.index(b"PK\x01\x02")
    data[position + 8] |= 1
    return bytes(data)


def with_claimed_size(whole: bytes, size: int) -> bytes:
    data = bytearray(whole)
    position = data.rindex(b"PK\x01\x02")
    struct.pack_into("<II", data, position + 20, size, size)
    return bytes(data)


MARKER = "automl-vision-was-here"
HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "text": lambda whole: b"this is a text\n" * 99,
    "zeros": lambda whole: b"\0" * len(whole),
    "an empty zip": lambda whole: b"PK\x05\x06" + b"\0" * 18,
    "legacy pickle": lambda whole: pickle.dumps({"a": 1}),
    "pickle that runs a command": lambda whole: pickle.dumps(Call(os.system, f"touch {MARKER}")),
    "zip that runs a command": lambda whole: program({"a": Call(os.system, f"touch {MARKER}")}),
    "zip that evaluates": lambda whole: program({"a": Call(eval, f"open('{MARKER}', 'w')")}),
    "zip that opens": lambda whole: program({"a": Call(open, MARKER, "w")}),
    "zip that loads again": lambda whole: program({"a": Call(torch.load, MARKER)}),
    "zip that hides the call in a key": lambda whole: program({Call(os.system, f"touch {MARKER}"): 1}),
    "memory of a terabyte": lambda whole: program({"a": Call(bytearray, 10**12)}),
    "a counter": lambda whole: program({"a": Counter("aab")}),
    "a set": lambda whole: program({"a": {1, 2}}),
    "bytes": lambda whole: program({"a": b"\xff"}),
    "an attribute that is set": lambda whole: saved({"a": Named()}),
    "billion laughs in lists": lambda whole: program({"a": laughs(lambda a, b: [a, b])}),
    "billion laughs in tuples": lambda whole: program({"a": laughs(lambda a, b: (a, b))}),
    "billion laughs as a key": lambda whole: rezipped(whole, {"data.pkl": KEY_LAUGHS}),
    "sparse tensor": lambda whole: saved({"a": torch.eye(3).to_sparse()}),
    "tensor of another device": lambda whole: saved({"a": torch.empty(10**9, device="meta")}),
    "numpy array": lambda whole: saved({"a": np.zeros(3)}),
    "module": lambda whole: saved({"a": torch.nn.Linear(1, 1)}),
    "no index": lambda whole: rezipped(whole, without="data.pkl"),
    "empty index": lambda whole: rezipped(whole, {"data.pkl": b""}),
    "index without an end": lambda whole: rezipped(whole, {"data.pkl": b"\x80\x02}q\x00"}),
    "index of noise": lambda whole: rezipped(whole, {"data.pkl": bytes(range(256)) * 20}),
    "endless index": lambda whole: rezipped(whole, {"data.pkl": b"\x80\x02" + b"N" * 2_000_000 + b"."}),
    "enormous index": lambda whole: rezipped(whole, {"data.pkl": b"\0" * (17 << 20)}),
    "no weights": lambda whole: rezipped(whole, without="data/0"),
    "short weights": lambda whole: rezipped(whole, {"data/0": b"\0" * 4}),
    "deflated": lambda whole: rezipped(whole, compression=zipfile.ZIP_DEFLATED),
    "bzip2": lambda whole: rezipped(whole, compression=zipfile.ZIP_BZIP2),
    "deflated bomb": lambda whole: rezipped(whole, {"data/9": b"\0" * (64 << 20)}, compression=zipfile.ZIP_DEFLATED),
    "two indexes": lambda whole: rezipped(whole, twice="data.pkl"),
    "an index of another case": lambda whole: rezipped(whole, twice="DATA.PKL"),
    "an index below": lambda whole: rezipped(whole, twice="more/data.pkl"),
    "TorchScript constants": lambda whole: rezipped(whole, {"constants.pkl": b"\x80\x02)."}),
    "TorchScript code": lambda whole: rezipped(whole, {"code/__torch__.py": b"def f(): ..."}),
    "TorchScript in capitals": lambda whole: rezipped(whole, {"CONSTANTS.PKL": b"\x80\x02)."}),
    "a path that leads out": lambda whole: rezipped(whole, rename=lambda name: f"../../{name}"),
    "an absolute path": lambda whole: rezipped(whole, rename=lambda name: f"/{name}"),
    "encrypted": with_flag_of_encryption,
    "a record of 4 GB": lambda whole: with_claimed_size(whole, 0xFFFFFFF0),
    "a tar": lambda whole: whole[:512].ljust(512, b"\0").replace(b"PK", b"./") + b"ustar\x0000" + whole,
    "two archives, of which torch reads one and Python the other": lambda whole: swollen(whole) + stored(whole),
    "an index of another case, and one below": lambda whole: rezipped(
        swollen(whole),
        {"deeper/data.pkl": b"\x80\x02}."},
        rename=lambda name: name if "deeper" in name else name.replace("data.pkl", "DATA.PKL"),
    ),
    "something between the records and the end": lambda whole: stored(whole)[:-22] + b"\0" * 76 + stored(whole)[-22:],
    "a text behind the end": lambda whole: stored(whole)[:-2] + b"\x04\0abcd",
    "an end that lies elsewhere": lambda whole: whole[:-34] + b"\1" + whole[-33:],
    "billion laughs in dictionaries": lambda whole: rezipped(whole, {"data.pkl": ORDERED_LAUGHS}),
    "billion laughs behind an opcode that does nothing": lambda whole: rezipped(whole, {"data.pkl": SPLIT_LAUGHS}),
    "billion laughs in dictionaries of nothing": lambda whole: rezipped(whole, {"data.pkl": TUPLE_LAUGHS}),
    "more taken than there is": lambda whole: rezipped(whole, {"data.pkl": b"\x80\x02}K\1s."}),
    "a dictionary that is made of a list": lambda whole: program({"a": Call(OrderedDict, [("a", 1)])}),
    "a list": lambda whole: saved([1, 2]),
    "a tensor": lambda whole: saved(torch.ones(3)),
    "a number": lambda whole: saved(3),
}


def stored(whole: bytes) -> bytes:
    """The same records as Python's writer puts them."""
    return rezipped(whole)


def swollen(whole: bytes) -> bytes:
    """The same layout, byte for byte, with an index of another content: it wants a gigabyte."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        length = len(archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl"))))
    return rezipped(whole, {"data.pkl": SWELLS.ljust(length, b"\0")})


class Named:
    """An object that pickle makes by setting attributes."""

    def __init__(self) -> None:
        self.name = "x"


def _key_laughs() -> bytes:
    """A dict whose key is a tuple of tuples of tuples: to hash it would take for ever."""
    parts = [b"\x80\x02}", b"K\x00K\x00\x86q\x00"]
    parts += [b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(60)]
    return b"".join([*parts, b"K\x01s."])


def _ordered_laughs(between: bytes = b"") -> bytes:
    """Dictionaries that hold the one before them twice: to write them out would take for ever.

    Args:
        between: opcodes between the arguments of a call and the call.
    """
    make = b"ccollections\nOrderedDict\n)" + between + b"R"
    parts = [b"\x80\x02}X\1\0\0\0a(", make, b"q\x00"]
    for n in range(60):
        twice = b"(K\x00h" + bytes([n]) + b"K\x01h" + bytes([n]) + b"u"
        parts += [make, b"q" + bytes([n + 1]), twice]
    return b"".join([*parts, b"ts."])


KEY_LAUGHS = _key_laughs()
ORDERED_LAUGHS = _ordered_laughs()
#: The same, with another word on the protocol between.
SPLIT_LAUGHS = _ordered_laughs(b"\x80\x02")
#: The same, called with a tuple of nothing instead of with nothing.
TUPLE_LAUGHS = _ordered_laughs(b"\x85")
#: `{"a": bytearray(1 << 30)}`, which torch lets in.
SWELLS = b"\x80\x02}X\1\0\0\0ac__builtin__\nbytearray\nJ\0\0\0\x40\x85Rs."


@pytest.mark.parametrize("attack", HOSTILE.values(), ids=HOSTILE)
def test_hostile_and_damaged_files_are_refused_quickly_and_run_nothing(
    tmp_path: Path,
    whole: bytes,
    attack: Callable[[bytes], bytes],
    watched: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.pt"
    file.write_bytes(attack(whole))
    started = process_time()
    with pytest.raises(ModelFileError) as caught:
        load_tensors(file)
    assert process_time() - started < 5.0
    assert watched == []
    assert [each.name for each in tmp_path.iterdir()] == ["model.pt"]
    assert "weights_only" not in str(caught.value)  # torch's advice to switch the safety off
    assert caught.value.fix


def test_cut_off_anywhere_it_is_refused(tmp_path: Path, whole: bytes) -> None:
    file = tmp_path / "model.pt"
    for end in [*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1]:
        file.write_bytes(whole[:end])
        with pytest.raises(ModelFileError):
            load_tensors(file)


def test_a_flipped_bit_never_changes_what_is_read(tmp_path: Path, whole: bytes) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(whole)
    expected = repr(load_tensors(file))
    random = np.random.default_rng(0)
    refused = 0
    for position in random.integers(0, len(whole), 400):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(random.integers(8))
        file.write_bytes(damaged)
        try:
            assert repr(load_tensors(file)) == expected
        except ModelFileError:
            refused += 1
    assert refused > 50


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path, tmp_path / "missing", pipe, loop, Path("/dev/zero"), tmp_path / ("x" * 300), Path("a\0b")):
        with pytest.raises(ModelFileError):
            load_tensors(path)


# --- what others wrote ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before archives"])
def test_the_weights_that_others_save_are_read(tmp_path: Path, archive: bool) -> None:
    """With parameters, and with the attributes of a state dict, which our own files never hold."""
    file = tmp_path / "weights.pth"
    layer = torch.nn.Linear(2, 3)
    content = {"state_dict": layer.state_dict(), "parameter": layer.bias, "rates": [0.1, 0.2], "epoch": 3}
    torch.save(content, file, _use_new_zipfile_serialization=archive)
    loaded = load_tensors_of_others(file)
    assert isinstance(loaded, dict)
    assert torch.equal(loaded["state_dict"]["weight"], layer.weight)
    assert torch.equal(loaded["parameter"], layer.bias)


#: Of `HOSTILE`, what is no attack on whoever reads weights: plain values.
PLAIN = {
    "legacy pickle",  # torch wants more of its older format than a pickle
    "billion laughs in dictionaries",  # nobody writes them out
    "billion laughs in dictionaries of nothing",
    "a dictionary that is made of a list",
    "a counter",
    "a set",
    "bytes",
    "an attribute that is set",
    "billion laughs in lists",
    "billion laughs in tuples",
    "sparse tensor",
    "tensor of another device",
    "a path that leads out",
    "an absolute path",
    "a list",
    "a tensor",
    "a number",
}


@pytest.mark.parametrize("name", sorted(set(HOSTILE) - PLAIN))
def test_nothing_in_the_files_of_others_runs(
    tmp_path: Path, whole: bytes, name: str, watched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.pth"
    file.write_bytes(HOSTILE[name](whole))
    with pytest.raises(ModelFileError) as caught:
        load_tensors_of_others(file)
    assert watched == []
    assert [each.name for each in tmp_path.iterdir()] == ["weights.pth"]
    assert "weights_only" not in str(caught.value)


def test_what_training_leaves_beside_weights_is_read(tmp_path: Path) -> None:
    """A hundred groups of parameters that hold one and the same tuple, and lists that are held twice."""
    file = tmp_path / "checkpoint.pth"
    betas, rates = (0.9, 0.999), [0.1]
    groups = [{"betas": betas, "rates": rates, "params": [n]} for n in range(100)]
    content = {"model": {"w": torch.ones(2)}, "optimizer": {"param_groups": groups}, "shape": torch.Size([1, 2])}
    for archive in (True, False):
        torch.save(content, file, _use_new_zipfile_serialization=archive)
        loaded = load_tensors_of_others(file)
        assert isinstance(loaded, dict)
        assert loaded["optimizer"] == content["optimizer"]


@pytest.mark.parametrize("program", [SWELLS, KEY_LAUGHS], ids=["swells", "unfolds"])
def test_what_swells_is_refused_in_the_format_before_archives(tmp_path: Path, program: bytes) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"a": 1}, file, _use_new_zipfile_serialization=False)
    before = file.read_bytes().index(pickle.dumps({"a": 1}, protocol=2))
    file.write_bytes(file.read_bytes()[:before] + program + pickle.dumps([], protocol=2))
    with pytest.raises(ModelFileError, match="no model file"):
        load_tensors_of_others(file)


def test_a_crash_while_writing_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.pt"
    save_tensors(file, {"a": 1})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        save_tensors(file, {"a": 2})
    assert load_tensors(file) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["a.pt"]
