"""Equal pixels across files of which some were decoded at a fraction.

The digest of a JPEG that was decoded at a fraction is equal for files with the same picture data (metadata stripped,
renamed), but never for a lossless copy of what the JPEG shows. So where a file that was decoded wholly could be such a
copy, as it has the same size and looks the same, the JPEG is decoded wholly once more for its digest. In most folders
there is no such file, and nothing is decoded twice. What is too plain to look like anything has its whole digest anyway
(`survey.look_into`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Signs of the picture hashes that may differ between a picture and its draft; see docs/LOG.md for what was measured.
FARTHEST_DRAFT = 8
#: Pairs of hashes that are compared at once; bounds the memory.
_BLOCK = 4_000_000


def may_have_copies(facts: pd.DataFrame) -> NDArray[np.int64]:
    """Rows without a whole digest that were decoded at a fraction, and whose whole pixels may be those of another row.

    Args:
        facts: with the columns `fault`, `scale`, `width`, `height`, `picture_hash` and `whole_digest` of
            `facts.FACT_COLUMNS`.
    """
    whole = ((facts["fault"] == "") & (facts["scale"] == 1)).to_numpy()
    open_question = ((facts["scale"] > 1) & (facts["whole_digest"] == "")).to_numpy()
    hashes = facts["picture_hash"].to_numpy(dtype=object)
    size = facts.groupby(["width", "height"]).ngroup().to_numpy()
    found = np.zeros(len(facts), dtype=np.bool_)
    for number in np.intersect1d(size[open_question], size[whole]):
        drafts = np.flatnonzero(open_question & (size == number))
        found[drafts] = _resembles(hashes[drafts], hashes[whole & (size == number)])
    return np.flatnonzero(found).astype(np.int64)


def _resembles(drafts: NDArray[np.object_], wholes: NDArray[np.object_]) -> NDArray[np.bool_]:
    """(n) whether a draft with this hash may show what one of the others does; of one without nobody can tell."""
    if not wholes.all():
        return np.ones(len(drafts), dtype=np.bool_)
    numbers, others = (np.array([int(each, 16) for each in part], dtype=np.uint64) for part in (drafts, wholes))
    step = max(1, _BLOCK // len(others))
    blocks = (numbers[start : start + step, None] ^ others[None, :] for start in range(0, len(numbers), step))
    nearest = [np.bitwise_count(block).min(axis=1) for block in blocks]
    return np.asarray(np.concatenate(nearest) <= FARTHEST_DRAFT, dtype=np.bool_)
