"""Runs cut at a step into what is known and what comes after, and fits to the former."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from bayesphase.model.fit import fit
from bayesphase.model.held_out import log_predictive
from bayesphase.model.pointwise import flat_posterior, likelihood_of_stretches
from bayesphase.model.spec import recorded

# a run with fewer checkpoints is no sequence, and not in a fit
_LEAST_KNOWN = 2


class Future:
    """What a fit's model, fitted to all checkpoints up to a step, says of those after it.

    At each of several steps, the origins, the block of a run is what the run has on the next
    `horizon` steps of the grid. Runs with fewer than two checkpoints by then are left out.

    Parameters
    ----------
    whole : DataTree
        A fit to all checkpoints. Its model, priors included, is that of all others.
    origins : ndarray (origin)
        Positions on the grid of steps, the last at least `horizon` before its end.
    horizon : int
    settings : mapping
        Settings of `fit` that replace those of the fit.

    Attributes
    ----------
    origins : ndarray (origin)
    n_draws : int
        Of each fit, all chains together.
    predicted : ndarray (origin, run)
        Whether there is such a block.

    Raises
    ------
    ValueError
        If the fit does not say what its model was, or was told states, or nothing is predicted.
    """

    def __init__(
        self, whole: xr.DataTree, origins: np.ndarray, horizon: int, settings: Mapping[str, Any]
    ) -> None:
        self._spec = recorded(whole)
        if self._spec.known_states is not None:
            raise ValueError(
                "the fit was told some states, and what is known of later ones is no prediction: "
                "fit without known_states"
            )
        self._features = whole["observed_data"].to_dataset()["features"]
        self.origins, self._horizon = origins, horizon
        self._settings: dict[str, Any] = {
            "draws": whole["posterior"].sizes["draw"],
            "chains": whole["posterior"].sizes["chain"],
            "n_restarts": whole["restarts"].sizes["restart"],
            **{name: whole.attrs[name] for name in ("sampler", "tune", "target_accept")},
            **settings,
        }
        self.n_draws = self._settings["draws"] * self._settings["chains"]
        rows = self._spec.rows
        present = np.zeros((self._features.sizes["run"], self._features.sizes["step"]), int)
        present[rows.run, rows.step] = 1
        n_by = present.cumsum(axis=1).T
        n_known = np.where(n_by[origins] >= _LEAST_KNOWN, n_by[origins], 0)
        starts = np.broadcast_to(rows.layout.starts, n_known.shape)
        self._known = n_known > 0
        self._starts, self._cuts = starts, starts + n_known
        self._stops = np.where(self._known, starts + n_by[origins + horizon], starts)
        self.predicted = self._stops > self._cuts
        if not self.predicted.any():
            raise ValueError(
                "no run has two checkpoints up to an origin and one in the block after it: raise "
                "min_steps or horizon"
            )

    def fit_to(self, at: int, *, random_seed: int, block_of: int | None = None) -> xr.DataTree:
        """Fit to all that is known at an origin and, if wanted, the block of one run (position)."""
        known = np.arange(self._features.sizes["step"]) <= self.origins[at]
        kept = np.tile(known, (self._features.sizes["run"], 1))
        if block_of is not None:
            kept[block_of, : self.origins[at] + self._horizon + 1] = True
        features = self._features.where(xr.DataArray(kept, dims=("run", "step")))
        spec = self._spec
        features = features.assign_attrs(step_unit=spec.rows.step_unit)
        try:
            return fit(
                features.isel(run=np.flatnonzero(self._known[at])),
                spec.n_states,
                emission=spec.emission,
                transition=spec.structure,
                priors=spec.priors,
                random_seed=random_seed,
                **self._settings,
            )
        except Exception as error:
            step = self._features["step"].values[self.origins[at]]
            error.add_note(f"This was the fit to what is known at step {step}.")
            raise

    def densities(self, fitted: xr.DataTree) -> tuple[xr.DataArray, xr.DataArray]:
        """Log densities under the draws of a fit, nats.

        Returns
        -------
        known : DataArray (chain, draw, origin)
            Of all that is known at an origin.
        ahead : DataArray (chain, draw, origin, run)
            Of the block of each run, given what is known of the run; 0 where there is none.
        """
        ends = self._starts, self._cuts, self._stops
        drawn = flat_posterior(fitted)
        absent = np.zeros(self._features.sizes["run"], bool)
        if "offset" in drawn:
            runs = self._features.indexes["run"].get_indexer(fitted["posterior"]["run"].values)
            every = np.zeros((self.n_draws, len(absent), drawn["offset"].shape[2]))
            every[:, runs] = drawn["offset"]
            drawn["offset"], absent = every, ~np.isin(np.arange(len(absent)), runs)
        both = likelihood_of_stretches(
            self._spec,
            drawn,
            np.stack(ends[:2]),
            np.stack(ends[1:]),
            cores=self._settings.get("cores"),
        )
        if absent.any():  # nothing is known here of runs that are not in the fit
            some = np.stack([self._cuts > self._starts, self._stops > self._cuts])
            both[:, some & absent] = np.nan
        chain_draw = {dim: fitted["posterior"][dim] for dim in ("chain", "draw")}
        sizes = [len(coordinate) for coordinate in chain_draw.values()]
        known, ahead = (
            xr.DataArray(
                both[:, i].reshape(*sizes, *self.predicted.shape),
                dims=("chain", "draw", "origin", "run"),
                coords={**chain_draw, "run": self._features["run"].values},
            )
            for i in range(2)
        )
        return known.sum("run", skipna=False), ahead

    def log_predictive(
        self, at: int, run: int, without: xr.DataTree, *, random_seed: int
    ) -> tuple[float, float]:
        """Log density of the block of a run (position), and its error, by a fit with the block.

        `without` is the fit to what is known at the origin. See `held_out.log_predictive`.
        """
        more = self.fit_to(at, random_seed=random_seed, block_of=run)
        return log_predictive(without, more)
