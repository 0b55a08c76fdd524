"""Who does not know the token learns nothing of the model, and where others can connect there always is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from served import Client, multipart, picture, serving
from test_serve_command import command

from automl_vision.errors import UsageError
from automl_vision.serving.token import LONGEST, SHORTEST, Token

SECRET = "a-token-of-this-test"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serving(token=Token(SECRET), name="secret zoo") as served:
        yield served


def ask(client: Client, authorization: str | None = None) -> int:
    """The status of an image that is sent with this header."""
    body, kind = multipart([("a.png", picture())])
    headers = {"Content-Type": kind}
    if authorization is not None:
        headers["Authorization"] = authorization
    return client.send("POST", "/predict", body, headers).status


@pytest.mark.parametrize("given", [f"Bearer {SECRET}", f"bearer  {SECRET}", f"BEARER {SECRET} "])
def test_who_knows_it_is_answered(client: Client, given: str) -> None:
    assert ask(client, given) == 200


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer ",
        SECRET,
        f"Basic {SECRET}",
        f"Bearer {SECRET[:-1]}",
        f"Bearer {SECRET}x",
        "Bearer \xe9" * 3,
    ],
)
def test_who_does_not_is_refused(client: Client, given: str) -> None:
    assert ask(client) == 401
    assert ask(client, given) == 401


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/about", "/openapi.json", "/nothing", "/healthz/", "//about", "/%61bout"]
)
def test_nothing_is_told_of_the_model(client: Client, path: str) -> None:
    for accept in ("application/json", "text/html"):
        reply = client.get(path, Accept=accept)
        assert reply.status == 401
        assert reply.headers["www-authenticate"].startswith("Bearer")
        assert b"zoo" not in reply.body
        assert b"emu" not in reply.body
    assert b"token.js" in reply.body
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_whether_it_is_up_and_the_files_of_the_pages_are_open(client: Client) -> None:
    for path in ("/healthz", "/style.css", "/page.js", "/token.js", "/icon.svg"):
        assert client.get(path).status == 200
    assert client.get("/about", Authorization=f"Bearer {SECRET}").json["name"] == "secret zoo"
    assert "Authorization: Bearer" in client.get("/docs", Authorization=f"Bearer {SECRET}").body.decode()


def test_two_tokens_are_none(client: Client) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    connection.putrequest("GET", "/about")
    for each in (SECRET, "another"):
        connection.putheader("Authorization", f"Bearer {each}")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize(
    "text", ["", "short", "x" * (SHORTEST - 1), "x" * (LONGEST + 1), "with a space in it", "é" * 20]
)
def test_what_no_header_can_carry_or_anybody_guesses_is_no_token(text: str) -> None:
    with pytest.raises(UsageError) as told:
        Token(text)
    assert not text or text not in str(told.value)


def test_tokens_that_are_made_differ() -> None:
    assert len({Token.new().text for _ in range(10)}) == 10


# --- the command ----------------------------------------------------------------------------------------------------


def started(model: Path, *options: str, private: bool) -> tuple[str | None, str]:
    """The token that a server would be started with, and what the command says on stderr."""
    with (
        mock.patch("automl_vision.serving.server.is_private", return_value=private),
        mock.patch("automl_vision.serving.server.serve") as serve,
        mock.patch("automl_vision.predictor.load"),
    ):
        code, out, err = command("serve", model, "--port", "0", *options)
    assert (code, out) == (0, "")
    token = serve.call_args.kwargs["token"]
    return (token.text if token else None), err


def test_on_this_machine_there_is_none_unless_one_is_given(model_file: Path) -> None:
    assert started(model_file, private=True)[0] is None
    assert started(model_file, "--token", SECRET, private=True) == (SECRET, "")


def test_where_others_can_connect_one_is_made_and_printed(model_file: Path) -> None:
    first, said = started(model_file, private=False)
    second, _ = started(model_file, private=False)
    assert first is not None
    assert first in said
    assert len(first) >= 40
    assert first != second


def test_one_that_was_given_is_not_printed(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOML_VISION_TOKEN", SECRET)
    token, said = started(model_file, private=False)
    assert token == SECRET
    assert SECRET not in said


def test_a_token_that_is_none_is_refused_before_anything_starts(model_file: Path) -> None:
    code, out, err = command("serve", model_file, "--token", "guess me")
    assert (code, out) == (2, "")
    assert "Fix: " in err
    assert "guess me" not in err
