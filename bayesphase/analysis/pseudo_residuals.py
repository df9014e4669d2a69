"""Where each feature fell in the forecast from its run's past: what a model has not understood."""

from functools import cache

import numpy as np
import xarray as xr

from bayesphase._checks import check_count
from bayesphase.analysis._lagged import lagged_correlation
from bayesphase.analysis._paths import check_ci_prob

# of data sets that the envelope of a QQ plot is calibrated on
_N_SIMULATED = 2000
# ranks at which a QQ plot has a point
_MOST_POINTS = 200


def pseudo_residuals(
    fit: xr.DataTree, *, draws: int | None = 100, lags: int = 20, cores: int | None = None
) -> xr.Dataset:
    """Compute forecast pseudo-residuals: standard normal and independent if the model holds.

    For each feature of each checkpoint, the model has a distribution given all earlier checkpoints
    of the run: a mixture over the states that the run may be in by then. The pseudo-residual is the
    standard normal quantile of the probability, in this distribution, of a smaller value than the
    one observed. Large ones are outliers to the model; where their distribution is not normal, the
    model has the wrong noise; where they are correlated in time, it has missed how features move.

    Unlike ``fit["residuals"]`` they do not depend on a path of states, which adapts to the data.

    Parameters
    ----------
    fit : DataTree
        What `bayesphase.fit` returns.
    draws : int, optional
        How many draws of the posterior at most to average the distribution over, as many of each
        chain and spread evenly; None for all.
    lags : int
        Checkpoints up to which autocorrelations are computed.
    cores : int, optional
        Threads to share the draws out over; all cores by default.

    Returns
    -------
    Dataset
        - `pseudo_residual` (run, step, feature): NaN where a feature is missing, or is conditioned
          on as the first values of a run are by families of changes;
        - `autocorrelation` (feature, lag), and `autocorrelation_sd`, its standard deviation about 0
          if the model held; lags are in checkpoints of the run;
        - `ks_distance` (feature): the largest distance of the distribution from the standard normal
          (Kolmogorov-Smirnov), and `p_value`, the probability of a larger one if the model held.

        The attribute `n_draws` says how many draws were used.

    Raises
    ------
    TypeError, ValueError
        If `draws`, `lags` or `cores` is no positive integer, or `fit` no fit.

    Notes
    -----
    Zucchini, MacDonald & Langrock 2016, *Hidden Markov Models for Time Series*, section 6.2.3; Dunn
    & Smyth 1996, doi:10.1080/10618600.1996.10474708. At given parameters of the model that holds,
    those of one feature are independent and standard normal, exactly, for every family; features
    of one checkpoint are dependent. Parameters that were learned from the same data make them a
    little less spread than that, which matters where data are few: p-values are then too large.
    All are computed from the smaller tail in log space, so that an outlier of 100 scales is one of
    about 100 here.

    Examples
    --------
    >>> import bayesphase as bp
    >>> data = bp.simulate(n_states=2, n_runs=2, n_steps=60, random_seed=1)
    >>> fit = bp.fit(data["features"], 2, random_seed=1, progressbar=False)  # doctest: +SKIP
    >>> bp.plot_pseudo_residuals(bp.pseudo_residuals(fit))  # doctest: +SKIP
    """
    from bayesphase.model.forecast import forecast_residuals

    check_count("lags", lags, least=1)
    if cores is not None:
        check_count("cores", cores, least=1)
    residual, n_draws = forecast_residuals(fit, draws=draws, cores=cores)
    at = np.arange(1, lags + 1)
    correlation, n_pairs = np.transpose(
        [lagged_correlation(residual.values, lag=int(lag)) for lag in at], (1, 2, 0)
    )
    by_lag = ("feature", "lag")
    sd = 1.0 / np.sqrt(np.where(n_pairs > 0, n_pairs, np.nan))
    distance, p_value = np.transpose([_kolmogorov_smirnov(known) for known in _known(residual)])
    variables = {
        "pseudo_residual": (residual.dims, residual.values, "forecast pseudo-residual"),
        "autocorrelation": (by_lag, correlation, "autocorrelation of pseudo-residuals"),
        "autocorrelation_sd": (by_lag, sd, "standard deviation of that if the model held"),
        "ks_distance": ("feature", distance, "largest distance from the standard normal"),
        "p_value": ("feature", p_value, "probability of a larger distance if the model held"),
    }
    return xr.Dataset(
        {
            name: (dims, values, {"long_name": long_name, "units": "1"})
            for name, (dims, values, long_name) in variables.items()
        },
        coords={
            **residual.coords,
            "lag": ("lag", at, {"long_name": "lag", "units": "checkpoints"}),
        },
        attrs={"n_draws": n_draws},
    )


def normal_quantiles(residual: xr.DataArray, *, ci_prob: float) -> xr.Dataset:
    """Compare quantiles of pseudo-residuals with those of the standard normal distribution.

    Parameters
    ----------
    residual : DataArray (run, step, feature)
        NaN where there is none.
    ci_prob : float
        Probability that all points of a feature lie within the envelope if the model holds.

    Returns
    -------
    Dataset
        Dims (feature, point): `expected` normal quantile, the `observed` one, and `lower` and
        `upper` of the envelope. There are at most 200 points, less where a feature has fewer
        values; NaN past the last.

    Notes
    -----
    The probability of a smaller value than the i-th of n has the distribution Beta(i, n + 1 - i).
    The envelope leaves out as much of it at each point, so much that all points are within with
    probability `ci_prob` (Aldor-Noiman, Brown, Buja, Rolke & Stine 2013,
    doi:10.1080/00031305.2013.847865), which is found by simulation.
    """
    from scipy.special import ndtri

    ci_prob = check_ci_prob(ci_prob)
    known = _known(residual)
    n_points = min(_MOST_POINTS, max(map(len, known), default=0))
    out = np.full((4, len(known), n_points), np.nan)
    for d, values in enumerate(known):
        if not len(values):
            continue
        ranks = _ranks(len(values))
        lower, upper = _envelope(len(values), ci_prob)
        out[:, d, : len(ranks)] = (
            ndtri((ranks - 0.375) / (len(values) + 0.25)),  # Blom's
            np.sort(values)[ranks - 1],
            lower,
            upper,
        )
    names = ("expected", "observed", "lower", "upper")
    return xr.Dataset(
        {name: (("feature", "point"), values) for name, values in zip(names, out, strict=True)},
        coords={"feature": residual["feature"]},
        attrs={"ci_prob": ci_prob},
    )


def _known(residual: xr.DataArray) -> list[np.ndarray]:
    """Values of each feature, those that there are."""
    columns = residual.transpose("feature", "run", "step").values
    return [column[~np.isnan(column)] for column in columns]


def _kolmogorov_smirnov(values: np.ndarray) -> tuple[float, float]:
    from scipy.stats import kstest

    if not len(values):
        return np.nan, np.nan
    test = kstest(values, "norm")
    return float(test.statistic), float(test.pvalue)


def _ranks(n: int) -> np.ndarray:
    """Ranks (point) among n values: all if they are few, else denser towards both ends."""
    if n <= _MOST_POINTS:
        return np.arange(1, n + 1)
    position = 0.5 - 0.5 * np.cos(np.linspace(0.0, np.pi, _MOST_POINTS))
    return np.unique(np.round(1 + position * (n - 1)).astype(int))


@cache
def _envelope(n: int, ci_prob: float) -> tuple[np.ndarray, np.ndarray]:
    """Envelope (point) of n standard normal values in order."""
    from scipy.special import betainc, betaincinv, ndtri

    ranks = _ranks(n)
    a, b = ranks, n + 1 - ranks
    rng = np.random.default_rng(0)  # the same envelope for the same number
    # spacings of uniform values are those of exponential ones, added up between the ranks wanted
    pieces = rng.gamma(np.diff(ranks, prepend=0, append=n + 1), size=(_N_SIMULATED, len(ranks) + 1))
    uniforms = pieces[:, :-1].cumsum(axis=1) / pieces.sum(axis=1, keepdims=True)
    lower_tail = betainc(a, b, uniforms)
    worst = np.minimum(lower_tail, 1.0 - lower_tail).min(axis=1)
    level = np.quantile(worst, 1.0 - ci_prob)
    return ndtri(betaincinv(a, b, level)), ndtri(betaincinv(a, b, 1.0 - level))
