"""Fits whose exact posterior is known, with draws of it: what LOO, WAIC and K-fold should say."""

import warnings
from itertools import pairwise

import numpy as np
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from synthetic import fit_from_paths

import bayesphase as bp
from bayesphase.model.emissions import Gaussian
from bayesphase.model.forward_backward import forward_backward
from bayesphase.model.rows import rows_of
from bayesphase.model.transitions import Sticky


def quietly(function, *args, **kwargs):
    """Call without the warnings that an estimate is unreliable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return function(*args, **kwargs)


def fit_of(features, parameters, *, n_chains=2):
    """Make a fit of given draws; `parameters` by name, (draw, ...), an even number of draws."""
    n_draws, n_states = parameters["initial_probs"].shape
    missing = features.isnull().all("feature").values
    state = np.zeros((n_chains, n_draws // n_chains, *missing.shape), int)
    tree = fit_from_paths(
        np.where(missing, -1, state),
        runs=features["run"].values,
        steps=features["step"].values,
        n_states=n_states,
        features=features.values,
    )
    posterior = tree["posterior"].to_dataset()
    tree["posterior"] = xr.DataTree(
        posterior.assign(
            {
                name: (posterior[name].dims, np.reshape(value, posterior[name].shape))
                for name, value in parameters.items()
            }
        )
    )
    tree.attrs = {"n_states": n_states, "emission": "gaussian", "transition": "sticky"}
    densities = bp.run_log_likelihood(tree, tree["observed_data"]["features"])
    tree["log_likelihood"] = xr.DataTree(densities.to_dataset())
    return tree


class NormalMean:
    """One state with a known scale: the mean of all values is normal, and so is what it predicts.

    Runs are of different lengths. Units are lists of positions in `values`.
    """

    scale, prior_scale = 0.7, 3.0

    def __init__(self, *, seed=1, lengths=(6, 4, 9, 5)):
        rng = np.random.default_rng(seed)
        x = np.full((len(lengths), max(lengths), 1), np.nan)
        for run, length in enumerate(lengths):
            x[run, :length, 0] = rng.normal(2.0, self.scale, length)
        names = [f"run {i}" for i in range(len(lengths))]
        self.features = xr.DataArray(
            x,
            dims=("run", "step", "feature"),
            coords={"run": names, "step": np.arange(max(lengths)), "feature": ["x"]},
        )
        self.values = np.concatenate([row[:n, 0] for row, n in zip(x, lengths, strict=True)])
        bounds = np.cumsum([0, *lengths])
        self.units = {
            "run": [np.arange(a, b) for a, b in pairwise(bounds)],
            "checkpoint": [np.array([i]) for i in range(bounds[-1])],
        }

    def posterior(self, without=()):
        """Mean and variance of the posterior, given all values but those of a unit."""
        rest = np.delete(self.values, without)
        precision = len(rest) / self.scale**2 + self.prior_scale**-2
        return rest.sum() / self.scale**2 / precision, 1.0 / precision

    def log_predictive(self, unit, mean, variance):
        """Log density of a unit where the mean is normal with the given moments."""
        covariance = self.scale**2 * np.eye(len(unit)) + variance
        return multivariate_normal.logpdf(self.values[unit], np.full(len(unit), mean), covariance)

    def loo(self, by):
        return np.array([self.log_predictive(u, *self.posterior(u)) for u in self.units[by]])

    def waic(self, by):
        """Log posterior mean densities, and posterior variances of the log densities."""
        mean, variance = self.posterior()
        lppd, p = [], []
        for unit in self.units[by]:
            lppd.append(self.log_predictive(unit, mean, variance))
            # of -n (average - mean)² / (2 scale²), the one part that varies
            away, n = self.values[unit].mean() - mean, len(unit)
            p.append(n**2 * (4 * away**2 * variance + 2 * variance**2) / (4 * self.scale**4))
        return np.array(lppd), np.array(p)

    def fit(self, n_draws=20_000):
        """Make a fit whose draws are quantiles of the posterior, in random order."""
        mean, variance = self.posterior()
        quantiles = norm.ppf((np.arange(n_draws) + 0.5) / n_draws, mean, np.sqrt(variance))
        quantiles = np.random.default_rng(2).permutation(quantiles)
        ones = np.ones(n_draws)
        return fit_of(
            self.features,
            {
                "initial_probs": ones[:, None],
                "transition_probs": ones[:, None, None],
                "mean": quantiles[:, None, None],
                "scale": self.scale * ones[:, None, None],
            },
        )


class UnknownMean:
    """Two states, where only the mean of the second is unknown: its posterior is on a grid.

    A checkpoint that is left out keeps its place in the run, but says nothing.
    """

    grid = np.linspace(-6.0, 10.0, 641)

    def __init__(self, *, seed=3, n_runs=4, n_steps=7):
        self.known = {
            "initial_probs": np.array([0.9, 0.1]),
            "transition_probs": np.array([[0.85, 0.15], [0.1, 0.9]]),
            "scale": np.array([[0.6], [1.1]]),
        }
        drawn = bp.simulate(
            n_states=2,
            n_runs=n_runs,
            n_steps=n_steps,
            n_features=1,
            mean=np.array([[0.0], [1.5]]),
            random_seed=seed,
            **self.known,
        )
        self.features = drawn["features"]
        self.features[1, 5:] = np.nan
        self.rows = rows_of(self.features)
        self.log_prior = norm.logpdf(self.grid, 0.0, 3.0)

    def parameters(self, means):
        """Draws of all parameters, for given `means` (draw) of the second state."""
        draws = {n: np.broadcast_to(v, (len(means), *v.shape)) for n, v in self.known.items()}
        mean = np.stack([np.zeros(len(means)), means], axis=1)[..., None]
        return {**draws, "mean": mean}

    def log_evidence(self, silent=()):
        """Log p(y) of all rows but the `silent` ones, up to a constant of the grid."""
        total = []
        for draw in range(len(self.grid)):
            point = {n: v[draw] for n, v in self.parameters(self.grid).items()}
            log_emission = Gaussian().log_density(self.rows.values, self.rows, point, np)
            log_emission[list(silent)] = 0.0
            potentials = Sticky().log_potentials(point, np)
            likelihoods = forward_backward(log_emission, *potentials, self.rows.layout)
            total.append(likelihoods.log_likelihood.sum())
        return np.array(total) + self.log_prior

    def loo(self, by):
        whole = logsumexp(self.log_evidence())
        if by == "run":
            units = [np.flatnonzero(self.rows.run == r) for r in range(len(self.features))]
        else:
            units = [[row] for row in range(len(self.rows.values))]
        return np.array([whole - logsumexp(self.log_evidence(unit)) for unit in units])

    def fit(self, n_draws=8000):
        log_density = self.log_evidence()
        probs = np.exp(log_density - logsumexp(log_density))
        width = self.grid[1] - self.grid[0]
        rng = np.random.default_rng(4)
        means = rng.choice(self.grid, n_draws, p=probs) + rng.uniform(-width, width, n_draws) / 2
        return fit_of(self.features, self.parameters(means))


class OneState:
    """Normal data with unknown mean and scale under the default priors, by quadrature."""

    def __init__(self, features):
        from bayesphase.model.spec import specify

        spec = specify(features, 1, emission="gaussian", transition="sticky", priors=None)
        mean, scale = (spec.priors[name].parameters for name in ("mean", "scale"))
        self.values = features.values[..., 0]
        centre, width = np.nanmean(self.values), np.nanstd(self.values)
        mu = centre + width * np.linspace(-2.0, 2.0, 801)[:, None]
        log_scale = np.log(width) + np.linspace(-1.5, 1.5, 801)[None, :]
        self.mu, self.log_scale = mu, log_scale
        alpha, beta = float(np.squeeze(scale["alpha"])), float(np.squeeze(scale["beta"]))
        self.log_prior = norm.logpdf(mu, np.squeeze(mean["mu"]), np.squeeze(mean["sigma"]))
        self.log_prior = self.log_prior - alpha * log_scale - beta * np.exp(-log_scale)
        sums = [(self.values**p).sum(axis=1)[:, None, None] for p in (0, 1, 2)]
        squares = sums[2] - 2 * mu * sums[1] + mu**2 * sums[0]
        self.by_run = -0.5 * squares * np.exp(-2 * log_scale) - sums[0] * (
            log_scale + 0.5 * np.log(2 * np.pi)
        )

    def loo(self, folds=None):
        """Log density of each run given those that are not in its fold."""
        n_runs = len(self.by_run)
        fold = np.arange(n_runs) % (folds or n_runs)
        predicted = []
        for run in range(n_runs):
            rest = self.by_run[fold != fold[run]].sum(axis=0) + self.log_prior
            predicted.append(logsumexp(rest + self.by_run[run]) - logsumexp(rest))
        return np.array(predicted)


def one_state(n_runs=6, apart=0.1):
    """Draw features for `OneState`, with runs that differ a little."""
    x = bp.simulate(n_states=1, n_runs=n_runs, n_steps=15, n_features=1, random_seed=2)["features"]
    return x + apart * np.random.default_rng(3).normal(size=(n_runs, 1, 1))
