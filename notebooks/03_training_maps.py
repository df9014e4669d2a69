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
# PLACEHOLDER

# %%
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import display

import bayesphase as bp

# draws are few here to be quick, which is what fits warn of
warnings.filterwarnings("ignore", message="Do not trust this fit", category=UserWarning)
metrics = bp.open_metrics(Path("../data/modular_addition.nc"))
fit = bp.fit(bp.features(metrics), 3, draws=300, random_seed=1, progressbar=False)

# %%
table = bp.training_map(fit)
edges = table[["n_runs", "step", "step_lower", "step_upper"]].to_dataframe()
display(edges[edges["n_runs"] > 0.5].round(1))
display(table["run_step"].stack(edge=("state", "state_next")).to_pandas().dropna(axis=1, how="all"))

# %%
ax = bp.plot_training_map(table)

# %%
names = ["log_odds", "log_odds_lower", "log_odds_upper", "gradient", "change"]
for start, end in ((1, 2), (2, 0)):
    print(f"from {start} to {end}")
    drivers = table.sel(state=start, state_next=end, drop=True)[names].to_dataframe()
    display(drivers.sort_values("log_odds", ascending=False).head(6).round(2))

# %%
ways = bp.forks(fit)
print(ways.attrs["verdict"])
display(ways[["sequence", "sequence_probability", "falls_back", "fall_step"]].to_dataframe())

# %%
converged = bp.convergence(metrics, metric="eval_accuracy", threshold=0.9)
table = bp.detours(fit, convergence=converged, random_seed=1)
display(table["visited"].to_pandas().round(2))
display(table[["optional", "effect", "effect_lower", "effect_upper", "detour"]].to_dataframe())
regression = ["r2", "adjusted_r2", "r2_by_run", "p_overall"]
display(table[regression].to_pandas().round(3))

# %%
apart = bp.dissimilarity(fit)
display(apart[["share", "run_distance"]].to_dataframe().round(3))
ax = bp.plot_dissimilarity(apart)

# %%
transition = np.array(
    [[0.92, 0.04, 0.04, 0], [0, 0.985, 0, 0.015], [0, 0, 0.88, 0.12], [0, 0, 0, 1]]
)
mean = np.array([[0, 0, 0], [2, -1, 0], [0, 2, 1], [3, 3, 3]])
planted = bp.simulate(
    n_states=4,
    n_runs=30,
    n_steps=150,
    mean=mean,
    transition_probs=transition,
    random_seed=1,
)
there = bp.fit(
    planted["features"], 4, emission="gaussian", draws=200, random_seed=1, progressbar=False
)
ax = bp.plot_training_map(there)

# %%
accuracy = xr.Dataset({"eval_accuracy": (planted["path"] == 3).astype(float)})
arrived = bp.convergence(accuracy)
ways = bp.forks(there)
table = bp.detours(there, convergence=arrived, random_seed=1)
print(float(ways["forked"]), ways["trajectory"].values, table.attrs)
display(table[["optional", "effect", "effect_lower", "effect_upper", "detour"]].to_dataframe())
display(table[regression].to_pandas().round(3))
