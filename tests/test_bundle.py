"""model.pt: a whole one comes back; whatever else a file may hold, one error comes out."""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest
import torch

from automl_vision.bundle import MAGIC, VERSION, Bundle, Network, _checked, digest, load_bundle, save_bundle
from automl_vision.data.fingerprint import Fingerprint, Marks
from automl_vision.data.preprocess import Preprocessing
from automl_vision.errors import ModelFileError
from automl_vision.models.classifier import Classifier, build_classifier
from automl_vision.runtime import Runtime
from automl_vision.tensor_file import save_tensors

ARCHITECTURE = "mobilenetv3_small_100"
NAMES = ("cat", "dog [/]", "Ätna\n")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle(
        backbone=ARCHITECTURE,
        head="linear",
        class_names=NAMES,
        preprocessing=Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        temperature=1.25,
        state_dict=build_classifier(ARCHITECTURE, 3, resolution=32, seed=1).state_dict(),
        provenance={"trial": 3, "test": {"accuracy": 0.9}, "looks": [1, None]},
    )


@pytest.fixture(scope="module")
def whole(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_bundle(bundle, path)
    return path


@pytest.fixture(scope="module")
def content(whole: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(whole, weights_only=True)
    return loaded


def network(bundle: Bundle) -> Classifier:
    """The network of a model that has one."""
    (only,) = bundle.networks
    return only.classifier(len(bundle.class_names))


# --- what comes back ------------------------------------------------------------------------------------------------


def test_everything_comes_back(bundle: Bundle, whole: Path) -> None:
    loaded = load_bundle(whole)
    assert replace(loaded, state_dict={}) == replace(bundle, state_dict={})
    assert loaded.state_dict.keys() == bundle.state_dict.keys()
    assert all(torch.equal(tensor, bundle.state_dict[name]) for name, tensor in loaded.state_dict.items())


def test_the_network_says_what_it_said(bundle: Bundle, whole: Path) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before, after = network(bundle)(images), network(load_bundle(whole))(images)
    assert torch.equal(before, after)


# tiny_vit has tables of positions that no state dict holds
@pytest.mark.parametrize("backbone", ["mobilenetv3_small_100", "resnet18", "tiny_vit_5m"])
@pytest.mark.parametrize("head", ["linear", "mlp:16-gelu"])
def test_a_network_made_from_its_weights_alone_is_the_one_they_were_taken_from(backbone: str, head: str) -> None:
    size = 224 if backbone == "tiny_vit_5m" else 64
    net = build_classifier(backbone, 3, resolution=size, head=head, seed=1).eval()
    described = Network(backbone, head, Preprocessing(size, (0.5,) * 3, (0.5,) * 3), net.state_dict())
    made = described.classifier(3)
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(made(images), net(images))
    assert not made.training
    assert {each.device.type for each in [*made.parameters(), *made.buffers()]} == {"cpu"}


def test_a_network_keeps_its_hands_off_the_weights_it_was_made_from(bundle: Bundle) -> None:
    before = digest(bundle.state_dict)
    net = network(bundle)
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            tensor.add_(1)
    assert digest(bundle.state_dict) == before


def test_weights_of_half_precision_are_computed_with_in_full(bundle: Bundle) -> None:
    half = {name: each.half() if each.is_floating_point() else each for name, each in bundle.state_dict.items()}
    net = network(replace(bundle, state_dict=half))
    assert {each.dtype for each in net.parameters()} == {torch.float32}
    assert torch.equal(net.head.weight, half["head.weight"].float())  # type: ignore[arg-type] # a linear head


def test_a_head_of_layers_is_rebuilt_from_its_description(bundle: Bundle, tmp_path: Path) -> None:
    net = build_classifier(ARCHITECTURE, 3, resolution=32, head="mlp:16-gelu,8-tanh", seed=1).eval()
    layered = replace(bundle, head="mlp:16-gelu,8-tanh", state_dict=net.state_dict())
    save_bundle(layered, tmp_path / "model.pt")
    again = load_bundle(tmp_path / "model.pt")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(network(again)(images), net(images))


def test_files_of_earlier_formats_are_read(content: dict[str, Any], bundle: Bundle, tmp_path: Path) -> None:
    described = json.loads(content["meta"])
    del described["preprocessing"]["decode_side"]  # new in version 5
    old = json.dumps({name: each for name, each in described.items() if name not in NEW_IN_VERSION_4})
    for version in range(1, VERSION):
        save_tensors(tmp_path / "model.pt", {**content, "version": version, "meta": old})
        loaded = load_bundle(tmp_path / "model.pt")
        assert replace(loaded, state_dict={}) == replace(bundle, state_dict={})


NEW_IN_VERSION_4 = ("flip", "share", "others", "class_bias")


@pytest.fixture(scope="module")
def three(bundle: Bundle) -> Bundle:
    """Three networks, two architectures and sides; one of them mirrors."""

    def other(seed: int, head: str, side: int, *, flip: bool, share: float) -> Network:
        net = build_classifier(ARCHITECTURE, 3, resolution=side, head=head, seed=seed)
        return Network(ARCHITECTURE, head, replace(bundle.preprocessing, size=side), net.state_dict(), flip, share)

    others = other(2, "linear", 32, flip=True, share=0.25), other(3, "mlp:8-gelu", 64, flip=False, share=0.25)
    return replace(bundle, share=0.5, others=others, class_bias=(0.0, 0.5, 1.25))


@pytest.fixture(scope="module")
def content_of_three(three: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_bundle(three, path)
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


def test_how_images_are_decoded_comes_back(bundle: Bundle, tmp_path: Path) -> None:
    drafting = replace(bundle, preprocessing=replace(bundle.preprocessing, decode_side=320))
    save_bundle(drafting, tmp_path / "model.pt")
    assert load_bundle(tmp_path / "model.pt").preprocessing.decode_side == 320


def test_networks_that_want_images_decoded_differently_are_refused(three: Bundle, tmp_path: Path) -> None:
    save_bundle(replace(three, preprocessing=replace(three.preprocessing, decode_side=320)), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="decoded or resized in different ways"):
        load_bundle(tmp_path / "model.pt")


def test_how_images_are_resized_comes_back(bundle: Bundle, tmp_path: Path) -> None:
    middles = replace(bundle, preprocessing=replace(bundle.preprocessing, resize="middle"))
    save_bundle(middles, tmp_path / "model.pt")
    assert load_bundle(tmp_path / "model.pt").preprocessing.resize == "middle"
    assert load_bundle(tmp_path / "model.pt").preprocessing != bundle.preprocessing


def test_networks_that_want_other_parts_of_an_image_are_refused(three: Bundle, tmp_path: Path) -> None:
    save_bundle(replace(three, preprocessing=replace(three.preprocessing, resize="middle")), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="resized in different ways"):
        load_bundle(tmp_path / "model.pt")


def test_an_ensemble_comes_back_and_says_what_it_said(three: Bundle, tmp_path: Path) -> None:
    save_bundle(three, tmp_path / "model.pt")
    loaded = load_bundle(tmp_path / "model.pt")
    runtime = Runtime(torch.device("cpu"), None, 1)
    assert loaded.class_bias == three.class_bias
    assert [replace(each, state_dict={}) for each in loaded.networks] == [
        replace(each, state_dict={}) for each in three.networks
    ]
    images = {
        side: torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        for side in (32, 64)
    }
    said = [
        each.probabilities(each.ensemble(runtime).log_probabilities(lambda side: [images[side]]))
        for each in (three, loaded)
    ]
    assert np.array_equal(*said)
    assert said[0].sum(axis=1) == pytest.approx(1)


def test_no_image_is_no_row(bundle: Bundle) -> None:
    assert bundle.probabilities(np.zeros((0, 0))).shape == (0, 3)


def described(place: int, **changes: Any) -> Change:
    """Other values in the description of another network."""

    def change(content: dict[str, Any]) -> None:
        others = json.loads(content["meta"])["others"]
        others[place].update(changes)
        meta(others=others)(content)

    return change


WRONG_OF_THREE: dict[str, Callable[[dict[str, Any]], None]] = {
    "no weights of the others": lambda content: content.pop("others"),
    "weights of one only": lambda content: content["others"].pop("1"),
    "weights of one more": lambda content: content["others"].update({"2": content["others"]["1"]}),
    "weights in another order": lambda content: content.update(others=dict(reversed(content["others"].items()))),
    "weights exchanged": lambda content: content.update(
        others={"0": content["others"]["1"], "1": content["others"]["0"]}
    ),
    "others in a list": lambda content: content.update(others=list(content["others"].values())),
    "a changed weight of another": lambda content: content["others"]["1"]["head.0.bias"].add_(1e-6),
    "a description less": lambda content: meta(others=json.loads(content["meta"])["others"][:1])(content),
    "a description more": lambda content: meta(others=3 * json.loads(content["meta"])["others"][:1])(content),
    "others that are no list": lambda content: meta(others={})(content),
    "others that are texts": lambda content: meta(others=["a", "b"])(content),
    "a hub's architecture": lambda content: described(0, backbone="hf-hub:evil/x")(content),
    "another head": lambda content: described(0, head="mlp:8-gelu")(content),
    "shares that sum to less": lambda content: described(0, share=0.2)(content),
    "a share of nothing": lambda content: described(0, share=0.0)(content),
    "a negative share": lambda content: described(0, share=-0.25)(content),
    "a whole share": lambda content: described(0, share=1)(content),
    "a share that is text": lambda content: described(0, share="0.25")(content),
    "a flip that is a number": lambda content: described(0, flip=1)(content),
    "biases for two classes": lambda content: meta(class_bias=[0.0, 1.0])(content),
    "a bias that is whole": lambda content: meta(class_bias=[0.0, 1.0, 2])(content),
    "a bias without bounds": lambda content: meta(class_bias=[0.0, 1.0, 1e9])(content),
    "a bias that is no number": lambda content: meta(class_bias=[0.0, 1.0, None])(content),
    "biases in a text": lambda content: meta(class_bias="abc")(content),
}


@pytest.mark.parametrize("change", WRONG_OF_THREE.values(), ids=WRONG_OF_THREE)
def test_an_ensemble_with_anything_else_in_it_is_refused(
    tmp_path: Path, content_of_three: dict[str, Any], change: Callable[[dict[str, Any]], None]
) -> None:
    own = copy.deepcopy(content_of_three)
    change(own)
    torch.save(own, tmp_path / "model.pt")
    refused(tmp_path / "model.pt")


def test_a_file_is_the_same_whatever_the_layout_of_its_tensors(bundle: Bundle, tmp_path: Path) -> None:
    other = {
        name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in bundle.state_dict.items()
    }
    save_bundle(replace(bundle, state_dict=other), tmp_path / "model.pt")
    loaded = load_bundle(tmp_path / "model.pt")
    assert digest(loaded.state_dict) == digest(bundle.state_dict)


def test_half_precision_weights_are_weights(bundle: Bundle, tmp_path: Path) -> None:
    halved = {name: t.half() if t.is_floating_point() else t for name, t in bundle.state_dict.items()}
    save_bundle(replace(bundle, state_dict=halved), tmp_path / "model.pt")
    assert network(load_bundle(tmp_path / "model.pt"))(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_torch_alone_can_read_it(content: dict[str, Any]) -> None:
    assert (content["magic"], content["version"]) == (MAGIC, VERSION)
    assert json.loads(content["meta"])["class_names"] == list(NAMES)


FINGERPRINT = Fingerprint(
    seen=Marks.of(["ff" * 16, "01" * 16], ["8000000000000001", "0000000000000007"]), test=Marks.of(["02" * 16], [])
)


def test_a_fingerprint_comes_back(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(replace(bundle, fingerprint=FINGERPRINT), tmp_path / "model.pt")
    loaded = load_bundle(tmp_path / "model.pt").fingerprint
    assert loaded is not None
    for name in ("seen", "test"):
        for kind in ("digests", "hashes"):
            ours, theirs = (getattr(getattr(each, name), kind) for each in (FINGERPRINT, loaded))
            assert ours.dtype == theirs.dtype == np.uint64
            assert ours.tolist() == theirs.tolist()


def test_fifty_thousand_images_take_less_than_a_megabyte(bundle: Bundle, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    digests, hashes = ([f"{n:016x}" for n in chance.integers(0, 2**63, 50_000)] for _ in range(2))
    for name, fingerprint in (("with", Fingerprint(Marks.of(digests, hashes), Marks.of([], []))), ("without", None)):
        save_bundle(replace(bundle, fingerprint=fingerprint), tmp_path / name)
    assert (tmp_path / "with").stat().st_size - (tmp_path / "without").stat().st_size < 1_000_000


def test_a_file_of_version_1_has_no_fingerprint(content: dict[str, Any], tmp_path: Path) -> None:
    save_tensors(tmp_path / "old.pt", {**content, "version": 1})
    assert load_bundle(tmp_path / "old.pt").fingerprint is None


def test_figures_that_are_not_finite_are_not_written(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save_bundle(replace(bundle, provenance={"score": math.nan}), tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


# --- what does not come in ------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], None]


def meta(**changes: Any) -> Change:
    """Other values in the description, with everything else as it should be."""

    def change(content: dict[str, Any]) -> None:
        content["meta"] = json.dumps({**json.loads(content["meta"]), **changes})

    return change


def without_meta(name: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        content["meta"] = json.dumps({k: v for k, v in json.loads(content["meta"]).items() if k != name})

    return change


def prepared(**changes: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        known = json.loads(content["meta"])["preprocessing"]
        meta(preprocessing={**known, **changes})(content)

    return change


def field(name: str, value: Any) -> Change:
    return lambda content: content.update({name: value})


def tensor(name: str, make: Callable[[torch.Tensor], Any]) -> Change:
    """Another tensor under a name, with a digest that agrees."""

    def change(content: dict[str, Any]) -> None:
        state = content["state_dict"]
        state[name] = make(state.get(name, torch.ones(2)))
        sign(content)

    return change


def sign(content: dict[str, Any]) -> None:
    plain = {
        k: v for k, v in content["state_dict"].items() if isinstance(v, torch.Tensor) and v.layout == torch.strided
    }
    small = {k: v for k, v in plain.items() if v.numel() < 10**7 and v.device.type == "cpu"}
    meta(digest=digest(small))(content)


def less(name: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        del content["state_dict"][name]
        sign(content)

    return change


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def marks(name: str, value: Any) -> Change:
    """A whole fingerprint with another list under a name, with a digest that agrees where there can be one."""

    def change(content: dict[str, Any]) -> None:
        tensors = {f"{one}_{two}": torch.arange(3) for one in ("seen", "test") for two in ("digests", "hashes")}
        tensors[name] = value
        content["fingerprint"] = tensors
        plain = {k: v for k, v in tensors.items() if isinstance(v, torch.Tensor) and v.layout == torch.strided}
        meta(fingerprint_digest=digest(plain))(content)

    return change


def unsigned_marks(content: dict[str, Any]) -> None:
    marks("seen_digests", torch.arange(4))(content)
    meta(fingerprint_digest="00")(content)


BIAS, STEM, COUNT = "head.bias", "backbone.conv_stem.weight", "backbone.bn1.num_batches_tracked"
WRONG: dict[str, Change] = {
    "fingerprint without a digest": field("fingerprint", {}),
    "a digest without a fingerprint": meta(fingerprint_digest="00"),
    "fingerprint of another digest": unsigned_marks,
    "fingerprint is a list": field("fingerprint", [1, 2]),
    "fingerprint is a tensor": field("fingerprint", torch.arange(3)),
    "fingerprint with more": marks("hook", torch.arange(3)),
    "fingerprint of fractions": marks("seen_hashes", torch.ones(3)),
    "fingerprint of text": marks("seen_hashes", "abc"),
    "fingerprint of a matrix": marks("seen_hashes", torch.arange(4).reshape(2, 2)),
    "fingerprint of a number": marks("seen_hashes", torch.tensor(3)),
    "fingerprint that skips": marks("seen_hashes", torch.arange(6)[::2]),
    "fingerprint in disorder": marks("seen_hashes", torch.tensor([2, 1])),
    "fingerprint with repetitions": marks("seen_hashes", torch.tensor([1, 1])),
    "no magic": lambda content: content.pop("magic"),
    "another magic": field("magic", "someone else's model"),
    "magic of tensors": field("magic", torch.ones(3)),
    "magic of lists": field("magic", [MAGIC]),
    "something more": field("hook", "os.system"),
    "no version": lambda content: content.pop("version"),
    "newer version": field("version", VERSION + 1),
    "enormous version": field("version", 10**300),
    "version 0": field("version", 0),
    "version -1": field("version", -1),
    "version True": field("version", True),
    "version 1.0": field("version", 1.0),
    "version as text": field("version", "1"),
    "version as tensor": field("version", torch.tensor(1)),
    "meta is no JSON": field("meta", "{'a': 1"),
    "meta is empty": field("meta", ""),
    "meta is a list": field("meta", "[]"),
    "meta is a number": field("meta", "1"),
    "meta is a table": field("meta", {"backbone": ARCHITECTURE}),
    "meta is nothing": field("meta", None),
    "meta 200,000 levels deep": field("meta", "[" * 200_000 + "]" * 200_000),
    "meta with a number of 100,000 digits": field("meta", '{"temperature": ' + "9" * 100_000 + "}"),
    "state is a list": field("state_dict", [torch.ones(2)]),
    "state is text": field("state_dict", "weights"),
    "state is nothing": field("state_dict", None),
    "state is empty": field("state_dict", {}),
    "names that are numbers": field("state_dict", {1: torch.ones(2)}),
    "temperature NaN": lambda content: content.update(
        meta=re.sub(r'"temperature": [\d.]+', '"temperature": NaN', content["meta"])
    ),
    "temperature infinite": lambda content: content.update(
        meta=re.sub(r'"temperature": [\d.]+', '"temperature": Infinity', content["meta"])
    ),
    "temperature 0": meta(temperature=0.0),
    "temperature negative": meta(temperature=-1.0),
    "temperature whole": meta(temperature=1),
    "temperature as text": meta(temperature="1.0"),
    "temperature true": meta(temperature=True),
    "no temperature": without_meta("temperature"),
    "classes twice": meta(class_names=["a", "b", "a"]),
    "no classes": meta(class_names=[]),
    "one class": meta(class_names=["a"]),
    "two classes of three": meta(class_names=["a", "b"]),
    "a million classes": meta(class_names=[str(number) for number in range(10**6)]),
    "classes that are numbers": meta(class_names=[1, 2, 3]),
    "classes that are lists": meta(class_names=[["a"], ["b"], ["c"]]),
    "classes in one text": meta(class_names="abc"),
    "an endless class name": meta(class_names=["a" * 10**6, "b", "c"]),
    "half a pair of surrogates": meta(class_names=["\ud800", "b", "c"]),
    "no class names": without_meta("class_names"),
    "a hub's architecture": meta(backbone="hf-hub:evil/x"),
    "an architecture on this disk": meta(backbone="local-dir:/tmp"),
    "a path as architecture": meta(backbone="../x"),
    "an address as architecture": meta(backbone="https://evil.example/x"),
    "an architecture nobody knows": meta(backbone="no_such_net"),
    "no name of an architecture": meta(backbone=""),
    "an endless architecture": meta(backbone="a" * 10**6),
    "two lines of architecture": meta(backbone=ARCHITECTURE + "\n"),
    "an architecture in a list": meta(backbone=[ARCHITECTURE]),
    "another architecture": meta(backbone="mobilenetv3_large_100"),
    "a larger architecture": meta(backbone="resnet50"),
    "an architecture of fixed patches": lambda content: (
        meta(backbone="vit_small")(content),
        prepared(size=33)(content),
    ),
    "an unknown head": meta(head="__import__('os')"),
    "a head that is a list": meta(head=["linear"]),
    "a head of layers that are not there": meta(head="mlp:256-gelu"),
    "a head without end": meta(head="mlp:" + ",".join(["8192-gelu"] * 10_000)),
    "a head that calls": meta(head="mlp:256-__class__"),
    "resolution 0": prepared(size=0),
    "resolution negative": prepared(size=-32),
    "resolution enormous": prepared(size=10**9),
    "resolution of 300 digits": prepared(size=10**300),
    "resolution 32.0": prepared(size=32.0),
    "resolution true": prepared(size=True),
    "mean of two": prepared(mean=[0.5, 0.5]),
    "mean of texts": prepared(mean=["0.5"] * 3),
    "std 0": prepared(std=[0.5, 0.0, 0.5]),
    "another way to resize": prepared(resize="eval"),
    "preprocessing with more in it": prepared(script="rm -rf /"),
    "preprocessing as text": meta(preprocessing="standard"),
    "no preprocessing": without_meta("preprocessing"),
    "provenance as text": meta(provenance="from a friend"),
    "no digest": without_meta("digest"),
    "another digest": meta(digest="0" * 64),
    "a digest of no type": meta(digest=None),
    "a changed weight": lambda content: content["state_dict"][BIAS].add_(1e-6),
    "a tensor less": less(BIAS),
    "a tensor more": tensor("head.extra", lambda _: torch.ones(1)),
    "a tensor of another name": lambda content: (
        less(BIAS)(content),
        tensor("head.offset", lambda _: torch.ones(3))(content),
    ),
    "a tensor of another shape": tensor(BIAS, lambda old: torch.ones(4)),
    "a tensor of one more dimension": tensor(BIAS, lambda old: old[None]),
    "weights in double precision": tensor(BIAS, lambda old: old.double()),
    "weights as whole numbers": tensor(BIAS, lambda old: old.long()),
    "weights as bytes": tensor(BIAS, lambda old: old.byte()),
    "complex weights": tensor(BIAS, lambda old: old.to(torch.complex64)),
    "a count that is no whole number": tensor(COUNT, lambda old: old.float()),
    "a tensor of stride 0": tensor(BIAS, lambda old: torch.ones(1).expand(3)),
    "a tensor of a terabyte from one number": tensor(BIAS, lambda old: torch.ones(1).expand(10**12)),
    "a transposed tensor": tensor(STEM, lambda old: old.transpose(2, 3)),
    "a part of a tensor": tensor(BIAS, lambda old: torch.ones(6)[::2]),
    "a sparse tensor": tensor(BIAS, lambda old: old.to_sparse()),
    "a tensor without memory": tensor(BIAS, lambda old: old.to("meta")),
    "a list for a tensor": tensor(BIAS, lambda old: [1.0, 2.0, 3.0]),
    "a number for a tensor": tensor(BIAS, lambda old: 3),
    "nothing for a tensor": tensor(BIAS, lambda old: None),
    "a quantised tensor": tensor(BIAS, lambda old: torch.quantize_per_tensor(old, 0.1, 0, torch.qint8)),
}


def refused(path: Path, seconds: float = 5.0) -> ModelFileError:
    started = process_time()
    with pytest.raises(ModelFileError) as caught:
        load_bundle(path)
    assert process_time() - started < seconds
    message = str(caught.value)
    assert len(message) < 1500
    assert message.isprintable() or "\n" in message
    assert "weights_only" not in message
    assert str(path) in message
    return caught.value


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:DeprecationWarning")  # of torch, while the file is made
def test_a_file_that_holds_anything_else_is_refused(tmp_path: Path, content: dict[str, Any], change: Change) -> None:
    own = {**content, "state_dict": {name: tensor.clone() for name, tensor in content["state_dict"].items()}}
    change(own)
    path = tmp_path / "model.pt"
    torch.save(own, path)
    refused(path)


def test_a_newer_file_asks_for_an_upgrade(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save({**content, "version": VERSION + 1}, tmp_path / "model.pt")
    assert "upgrade" in refused(tmp_path / "model.pt").fix


def test_nothing_at_the_path_is_said_so(tmp_path: Path) -> None:
    assert "no model file" in refused(tmp_path / "model.pt").what
    refused(tmp_path)
    refused(tmp_path / ("x" * 300))


def with_index(whole: Path, index: bytes) -> bytes:
    """The model file with another `data.pkl`."""
    result = io.BytesIO()
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(result, "w") as new:
        for name in old.namelist():
            new.writestr(name, index if name.endswith("/data.pkl") else old.read(name))
    return result.getvalue()


DEEP = b"]" * 200_000 + b"a" * 199_999  # a list in a list in a list ...


def deep(field: str, content: dict[str, Any]) -> bytes:
    """An index whose `field` is nested too deeply for any recursion."""
    own = {**{name: content[name] for name in ("magic", "version", "meta")}, "state_dict": {}}
    parts = [b"\x80\x02}"]
    for name, value in own.items():
        parts += [pickle.dumps(name, 2)[2:-1], DEEP if name == field else pickle.dumps(value, 2)[2:-1], b"s"]
    # Each dump numbers its own memo; nothing is asked back from it.
    return b"".join([*parts, b"."])


@pytest.mark.parametrize("field", ["magic", "version", "meta", "state_dict"])
def test_nesting_without_end_is_refused(tmp_path: Path, whole: Path, content: dict[str, Any], field: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(with_index(whole, deep(field, content)))
    refused(path, seconds=10.0)


def test_cut_off_anywhere_it_is_refused(tmp_path: Path, whole: Path) -> None:
    data = whole.read_bytes()
    path = tmp_path / "model.pt"
    for end in [0, 1, 3, 22, 100, *range(1000, len(data), len(data) // 20), len(data) - 22, len(data) - 1]:
        path.write_bytes(data[:end])
        refused(path)


def test_flipped_bits_are_refused_or_harmless(tmp_path: Path, whole: Path, bundle: Bundle) -> None:
    data = whole.read_bytes()
    with zipfile.ZipFile(whole) as archive:
        index = next(record for record in archive.infolist() if record.filename.endswith("/data.pkl"))
    path = tmp_path / "model.pt"
    random = np.random.default_rng(0)
    inside = random.integers(0, len(data), 80)
    described = random.integers(index.header_offset, index.header_offset + index.file_size, 60)
    listed = random.integers(len(data) - 22_000, len(data), 60)  # the zip's own directory
    accepted = 0
    for position in (*inside, *described, *listed):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = load_bundle(path)
        except ModelFileError:
            continue
        accepted += 1
        assert replace(loaded, state_dict={}) == replace(bundle, state_dict={})
        assert digest(loaded.state_dict) == digest(bundle.state_dict)
    assert accepted < 100


@pytest.mark.parametrize("name", [BIAS, STEM, COUNT])
def test_the_digest_knows_names_types_shapes_and_values(bundle: Bundle, name: str) -> None:
    state = dict(bundle.state_dict)
    known = digest(state)
    changed = state[name].clone()
    changed.view(-1)[0] += 1
    assert digest(dict(reversed(state.items()))) == known
    assert digest({**state, name: changed}) != known
    assert digest({**state, name: state[name].reshape(1, *state[name].shape)}) != known
    assert digest({**state, name: state[name].double()}) != known
    assert digest({("x" if key == name else key): value for key, value in state.items()}) != known


@pytest.mark.parametrize("value", ["x", 3, None, [[[[]]]], {"a": {}}])
def test_of_what_holds_others_a_fault_names_the_type_alone(value: object) -> None:
    """To write out what holds the same thing many times over takes for ever."""
    with pytest.raises(ValueError, match=r"^meta is out of order, got ('x'|'3'|'None'|a list|a dict)$"):
        _checked(value, float, lambda _: True, "meta")
