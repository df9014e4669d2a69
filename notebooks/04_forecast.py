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
# # Where is this run going?
#
# Eight small transformers learned to add modulo 113: they got 90 % of the unseen pairs right after
# 4,560 to 11,160 optimiser steps, and for most of that time nothing in their losses said when.
# Here a ninth run (one of the eight, which the model is not shown) is still training. In which
# phase is it? When will the next one begin, and when will it generalise? Can one stop looking?

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

import bayesphase as bp

metrics = bp.open_metrics(Path("../data/modular_addition.nc"))
raw = bp.features(metrics, standardize=None)  # in the metrics' own units
runs = raw["run"].values.tolist()
curves = metrics[["eval_accuracy", "eval_loss"]]

# %% [markdown]
# ## Fits to the others
#
# One fit for each run that is left out, which plays the new one. Features are scaled by the runs of
# the fit alone: nothing of the new run is in them.

# %%
fits = {
    run: bp.fit(
        bp.standardize(raw.sel(run=[other for other in runs if other != run])),
        3,
        chains=2,
        draws=200,
        n_restarts=4,  # with three phases all searches end in the same mode
        random_seed=1,
        progressbar=False,
    )
    for run in runs
}

# %% [markdown]
# ## Reading a new run
#
# `decode` finds the phases of a run with a fit that does not know it. Every table and figure of a
# fit can be made of the result. With `filtered=True` it also holds what could have been known at
# each checkpoint from the past alone.

# %%
new = "seed 3"
decoded = bp.decode(fits[new], raw.sel(run=[new]), filtered=True, random_seed=1)
display(bp.boundaries(decoded).to_dataframe().round(2))
ax = bp.plot_phases(decoded, run=new, loss=metrics[["train_loss", "eval_loss"]])

# %%
filtered = decoded["filtered"]["phase_probability"]
both = {"given the whole run": bp.phase_probabilities(decoded), "given its past": filtered}
switch = slice(5800, 6200)
display(
    pd.DataFrame(
        {name: p.sel(run=new, state=2, step=switch).to_series() for name, p in both.items()}
    )
    .iloc[::2]
    .round(2)
)

# %% [markdown]
# ## A forecast
#
# After 4,000 steps the run has been in its slow phase for long. `forecast` takes what there is of
# it (`now=4000` forgets the rest) and the metrics of the finished runs, from which it learns how
# long it takes from where a run is to convergence. The table holds samples; `forecast_intervals`
# sums them up.

# %%
ahead = bp.forecast(
    fits[new], raw.sel(run=[new]), metrics=curves, now=4000, draws=200, random_seed=1
)
intervals = bp.forecast_intervals(ahead).sel(run=new)
display(intervals["phase_probability"].to_series().round(3))
display(
    pd.DataFrame(
        {
            "enters phase 2": intervals["entry_step"].sel(state=2).to_series(),
            "eval_accuracy > 0.9": intervals["converged_step"].to_series(),
        }
    )
    .round(-1)
    .astype(int)
    .T
)

# %%
fig, axes = plt.subplots(2, 1, figsize=(7, 6.4), layout="constrained")
for ax, now in zip(axes, (2000, 4000), strict=True):
    table = bp.forecast(
        fits[new], raw.sel(run=[new]), metrics=curves, now=now, draws=200, random_seed=1
    )
    bp.plot_forecast(table, metric="eval_loss", history=metrics, ax=ax)
plt.close(fig)
display(fig)

# %% [markdown]
# What came: it entered phase 2 at about 5,970 and converged at step 7,120.
#
# A hidden Markov model does not know how long it has been in a phase: its dwell times are
# geometric. The times above come from a second, simple model, learned from the finished runs given
# their phases: the logarithm of the time that remains is linear in the probabilities of the phases
# and in the logarithm of the time passed. How far off that may be is what it was off in each
# finished run when it did not know that run.
#
# ## How good is that?
#
# Each run, from its beginning, by the fit to the others, beside what one would try first. The
# continuous ranked probability score is in optimiser steps, and smaller is better; for a forecast
# without any doubt it is the absolute error.

# %%
scores = bp.forecast_scores(
    bp.standardize(raw),
    curves,
    3,
    fits=fits,
    seen=[0.1, 0.3, 0.5, 0.7, 0.9],
    draws=80,
    random_seed=1,
)
for event in ("converged", "phase 2"):
    score = scores["crps"].sel(event=event).dropna("forecaster", how="all")
    all_have = score.notnull().all("forecaster")  # so that all are compared over the same runs
    display(score.where(all_have).mean("run").to_pandas().round(-1))

# %% [markdown]
# Shares are of the steps up to convergence. (A trend of the accuracy says "never" while it is flat,
# which counts as twice the longest run.) How often intervals held what happened:

# %%
rank = scores["rank"].sel(event=["converged", "phase 2"], forecaster=["forecast", "geometric"])
inside = {
    f"{ci_prob:.0%}": (abs(rank - 0.5) <= ci_prob / 2).where(rank.notnull()).mean(["run", "seen"])
    for ci_prob in (0.5, 0.9)
}
display(pd.concat({k: v.to_pandas() for k, v in inside.items()}, axis=1).round(2))

# %% [markdown]
# ## What is saved
#
# The share of a run's steps to convergence that need not have been run to know its step up to 10,
# 20, 30 or 50 %, looking back, on average over the runs. And what one does without knowing the
# end: stop as soon as the 90 % interval is that narrow. The last line is how far off the median was
# then.

# %%
display(scores["saved"].mean("run").to_pandas().round(2))
ours = scores[["stopped", "stopped_off"]].sel(forecaster="forecast")
display(ours.mean("run").to_dataframe()[["stopped", "stopped_off"]].T.round(2))

# %% [markdown]
# Seven finished runs teach little about when an eighth will generalise: in the middle of the slow
# phase the interval spans a factor of two or three, and says so. What the phases add is the moment
# at which that changes: once the weights move as in phase 2, convergence is near, while the mean of
# the other runs, a constant hazard and a trend of the accuracy know nothing of it.
