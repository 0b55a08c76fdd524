"""Load files of models that are damaged or edited: does any crash its reader, or give weights that are not its own?

    python benchmarks/trust/mutated_models.py --files 10000 --json mutated_models.json

Seeds are the model files of every format so far, an exported ONNX file and the weights of a trial, all of
tests/golden; weights as others save them in three formats; a cache of decoded images, and one of comparisons. Each is
damaged (bits, bytes, numbers, cut, spliced, put together with another), or edited by somebody who knows the format:
records of the archive, its program, the description with every checksum computed again, tensors of other shapes, types
and strides. It is read the way the program reads it, in a process that has no network, may have 3 GB, and is watched:
a reader may open nothing for writing, connect to nothing, start nothing and run no text.

A reader may refuse, with the one error of that kind of file. What it accepts must be what the writer wrote: for damage,
what was in the file before; for edits with every digest computed again, the tensors that were put in, and a model that
gives probabilities. Seconds are those of the processor.

Weights as others save them hold no digest of their own: there, what is accepted may differ, and is counted.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import random
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from automl_vision.bundle import Bundle, digest, load_bundle
from automl_vision.data.content_store import ContentStore
from automl_vision.data.planes import DamagedPlanes, open_planes
from automl_vision.errors import ModelFileError, WeightsError
from automl_vision.models.weights import read_weights
from automl_vision.onnx_predictor import load_onnx, with_digest
from automl_vision.predictor import Model
from automl_vision.runtime import Runtime
from automl_vision.search.trial_files import TrialFiles
from automl_vision.tensor_file import load_tensors
from trust.broken_bytes import BYTE_EDITS, ODD_VALUES, Edit, edit_archive, edit_json, edit_program
from trust.figure import Figure, conclude, parser
from trust.watched import FORBIDDEN, OF_A_READER, Watch, bound, forget_peak, leave_network, peak_bytes

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
#: What a file may take: seconds of the processor, and bytes of the whole process.
MOST_SECONDS, MOST_BYTES = 2.0, 1 << 30
#: Seconds of the clock after which a reader is called hung; the machine may be busy.
HANGS_AFTER = 90.0
#: A reader is replaced after so many files, as if it were another user's.
FILES_PER_PROCESS = 1000
_DATA = 3 << 30

#: What was read, told as text: of weights, and of everything else that the file says.
Answer = tuple[str, str]


class NothingThere(Exception):
    """The reader says that there is nothing, as it does of what it cannot believe."""


@dataclass(frozen=True)
class Mutant:
    """A file to be read.

    Attributes:
        data: its bytes.
        how: what was done.
        weights: what its weights may be; None: anything, it has no digest or a sound one of something else.
        rest: what the rest may be; None: anything.
    """

    data: bytes
    how: str
    weights: str | None
    rest: str | None


@dataclass(frozen=True)
class Kind:
    """A kind of file, and how the program reads it.

    Attributes:
        name: of the kind.
        share: of all files, in parts of the sum.
        refusals: the errors that it may end with.
        seeds: sound files.
        mutants: (random numbers, number of the seed) -> what is to be read.
        read: of a file; also what came of using it, where that is cheap.
        own: a folder in which it may write.
    """

    name: str
    share: int
    refusals: tuple[type[Exception], ...]
    seeds: Sequence[bytes]
    mutants: Callable[[random.Random, int], Mutant]
    read: Callable[[Path], Answer]
    own: str = "\0"


def text_digest(value: object) -> str:
    """A short name of any value."""
    return hashlib.blake2b(repr(value).encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


# --- model files ----------------------------------------------------------------------------------------------------


def answer_of(bundle: Bundle) -> Answer:
    """What a model file was read as."""
    rest = (bundle.class_names, bundle.temperature, bundle.class_bias, bundle.provenance, bundle.fingerprint)
    networks = [(each.backbone, each.head, each.preprocessing, each.flip, each.share) for each in bundle.networks]
    return " ".join(digest(each.state_dict) for each in bundle.networks), text_digest((rest, networks))


def read_model(path: Path) -> Answer:
    """Load it; where it is small, have it predict as well."""
    bundle = load_bundle(path)
    if all(each.preprocessing.size <= 64 for each in bundle.networks):
        model = Model(bundle, Runtime(torch.device("cpu"), None, 1))
        _require_probabilities(model, len(bundle.class_names))
    return answer_of(bundle)


def _require_probabilities(model: Any, classes: int) -> None:
    squares = {side: np.full((1, side, side, 3), 90, dtype=np.uint8) for side in model.sides}
    given = model.probabilities(squares)
    if given.shape != (1, classes) or not np.isfinite(given).all() or abs(given.sum() - 1) > 1e-3:
        raise AssertionError(f"no probabilities: {given!r:.100}")


def _tensor_edits(rng: random.Random, tensor: torch.Tensor) -> Any:
    """The same place, filled with something else."""
    numbers = tensor.float()
    edits: tuple[Callable[[], Any], ...] = (
        lambda: tensor.double(),
        lambda: tensor.half(),
        lambda: tensor.bfloat16(),
        lambda: tensor.to(torch.int8),
        lambda: tensor.bool(),
        lambda: numbers.to(torch.complex64),
        lambda: numbers * float("nan"),
        lambda: numbers + float("inf"),
        lambda: numbers * 3e38,
        lambda: numbers * 0,
        lambda: tensor.unsqueeze(0),
        lambda: tensor.reshape(-1),
        lambda: tensor.reshape(-1)[:0],
        lambda: tensor.transpose(0, -1) if tensor.ndim > 1 else tensor.flip(0),
        lambda: torch.ones(1).expand(10**12),
        lambda: torch.ones(()).expand(tensor.shape),
        lambda: torch.zeros(tensor.numel() * 2)[::2].reshape(tensor.shape),
        lambda: torch.empty(tensor.shape, device="meta"),
        lambda: numbers.to_sparse(),
        lambda: torch.nn.Parameter(numbers),
        lambda: torch.quantize_per_tensor(numbers, 0.1, 0, torch.qint8),
        lambda: torch.zeros(10**6),
        lambda: [1.0, 2.0],
        lambda: rng.choice(ODD_VALUES[:10]),
    )
    return rng.choice(edits)()


def _edited_state(rng: random.Random, state: dict[str, Any]) -> dict[str, Any]:
    changed = dict(state)
    name, how = rng.choice(list(changed)), rng.random()
    if how < 0.1:
        del changed[name]
    elif how < 0.2:
        changed[rng.choice(("x", "", "backbone.x", "a" * 5000, name + "\0"))] = torch.ones(3)
    elif how < 0.25:
        changed[name] = changed[rng.choice(list(changed))]
    else:
        changed[name] = _tensor_edits(rng, changed[name])
    return changed


def _with_digests(content: dict[str, Any]) -> dict[str, Any]:
    """Every digest computed again, as whoever made the file would do it; as far as there is one of such a thing."""
    try:
        meta = json.loads(content["meta"])
        meta["digest"] = digest(content["state_dict"])
        for place, other in enumerate(meta.get("others", [])):
            other["digest"] = digest(content["others"][str(place)])
        if "fingerprint" in content:
            meta["fingerprint_digest"] = digest(content["fingerprint"])
    except Exception:  # noqa: BLE001 - it is edited, and may be anything
        return content
    return {**content, "meta": json.dumps(meta)}


def _weights_of(content: Mapping[str, Any]) -> str | None:
    """What the weights of a content must be read as; None where they are none."""
    try:
        states = [content["state_dict"], *content.get("others", {}).values()]
        return " ".join(digest(each) for each in states)
    except Exception:  # noqa: BLE001 - it is edited, and may be anything
        return None


def crafted_model(rng: random.Random, content: Mapping[str, Any]) -> Mutant:
    """Another content in a sound file, every digest computed again."""
    changed: dict[str, Any] = dict(content)
    how = rng.choice((*("description",) * 5, *("tensor",) * 5, "network", "top", "fingerprint"))
    if how == "description":
        changed["meta"] = edit_json(rng, changed["meta"])
    elif how == "tensor":
        which = rng.choice(["state_dict", *(["others"] if changed.get("others") else [])])
        if which == "others":
            changed[which] = {key: _edited_state(rng, state) for key, state in changed[which].items()}
        else:
            changed[which] = _edited_state(rng, changed[which])
    elif how == "network":
        meta = json.loads(changed["meta"])
        meta["backbone"] = rng.choice(_architectures())
        meta["preprocessing"]["size"] = rng.choice((32, 64, 224, 384, 1024))
        changed["meta"] = json.dumps(meta)
    elif how == "fingerprint" and "fingerprint" in changed:
        changed["fingerprint"] = _edited_state(rng, changed["fingerprint"])
    else:
        name = rng.choice([*changed, "x"])
        changed[name] = rng.choice((*ODD_VALUES, 7, torch.ones(2), {"a": {"a": 1}}))
    file = io.BytesIO()
    torch.save(_with_digests(changed), file)
    return Mutant(file.getvalue(), f"crafted: {how}", _weights_of(changed) or "", None)


def _architectures() -> list[str]:
    import timm

    return list(timm.list_models())


def model_files() -> Kind:
    """`model.pt` of every format."""
    seeds = [lzma.decompress(file.read_bytes()) for file in sorted(GOLDEN.glob("version-*.pt.xz"))]
    contents, answers = [], []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt"
        for each in seeds:
            file.write_bytes(each)
            contents.append(load_tensors(file))
            answers.append(read_model(file))

    def mutant(rng: random.Random, number: int) -> Mutant:
        if rng.random() < 0.4:
            return crafted_model(rng, contents[number])
        return _mutant(rng, seeds, number, answers[number])

    return Kind("model.pt", 50, (ModelFileError,), seeds, mutant, read_model)


#: What somebody does who knows archives: checksums are sound again, and the digests of the weights are not.
ARCHIVE_EDITS: Mapping[str, Edit] = {"archive": edit_archive, "program": edit_program}


def _mutant(rng: random.Random, seeds: Sequence[bytes], number: int, answer: Answer, *, archive: bool = True) -> Mutant:
    """Damage of a file that holds digests; or an edit, after which the checksums of the archive are sound again."""
    other = seeds[rng.randrange(len(seeds))]
    if archive and rng.random() < 0.4:
        how = rng.choice(list(ARCHIVE_EDITS))
        return Mutant(ARCHIVE_EDITS[how](rng, seeds[number], other), how, answer[0], None)
    how = rng.choice(list(BYTE_EDITS))
    data = BYTE_EDITS[how](rng, seeds[number], other)
    if data == other:  # a whole file of another model
        return Mutant(data, how, None, None)
    return Mutant(data, how, *answer)


# --- exported models ------------------------------------------------------------------------------------------------


def read_onnx(path: Path) -> Answer:
    """Load it and have it predict."""
    model = load_onnx(path, device="cpu")
    if all(side <= 64 for side in model.sides):
        _require_probabilities(model, len(model.class_names))
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest(), text_digest(model.description)


def onnx_files() -> Kind:
    """`model.onnx`: a digest is over every byte, so that damage is refused; with it computed again, all may be."""
    seeds = [lzma.decompress((GOLDEN / "model.onnx.xz").read_bytes())]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(seeds[0])
        answer = read_onnx(file)

    def mutant(rng: random.Random, number: int) -> Mutant:
        damaged = _mutant(rng, seeds, number, answer, archive=False)
        if rng.random() < 0.6:
            return damaged
        try:
            return Mutant(with_digest(damaged.data), f"{damaged.how}, signed", None, None)
        except ValueError:
            return damaged

    return Kind("model.onnx", 14, (ModelFileError,), seeds, mutant, read_onnx)


# --- what a run keeps of a trial ------------------------------------------------------------------------------------


def trial_files() -> Kind:
    """`best.pt`: its record is sound, and what cannot be believed counts as not there."""
    folder = Path(tempfile.mkdtemp(prefix="trial-"))
    trials = folder / "trials"
    shutil.copytree(GOLDEN / "run" / "trials", trials)
    best = trials / "000001" / "best.pt"
    seeds = [best.read_bytes()]
    kept = TrialFiles(trials)

    def read(path: Path) -> Answer:
        shutil.copy(path, best)
        result = kept.load_result(1)
        if result is None:
            raise NothingThere
        return digest(result.weights), text_digest(result.probabilities.tobytes())

    (folder / "seed.pt").write_bytes(seeds[0])
    answer = read(folder / "seed.pt")

    def mutant(rng: random.Random, number: int) -> Mutant:
        made = _mutant(rng, seeds, number, answer)
        # It holds no digest but the checksums of the archive: whoever computes those again wrote another file.
        return made if made.how in BYTE_EDITS else Mutant(made.data, made.how, None, None)

    return Kind("best.pt", 10, (NothingThere,), seeds, mutant, read, str(folder))


def weights_of_others() -> Kind:
    """Weights as others save them; only the archive has checksums."""
    torch.manual_seed(0)
    state = {f"layer.{n}.weight": torch.randn(8, 8) for n in range(6)} | {"steps": torch.tensor(3)}
    from safetensors.torch import save

    archive, older = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": state, "epoch": 3}, archive)
    torch.save({"state_dict": state, "epoch": 3}, older, _use_new_zipfile_serialization=False)
    seeds = [save(state), archive.getvalue(), older.getvalue()]
    endings = (".safetensors", ".pth", ".pth")

    def read(path: Path) -> Answer:
        weights = read_weights(path)
        return digest({name: weights[name] for name in weights}), ""

    def mutant(rng: random.Random, number: int) -> Mutant:
        made = _mutant(rng, seeds, number, ("", ""), archive=number == 1)
        return Mutant(made.data, f"{made.how} {endings[number]}", None, None)

    return Kind("weights", 14, (WeightsError,), seeds, mutant, read)


# --- caches ---------------------------------------------------------------------------------------------------------


def decoded_images() -> Kind:
    """A folder of decoded images, of which one file is damaged."""
    folder = Path(tempfile.mkdtemp(prefix="planes-"))
    _write_planes(folder)
    names = sorted(file.name for file in folder.iterdir())
    seeds = [(folder / name).read_bytes() for name in names]

    def read(path: Path) -> Answer:
        which = names[int(path.with_suffix(".which").read_text())]
        before = (folder / which).read_bytes()
        (folder / which).write_bytes(path.read_bytes())
        try:
            planes = open_planes(folder, (32,))
            pixels = planes.squares[32].read(np.arange(len(planes.squares[32])))
            return text_digest(pixels.tobytes()), text_digest(planes.facts.to_csv())
        finally:
            (folder / which).write_bytes(before)

    first = folder.parent / f"{folder.name}.seed"
    first.write_bytes(seeds[0])
    first.with_suffix(".which").write_text("0")
    answer = read(first)

    def mutant(rng: random.Random, number: int) -> Mutant:
        if names[number].endswith(".json") and rng.random() < 0.5:
            return Mutant(edit_json(rng, seeds[number].decode()).encode("utf-8", "replace"), "JSON", answer[0], None)
        return _mutant(rng, seeds, number, answer, archive=False)

    return Kind("decoded images", 6, (DamagedPlanes,), seeds, mutant, read, str(folder))


def comparisons() -> Kind:
    """The file of what comparing pictures told: whatever is wrong with it, it only forgets."""
    folder = Path(tempfile.mkdtemp(prefix="store-"))
    keys = [bytes([n]) * 16 for n in range(40)]

    def values(file: Path) -> list[bytes | None]:
        store = ContentStore(file, "v1")
        try:
            return [store.get(key) for key in keys]
        finally:
            store.close()

    file = folder / "seed.sqlite3"
    store = ContentStore(file, "v1")
    for key in keys:
        store.put(key, key * 30)
    store.close()
    seeds = [file.read_bytes()]

    def read(path: Path) -> Answer:
        copied = folder / "store.sqlite3"
        for old in folder.glob("store.sqlite3*"):
            old.unlink()
        shutil.copy(path, copied)
        wrong = [value for key, value in zip(keys, values(copied), strict=True) if value not in (None, key * 30)]
        return text_digest(wrong), ""

    return Kind(
        "comparisons",
        6,
        (),
        seeds,
        lambda rng, number: _mutant(rng, seeds, number, (text_digest([]), ""), archive=False),
        read,
        str(folder),
    )


KINDS: Mapping[str, Callable[[], Kind]] = {
    "model.pt": model_files,
    "model.onnx": onnx_files,
    "best.pt": trial_files,
    "weights": weights_of_others,
    "decoded images": decoded_images,
    "comparisons": comparisons,
}


def _write_planes(folder: Path) -> None:
    """The cache entry that a search leaves of fifteen pictures of 32 pixels."""
    from automl_vision.config import load_settings
    from automl_vision.data.preparation import decode, read_manifest

    with tempfile.TemporaryDirectory() as scratch:
        data, cache = Path(scratch) / "shapes", Path(scratch) / "cache"
        sys.path.insert(0, str(GOLDEN.parents[1] / "examples"))
        from make_smoke_data import make_smoke_data

        make_smoke_data(data, images=5)
        settings = load_settings(overrides={"machine.cache_dir": str(cache)})
        manifest = read_manifest(data, settings, lambda _: None)
        store, _ = decode(manifest, settings, (32,), 1, lambda _done, _total: None)
        store.close()
        entry = next(iter(cache.rglob("index.json"))).parent
        for name in ("index.json", "facts.parquet", "plane-32.u8"):
            shutil.copy(entry / name, folder / name)


# --- the process that reads -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of one file.

    Attributes:
        number: of the file.
        kind, how: of what, and what was done to it.
        end: "refused", "accepted", "differs" (accepted, and not what was written), "foreign error", "crashed" or
            "hung".
        detail: the error, or what differs.
        seconds: of the processor.
        bytes: the most that the process had.
        events: what the reader did that it must not.
    """

    number: int
    kind: str
    how: str
    end: str
    detail: str = ""
    seconds: float = 0.0
    bytes: int = 0
    events: tuple[str, ...] = ()

    @property
    def faults(self) -> list[str]:
        """What is not as promised."""
        found = {
            self.end: self.end not in ("refused", "accepted"),
            f"{self.seconds:.1f} s": self.seconds > MOST_SECONDS,
            f"{self.bytes >> 20} MB": self.bytes > MOST_BYTES,
            f"did {'; '.join(self.events)[:300]}": bool(self.events),
        }
        where = f"file {self.number} ({self.kind}, {self.how})"
        return [f"{where}: {what} {self.detail}".rstrip() for what, is_so in found.items() if is_so]


def kind_of(number: int, kinds: Sequence[Kind]) -> Kind:
    """Each has its share of any hundred files in a row."""
    rest = (number * 37) % sum(kind.share for kind in kinds)  # 37: kinds take turns
    for kind in kinds:
        rest -= kind.share
        if rest < 0:
            return kind
    raise AssertionError("shares add up")


def mutant_of(number: int, seed: int, kinds: Sequence[Kind]) -> tuple[Kind, int, Mutant]:
    """The file of a number: the same for the same seed, whoever asks."""
    rng = random.Random(f"{seed}:{number}")
    kind = kind_of(number, kinds)
    which = rng.randrange(len(kind.seeds))
    return kind, which, kind.mutants(rng, which)


def judged(kind: Kind, mutant: Mutant, path: Path) -> tuple[str, str]:
    """How reading a file ended, and more about it."""
    try:
        weights, rest = kind.read(path)
    except kind.refusals as error:
        return "refused", str(getattr(error, "what", error))[:150]
    except Exception as error:  # noqa: BLE001 - that is what is sought
        return "foreign error", f"{type(error).__name__}: {error}"[:300]
    if mutant.weights is not None and weights != mutant.weights:
        return "differs", "in its weights"
    if mutant.rest is not None and rest != mutant.rest:
        return "differs", "in what it says"
    return "accepted", ""


def work(first: int, end: int, seed: int, names: Sequence[str], network: bool) -> None:
    """Read the files of these numbers; a line of JSON before each, and one after it."""
    pipe = os.dup(1)
    os.dup2(2, 1)  # some networks of timm print when they are built
    kinds = [KINDS[name]() for name in names]
    _warm(kinds)
    if not network and not leave_network():
        raise SystemExit("this process cannot be taken off the network")
    bound(data=_DATA, file=64 << 20)
    watch = Watch(
        (*FORBIDDEN, *OF_A_READER),
        writes=True,
        spare=(sys.prefix, sys.base_prefix, str(GOLDEN.parents[1] / "src"), "<frozen"),
    )
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, end):
            kind, which, mutant = mutant_of(number, seed, kinds)
            _say(pipe, {"begun": number, "kind": kind.name, "how": mutant.how})
            path = Path(folder) / f"file{_ending(kind, which)}"
            path.write_bytes(mutant.data)
            path.with_suffix(".which").write_text(str(which))
            forget_peak()
            began = time.process_time()
            with watch.on() as seen:
                ended, detail = judged(kind, mutant, path)
            events = [each for each in seen if kind.own not in each]
            seconds = time.process_time() - began
            told = {"end": ended, "detail": detail, "seconds": seconds, "bytes": peak_bytes(), "events": events[:5]}
            _say(pipe, {"number": number, "kind": kind.name, "how": mutant.how, **told})


def _warm(kinds: Sequence[Kind]) -> None:
    """What is imported on first use, by refusals too, is imported before the watch begins."""
    f"{torch.ones(2)}{torch.ones(2).to_sparse()}".strip()
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            for which, data in enumerate(kind.seeds):
                for content in (data, data[: len(data) // 2], b"no file of ours"):
                    path = Path(folder) / f"file{_ending(kind, which)}"
                    path.write_bytes(content)
                    path.with_suffix(".which").write_text(str(which))
                    judged(kind, Mutant(content, "", None, None), path)


def _ending(kind: Kind, which: int) -> str:
    return (
        ".safetensors"
        if kind.name == "weights" and which == 0
        else f".{kind.name.rpartition('.')[2]}".replace(" ", "-")
    )


def _say(pipe: int, value: Mapping[str, Any]) -> None:
    os.write(pipe, json.dumps(value).encode("ascii") + b"\n")


# --- the process that watches it ------------------------------------------------------------------------------------


def outcomes(files: int, seed: int, names: Sequence[str], network: bool) -> Iterator[Outcome]:
    """What came of every file; a reader that dies is replaced by one that goes on with the file after."""
    first = 0
    while first < files:
        end = min(files, first + FILES_PER_PROCESS)
        order = [str(first), str(end), str(seed), ",".join(names), str(int(network))]
        reader = subprocess.Popen(
            [sys.executable, __file__, "--read", *order],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        begun: dict[str, Any] = {}
        try:
            for told in _lines(reader):
                if "begun" in told:
                    begun = told
                    continue
                begun = {}
                first = told["number"] + 1
                yield Outcome(**{**told, "events": tuple(told["events"])})
        except GeneratorExit:
            reader.kill()
            raise
        finally:
            if reader.stdout is not None:
                reader.stdout.close()
        code = reader.wait()
        if begun:
            first = begun["begun"] + 1
            hung = "hung" if code == _HUNG else "crashed"
            yield Outcome(begun["begun"], begun["kind"], begun["how"], hung, f"exit code {code}")
        elif code:
            raise SystemExit(f"a reader did not begin: exit code {code}")


_HUNG = -9


def _lines(reader: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """What a reader says; it is killed where it says nothing for too long in the middle of a file."""
    if reader.stdout is None:
        raise AssertionError("it has a pipe")
    waiting = selectors.DefaultSelector()
    waiting.register(reader.stdout, selectors.EVENT_READ)
    rest, patience = b"", 600.0  # it imports torch, on a machine that may be busy
    while waiting.select(patience):
        patience = HANGS_AFTER
        piece = os.read(reader.stdout.fileno(), 1 << 16)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from map(json.loads, lines)
    reader.kill()


@dataclass
class Tally:
    """What all files came to.

    Attributes:
        files: how many there were.
        ends: how many ended how, by kind.
        slowest, largest: seconds of the processor, and bytes; and of which file.
        faults: what was not as promised.
    """

    files: int = 0
    ends: dict[str, Counter[str]] = field(default_factory=dict)
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[int, str] = (0, "")
    faults: list[str] = field(default_factory=list)

    def take(self, outcome: Outcome) -> None:
        """One file more."""
        self.files += 1
        self.ends.setdefault(outcome.kind, Counter())[outcome.end] += 1
        which = f"{outcome.number}: {outcome.kind}, {outcome.how}, {outcome.end}"
        self.slowest = max(self.slowest, (outcome.seconds, which))
        self.largest = max(self.largest, (outcome.bytes, which))
        self.faults += outcome.faults

    def figure(self, wanted: int) -> Figure:
        """All of it in one line; it is held where so many files were read."""
        total = sum(self.ends.values(), Counter[str]())
        crashed, wrong = total["crashed"] + total["hung"], total["differs"]
        watched = sum("did " in fault for fault in self.faults)
        text = (
            f"{self.files:,} files: {crashed} crashes, {wrong} wrong weights accepted, "
            f"{total['foreign error']} foreign errors, {watched} watched events, "
            f"slowest {self.slowest[0]:.1f} s, {self.largest[0] >> 20} MB; "
            f"{total['refused']:,} refused, {total['accepted']:,} accepted as they were written"
        )
        figures: dict[str, Any] = {"ends": {kind: dict(ends) for kind, ends in self.ends.items()}}
        figures |= {"files": self.files, "slowest": self.slowest, "largest": self.largest}
        return Figure("R8", not self.faults and self.files >= wanted > 0, text, figures, tuple(self.faults[:40]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, read and judge the files."""
    options = parser(__doc__)
    options.add_argument("--files", type=int, default=10_000, help="how many")
    options.add_argument("--minutes", type=float, default=600.0, help="end after so many, with what was read by then")
    options.add_argument("--kinds", default=",".join(KINDS), help="which, separated by commas")
    options.add_argument("--network", action="store_true", help="where the system does not let it be taken away")
    options.add_argument("--read", nargs=5, metavar="ORDER", help="what the reading process is started with")
    given = options.parse_args(arguments)
    if given.read:
        first, end, seed, names, network = given.read
        work(int(first), int(end), int(seed), names.split(","), network == "1")
        return 0
    tally, end = Tally(), time.monotonic() + 60 * given.minutes
    for outcome in outcomes(given.files, given.seed, given.kinds.split(","), given.network):
        tally.take(outcome)
        for fault in outcome.faults:
            print(fault, flush=True)
        if tally.files % 500 == 0:
            print(f"{tally.files:,} files", file=sys.stderr, flush=True)
        if time.monotonic() > end:
            break
    return conclude(tally.figure(given.files), given.json)


if __name__ == "__main__":
    sys.exit(main())
