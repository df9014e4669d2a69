# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own PyMC model
#
# `bp.fit` has six kinds of states for features that are real numbers. When you record something
# else, such as counts, the part that is hard to write and slow to run is still there for you:
# `bp.hmm_logp` is the log-likelihood of a hidden Markov model with its states summed out, for any
# log-densities that you compute in PyMC, with its exact gradient.
#
# Here the data are *numbers of right answers*: of the validation pairs that a network gets right at
# each checkpoint while it learns addition modulo 113. A state is a level of skill. Its answers are
# beta-binomial: binomial, with a chance that varies somewhat about the state's own.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr

import bayesphase as bp

N_STATES = 3
metrics = bp.open_metrics("../data/modular_addition_80_20.nc")
accuracy = metrics["eval_accuracy"].transpose("run", "step")
n_pairs = 113**2 - round(0.8 * 113**2)  # a fifth of all pairs is for validation
right = np.rint(accuracy.values * n_pairs).astype(int)  # (run, step)
print(f"{n_pairs} pairs, right at the first and last checkpoints:")
print(right[:, [0, 1, -1]])

# %% [markdown]
# ## The model
#
# The shapes are `log_emission` (run, step, state), `log_transition` (state, state) and
# `log_initial` (state). Levels of skill are ordered, and a network never goes back: a transition
# that cannot happen has log-probability minus infinity. Each run starts in state 0.

# %%
never = np.tril(np.ones((N_STATES, N_STATES)), -1).astype(bool)
log_initial = np.where(np.arange(N_STATES) == 0, 0.0, -np.inf)

with pm.Model(coords={"state": range(N_STATES)}) as model:
    skill = pm.Normal(
        "skill",
        mu=[-4.0, 0.0, 4.0],
        sigma=2.0,
        dims="state",
        transform=pm.distributions.transforms.ordered,
    )
    chance = pm.Deterministic("chance", pm.math.sigmoid(skill), dims="state")
    steadiness = pm.LogNormal("steadiness", mu=3.0, sigma=1.5, dims="state")
    rows = pm.Dirichlet("rows", a=np.ones((N_STATES, N_STATES)) + 20.0 * np.eye(N_STATES))

    answers = pm.BetaBinomial.dist(
        n=n_pairs, alpha=chance * steadiness, beta=(1 - chance) * steadiness
    )
    log_emission = pm.logp(answers, right[:, :, None])
    allowed = pt.where(never, 0.0, rows)
    log_transition = pt.log(allowed / allowed.sum(axis=1, keepdims=True))

    log_likelihood = bp.hmm_logp(log_emission, log_transition, log_initial)
    pm.Potential("right", log_likelihood.sum())

# %%
with model:
    idata = pm.sample(
        draws=500,
        tune=500,
        chains=2,
        random_seed=1,
        progressbar=False,
        compute_convergence_checks=False,
    )
posterior = xr.Dataset(idata["posterior"].data_vars)  # the same with every version of PyMC
print(posterior["chance"].mean(("chain", "draw")).values.round(4))

# %% [markdown]
# ## Which state, when?
#
# The derivative of the log-likelihood by `log_emission` is the probability of each state at each
# checkpoint, given all of the run (Fisher's identity). So PyTensor's gradient is the smoother.

# %%
probability_of_state = pytensor.function(
    [chance, steadiness, rows], pytensor.grad(log_likelihood.sum(), log_emission)
)
draws = posterior.stack(sample=("chain", "draw")).isel(sample=slice(None, None, 10))
smoothed = np.mean(
    [
        probability_of_state(
            *(draws[name].values[..., i] for name in ("chance", "steadiness", "rows"))
        )
        for i in range(draws.sizes["sample"])
    ],
    axis=0,
)
probability = xr.DataArray(
    smoothed,
    dims=("run", "step", "state"),
    coords={"run": accuracy["run"], "step": accuracy["step"], "state": range(N_STATES)},
)
np.testing.assert_allclose(probability.sum("state"), 1.0)

# %%
figure, axes = plt.subplots(
    probability.sizes["run"], sharex=True, layout="constrained", figsize=(7, 5)
)
for ax, run in zip(axes, probability["run"].values, strict=True):
    of_run = probability.sel(run=run, step=slice(0, 600))
    for state, style in zip(range(N_STATES), ("-", "--", ":"), strict=True):
        ax.plot(of_run["step"], of_run.sel(state=state), style, label=f"state {state}")
    ax.plot(
        of_run["step"], accuracy.sel(run=run, step=of_run["step"]), "k", lw=0.8, label="accuracy"
    )
    ax.set(ylabel="probability", title=run)
axes[0].legend(ncols=4, fontsize=8)
axes[-1].set_xlabel("optimiser steps")
plt.show()

# %% [markdown]
# ## Changing ours
#
# Often a whole new model is more than is needed. `bp.build_model(x, 3)` returns the PyMC model that
# `fit` would sample; in its context variables and potentials can be added, and `pm.sample` takes it
# from there. Priors alone are changed by `priors={"scale": bp.Prior("HalfNormal", sigma=0.5)}`.

# %%
x = bp.features(metrics)
ours = bp.build_model(x, N_STATES, priors={"scale": bp.Prior("HalfNormal", sigma=0.5)})
print([variable.name for variable in ours.free_RVs])
