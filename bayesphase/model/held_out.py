"""How probable data are given others, where the draws of a fit to these are too far from them.

The plain estimate, the mean of p(y_r | parameters) over such draws, rests on the few that come
nearest to y_r. It is also the ratio of the marginal likelihoods of all data and of the others, and
the posterior of each is near normal, whatever lies between the two.
"""

import numpy as np
import xarray as xr

from bayesphase.model.evidence import MOST_OVERLAP, bridged_evidence


def log_predictive(without: xr.DataTree, with_it: xr.DataTree) -> tuple[float, float]:
    """Log p(y_r | y), nats, from a fit to y and one to y and y_r.

    Parameters
    ----------
    without, with_it : DataTree
        Fits of one model, priors included.

    Returns
    -------
    value : float
        NaN where there are too few draws, or more states mixed up than can be summed over.
    error : float
        Half the difference of two estimates from different halves of the draws.

    Notes
    -----
    Both evidences are of all numberings of the states, as in `log_evidence`: states that only y_r
    is in are named in any order by the draws without it, and in one order by those with it.
    """
    found = []
    for fit in (with_it, without):
        try:
            found.append(bridged_evidence(fit))
        except ValueError:
            return np.nan, np.nan
    if max(one.label_overlap for one in found) > MOST_OVERLAP:
        return np.nan, np.nan
    halves = found[0].parts - found[1].parts
    return float(halves.mean()), float(np.abs(halves[0] - halves[1]) / 2)
