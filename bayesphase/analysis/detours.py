"""States that some runs leave out, and how much later runs converge that do not."""

from functools import partial

import numpy as np
import xarray as xr

from bayesphase._checks import check_seed
from bayesphase.analysis import _shares, _survival
from bayesphase.analysis._paths import (
    STEP_UNITS,
    check_ci_prob,
    sampled_paths,
    state_labels,
    state_shares,
)
from bayesphase.analysis._summary import summed, variable
from bayesphase.analysis.phases import first_entry

_NAMES = {
    "r2": "in-sample R2 of convergence by shares",
    "adjusted_r2": "that R2, adjusted for the number of states",
    "r2_by_run": "R2 of predictions of runs that are left out",
    "p_overall": "p-value of the F test of no state making a difference",
}


def detours(
    fit: xr.DataTree,
    *,
    convergence: xr.Dataset,
    ci_prob: float = 0.9,
    random_seed: int | None = None,
) -> xr.Dataset:
    """Tell by how much each optional state delays convergence, and whether it is a detour.

    A state is optional if some run that converges never enters it on its way, and some run does.
    It is a detour if runs that enter it converge later than those that do not.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    convergence : Dataset
        When its runs converged, as `bayesphase.convergence` returns it, for these runs at least.
    ci_prob : float, default 0.9
        Probability that the equal-tailed intervals hold.
    random_seed : int, optional
        The same seed gives the same numbers.

    Returns
    -------
    Dataset
        Dims (state), of the regression of log times:

        - ``optional``: probability that the state is.
        - ``effect``, ``effect_lower``, ``effect_upper``: factor by which the time to convergence
          is longer for runs that enter the state; median and interval of the draws in which it is
          optional, NaN where there are none.
        - ``detour``: probability that the state is optional and its effect above 1.

        ``visited`` (run, state) is the probability that the run enters the state before it
        converges, or at all if it does not.

        Beside it the least squares of the paper, of steps by the share of time in each state, of
        the runs that converged, ``n_converged`` of them (an attribute):

        - ``share_effect`` (state), ``share_effect_lower``, ``share_effect_upper``: how many steps
          later a run converges that spends all its time in the state than the mean of states;
          ``share_p_value`` (state) is that of the two-sided t test of no difference.
        - ``r2``, ``adjusted_r2``, ``r2_by_run``: the variance explained in-sample, adjusted for the
          number of states, and of predictions of runs that are left out; ``p_overall`` is the
          p-value of the F test of no state making a difference.

        Medians over draws of the paths, with ``_lower`` and ``_upper`` for R2; NaN where there are
        too few runs.

    Raises
    ------
    TypeError, ValueError
        If `fit` is no fit, `convergence` not such a table or without a run of the fit, no run
        converged, or a step is not positive.

    Notes
    -----
    For each state, and under each draw of the paths in which it is optional, log(step) is normal
    about one mean for runs that enter the state and another for those that do not; a run that did
    not converge is censored at its last step. The prior of the effect, the difference of the means,
    is normal and wide, with a standard deviation of 10 times that of runs about their mean, and the
    prior of the latter is worth one observation. One draw of the coefficients is made for each draw
    of the paths, so that intervals hold what is not known of either. Convergence tells nothing of
    the states: the posterior of the paths is that of the fit. States are taken one by one, since
    those that a fork leads to are alternatives, and no regression could tell the delay by one from
    the gain by the other.

    The least squares are those of Hu et al. (2023, arXiv:2308.09543, section 2.3), with a positive
    coefficient of a state that not all runs visit as their sign of a detour. Shares are of the
    whole run as it was recorded: where all runs are as long, the share of time after convergence
    alone tells much of its step, and R2 is high for no other reason.

    Both are about association. A run that takes long for any other reason has more time to enter
    states on its way, which makes late states look like detours.
    """
    ci_prob = check_ci_prob(ci_prob)
    rng = np.random.default_rng(check_seed(random_seed))
    labels, state = state_labels(fit), sampled_paths(fit)
    step, last = _times(convergence, state["run"].values)
    converged = ~np.isnan(step)
    entry = first_entry(fit).values.reshape(-1, state.sizes["run"], labels.size)
    time = np.where(converged, step, last)
    visited = np.less_equal(entry, time[:, None])
    optional = visited.any(axis=1) & ~visited[:, converged].all(axis=1)
    x = visited.astype(float)
    effects = np.full(optional.shape, np.nan)
    for k in np.flatnonzero(optional.any(axis=0)):
        at = optional[:, k]
        of_state = _survival.sample_effects(x[at][..., [k]], np.log(time), ~converged, rng=rng)
        effects[at, k] = of_state.effect[:, 0]
    effect = np.exp(effects)
    shares = state_shares(state, labels.size)
    usable = converged & ~np.isnan(shares).any(axis=(0, 2))
    ols = _shares.regress(shares[:, usable], time[usable])
    sums = partial(summed, ci_prob=ci_prob)
    factor, delay = "factor of the time to convergence", "delay of convergence"
    p_value = sums("share_p_value", "state", ols.p_value, "p-value of no delay", "1")
    columns = {
        "optional": variable("state", optional.mean(axis=0), "probability that it is", "1"),
        **sums("effect", "state", effect, factor, "1"),
        "detour": variable(
            "state", (optional & (effects > 0)).mean(axis=0), "probability of a detour", "1"
        ),
        "visited": variable(
            ("run", "state"), visited.mean(axis=0), "probability of entering it in time", "1"
        ),
        **sums("share_effect", "state", ols.coefficient, delay, STEP_UNITS),
        "share_p_value": p_value["share_p_value"],
    }
    for name, long_name in _NAMES.items():
        columns |= sums(name, (), getattr(ols, name), long_name, "1")
    return xr.Dataset(
        columns,
        coords={"run": state["run"].variable, "state": labels},
        attrs={
            "ci_prob": ci_prob,
            "n_converged": int(converged.sum()),
            "n_censored": int((~converged).sum()),
        },
    )


def _times(convergence: xr.Dataset, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take the step of convergence and the last step (run) out of a table, checked."""
    if not isinstance(convergence, xr.Dataset) or not {"step", "last_step"} <= set(convergence):
        raise TypeError(
            "convergence must be the Dataset that bayesphase.convergence returns, with variables "
            f"'step' and 'last_step', got {type(convergence).__name__}"
        )
    missing = sorted(set(runs.tolist()) - set(convergence["run"].values.tolist()))
    if missing:
        raise ValueError(
            f"convergence says nothing of the runs {missing}; it has "
            f"{convergence['run'].values.tolist()}"
        )
    step, last = (convergence[name].sel(run=runs).values for name in ("step", "last_step"))
    if np.isnan(step).all():
        raise ValueError("no run converged, so that there is no time to compare: try a threshold")
    for run, time in zip(runs, np.where(np.isnan(step), last, step), strict=True):
        if not time > 0:
            raise ValueError(
                f"run {str(run)!r} converged or was last seen at step {time:g}, but the logarithm "
                f"is modelled: it must be positive"
            )
    return step, last
