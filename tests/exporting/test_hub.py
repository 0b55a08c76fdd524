"""Pushing to the hub: what is sent, what is refused, and a token that nobody sees."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from automl_vision.errors import UsageError
from automl_vision.exporting.export import Exported, Order, export
from automl_vision.exporting.hub import push

SECRET = "hf_secret-of-mine"


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return SECRET


class Refusing(BaseHTTPRequestHandler):
    """A hub that lets nobody write, and remembers who asked."""

    asked: list[tuple[str, str]]

    def do_POST(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Refusing]]:
    handler = type("Handler", (Refusing,), {"asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.usefixtures("token")
def test_a_hub_that_refuses_is_quoted_and_the_token_is_not(hub: type[Refusing], folder_export: Exported) -> None:
    with pytest.raises(UsageError, match="refused") as caught:
        push(folder_export.path, "me/model")
    assert "403" in str(caught.value)
    assert SECRET not in str(caught.value) + repr(caught.value.__dict__)
    assert hub.asked[0] == ("/api/repos/create", f"Bearer {SECRET}"), "the one in the environment, and only there"


@pytest.mark.usefixtures("token")
def test_a_hub_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, folder_export: Exported) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UsageError, match="cannot be reached") as caught:
        push(folder_export.path, "me/model")
    assert "127.0.0.1:9" in str(caught.value)
    assert folder_export.path.is_dir()


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("name", ["me/..", "me/a b", "me/-x-"])
def test_a_name_that_no_repository_can_have(name: str, folder_export: Exported, hub: type[Refusing]) -> None:
    with pytest.raises(UsageError, match="repository"):
        push(folder_export.path, name)
    assert hub.asked == []


def test_without_a_token_nothing_is_begun(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, Path], tmp_path: Path, hub: type[Refusing]
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UsageError, match="token"):
        export(Order(files["single"], "huggingface", out=tmp_path / "out", push_to="me/model"))
    assert not (tmp_path / "out").exists()
    assert hub.asked == []


@pytest.mark.usefixtures("token")
def test_other_formats_are_not_pushed(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--push-to-hub"):
        export(Order(files["single"], "torch-export", out=tmp_path / "out", push_to="me/model"))


@pytest.mark.usefixtures("token")
def test_all_files_go_in_one_commit_into_a_private_repository(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, Path], tmp_path: Path
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    class Hub:
        """What the door asks of huggingface_hub."""

        def __init__(self, *, endpoint: str, token: str) -> None:
            calls.append(("hub", {"endpoint": endpoint, "token": token}))

        def create_repo(self, name: str, **options: Any) -> Any:
            calls.append(("create", {"name": name, **options}))
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{name}")

        def upload_folder(self, **options: Any) -> None:
            sent = sorted(each.name for each in Path(options["folder_path"]).iterdir())
            calls.append(("upload", {"sent": sent, "repo_id": options["repo_id"]}))

    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    exported = export(Order(files["single"], "huggingface", out=tmp_path / "out", push_to="me/model"))
    assert exported.address == "https://huggingface.co/me/model"
    assert calls == [
        ("hub", {"endpoint": "https://huggingface.co", "token": SECRET}),
        ("create", {"name": "me/model", "private": True, "exist_ok": True}),
        ("upload", {"sent": ["README.md", "config.json", "model.safetensors"], "repo_id": "me/model"}),
    ]
