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
# # How many phases?
#
# The number of phases is the question that a hidden Markov model answers most readily and least
# reliably. Published analyses take the number with the lowest BIC of states with constant means.
# Metrics of weights drift, and a drift can always be cut once more. Here we look at what the data
# say about the number under four kinds of states, first where there is nothing to find, then on
# the runs that ship with the project.

# %%
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import display

import bayesphase as bp

# what log_evidence warns of is in its verdict, which is looked at below
warnings.filterwarnings("ignore", message="Do not trust this evidence", category=UserWarning)
FAMILIES = ["gaussian", "random_walk", "autoregressive", "quadratic_drift"]
quick = {"draws": 200, "chains": 2, "random_seed": 1, "progressbar": False}

# %% [markdown]
# ## A run without phases
#
# Three features that drift at random, with the same drift and the same noise from start to end:
# there is one phase. Each family is fitted with one, two and three states. `state_counts` turns
# their marginal likelihoods, by bridge sampling, into probabilities of the number of states.
#
# - `gaussian`: a state has a mean and a spread for each feature;
# - `random_walk`: it has a drift and a noise, and the features go on from where they are;
# - `autoregressive`: it has a level that the features return to, at a rate and with a noise;
# - `quadratic_drift`: it has a law of motion, a drift that depends on where the features are.

# %%
rng = np.random.default_rng(0)
t = np.arange(200)
walk = 0.05 * t[:, None] + 0.2 * rng.normal(size=(200, 3)).cumsum(axis=0)
smooth = xr.DataArray(
    ((walk - walk.mean(axis=0)) / walk.std(axis=0))[None],
    dims=("run", "step", "feature"),
    coords={"run": ["one phase"], "step": 10 * t, "feature": ["x", "y", "z"]},
)
variants = {name: {"emission": name} for name in FAMILIES}
fits = bp.fit_range(smooth, range(1, 4), variants=variants, **quick)
counts = bp.state_counts(fits, random_seed=1)
display(counts["probability"].to_pandas().round(3))

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
for feature, grey in zip(smooth["feature"].values, ["0.1", "0.45", "0.7"], strict=True):
    axes[0].plot(smooth["step"], smooth[0].sel(feature=feature), color=grey)
axes[0].set(xlabel="optimiser steps", ylabel="standardized feature", title="one phase throughout")
path = bp.most_likely_path(fits["gaussian 3"])[0]
for step in smooth["step"].values[1:][np.diff(path) != 0]:
    axes[0].axvline(step, color="0.4", linestyle="--", linewidth=1)
for name, marker in zip(FAMILIES, "o^sD", strict=True):
    probability = counts["probability"].sel(variant=name)
    axes[1].plot(probability["n_states"], probability, marker=marker, label=name.replace("_", " "))
axes[1].set(xlabel="number of states", ylabel="posterior probability", xticks=[1, 2, 3])
_ = axes[1].legend(frameon=False)

# %% [markdown]
# States with constant means are sure of at least three phases, and place their boundaries (dashed)
# where nothing happened. The families that can express *still drifting* hold one phase for the most
# probable, by far. Of exponential decays the last two still do, of power laws only the last.
#
# ## The shipped runs
#
# The same four families, on eight runs that learn to add modulo 113, from 14 metrics of their
# weights.

# %%
metrics = bp.open_metrics(Path("../data/modular_addition.nc"))
x = bp.features(metrics)
fits = bp.fit_range(x, range(1, 4), variants=variants, **quick)
counts = bp.state_counts(fits, random_seed=1)
gain = counts["log_evidence"].diff("n_states")
gain = gain.assign_coords(n_states=[f"{k} states over {k - 1}" for k in gain["n_states"].values])
display(counts["log_evidence"].to_pandas().round(0))
display(gain.to_pandas().round(0))

# %% [markdown]
# Log evidence and its gains, in nats: each further state is worth thousands, under every family. So
# the probability of the largest number that we tried is 1, whatever that number is. This is not how
# a number that the data determine looks. It says that none of the four kinds of states is how these
# metrics really move within a phase, and that with thousands of checkpoints of 14 features the
# smallest misfit is worth another state. The residuals tell where the misfit is: given the phases,
# successive checkpoints should not be correlated, and are.

# %%
table = {
    key: {
        "correlation of successive residuals": float(
            bp.diagnose(fit)["residual_autocorrelation"].round(2)
        ),
        "switches of seed 0": bp.switches(fit)["step"][0].dropna("switch").values.astype(int),
    }
    for key, fit in fits.items()
}
display(pd.DataFrame(table).T)

# %% [markdown]
# ## What can be said
#
# - A probability of the number of states is about the kind of state. Look at it under more than one
#   kind, and at `residuals` before anything else.
# - Where the drift is of the family's kind, as in the run without phases, the number can be told.
# - On these runs it can't. What is worth reporting is what the kinds of states agree on, not how
#   many pieces there are: all put a boundary soon after the training pairs are learned, or just
#   before. How soon depends on the kind, and by more than any interval says.
# - The laws of motion of `quadratic_drift` explain the metrics best, by thousands of nats for the
#   same number of states, and they alone take most drifts of all three kinds above for one phase:
#   this is why they are the default. With three of them, each run enters the last before the
#   network gets the unseen pairs right, by up to some 1,800 steps; seed 5 just after.

# %%
first = {
    key: bp.switches(fits[key])["step"].sel(switch=0).to_series().astype(int)
    for key in (f"{family} 3" for family in FAMILIES)
}
entered = bp.boundaries(fits["quadratic_drift 3"])["first_step"].sel(state=2)
reached = {
    f"{name.split('_')[0]} accuracy > 0.9": metrics[name]["step"]
    .where(metrics[name] > 0.9)
    .min("step")
    .to_series()
    .astype(int)
    for name in ("train_accuracy", "eval_accuracy")
}
last = {"last phase of quadratic_drift": entered.to_series().astype(int)}
display(pd.DataFrame({**first, **last, **reached}))
