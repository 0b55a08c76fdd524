"""Which drafts are decoded wholly for their digest: all that may have a lossless copy, and no more."""

from __future__ import annotations

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.data import whole_digests
from automl_vision.data.whole_digests import FARTHEST_DRAFT, may_have_copies

#: Size, scale, hash ("" for none), fault, whether there is a whole digest.
ROW = st.tuples(
    st.sampled_from([(800, 600), (600, 800), (1000, 900)]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(["", "0", "1f", "ffff", "fffff00000"]),
    st.sampled_from(["", "truncated"]),
    st.booleans(),
)


def expected(rows: list[tuple[tuple[int, int], int, str, str, bool]]) -> list[int]:
    """Pair by pair."""
    wholes = [(size, sign) for size, scale, sign, fault, _ in rows if scale == 1 and not fault]
    return [
        row
        for row, (size, scale, sign, fault, known) in enumerate(rows)
        if scale > 1 and sign and not known and not fault
        if any(
            size == other and (not like or (int(sign, 16) ^ int(like, 16)).bit_count() <= FARTHEST_DRAFT)
            for other, like in wholes
        )
    ]


@given(st.lists(ROW, max_size=12), st.sampled_from([1, 2, 10**6]))
def test_a_draft_is_decoded_wholly_where_a_whole_image_of_its_size_looks_like_it(rows: list, block: int) -> None:
    # What has no hash has its whole digest from the start, and what is at fault was not decoded at all.
    made = [
        (size, 1 if fault else scale, sign, fault, known or (scale > 1 and not sign))
        for size, scale, sign, fault, known in rows
    ]
    table = pd.DataFrame(
        {
            "width": [size[0] for size, *_ in made],
            "height": [size[1] for size, *_ in made],
            "scale": [scale for _, scale, *_ in made],
            "picture_hash": pd.Series([sign for _, _, sign, *_ in made], dtype="str"),
            "fault": pd.Series([fault for *_, fault, _ in made], dtype="str"),
            "whole_digest": pd.Series(["ab" if known else "" for *_, known in made], dtype="str"),
        }
    )
    before, whole_digests._BLOCK = whole_digests._BLOCK, block
    try:
        assert may_have_copies(table).tolist() == expected(made)
    finally:
        whole_digests._BLOCK = before
