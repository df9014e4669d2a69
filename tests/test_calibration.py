"""Do intervals cover as often as they say? Slow: 200 simulated data sets are fitted."""

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment

import bayesphase as bp

N_DATA_SETS = 200
N_STATES, N_RUNS, N_STEPS, N_FEATURES = 3, 3, 60, 3
PRIORS = {
    "initial_probs": bp.Prior("Dirichlet", a=np.ones(N_STATES)),
    "transition_probs": bp.Prior("Dirichlet", a=1.0 + 30.0 * np.eye(N_STATES)),
    "mean": bp.Prior("Normal", mu=0.0, sigma=1.0),
    "scale": bp.Prior("InverseGamma", alpha=30.0, beta=29.0),
}


def _draw_from_the_prior(rng: np.random.Generator) -> xr.Dataset:
    p = {name: prior.parameters for name, prior in PRIORS.items()}
    shape = (N_STATES, N_FEATURES)
    return bp.simulate(
        n_states=N_STATES,
        n_runs=N_RUNS,
        n_steps=N_STEPS,
        n_features=N_FEATURES,
        mean=rng.normal(p["mean"]["mu"], p["mean"]["sigma"], shape),
        scale=p["scale"]["beta"] / rng.gamma(p["scale"]["alpha"], size=shape),
        transition_probs=np.stack([rng.dirichlet(a) for a in p["transition_probs"]["a"]]),
        initial_probs=rng.dirichlet(p["initial_probs"]["a"]),
        random_seed=rng,
    )


def _true_first_entries(data: xr.Dataset, fit: xr.DataTree) -> np.ndarray:
    """First step (run, state) of the true states, under the names that the fit gives them."""
    path, named = data["path"].values, bp.most_likely_path(fit).values
    overlap = [
        [np.sum((path == i) & (named == k)) for i in range(N_STATES)] for k in range(N_STATES)
    ]
    _, true_state = linear_sum_assignment(overlap, maximize=True)
    entered = np.stack([path == i for i in true_state], axis=1)
    first = data["step"].values[entered.argmax(axis=2)]
    return np.where(entered.any(axis=2), first, np.nan)


@pytest.mark.slow
def test_boundary_intervals_cover_at_the_rate_they_state(capsys):
    """Parameters from the prior, data from the model: then stated probabilities are exact.

    Steps are discrete, so an interval holds at least `ci_prob`. What has to agree is how much
    posterior mass the intervals hold and how often the truth is in them, over the boundaries whose
    interval is not just the run's first step. Boundaries of one data set are dependent, so errors
    are compared with their spread over data sets.
    """
    rng = np.random.default_rng(20240)
    stated: dict[float, list[np.ndarray]] = {0.5: [], 0.9: []}
    inside: dict[float, list[np.ndarray]] = {0.5: [], 0.9: []}
    entered, stated_entered = [], []
    for seed in range(N_DATA_SETS):
        data = _draw_from_the_prior(rng)
        fit = bp.fit(
            data["features"],
            N_STATES,
            emission="gaussian",
            priors=PRIORS,
            random_seed=seed,
            draws=500,
            tune=300,
            chains=2,
            n_restarts=4,
            progressbar=False,
        )
        truth = _true_first_entries(data, fit)
        draws = bp.first_entry(fit)
        entered.append(~np.isnan(truth))
        stated_entered.append(bp.boundaries(fit)["visited"].values)
        for ci_prob in stated:
            table = bp.boundaries(fit, ci_prob=ci_prob)
            lower, upper = table["lower"], table["upper"]
            counted = ~np.isnan(truth) & (upper.values > 0)
            holds = ((draws >= lower) & (draws <= upper)).sum(("chain", "draw"))
            share = holds / draws.notnull().sum(("chain", "draw"))
            stated[ci_prob].append(share.values[counted])
            inside[ci_prob].append(((truth >= lower.values) & (truth <= upper.values))[counted])
    z = {}
    with capsys.disabled():
        for ci_prob in stated:
            mass, covered = np.concatenate(stated[ci_prob]), np.concatenate(inside[ci_prob])
            z[ci_prob] = _standard_error_units(inside[ci_prob], stated[ci_prob])
            print(  # noqa: T201
                f"\n{ci_prob:.0%} intervals hold {mass.mean():.3f} and cover {covered.mean():.3f} "
                f"of {len(covered)} boundaries in {N_DATA_SETS} data sets (z = {z[ci_prob]:.1f})"
            )
            assert mass.mean() >= ci_prob
        z["entered"] = _standard_error_units(entered, stated_entered)
        print(  # noqa: T201
            f"phases are entered with probability {np.mean(stated_entered):.3f}, and in "
            f"{np.mean(entered):.3f} of the cases (z = {z['entered']:.1f})"
        )
    assert all(abs(value) < 3 for value in z.values())


def _standard_error_units(happened: list[np.ndarray], stated: list[np.ndarray]) -> float:
    """Sum of what happened less what was stated, in standard errors over data sets."""
    errors = np.array([np.sum(h - s) for h, s in zip(happened, stated, strict=True)])
    return errors.sum() / np.sqrt(np.sum(errors**2))
