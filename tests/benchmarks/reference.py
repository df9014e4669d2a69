"""The density written down once more, with SciPy and nothing else, for everyone to be held to."""

import numpy as np
from scipy import stats
from scipy.special import logsumexp

from tests.benchmarks.data import Case


def log_likelihood(case: Case) -> float:
    """Log-likelihood of all runs by the forward recursion in log space, nats."""
    p = case.parameters
    emission = np.stack(
        [
            stats.norm.logpdf(case.values, p["mean"][k], p["scale"][k]).sum(axis=-1)
            for k in range(case.n_states)
        ],
        axis=-1,
    )  # (run, step, state)
    log_transition = np.log(p["transition_probs"])
    alpha = np.log(p["initial_probs"]) + emission[:, 0]
    for step in range(1, emission.shape[1]):
        alpha = logsumexp(alpha[:, :, None] + log_transition, axis=1) + emission[:, step]
    return float(logsumexp(alpha, axis=1).sum())


def log_density(case: Case) -> float:
    """Log density in the coordinates that PyMC samples in: likelihood, priors and Jacobians.

    Simplexes are centred log-ratios, whose Jacobian is the product of all probabilities times
    their number; scales are logarithms.
    """
    p, priors = case.parameters, case.spec.priors
    simplexes = [(priors["initial_probs"].parameters["a"], p["initial_probs"])]
    simplexes += zip(priors["transition_probs"].parameters["a"], p["transition_probs"], strict=True)
    total = log_likelihood(case)
    for a, probs in simplexes:
        total += stats.dirichlet.logpdf(probs, a) + np.log(probs).sum() + np.log(len(probs))
    mean, scale = priors["mean"].parameters, priors["scale"].parameters
    total += stats.norm.logpdf(p["mean"], mean["mu"], mean["sigma"]).sum()
    total += stats.invgamma.logpdf(p["scale"], scale["alpha"], scale=scale["beta"]).sum()
    return float(total + np.log(p["scale"]).sum())
