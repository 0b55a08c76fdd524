"""The pages: one to try the model on, one with the API. They ask nothing of the outside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from automl_vision.serving.about import About
from automl_vision.visible import visible

_PACKAGE, _FOLDER = "automl_vision.serving", "templates"
#: Files that pages load, and their media types.
ASSETS = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "token.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
#: Classes that the page names before "and so many more".
_NAMED = 24


def asking_page() -> HTMLResponse:
    """What people see who open a page without the token: it tells nothing of the model."""
    headers = {"WWW-Authenticate": 'Bearer realm="automl-vision"'}
    return HTMLResponse(_environment().get_template("token.html").render(), 401, headers)


def add_pages(app: FastAPI, told: About, *, explains: bool, protected: bool) -> None:
    """Add `/`, `/docs` and what they load; `protected` where a token has to be sent."""
    environment = _environment()
    index = environment.get_template("index.html").render(told=told, named=_NAMED, explains=explains)

    api = environment.get_template("docs.html")

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(index)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        schema = app.openapi()
        described = list(operations(schema))
        base = visible(str(request.base_url))
        return HTMLResponse(api.render(schema=schema, operations=described, base=base, protected=protected))

    for name, media_type in ASSETS.items():
        content = files(_PACKAGE).joinpath(_FOLDER, name).read_bytes()
        _add_asset(app, name, content, media_type)


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader(_PACKAGE, _FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters.update(visible=visible, percent=percent, coded=coded)
    return made


def _add_asset(app: FastAPI, name: str, content: bytes, media_type: str) -> None:
    @app.get(f"/{name}", include_in_schema=False)
    async def asset() -> Response:
        return Response(content, media_type=media_type)


def percent(share: float) -> str:
    """0.8734 -> `87.3 %`."""
    return f"{100 * share:.1f} %"


def coded(text: str) -> Markup:
    """Text with what stands between backticks as code."""
    parts = re.split(r"`([^`]*)`", text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def operations(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a reader of the schema wants to know of each operation, references followed.

    Yields:
        `method`, `path`, `summary`, `description`, `parameters`, `body` (media types) and `responses`: list of
        {status, description, fields}, with `fields` as of `fields_of`.
    """
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield {
                "method": method.upper(),
                "path": path,
                "summary": operation.get("summary", ""),
                "description": operation.get("description", ""),
                "parameters": operation.get("parameters", []),
                "body": list(operation.get("requestBody", {}).get("content", {})),
                "responses": [
                    {"status": status, "description": each["description"], "fields": _fields_of_response(schema, each)}
                    for status, each in operation["responses"].items()
                ],
            }


def _fields_of_response(schema: Mapping[str, Any], response: Mapping[str, Any]) -> list[dict[str, str]]:
    described = response.get("content", {}).get("application/json", {}).get("schema", {})
    return list(fields_of(schema, described))


def fields_of(schema: Mapping[str, Any], described: Mapping[str, Any], prefix: str = "") -> Iterator[dict[str, str]]:
    """`name` (dotted, lists as `name[]`), `type` and `description` of every field, nested ones after their parent."""
    for name, field in _resolved(schema, described).get("properties", {}).items():
        inner, kind = _kind(schema, field)
        whole = f"{prefix}{name}{'[]' * kind.startswith('list')}"
        yield {"name": whole, "type": kind, "description": field.get("description", "")}
        yield from fields_of(schema, inner, f"{whole}.")


def _kind(schema: Mapping[str, Any], field: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """What is inside of a field, and its type in words."""
    options = [each for each in field.get("anyOf", [field]) if each.get("type") != "null"]
    null = " or null" if len(options) < len(field.get("anyOf", [field])) else ""
    only = _resolved(schema, options[0]) if options else {}
    if only.get("type") == "array":
        return _resolved(schema, only.get("items", {})), f"list{null}"
    if "enum" in only:
        return {}, " or ".join(f'"{each}"' for each in only["enum"]) + null
    return only, f"{only.get('type', 'any')}{null}"


def _resolved(schema: Mapping[str, Any], described: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = described.get("$ref")
    if reference is None:
        return described
    found: Mapping[str, Any] = schema["components"]["schemas"][str(reference).rpartition("/")[2]]
    return found
