"""The command line, called in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

#: A search that takes seconds: 32 pixels, one probe and one fine-tune of one epoch, weights that come with the package.
QUICK = (
    *("--trials", "1", "--epochs", "1", "--batch-size", "8", "--resolutions", "32"),
    *("--backbones", "efficientnet_lite0", "--offline", "--device", "cpu"),
)
#: Pictures are not laid over each other: where that would take long, or joins drawings that are alike, and the test is
#: of something else.
BY_NAMES = ("--lineage", "names")
#: What no terminal may be sent from a file name: everything below a blank but the line feed, DEL, and C1 controls.
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Result:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str

    def lines(self) -> list[str]:
        return self.out.splitlines()


def run_command(*arguments: str | Path) -> Result:
    """Call `main` as the installed script does, the budget counting from now."""
    out, err = _stream(), _stream()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = call_main([str(each) for each in arguments])
    return Result(code, _text(out), _text(err))


def call_main(arguments: Sequence[str]) -> int:
    """The exit code of `main`."""
    from automl_vision.cli import search
    from automl_vision.cli.app import main

    with (
        mock.patch.object(sys, "argv", ["automl-vision", *arguments]),
        mock.patch.object(search, "PROCESS_START", time.monotonic()),
        mock.patch.dict(os.environ, {"COLUMNS": "200"}),
    ):
        try:
            main()
        except SystemExit as left:
            return 0 if left.code is None else int(left.code)
    raise AssertionError("main returned")


def call_in_process(arguments: Sequence[str], out: str, err: str) -> None:
    """What a process of its own does: streams to files, exit code to the kernel."""
    for stream, file in ((sys.stdout, out), (sys.stderr, err)):
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, stream.fileno())
    os._exit(_flushed(call_main(arguments)))


def _flushed(code: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    raw = stream.buffer
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode("utf-8")


def assert_mistake(result: Result, code: int, *parts: str) -> None:
    """What, the value, the fix, the code; nothing on stdout, no traceback, no control characters."""
    assert result.code == code, result.err
    assert result.out == ""
    said = result.err.partition("Error: ")[2]
    assert said, result.err
    assert "\nFix: " in said
    assert [part for part in parts if part not in said] == [], said
    assert_harmless(result)


def assert_harmless(result: Result) -> None:
    """No traceback, no fault of ours, nothing that a terminal would act on."""
    for text in (result.out, result.err):
        assert "Traceback" not in text
        assert "Internal error" not in text
        assert not CONTROLS.search(text), CONTROLS.findall(text)
