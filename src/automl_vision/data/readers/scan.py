"""Walking a folder: which files are images, and why the others were passed over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: File name endings of images, in lower case. The content decides later; this is only what to look at.
IMAGE_SUFFIXES: frozenset[str] = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
    )
)

#: Names that systems and tools leave behind, in lower case -> the reason under which they are counted.
LITTER: dict[str, str] = {
    "__macosx": "__MACOSX",
    "thumbs.db": "Thumbs.db",
    "desktop.ini": "desktop.ini",
    ".ds_store": ".DS_Store",
    ".ipynb_checkpoints": ".ipynb_checkpoints",
}

LINK_OUTSIDE = "link to a folder outside"
LINK_AGAIN = "link to a folder that is read already"
CLOSED = "folder that cannot be opened"

# Beyond this many kinds of endings the rest is counted as one: names are data, and there may be millions.
_MOST_KINDS = 30


def passed_over(name: str) -> str:
    """Why a file or folder of this name is ignored whatever it holds; "" if it is not."""
    reason = LITTER.get(name.lower(), "")
    if reason or not name.startswith("."):
        return reason
    return "AppleDouble (._*)" if name.startswith("._") else "hidden"


def ending(name: str) -> str:
    """Lower-case file name ending with its dot; "" without one."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def is_image_name(name: str) -> bool:
    """True where the ending is one of `IMAGE_SUFFIXES`, in any case."""
    return ending(name) in IMAGE_SUFFIXES


def leads_outside(path: str | Path, root: Path) -> bool:
    """Whether a path, all its links followed, is outside of `root`, which has none."""
    return not Path(os.path.realpath(path)).is_relative_to(root)


@dataclass
class Scan:
    """One walk over a folder; every folder is entered once, however many links lead to it.

    A link to a file is read wherever that lies: folders of links into a pool of images are common, and each of them
    names one file. They are counted, as is said of them. A link to a folder takes along whatever is there.

    Attributes:
        root: absolute path; links to folders outside of it are not followed unless `allow_outside`.
        ignored: reason -> number of files or folders passed over.
        outside: images that are links to files outside of the root.
        upper_folders: relative paths of the folders met in the first two levels.
    """

    root: Path
    allow_outside: bool = False
    ignored: Counter[str] = field(default_factory=Counter)
    outside: int = 0
    upper_folders: list[str] = field(default_factory=list)
    _entered: set[tuple[int, int]] = field(default_factory=set)

    def images(self, top: Collection[str] = ()) -> Iterator[str]:
        """Relative posix paths of all images, in no particular order.

        Links to folders come last, so that a folder is listed under its real place wherever it has one: a
        link from one class to another must not take its images along.

        Args:
            top: walk only these folders of the root (none named: all of the root).
        """
        start, links = self._start(top)
        yield from self._below(start, links)
        while links:
            place = links.pop()
            if self._follows(place[0]):
                yield from self._below([place], links)

    def _start(self, top: Collection[str]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        self._enter(str(self.root))
        if not top:
            return [(str(self.root), "")], []
        places = [(self.root / name, f"{name}/") for name in top]
        real = [(str(p), name) for p, name in places if not p.is_symlink() and self._enter(str(p))]
        return real, [(str(p), name) for p, name in places if p.is_symlink()]

    def _below(self, pending: list[tuple[str, str]], links: list[tuple[str, str]]) -> Iterator[str]:
        """Images below real folders, given as (path, relative path that ends with a slash)."""
        while pending:
            folder, relative = pending.pop()
            folders, files = self._children(folder)
            for name in files:
                if is_image_name(name):
                    yield relative + name
                else:
                    self.count_other(name)
            for each in folders:
                self._note(relative + each.name)
                (links if each.is_symlink() else pending).append((each.path, f"{relative}{each.name}/"))

    def _note(self, relative: str) -> None:
        if relative.count("/") < 2:
            self.upper_folders.append(relative)

    def _children(self, folder: str) -> tuple[list[os.DirEntry[str]], list[str]]:
        """Folders (links to folders too) and names of other entries, without what is passed over."""
        folders: list[os.DirEntry[str]] = []
        files: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if reason := passed_over(entry.name):
                        self.ignored[reason] += 1
                    elif not _is_folder(entry):
                        files.append(entry.name)
                        self.outside += self._is_image_outside(entry)
                    elif entry.is_symlink() or self._enter(entry.path):
                        folders.append(entry)
        except OSError:
            self.ignored[CLOSED] += 1
        # Taken from the end: sorted, so that of two links to one folder it is always the same that is used.
        return sorted(folders, key=lambda entry: entry.name, reverse=True), files

    def _enter(self, folder: str) -> bool:
        """True on the first visit of a folder, by identity and not by name."""
        try:
            status = Path(folder).stat()
        except OSError:
            self.ignored[CLOSED] += 1
            return False
        identity = (status.st_dev, status.st_ino)
        first = identity not in self._entered
        self._entered.add(identity)
        return first

    def _follows(self, link: str) -> bool:
        """True where a link leads to a folder that may be read and was not yet."""
        if not self.allow_outside and leads_outside(link, self.root):
            self.ignored[LINK_OUTSIDE] += 1
            return False
        if not self._enter(link):
            self.ignored[LINK_AGAIN] += 1
            return False
        return True

    def _is_image_outside(self, entry: os.DirEntry[str]) -> bool:
        return entry.is_symlink() and is_image_name(entry.name) and leads_outside(entry.path, self.root)

    def count_other(self, name: str) -> None:
        """Count a file that is no image by its ending."""
        kind = ending(name)
        shown = kind if kind.isascii() and kind.isprintable() and len(kind) <= 12 else "other"
        reason = f"not an image: {shown or 'no ending'}"
        room = reason in self.ignored or len(self.ignored) < _MOST_KINDS
        self.ignored[reason if room else "not an image: other"] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
