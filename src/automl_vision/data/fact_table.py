"""Facts of very many files as they come, one at a time: kept in columns, where they take a tenth of the memory."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from automl_vision.data.facts import FACT_COLUMNS
from automl_vision.data.survey import NOTHING_KNOWN, Fact

#: Column beside `FACT_COLUMNS`: row of the image in every plane, -1 where quarantined.
PLANE_ROW = "plane_row"
#: All columns of what is kept of a file.
COLUMNS = (*FACT_COLUMNS, PLANE_ROW)

_PACKED = 1024
_TYPES = {int: "int64", bool: "bool", float: "float64", str: "str"}


def table_of(facts: Sequence[Fact]) -> pd.DataFrame:
    """One row per file, with `COLUMNS`."""
    example = NOTHING_KNOWN | {PLANE_ROW: -1}
    types = {name: _TYPES[type(example[name])] for name in COLUMNS}
    return pd.DataFrame({name: [fact[name] for fact in facts] for name in COLUMNS}).astype(types)


class FactTable:
    """A table of facts that grows row by row."""

    def __init__(self) -> None:
        self._packed: list[pd.DataFrame] = []
        self._loose: list[Fact] = []

    def add(self, fact: Fact) -> None:
        """Append a row with `COLUMNS`."""
        self._loose.append(fact)
        if len(self._loose) >= _PACKED:
            self._packed.append(table_of(self._loose))
            self._loose = []

    def table(self) -> pd.DataFrame:
        """All rows, in the order in which they came."""
        return pd.concat([*self._packed, table_of(self._loose)], ignore_index=True)
