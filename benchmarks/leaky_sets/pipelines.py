"""The table of all pipelines: single operations, and chains as each library's tutorials have them."""

from __future__ import annotations

from importlib.util import find_spec

from leaky_sets.libraries import albumentations, augmentor, keras3, roboflow_like, torchvision_v2
from leaky_sets.pipeline import Pipeline

_TABLES = (torchvision_v2, albumentations, keras3, augmentor, roboflow_like)
#: Library -> the module that it needs.
LIBRARIES: dict[str, str] = {table.LIBRARY: table.MODULE for table in _TABLES}
#: Name -> pipeline.
PIPELINES: dict[str, Pipeline] = {each.name: each for table in _TABLES for each in table.PIPELINES}


def chosen_pipelines(libraries: tuple[str, ...] = ()) -> tuple[Pipeline, ...]:
    """The pipelines of these libraries (none named: of all).

    Raises:
        ModuleNotFoundError: one of the libraries is not installed: without it the set would be another one.
    """
    wanted = libraries or tuple(LIBRARIES)
    missing = [name for name in wanted if find_spec(LIBRARIES[name]) is None]
    if missing:
        raise ModuleNotFoundError(f"{', '.join(missing)} not installed: uv sync --group benchmarks")
    return tuple(each for each in PIPELINES.values() if each.library in wanted)
