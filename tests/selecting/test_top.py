"""The top rows are those of a full stable sort."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.selecting.top import top_positions


@given(
    st.lists(
        st.sampled_from([-1.5, 0.0, -0.0, 0.25, 2.0]) | st.floats(allow_nan=False, allow_infinity=False), min_size=1
    ),
    st.data(),
)
def test_equals_a_stable_sort(values, data):
    n_keep = data.draw(st.integers(1, len(values)))
    expected = sorted(range(len(values)), key=lambda position: (-values[position], position))[:n_keep]
    assert top_positions(np.array(values), n_keep).tolist() == expected
