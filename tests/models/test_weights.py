from __future__ import annotations

import os
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from automl_vision.errors import WeightsError
from automl_vision.models import weight_pins
from automl_vision.models import weights as weights_module
from automl_vision.models.backbones import backbone
from automl_vision.models.classifier import build_classifier
from automl_vision.models.weight_pins import pins_file
from automl_vision.models.weights import (
    WEIGHT_SOURCES,
    WeightSource,
    find_weights,
    hub_reachable,
    load_weights,
    read_weights,
    require_weights,
    weights_here,
)

TINY = "test_efficientnet.r160_in1k"


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    weights_module._answers.cache_clear()
    yield
    weights_module._answers.cache_clear()


@pytest.fixture(scope="module")
def tiny_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return timm.create_model(TINY, pretrained=False).state_dict()


def lay_out_cache(cache: Path, name: str, state: dict[str, torch.Tensor]) -> None:
    revision = "0" * 40
    repository = cache / f"models--timm--{name}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    save_file(state, snapshot / "model.safetensors")


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.fixture
def silent_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield


def test_the_embedded_package_is_loaded_by_position() -> None:
    row = backbone("efficientnet_lite0")
    source = find_weights(row, offline=True)
    assert source is not None and source.kind == "package"
    weights = load_weights(source, row)
    raw = torch.load(source.location, weights_only=True)
    assert len(weights) == 296
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(weights.values(), raw.values(), strict=True))
    classifier = build_classifier("efficientnet_lite0", 3, resolution=64, weights=weights)
    assert torch.equal(classifier.backbone.conv_stem.weight, weights["conv_stem.weight"])


def test_the_hub_cache_is_read(tmp_path: Path, tiny_state: dict[str, torch.Tensor]) -> None:
    lay_out_cache(tmp_path / "hub", TINY, tiny_state)
    row = backbone(TINY)
    source = find_weights(row, offline=True)
    assert source is not None and source.kind == "cache"
    classifier = build_classifier(TINY, 4, resolution=32, weights=load_weights(source, row))
    loaded = classifier.backbone.state_dict()
    assert all(torch.equal(loaded[name], tiny_state[name]) for name in loaded)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_users_file_comes_first(tmp_path: Path, tiny_state: dict[str, torch.Tensor], suffix: str) -> None:
    lay_out_cache(tmp_path / "hub", TINY, {"x": torch.zeros(1)})
    file = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{name}": t for name, t in tiny_state.items()}}, file)
    else:
        save_file(tiny_state, file)
    row = backbone(TINY)
    source = find_weights(row, {"test_efficientnet": str(file)})
    assert source is not None and source.kind == "file"
    loaded = load_weights(source, row)
    assert loaded.keys() == tiny_state.keys()
    assert all(torch.equal(loaded[name], tiny_state[name]) for name in loaded)


def test_a_users_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        find_weights(backbone(TINY), {TINY: str(tmp_path / "nowhere.pth")})


class _Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self.path,))


def test_code_in_a_weights_file_is_not_run(tmp_path: Path) -> None:
    file, mark = tmp_path / "bad.pth", tmp_path / "was_here"
    torch.save({"weight": _Touch(str(mark))}, file)
    source = find_weights(backbone(TINY), {TINY: str(file)})
    assert source is not None
    with pytest.raises(WeightsError, match="cannot be read") as caught:
        load_weights(source, backbone(TINY))
    assert not mark.exists()
    assert "weights_only" not in str(caught.value).lower()
    assert "weights only" not in str(caught.value).lower()  # torch's advice to switch the safety off


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\x08\0\0\0\0\0\0\0{}      ", b"\x80\x02h\x05.", b"\x80\x02.", b"\x80\x02}(."]
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_file_is_a_weights_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"bad{suffix}"
    file.write_bytes(content)
    source = find_weights(backbone(TINY), {TINY: str(file)})
    assert source is not None
    with pytest.raises(WeightsError):
        load_weights(source, backbone(TINY))


def test_a_tensor_that_the_file_does_not_hold_is_no_weight(tmp_path: Path) -> None:
    """By its strides one number passes for a million millions; whoever copied them would fill the memory."""
    file = tmp_path / "wide.pth"
    torch.save({"conv_stem.weight": torch.ones(1).expand(10**12)}, file)
    with pytest.raises(WeightsError, match="more than weights"):
        read_weights(file)
    torch.save({"conv_stem.weight": torch.eye(3).to_sparse()}, file)
    with pytest.raises(WeightsError):
        read_weights(file)


def test_names_of_gigabytes_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "wide.safetensors"
    file.write_bytes((90 << 20).to_bytes(8, "little") + b" " * 1000)
    with pytest.raises(WeightsError, match="names take"):
        read_weights(file)


def test_another_networks_weights_are_refused(tiny_state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsError, match="do not fit test_resnet"):
        build_classifier("test_resnet", 3, resolution=32, weights=tiny_state)
    wrong = tiny_state | {"conv_stem.weight": torch.zeros(1, 3, 3, 3)}
    with pytest.raises(WeightsError, match=r"conv_stem\.weight has shape"):
        build_classifier(TINY, 3, resolution=32, weights=wrong)


@pytest.mark.parametrize("endpoint", ["closed_port", "silent_port"])
def test_an_unreachable_hub_is_told_within_seconds(endpoint: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(endpoint)
    started = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        require_weights(backbone("convnext_tiny"))
    assert time.monotonic() - started < 5
    message = str(caught.value)
    assert "efficientnet_lite0" in message
    assert "--no-pretrained" in message and "--weights convnext_tiny=" in message
    started = time.monotonic()
    assert not hub_reachable()
    assert time.monotonic() - started < 0.1  # remembered


def test_offline_never_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "_ask", lambda endpoint: pytest.fail("asked"))
    assert find_weights(backbone("convnext_tiny"), offline=True) is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find_weights(backbone("convnext_tiny")) is None


def test_an_address_that_is_none_is_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    assert not hub_reachable()


def test_what_is_here_is_listed() -> None:
    assert "efficientnet_lite0" in weights_here()
    assert list(WEIGHT_SOURCES) == ["file", "package", "cache", "hub"]


def test_a_download_goes_through_the_hub_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_state: dict[str, torch.Tensor]
) -> None:
    save_file(tiny_state, tmp_path / "model.safetensors")
    monkeypatch.setattr(weights_module, "_ask", lambda endpoint: True)

    def download(repository: str, name: str, **_: object) -> str:
        assert repository == f"timm/{TINY}"
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    source = find_weights(backbone(TINY))
    assert source is not None and source.kind == "hub"
    assert load_weights(source, backbone(TINY)).keys() == tiny_state.keys()


def test_a_download_that_fails_is_a_weights_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("the connection broke")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    source = WeightSource("hub", f"timm/{TINY}", "")
    with pytest.raises(WeightsError, match=r"did not give the weights(.|\n)*--no-pretrained"):
        load_weights(source, backbone(TINY))


def test_a_server_that_speaks_something_else_is_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")

        def mumble() -> None:
            connection, _ = listener.accept()
            connection.recv(1024)
            connection.sendall(b"220 mail here\r\n")
            connection.close()

        speaker = threading.Thread(target=mumble, daemon=True)
        speaker.start()
        assert not hub_reachable()
        speaker.join(2)


# --- what weights were when they were first used --------------------------------------------------------------------


def found_in_cache() -> dict[str, torch.Tensor]:
    source = find_weights(backbone(TINY), offline=True)
    assert source is not None and source.kind == "cache"
    return load_weights(source, backbone(TINY))


def exchange(cache: Path, state: dict[str, torch.Tensor]) -> None:
    shutil.rmtree(cache, ignore_errors=True)
    lay_out_cache(cache, TINY, state)


def test_weights_that_were_exchanged_are_refused(tmp_path: Path, tiny_state: dict[str, torch.Tensor]) -> None:
    exchange(tmp_path / "hub", tiny_state)
    found_in_cache()
    assert found_in_cache().keys() == tiny_state.keys()  # the same ones, again and again
    assert stat.S_IMODE(pins_file().stat().st_mode) == 0o600
    exchange(tmp_path / "hub", {name: tensor + 1 for name, tensor in tiny_state.items()})
    with pytest.raises(WeightsError, match=r"not those that were used before(.|\n)*remove their line from"):
        found_in_cache()
    pins_file().unlink()  # as the message says
    assert found_in_cache().keys() == tiny_state.keys()


def test_the_package_is_compared_with_what_came_with_this_program(monkeypatch: pytest.MonkeyPatch) -> None:
    row = backbone("efficientnet_lite0")
    source = find_weights(row, offline=True)
    assert source is not None
    load_weights(source, row)
    assert not pins_file().exists()
    monkeypatch.setattr(weight_pins, "SHIPPED", dict.fromkeys(weight_pins.SHIPPED, "0" * 64))
    with pytest.raises(WeightsError, match="not those that were used before"):
        load_weights(source, row)


def test_the_hub_is_asked_for_the_revision_that_was_first_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_state: dict[str, torch.Tensor]
) -> None:
    asked: list[object] = []
    file = tmp_path / "snapshots" / ("a" * 40) / "model.safetensors"
    file.parent.mkdir(parents=True)
    save_file(tiny_state, file)

    def download(*_: object, revision: str | None, **__: object) -> str:
        asked.append(revision)
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    source = WeightSource("hub", f"timm/{TINY}", "")
    for _ in range(2):
        load_weights(source, backbone(TINY))
    assert asked == [None, "a" * 40]


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", '{"a": 1}', "\x00"])
def test_a_damaged_file_of_digests_is_named(tmp_path: Path, tiny_state: dict[str, torch.Tensor], content: str) -> None:
    lay_out_cache(tmp_path / "hub", TINY, tiny_state)
    pins_file().parent.mkdir(parents=True)
    pins_file().write_text(content)
    with pytest.raises(WeightsError, match=r"weights\.json(.|\n)*remove it"):
        found_in_cache()


def test_programs_of_the_hub_are_not_looked_for(tmp_path: Path, tiny_state: dict[str, torch.Tensor]) -> None:
    """What `torch.save` wrote cannot run here either, but nothing of the hub needs it."""
    lay_out_cache(tmp_path / "hub", TINY, tiny_state)
    (file,) = (tmp_path / "hub").rglob("model.safetensors")
    torch.save(tiny_state, file.with_name("pytorch_model.bin"))
    file.unlink()
    assert find_weights(backbone(TINY), offline=True) is None
