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
# # Training maps: switches, forks, detours and outliers
#
# A fit says which phases there are. This notebook is about how runs get from one to the next: how
# many take which switch, when, and what in their weights drives it; whether they part ways; whether
# some phase delays convergence; and which run is an outlier. The questions are those of Hu et al.,
# *Latent State Models of Training Dynamics* ([arXiv:2308.09543](https://arxiv.org/abs/2308.09543));
# each answer comes with what is not known of it.
#
# Eight seeds of the transformer that learns to add modulo 113 come first, then simulated runs with
# a fork that we plant, to see that it would be found.

# %%
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import display

import bayesphase as bp

# draws are few here to be quick, which is what fits warn of
warnings.filterwarnings("ignore", message="Do not trust this fit", category=UserWarning)
metrics = bp.open_metrics(Path("../data/modular_addition.nc"))
converged = bp.convergence(metrics, metric="eval_accuracy", threshold=0.9)
display(converged.to_dataframe().T)

# %%
fig, ax = plt.subplots(figsize=(7, 2.5), layout="constrained")
lines = metrics["eval_accuracy"].plot.line(ax=ax, x="step", add_legend=False)
ax.plot(converged["step"], np.full(converged.sizes["run"], 0.9), "k|", markersize=10)
ax.set(xlabel="optimiser steps", ylabel="validation accuracy")
_ = fig.legend(lines, metrics["run"].values, loc="outside right", frameon=False)

# %% [markdown]
# A run has converged when its validation accuracy first exceeds 0.9 (ticks). One that never does is
# *censored* at its last step; all of these converge.
#
# The features are 14 metrics of the weights alone, the phases three laws of motion, as in the
# [first notebook](01_quickstart.ipynb).

# %%
fit = bp.fit(bp.features(metrics), 3, draws=200, random_seed=1, progressbar=False)

# %% [markdown]
# ## The map as a table
#
# For every switch: how many of the runs take it at least once, and at which step they first do.
# That interval holds both what runs differ by and what is not known of each; `run_step` has the
# runs by themselves.

# %%
table = bp.training_map(fit)
edges = table[["n_runs", "n_runs_lower", "n_runs_upper", "step", "step_lower", "step_upper"]]
display(edges.to_dataframe().query("n_runs > 0.5").round(1))
by_run = table["run_step"].where(table["run_probability"] > 0.5)
display(by_run.stack(edge=("state", "state_next")).dropna("edge", how="all").to_pandas())

# %% [markdown]
# All eight leave phase 0 at about the same step; seven go from phase 1 to 2, at very different
# ones. Seeds 4 and 6 go back from 2 to 0, and seed 5 from 1 to 0; all three go on to 2 from there.
#
# ## What drives a switch
#
# Three numbers for each feature and switch, with intervals:
#
# - `gradient`: by how much the log probability of the next phase would rise with the feature at the
#   first checkpoint after the switch. Its magnitude is the score of the paper;
# - `log_odds`: what the feature says for the next phase against the last, in nats per checkpoint,
#   over the first ten checkpoints. Features are independent given the phase here, so that this is
#   the logarithm of the ratio of its two densities, and the features add up;
# - `change`: how much higher it is, on average, in the visit after the switch than in that before,
#   in standard deviations of the feature.

# %%
names = ["log_odds", "log_odds_lower", "log_odds_upper", "gradient", "change"]
for start, end in ((1, 2), (2, 0)):
    print(f"from {start} to {end}")
    drivers = table.sel(state=start, state_next=end, drop=True)[names].to_dataframe()
    display(drivers.sort_values("log_odds", ascending=False).head(6).round(2))

# %% [markdown]
# The return from 2 to 0, where the loss jumps, is so certain that its gradients are 0 to the last
# digit shown: to a classifier that is sure, no feature makes a difference. The log-odds do not
# saturate. They say that the singular values give most of the evidence: the largest one, which is
# the spectral norm, and their variance. For the switch from 1 to 2, norms and singular values do,
# which all fall.
#
# ## The map as a figure
#
# Labels name the three features with the most evidence, and how much they change.

# %%
ax = bp.plot_training_map(table)

# %% [markdown]
# ## Do runs part ways, and does one fall back?
#
# A trajectory is the order in which a run first enters phases. Two runs part ways if neither's is
# the beginning of the other's. A run falls back if it returns to a phase that it entered before the
# one it leaves, and stays for at least five checkpoints in both.

# %%
ways = bp.forks(fit)
print(ways.attrs["verdict"])
names = ["sequence", "sequence_probability", "falls_back", "fall_step"]
names += ["fall_lower", "fall_upper", "fall_duration"]
display(ways[names].where(ways["falls_back"] > 0.5).to_dataframe().dropna().round(2))

# %% [markdown]
# There is no fork: with three phases this map is linear, but for the three runs that fall back.
# They are named, with their steps: those at which their losses jump.
#
# ## Does a phase delay convergence?
#
# A phase is *optional* if some run that converges does not enter it on its way there, and some run
# does. Its effect is the factor by which the time to convergence of runs that enter it is longer,
# from a regression of log times under every draw of the phases, in which runs that never converge
# are censored. A *detour* is optional and has an effect above 1.

# %%
delays = bp.detours(fit, convergence=converged, random_seed=1)
effects = ["optional", "effect", "effect_lower", "effect_upper", "detour"]
display(delays["visited"].to_pandas().round(2))
display(delays[effects].to_dataframe().round(2))

# %% [markdown]
# Only phase 2 is optional, for seed 5 alone, which enters it after it has converged. Nothing here
# is likely to be a detour; and where a single run is on the other side, little can be known.
#
# Beside it the regression of the paper, of the step of convergence on the share of time in each
# phase. It explains most of the variance in-sample, and less of it in runs that are left out:

# %%
regression = ["r2", "adjusted_r2", "r2_by_run", "p_overall"]
display(delays[regression].to_pandas().round(3))

# %% [markdown]
# ## How unlike are the runs?
#
# The dissimilarity of the paper is the expected Wasserstein distance between the shares of time
# that two runs spend in the phases. With all phases as far from each other, the distance of two
# runs is the share of time that would have to be spent in another phase to make them alike.

# %%
apart = bp.dissimilarity(fit)
display(apart["share"].to_pandas().round(2))
ax = bp.plot_dissimilarity(apart)

# %% [markdown]
# Runs differ mostly by how long they wait in phase 1: that makes them dissimilar without any fork.
# It also depends on how long runs are recorded after they converge, here 1000 epochs beyond an
# accuracy of 0.99.
#
# ## A fork that is there
#
# To see what a fork and a detour look like, we plant them. Thirty simulated runs leave state 0 by
# one of two ways, a slow and a quick one, and converge when they enter the last state.

# %%
leave = np.array([[0.92, 0.04, 0.04, 0], [0, 0.985, 0, 0.015], [0, 0, 0.88, 0.12], [0, 0, 0, 1]])
mean = np.array([[0, 0, 0], [2, -1, 0], [0, 2, 1], [3, 3, 3]])
planted = bp.simulate(
    n_states=4, n_runs=30, n_steps=150, mean=mean, transition_probs=leave, random_seed=1
)
there = bp.fit(
    planted["features"], 4, emission="gaussian", draws=200, random_seed=1, progressbar=False
)
arrived = bp.convergence(xr.Dataset({"eval_accuracy": (planted["path"] == 3).astype(float)}))
ax = bp.plot_training_map(there)

# %%
ways = bp.forks(there)
delays = bp.detours(there, convergence=arrived, random_seed=1)
print(f"forked with a probability of {ways['forked'].item():.2f}")
print(f"{delays.attrs['n_converged']} runs converge, {delays.attrs['n_censored']} does not")
display(delays[effects].to_dataframe().round(2))
truth = pd.DataFrame(
    {
        "planted slow": (planted["path"] == 1).any("step"),
        "trajectory found": ways["trajectory"],
        "step": arrived["step"],
    }
)
by_way = truth.groupby(["planted slow", "trajectory found"])["step"]
display(by_way.agg(runs="size", geometric_mean=lambda step: np.exp(np.log(step).mean())).round(0))

# %% [markdown]
# Every run is put on the way that was planted for it. Those on the slow way take 617 steps in the
# geometric mean, the others 142: 4.3 times as long. The effect is larger and less sure than this
# ratio, since one run on the slow way had not converged when it was last seen, and the ratio leaves
# it out. The quick way has an effect below 1: of two ways, one is a detour if the other is quicker.

# %%
display(delays[regression].to_pandas().round(3))

# %% [markdown]
# The regression on shares explains everything, and that is a warning: these runs are all as long
# and converge when they enter the last state, so that the share of time there *is* the step of
# convergence, whatever the way. A high R² of this regression needs no detour; `effect` compares
# ways.
