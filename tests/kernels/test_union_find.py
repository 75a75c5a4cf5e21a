from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spoco_blocks.kernels.union_find import find, union


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=15))
def test_the_root_is_the_smallest_member(pairs):
    parents = np.arange(12)
    sets = [{i} for i in range(12)]
    for a, b in pairs:
        assert union(parents, a, b) == min(sets[a] | sets[b])
        joined = sets[a] | sets[b]
        for member in joined:
            sets[member] = joined
    assert [find(parents, i) for i in range(12)] == [min(s) for s in sets]
