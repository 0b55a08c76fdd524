"""Files that somebody made to break in: does any of them run something, reach the network, or write where it must not?

    python benchmarks/trust/hostile_files.py --json hostile_files.json

Model files, run folders, caches, tables, settings, histories, shards, label maps, saved data sets, weights and archives
each handed to the command that reads it, through the real command line (`sandbox.py`: without a network, watched, in a
folder of its own). Each has to end with one clear error and the right exit code, or to be harmless: no file outside the
folders that the command was given, no process, no connection, no traceback, nothing that a terminal acts on.
"""

from __future__ import annotations

import base64
import io
import json
import lzma
import os
import pickle  # noqa: TID251 - it makes what must not be read
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import torch

from automl_vision.bundle import digest
from automl_vision.tensor_file import load_tensors
from make_smoke_data import make_smoke_data
from trust.broken_bytes import PROGRAMS, records_of, zipped
from trust.figure import Figure, conclude, parser
from trust.sandbox import MARKER, Sandbox, serve_imports

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
ACTS = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
#: A search that takes seconds.
QUICK = (
    *("--trials", "1", "--epochs", "1", "--batch-size", "8", "--resolutions", "32", "--lineage", "names"),
    *("--backbones", "test_efficientnet", "--no-pretrained", "--offline", "--device", "cpu", "--threads", "1"),
)
WRONG = (2,)
FINE = (0,)
#: Weights that cannot be read cost their trials; where those were all, there is no model.
UNUSABLE = (2, 5)
EITHER = (0, 2, 3)


class Run:
    """Unpickling this runs a command."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {MARKER}",)  # noqa: TID251 - never called


@dataclass(frozen=True)
class Scene:
    """What attacks are made of, in a sandbox.

    Attributes:
        folder: of the sandbox; hostile files go here.
        model, onnx, run, images, shards: sound ones, copies that may be changed.
        victim: a file that nothing may change.
    """

    folder: Path

    @property
    def victim(self) -> Path:
        return self.folder / "victim.txt"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def picture(self) -> Path:
        return self.images / "circle" / "0000.png"

    @property
    def model(self) -> Path:
        return self.folder / "model.pt"

    @property
    def onnx(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def shards(self) -> Path:
        return self.folder / "shards"

    def file(self, name: str, content: str | bytes) -> Path:
        """A file of the attacker's."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
        return path


#: What a command line is made of, and the folders beside `out` that it may write to.
Order = Sequence[str | Path]
Build = Callable[[Scene], Order]
#: Name -> how it is built, and the codes with which the command may end.
Rows = Mapping[str, tuple[Build, tuple[int, ...]]]


@dataclass(frozen=True)
class Attack:
    """A hostile file, and the command that reads it.

    Attributes:
        of: the kind of file.
        name: what is done.
        build: makes it, and says the command line.
        codes: with which it may end.
        in_run: whether the command works in the run folder, which it then may write to.
        prove: a fault in what the command left, or nothing.
    """

    of: str
    name: str
    build: Build
    codes: tuple[int, ...] = WRONG
    in_run: bool = False
    prove: Callable[[Scene], str] = lambda _: ""


# --- model files ----------------------------------------------------------------------------------------------------


def predicted(content: Callable[[Scene], bytes], name: str = "evil.pt") -> Build:
    """Predict with a file of this content."""
    return lambda scene: ("predict", scene.file(name, content(scene)), scene.picture)


def with_program(program: bytes) -> Callable[[Scene], bytes]:
    """The sound model with another program."""

    def content(scene: Scene) -> bytes:
        records = records_of(scene.model.read_bytes())
        return zipped([(name, program if name.endswith("data.pkl") else data) for name, data in records])

    return content


def with_meta(**changes: Any) -> Callable[[Scene], bytes]:
    """The sound model that says something else of itself."""

    def content(scene: Scene) -> bytes:
        values = load_tensors(scene.model)
        meta = {**json.loads(values["meta"]), **changes}
        return _saved({**values, "meta": json.dumps(meta)})

    return content


def _saved(value: object, *, archive: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=archive)
    return file.getvalue()


def _of_nan(scene: Scene) -> bytes:
    values = load_tensors(scene.model)
    states = [values["state_dict"], *values["others"].values()]
    for state in states:
        state |= {name: tensor * float("nan") for name, tensor in state.items() if tensor.is_floating_point()}
    meta = json.loads(values["meta"])
    meta["digest"], meta["others"][0]["digest"] = map(digest, states)
    return _saved({**values, "meta": json.dumps(meta)})


def _two_archives(scene: Scene) -> bytes:
    records = records_of(scene.model.read_bytes())
    (length,) = (len(data) for name, data in records if name.endswith("data.pkl"))
    swells = b"\x80\x02}X\1\0\0\0ac__builtin__\nbytearray\nJ\0\0\0\x40\x85Rs.".ljust(length, b"\0")
    return zipped([(name, swells if name.endswith("data.pkl") else data) for name, data in records]) + zipped(records)


def _torchscript(_: Scene) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Identity()), file)
    return file.getvalue()


def _linked(target: str) -> Build:
    def build(scene: Scene) -> Order:
        (scene.folder / "evil.pt").symlink_to(target)
        return ("predict", scene.folder / "evil.pt", scene.picture)

    return build


def _pipe(scene: Scene) -> Order:
    os.mkfifo(scene.folder / "evil.pt")
    return ("predict", scene.folder / "evil.pt", scene.picture)


def _onnx_that(change: Callable[[Any], None]) -> Callable[[Scene], bytes]:
    """The sound ONNX file with another graph, signed as the sound one is."""

    def content(scene: Scene) -> bytes:
        import onnx

        from automl_vision.onnx_predictor import DIGEST_KEY, NO_DIGEST, with_digest

        model = onnx.load_model_from_string(scene.onnx.read_bytes())
        change(model)
        for each in model.metadata_props:
            if each.key == DIGEST_KEY:
                each.value = NO_DIGEST
        return with_digest(model.SerializeToString())

    return content


def _elsewhere(path: str) -> Callable[[Any], None]:
    """Its largest tensor is said to lie in another file."""

    def change(model: Any) -> None:
        import onnx

        tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", path), ("offset", "0"), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)

    return change


def _foreign_operation(model: Any) -> None:
    model.graph.node[0].domain = "evil"
    model.opset_import.add(domain="evil", version=1)


def _endless(model: Any) -> None:
    """A loop of 2**62 rounds before the first operation."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["kept"], ["kept_on"])],
        "body",
        [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("go", 9), ("kept", 1))],
        [helper.make_tensor_value_info(n, t, []) for n, t in (("go_on", 9), ("kept_on", 1))],
    )
    for name, value in (("rounds", np.array(2**62)), ("yes", np.array(True)), ("none", np.array(0, np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    loop = helper.make_node("Loop", ["rounds", "yes", "none"], ["spun"], body=body)
    last = model.graph.node[-1]
    made, last.output[0] = last.output[0], "before_the_loop"
    add = helper.make_node("Add", ["before_the_loop", "spun"], [made])
    model.graph.node.extend([loop, add])
    onnx.checker.check_model(model)


MODELS: Mapping[str, Attack] = {
    name: Attack("model file", name, build)
    for name, build in {
        "a pickle that runs a command": predicted(lambda _: pickle.dumps(Run())),
        "a checkpoint that runs a command": predicted(lambda _: _saved({"model": Run()})),
        "a checkpoint of the older format": predicted(lambda _: _saved({"a": Run()}, archive=False)),
        **{f"program {n}": predicted(with_program(program)) for n, program in enumerate(PROGRAMS[:18])},
        "two archives, one of which swells": predicted(_two_archives),
        "TorchScript": predicted(_torchscript),
        "a numpy archive of objects": predicted(lambda _: zipped([("x.npy", b"\x93NUMPY" + pickle.dumps(Run()))])),
        "a network of the hub": predicted(with_meta(backbone="hf-hub:evil/network")),
        "a network of a folder": predicted(with_meta(backbone="local-dir:/etc")),
        "a network at a path": predicted(with_meta(backbone="../../../etc/passwd")),
        "a network of another name": predicted(with_meta(backbone="vit_giant_patch14_224")),
        "weights at a path": predicted(
            with_meta(checkpoint_path="/etc/passwd", pretrained_cfg={"url": "http://127.0.0.1"})
        ),
        "a million classes": predicted(with_meta(class_names=[str(n) for n in range(1_000_000)])),
        "a head of a terabyte": predicted(with_meta(head="mlp:99999999999-gelu")),
        "weights that are no numbers": predicted(_of_nan),
        "a pipe": _pipe,
        "a device": _linked("/dev/zero"),
        "a link to itself": _linked("evil.pt"),
        "an ONNX file with weights at a path": predicted(_onnx_that(_elsewhere("/etc/passwd")), "evil.onnx"),
        "an ONNX file with weights above": predicted(_onnx_that(_elsewhere("../victim.txt")), "evil.onnx"),
        "an ONNX file with weights beside it": predicted(_onnx_that(_elsewhere("victim.txt")), "evil.onnx"),
        "an ONNX file with an operation of its own": predicted(_onnx_that(_foreign_operation), "evil.onnx"),
        "an ONNX file that never ends": predicted(_onnx_that(_endless), "evil.onnx"),
    }.items()
}
MODELS = {
    **MODELS,
    "weights at a path": Attack("model file", "weights at a path", MODELS["weights at a path"].build, FINE),
    "a network of another name": Attack(
        "model file", "a network of another name", MODELS["a network of another name"].build
    ),
}


# --- run folders ----------------------------------------------------------------------------------------------------


def _edited(name: str, *places: tuple[str, ...], value: Any) -> Callable[[Scene], None]:
    """A JSON file of the run with other values."""

    def edit(scene: Scene) -> None:
        file = scene.run / name
        content = json.loads(file.read_text("utf-8"))
        for place in places:
            inner = content
            for key in place[:-1]:
                inner = inner[int(key) if isinstance(inner, list) else key]
            inner[int(place[-1]) if isinstance(inner, list) else place[-1]] = value
        file.write_text(json.dumps(content), "utf-8")

    return edit


def _replaced(name: str, content: str | bytes) -> Callable[[Scene], None]:
    return lambda scene: (scene.file(f"run/{name}", content), None)[1]


def _link(name: str, target: str) -> Callable[[Scene], None]:
    """Something of the run is a link that leads out of it."""

    def link(scene: Scene) -> None:
        file = scene.run / name
        if file.is_dir():
            shutil.rmtree(file)
        file.unlink(missing_ok=True)
        file.symlink_to(scene.folder / target)

    return link


def _setting(line: str) -> Callable[[Scene], None]:
    """A setting of the run; `[table] key = value`."""

    def change(scene: Scene) -> None:
        file = scene.run / "config.toml"
        table, _, pair = line.partition(" ")
        key = pair.partition(" ")[0]
        text = "\n".join(each for each in file.read_text("utf-8").splitlines() if not each.startswith(f"{key} ="))
        file.write_text(text.replace(table, f"{table}\n{pair.replace('FOLDER', str(scene.folder))}"), "utf-8")

    return change


def _unfinished(scene: Scene) -> None:
    """The run was begun on these images, and its end is yet to come."""
    (scene.run / "report.json").unlink()
    about = json.loads((scene.run / "run.json").read_text("utf-8"))
    about |= {"data": str(scene.images)}
    (scene.run / "run.json").write_text(json.dumps(about), "utf-8")


def _trials_in_images(scene: Scene) -> None:
    _edited("run.json", ("trials",), value=str(scene.images))(scene)


def on_run(*edits: Callable[[Scene], None], order: Callable[[Scene], Order]) -> Build:
    """A command on the run after these edits."""

    def build(scene: Scene) -> Order:
        for edit in edits:
            edit(scene)
        return order(scene)

    return build


def _report(scene: Scene) -> Order:
    return ("report", scene.run)


def _resume(scene: Scene) -> Order:
    return ("search", "--resume", scene.run)


def _export(scene: Scene) -> Order:
    return ("export", scene.run, "--trial", "1", "--format", "pt", "--out", scene.folder / "out" / "exported.pt")


def _no_markup(scene: Scene) -> str:
    page = (scene.run / "report.html").read_text("utf-8") if (scene.run / "report.html").exists() else ""
    return "markup of a file acts in the page" if "<img src=x onerror" in page or "<script>alert" in page else ""


def _run_attack(name: str, build: Build, codes: tuple[int, ...] = EITHER) -> Attack:
    return Attack("run folder", name, build, codes, in_run=True, prove=_no_markup)


RUNS: Mapping[str, Attack] = {
    name: _run_attack(name, on_run(*edits, order=order), codes)
    for name, (edits, order, codes) in {
        "markup in the report": (
            (_edited("report.json", ("name",), ("stop_reason",), ("test", "classes", "0"), value=ACTS),),
            _report,
            EITHER,
        ),
        "markup in the environment": (
            (_edited("report.json", ("environment", "device"), value=ACTS),),
            _report,
            EITHER,
        ),
        "a report of 200,000 levels": ((_replaced("report.json", "[" * 200_000),), _report, WRONG),
        "a report that is a list": ((_replaced("report.json", "[]"),), _report, WRONG),
        "a gallery of pages": ((_replaced("gallery.json", json.dumps({"pictures": [ACTS]})),), _report, EITHER),
        "pictures that are scripts": (
            (
                _replaced(
                    "gallery.json",
                    (GOLDEN / "run" / "gallery.json")
                    .read_text("utf-8")
                    .replace(
                        "data:image/png;base64,", "data:text/html;base64," + base64.b64encode(ACTS.encode()).decode()
                    ),
                ),
            ),
            _report,
            EITHER,
        ),
        "formulas in the predictions": (
            (_replaced("predictions_test.csv", "path,label\n=cmd|' /C calc'!A0,x\n"),),
            _report,
            EITHER,
        ),
        "a page that is a link": ((_link("report.html", "victim.txt"),), _report, EITHER),
        "a card that is a link": ((_link("README.md", "victim.txt"),), _report, EITHER),
        "a lock that is a link": ((_unfinished, _link(".lock", "victim.txt")), _resume, WRONG),
        "an owner that is a link": ((_unfinished, _link(".lock.owner", "victim.txt")), _resume, EITHER),
        "a log that is a link": ((_unfinished, _link("events.log", "victim.txt")), _resume, WRONG),
        "trials that are a link": ((_unfinished, _link("trials", "images")), _resume, WRONG),
        "a trial that is a link": ((_unfinished, _link("trials/000001", "images")), _resume, WRONG),
        "trials elsewhere": ((_unfinished, _trials_in_images), _resume, WRONG),
        "trials at an address": (
            (_unfinished, _edited("run.json", ("trials",), value="s3://evil/run")),
            _resume,
            WRONG,
        ),
        "trials at a program": ((_unfinished, _edited("run.json", ("trials",), value="pipe:touch x")), _resume, WRONG),
        "images at an address": (
            (_unfinished, _edited("run.json", ("data",), value="https://127.0.0.1/shards")),
            _resume,
            WRONG,
        ),
        "images of the hub": ((_unfinished, _edited("run.json", ("data",), value="hf:evil/set")), _resume, WRONG),
        "images of the machine": ((_unfinished, _edited("run.json", ("data",), value="/proc")), _resume, WRONG),
        "a tracker": ((_unfinished, _setting('[output] track = ["wandb"]')), _resume, WRONG),
        "a cluster": ((_unfinished, _setting('[machine] cluster = "10.0.0.1:6379"')), _resume, WRONG),
        "a cache elsewhere": ((_unfinished, _setting('[machine] cache_dir = "FOLDER/images"')), _resume, WRONG),
        "weights at a path": (
            (_unfinished, _setting('[search] weights = {resnet18 = "/etc/passwd"}')),
            _resume,
            EITHER,
        ),
        "settings that are none": ((_unfinished, _replaced("config.toml", "[" * 5000)), _resume, WRONG),
        "a record of another folder": (
            (_unfinished, _replaced("trials/000001.json", '{"number": "../../x", "checksum": 1}')),
            _resume,
            EITHER,
        ),
        "a ledger of text": ((_unfinished, _replaced("looks.json", '"x"')), _resume, WRONG),
        "seconds without end": ((_unfinished, _replaced("spent.json", '{"seconds": 1e999}')), _resume, WRONG),
        "weights of a trial that run a command": (
            (_replaced("trials/000001/best.pt", _saved({"a": Run()})),),
            _export,
            WRONG,
        ),
        "an export of images of the machine": ((_edited("run.json", ("data",), value="/etc"),), _export, EITHER),
    }.items()
}


# --- tables, settings, label maps -----------------------------------------------------------------------------------


def inspected(name: str, content: str | bytes, *options: str) -> Build:
    """Inspect a data set that is this file."""
    return lambda scene: ("inspect", "--data", scene.file(name, content), "--lineage", "off", *options)


def _table(*rows: str) -> str:
    return "\n".join(("path,label", *rows)) + "\n"


def _configured(text: str) -> Build:
    return lambda scene: (
        *("search", "--data", scene.images, "--config", scene.file("evil.toml", text), *QUICK),
        *("--out", scene.folder / "out" / "run"),
    )


def _mapped(content: str | bytes) -> Build:
    return lambda scene: (
        *("inspect", "--data", scene.images, "--lineage", "off", "--label-map", scene.file("map.csv", content)),
    )


_TABLES: Mapping[str, Rows] = {
    "table": {
        "paths that lead out": (
            inspected("t.csv", _table("../../../etc/passwd,a", "images/circle/0000.png,b")),
            WRONG,
        ),
        "paths from the root": (inspected("t.csv", _table("/etc/passwd,a", "/etc/hostname,b")), WRONG),
        "addresses and programs": (
            inspected("t.csv", _table("|touch x,a", "http://127.0.0.1/x.png,b", "file:///etc/passwd,a")),
            WRONG,
        ),
        "bytes that are no text": (inspected("t.csv", b"path,label\n\xff\xfe\0x.png,a\n"), WRONG),
        "a cell of 20 MB": (inspected("t.csv", _table("x" * 20_000_000 + ",a")), WRONG),
        "a quote that never ends": (inspected("t.csv", 'path,label\n"' + "x,\n" * 100_000), WRONG),
        "Parquet of noise": (inspected("t.parquet", b"PAR1" + bytes(range(256)) * 40 + b"PAR1"), WRONG),
        "Parquet that is a pickle": (inspected("t.parquet", pickle.dumps(Run())), WRONG),
        "columns of one name": (inspected("t.csv", "path,path,label\na,b,c\n"), WRONG),
    },
    "settings": {
        "an object": (_configured('x = "!!python/object/apply:os.system [touch x]"\n'), WRONG),
        "a hundred thousand levels": (_configured("x = " + "[" * 100_000), WRONG),
        "a number of 100,000 digits": (_configured("[search]\ntrials = " + "9" * 100_000), WRONG),
        "an output in the root": (_configured('[output]\nname = "../../../evil"\n'), WRONG),
        "a device that is a path": (_configured('[machine]\ndevice = "/dev/zero"\n'), FINE),
        "escape bytes": (_configured('"\\u001b[2J" = 1\n'), WRONG),
    },
    "label map": {
        "noise": (_mapped(bytes(range(256)) * 9), WRONG),
        "formulas and markup": (_mapped(f"circle,=cmd()\nsquare,{ACTS}\ntriangle,\x1b[2J\n"), EITHER),
        "a class in itself": (_mapped("circle,square\nsquare,circle\ntriangle,triangle\n"), EITHER),
    },
}

TABLES: Mapping[str, Attack] = {
    name: Attack(of, name, build, codes) for of, rows in _TABLES.items() for name, (build, codes) in rows.items()
}


# --- shards, saved data sets, archives ------------------------------------------------------------------------------


def _tar(*members: tuple[str, bytes | str]) -> bytes:
    """A tar file; a text is where a link leads to."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in members:
            about = tarfile.TarInfo(name)
            if isinstance(content, str):
                about.type, about.linkname = tarfile.SYMTYPE, content
                archive.addfile(about)
                continue
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return written.getvalue()


def _sharded(*members: tuple[str, bytes | str]) -> Build:
    """Inspect shards of somebody else's."""

    def build(scene: Scene) -> Order:
        scene.file("evil/train-000.tar", _tar(*members))
        return ("inspect", "--data", scene.folder / "evil", "--lineage", "off")

    return build


def _own_shards(edit: Callable[[Scene], None]) -> Build:
    def build(scene: Scene) -> Order:
        edit(scene)
        return ("inspect", "--data", scene.shards, "--lineage", "off")

    return build


def _shard_named(name: str) -> Callable[[Scene], None]:
    def edit(scene: Scene) -> None:
        file = scene.shards / "shards.json"
        told = json.loads(file.read_text("utf-8"))
        told["shards"][0]["name"] = name
        file.write_text(json.dumps(told), "utf-8")

    return edit


def _data_set(**files: str | bytes) -> Build:
    """Inspect what looks like a folder of datasets.save_to_disk."""

    def build(scene: Scene) -> Order:
        for name, content in files.items():
            scene.file(f"set/{name.replace('__', '.')}", content)
        return ("inspect", "--data", scene.folder / "set", "--lineage", "off")

    return build


def _data_of(name: str, content: bytes) -> Build:
    return lambda scene: ("inspect", "--data", scene.file(name, content), "--lineage", "off")


def _kept(file: Path, content: str) -> None:
    file.write_text(content, "utf-8")


def _overwritten(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[600:640] = bytes(40)
    file.write_bytes(data)


def _of_zips(scene: Scene) -> Order:
    file = scene.file("zips/a.zip", zipped([("a.png", _PICTURE)]))
    return ("inspect", "--data", file.parent, "--lineage", "off")


def _renamed(scene: Scene) -> Order:
    for number, folder in enumerate(sorted(scene.images.iterdir())):
        folder.rename(scene.images / f"class{number}.tar.gz")
    return ("inspect", "--data", scene.images, "--lineage", "off")


_INFO = json.dumps({"features": {"image": {"_type": "Image"}, "label": {"names": ["a", "b"], "_type": "ClassLabel"}}})
_STATE = json.dumps(
    {
        "_data_files": [{"filename": "../../victim.txt"}],
        "_fingerprint": "x",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": "train",
    }
)
_NEAR = _STATE.replace("../../victim.txt", "a.arrow")
_PICTURE = (GOLDEN / "picture.png").read_bytes()
_MARKED = [(f"{n}{ending}", data) for n in range(3) for ending, data in ((".png", _PICTURE), (".cls", ACTS.encode()))]

_SETS: Mapping[str, Rows] = {
    "shards": {
        "members that lead out": (_sharded(("../../victim.png", _PICTURE), ("../../victim.cls", b"a")), EITHER),
        "members from the root": (_sharded(("/tmp/x.png", _PICTURE), ("/tmp/x.cls", b"a")), EITHER),
        "a member that is a link": (_sharded(("a.png", "/etc/passwd"), ("a.cls", b"a")), WRONG),
        "a member that is a pickle": (_sharded(("a.png", _PICTURE), ("a.pyd", pickle.dumps(Run()))), WRONG),
        "a member that is a checkpoint": (_sharded(("a.png", _PICTURE), ("a.pth", _saved({"a": Run()}))), WRONG),
        "labels of markup": (_sharded(*_MARKED), EITHER),
        "no archive": (lambda scene: ("inspect", "--data", scene.file("evil/x.tar", b"x" * 5000).parent), WRONG),
        "a shard elsewhere": (_own_shards(_shard_named("../victim.txt")), WRONG),
        "a shard that is a program": (_own_shards(_shard_named("pipe:touch x")), WRONG),
        "a shard at an address": (_own_shards(_shard_named("https://127.0.0.1/x.tar")), WRONG),
        "an index of 100,000 levels": (
            _own_shards(lambda scene: _kept(scene.shards / "shards.json", "[" * 100_000)),
            WRONG,
        ),
        "a table of noise": (_own_shards(lambda scene: _kept(scene.shards / "samples.parquet", "x" * 9000)), WRONG),
        "another image under a digest": (
            _own_shards(lambda scene: _overwritten(scene.shards / "test-000000.tar")),
            EITHER,
        ),
        "an address of this machine": (lambda _: ("inspect", "--data", "https://127.0.0.1/shards"), WRONG),
        "an address of a program": (lambda _: ("inspect", "--data", "pipe:touch x"), WRONG),
        "an address of a file": (lambda _: ("inspect", "--data", "file:///etc"), WRONG),
    },
    "saved data set": {
        "a program": (
            _data_set(set__py=f"open('{MARKER}', 'w')", dataset_info__json=_INFO, state__json=_STATE),
            WRONG,
        ),
        "data elsewhere": (_data_set(dataset_info__json=_INFO, state__json=_STATE), WRONG),
        "Arrow of noise": (
            _data_set(dataset_info__json=_INFO, state__json=_NEAR, a__arrow=b"ARROW1" + bytes(999)),
            WRONG,
        ),
        "parts elsewhere": (_data_set(dataset_dict__json='{"splits": ["../images", "/etc"]}'), WRONG),
    },
    "archive": {
        "a zip": (_data_of("images.zip", zipped([("../../x.png", _PICTURE)])), WRONG),
        "a packed tar": (_data_of("images.tar.xz", lzma.compress(_tar(("../x.png", _PICTURE)))), WRONG),
        "a folder of archives": (_of_zips, WRONG),
        "class folders called like archives": (_renamed, FINE),
    },
}

SETS: Mapping[str, Attack] = {
    name: Attack(of, name, build, codes) for of, rows in _SETS.items() for name, (build, codes) in rows.items()
}


# --- weights, caches, histories, pictures ---------------------------------------------------------------------------


def _searched(weights: Callable[[Scene], Path]) -> Build:
    """A search that starts from this file."""
    options = [each for each in QUICK if each != "--no-pretrained"]

    def build(scene: Scene) -> Order:
        named = f"test_efficientnet={weights(scene)}"
        return ["search", "--data", scene.images, *options, "--weights", named, "--out", scene.folder / "out" / "run"]

    return build


def _cached(plant: Callable[[Path], None]) -> Build:
    """An inspection with a cache that somebody filled before."""

    def build(scene: Scene) -> Order:
        cache = scene.folder / "home" / "planted"
        cache.mkdir(parents=True)
        plant(cache)
        return ("inspect", "--data", scene.images, "--cache-dir", cache)

    return build


def _with_trigger(cache: Path) -> None:
    with sqlite3.connect(cache / "comparisons.sqlite3") as made:
        made.execute("CREATE TABLE made_by_x (key BLOB, value BLOB)")
        made.execute("CREATE TRIGGER t AFTER INSERT ON made_by_x BEGIN SELECT load_extension('evil'); END")


def _cache_of_links(cache: Path) -> None:
    victim = cache.parents[1] / "victim.txt"
    for name in ("comparisons.sqlite3-journal", "0" * 32):
        (cache / name).symlink_to(victim)


def _deep(cache: Path) -> None:
    (cache / ("c" * 32)).mkdir()
    (cache / ("c" * 32) / "index.json").write_text("[" * 100_000)
    (cache / ("d" * 32)).mkdir()
    (cache / ("d" * 32) / "unpacked.json").write_text("[" * 100_000)


def _deep_listed(scene: Scene) -> Order:
    cache = scene.folder / "home" / "planted"
    cache.mkdir(parents=True)
    _deep(cache)
    return ("cache", "list", "--cache-dir", cache)


def _emptied(scene: Scene) -> Order:
    cache = scene.folder / "home" / "planted"
    cache.mkdir(parents=True)
    (cache / ("a" * 32)).symlink_to(scene.images)
    (cache / f"{'b' * 32}.tmp-1").symlink_to(scene.images)
    return ("cache", "clear", "--cache-dir", cache)


def _pictured(name: str, content: bytes) -> Build:
    return lambda scene: ("predict", scene.model, scene.file(name, content))


def _named(scene: Scene, name: str) -> str:
    """A sound picture of this name, where the command runs."""
    shutil.copy(scene.picture, scene.folder / "out" / name)
    return name


_SVG = b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg><image href="http://127.0.0.1/"/>&x;</svg>'
_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch x) (w) file\nshowpage\n"

_OTHERS: Mapping[str, Rows] = {
    "weights": {
        "a pickle": (_searched(lambda scene: scene.file("w.pth", pickle.dumps(Run()))), UNUSABLE),
        "a checkpoint": (_searched(lambda scene: scene.file("w.pth", _saved({"state_dict": Run()}))), UNUSABLE),
        "names of 90 MB": (
            _searched(lambda scene: scene.file("w.safetensors", (90 << 20).to_bytes(8, "little") + b" " * (90 << 20))),
            UNUSABLE,
        ),
        "a tensor of a terabyte": (
            _searched(lambda scene: scene.file("w.pth", _saved({"conv_stem.weight": torch.ones(1).expand(10**12)}))),
            UNUSABLE,
        ),
        "a tar": (_searched(lambda scene: scene.file("w.pth", _tar(("storages", pickle.dumps(Run()))))), UNUSABLE),
        "a folder": (_searched(lambda scene: scene.images), UNUSABLE),
    },
    "cache": {
        "triggers": (_cached(_with_trigger), EITHER),
        "links": (_cached(_cache_of_links), EITHER),
        "an index of 100,000 levels": (_cached(_deep), EITHER),
        "links to be emptied": (_emptied, EITHER),
        "an entry of 100,000 levels to be listed": (_deep_listed, EITHER),
    },
    "picture": {
        "PostScript called JPEG": (_pictured("x.jpg", _EPS), (3,)),
        "SVG with entities": (_pictured("x.png", _SVG), (3,)),
        "a pickle called PNG": (_pictured("x.png", pickle.dumps(Run())), (3,)),
        "65,535 squared": (_pictured("x.gif", b"GIF89a\xff\xff\xff\xff\x00\x00\x00" + bytes(50)), (3,)),
        "an option for a name": (lambda scene: ("predict", scene.model, "--", _named(scene, "-rf.png")), FINE),
        "a program for a name": (
            lambda scene: ("predict", scene.model, _named(scene, "|touch x;`touch x`$(touch x).png")),
            FINE,
        ),
        "a pattern for a name": (lambda scene: ("predict", scene.model, _named(scene, "[a-z]*?.png")), EITHER),
    },
}

OTHERS: Mapping[str, Attack] = {
    name: Attack(of, name, build, codes) for of, rows in _OTHERS.items() for name, (build, codes) in rows.items()
}


# --- histories ------------------------------------------------------------------------------------------------------

_LINE = {"run": "x", "trial": 0, "kind": "finetune", "state": "complete", "epoch": 1, "score": 0.5, "loss": 0.1,
         "seconds": 1.0, "objective": "accuracy", "recipe": {}, "backbone": {}, "data": {}, "device": "cpu",
         "precision": "float32", "version": "0.1.0"}  # fmt: skip


def _with_history(text: str | bytes) -> Build:
    """A command that would append to a history that somebody filled."""

    def build(scene: Scene) -> Order:
        scene.file("home/state/automl-vision/history.jsonl", text)
        return ("search", "--data", scene.images, *QUICK, "--out", scene.folder / "out" / "run")

    return build


def _history_link(scene: Scene) -> Order:
    (scene.folder / "home" / "state" / "automl-vision").mkdir(parents=True)
    (scene.folder / "home" / "state" / "automl-vision" / "history.jsonl").symlink_to(scene.victim)
    return ("search", "--data", scene.images, *QUICK, "--out", scene.folder / "out" / "run")


HISTORIES: Mapping[str, Attack] = {
    name: Attack("history", name, build, codes)
    for name, (build, codes) in {
        "lines of anything": (
            _with_history(json.dumps(_LINE | {"recipe": ACTS}) + "\n" + "[" * 100_000 + "\n\0\xff\n{}\n"),
            FINE,
        ),
    }.items()
}

ATTACKS: tuple[Attack, ...] = tuple(
    attack for table in (MODELS, RUNS, TABLES, SETS, OTHERS, HISTORIES) for attack in table.values()
)


# --- one after the other --------------------------------------------------------------------------------------------


def scene_in(folder: Path) -> Scene:
    """Everything sound, in a new folder."""
    scene = Scene(folder)
    scene.victim.write_text("nothing may change this\n")
    make_smoke_data(scene.images, images=5)
    scene.model.write_bytes(lzma.decompress((GOLDEN / "version-6.pt.xz").read_bytes()))
    scene.onnx.write_bytes(lzma.decompress((GOLDEN / "model.onnx.xz").read_bytes()))
    shutil.copytree(GOLDEN / "run", scene.run)
    shutil.copytree(GOLDEN / "shards", scene.shards)
    return scene


@dataclass(frozen=True)
class Defended:
    """What came of an attack.

    Attributes:
        attack: it.
        code: exit code of the command.
        seconds: that it took.
        faults: what was not as promised.
    """

    attack: Attack
    code: int
    seconds: float
    faults: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the attack, with the kind of file."""
        return f"{self.attack.of}: {self.attack.name}"


def attacked(attack: Attack, *, network: bool = False) -> Defended:
    """Make the files of one attack in a folder of their own, and run the command that reads them."""
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        scene = scene_in(Path(folder).resolve())
        sandbox = Sandbox(scene.folder, network=network)
        order = attack.build(scene)
        ended = sandbox.run(
            [each if isinstance(each, str) else str(each) for each in order], [scene.run] if attack.in_run else []
        )
        proved = attack.prove(scene)
        faults = (*ended.faults(attack.codes), *([proved] if proved else []))
        return Defended(
            attack, ended.code, ended.seconds, tuple(f"{attack.of}: {attack.name}: {each}" for each in faults)
        )


def figure_of(defended: Sequence[Defended]) -> Figure:
    """All attacks in one line."""
    faults = tuple(fault for each in defended for fault in each.faults)
    outside = sum("changed " in fault or "open '" in fault for fault in faults)
    kinds = {each.attack.of for each in defended}
    broken = sum(bool(each.faults) for each in defended)
    text = (
        f"{len(defended)} attacks of {len(kinds)} kinds: {broken} with a fault, {outside} files outside, "
        f"{sum('socket' in fault for fault in faults)} connections, "
        f"{sum('subprocess' in fault or 'os.system' in fault or 'exec' in fault for fault in faults)} processes; "
        f"{sum(each.code == 0 for each in defended)} were harmless, "
        f"slowest {max((each.seconds for each in defended), default=0.0):.0f} s"
    )
    told = {each.name: {"code": each.code, "seconds": round(each.seconds, 2)} for each in defended}
    return Figure("R9", bool(defended) and not faults, text, {"attacks": told}, faults)


def main(arguments: Sequence[str] | None = None) -> int:
    """All attacks, or those whose name holds a word."""
    options = parser(__doc__)
    options.add_argument("--only", default="", help="attacks whose kind and name hold this")
    options.add_argument("--every", type=int, default=1, help="every so-manieth attack alone")
    options.add_argument("--network", action="store_true", help="where the system does not let it be taken away")
    given = options.parse_args(arguments)
    serve_imports()
    chosen = [each for each in ATTACKS if given.only in f"{each.of}: {each.name}"][:: given.every]
    defended = []
    for attack in chosen:
        defended.append(attacked(attack, network=given.network))
        print(f"{defended[-1].seconds:6.1f} s  {defended[-1].code:3}  {defended[-1].name}", file=sys.stderr, flush=True)
        for fault in defended[-1].faults:
            print(f"          {fault}", file=sys.stderr, flush=True)
    return conclude(figure_of(defended), given.json)


if __name__ == "__main__":
    sys.exit(main())
