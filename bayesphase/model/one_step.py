"""One-step predictions: how likely a checkpoint is, given those of its run that came before."""

from typing import Any

import numpy as np

from bayesphase.model.lanes import running
from bayesphase.model.simd import LANES, inner


@inner
def one_step_group(index: int, group: Any, potentials: Any, layout: Any, out: Any) -> None:
    """Write the log densities of the rows of a filtered group to `out` (row)."""
    tops, norms, rows = group.top, group.norm, group.rows
    by_length, lengths = layout.by_length, layout.lengths
    row = 0
    for t in range(lengths[by_length[LANES * index]]):
        active = running(index, t, by_length, lengths)
        for lane in range(active):
            at = rows[row + lane]
            lost = potentials.initial_top
            if t > 0:
                lost = potentials.transition_top[layout.gap_index[at]]
            out[at] = tops[row + lane] + np.log(norms[row + lane]) + lost
        row += active
