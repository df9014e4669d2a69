"""Finished runs that fall and then converge, a fit to them, and metrics to forecast."""

import numpy as np
import xarray as xr
from synthetic import fit_at

import bayesphase as bp
from bayesphase.model.emissions import QuadraticDrift
from bayesphase.model.spec import specify
from bayesphase.model.transitions import Sticky

STEPS = 10 * np.arange(60)


def metrics_of(events, *, labels=None, steps=STEPS):
    """Accuracy that passes 0.9 at `events`, the same way in all runs, and a loss; runs' metrics."""
    events = np.asarray(events, float)
    away = (steps - events[:, None]) / 40.0
    accuracy = 1 / (1 + np.exp(-(away + np.log(9) + 1e-6)))
    loss = 3.0 * (1 - accuracy) + 0.01
    return xr.Dataset(
        {
            "eval_accuracy": (("run", "step"), accuracy, {"units": "1"}),
            "eval_loss": (("run", "step"), loss, {"units": "nats"}),
            "l2_norm": (("run", "step", "parameter"), np.ones((*accuracy.shape, 1))),
        },
        coords={"run": labels or [f"r{i}" for i in range(len(events))], "step": steps},
    )


def features_of(events, *, labels=None, seed=0):
    """Two features that fall until half of the way to convergence, and stay from there."""
    rng = np.random.default_rng(seed)
    half = np.asarray(events)[:, None] / 2
    x = 3.0 - np.minimum(STEPS, half) / 100 + 0.01 * rng.normal(size=(len(half), len(STEPS)))
    values = np.stack([50.0 + 4.0 * x, 0.1 - x], axis=2)
    return xr.DataArray(
        values,
        dims=("run", "step", "feature"),
        coords={
            "run": labels or [f"r{i}" for i in range(len(half))],
            "step": STEPS,
            "feature": ["l2_norm", "trace"],
        },
        name="features",
    )


EVENTS = [200.0, 260.0, 310.0, 420.0, 240.0]


def fit_of(raw, n_draws=40):
    """A fit with two phases, the first of which falls."""
    x = bp.standardize(raw)
    spec = specify(x, 2, emission=QuadraticDrift(), transition=Sticky(), priors=None)
    pace = -0.1 * np.array([4.0, -1.0]) / x["feature_scale"].values
    named = {
        "initial_probs": np.array([0.999, 0.001]),
        "transition_probs": np.array([[0.95, 0.05], [0.001, 0.999]]),
        "drift": np.stack([pace, np.zeros(2)]),
        "scale": np.full((2, 2), 0.03),
        "slope": np.zeros((2, 2)),
        "curvature": np.zeros((2, 2)),
    }
    return fit_at(spec, x, named, n_draws=n_draws)


def with_a_new_run(metrics, event, label="new"):
    return xr.concat([metrics, metrics_of([event], labels=[label])], "run", data_vars="all")
