"""Metrics of runs in progress that go the way of finished runs."""

import numpy as np
import xarray as xr

# a run that has converged forgets how it differs from others within this share of their time
_FORGETS = 0.1


class Metrics:
    """Metrics (run, step) of finished runs, and of those in progress up to now.

    Attributes
    ----------
    names : list of str
    steps : ndarray (step)
    finished, so_far : dict
        Values (run, step) by name; NaN where there is none, or none is known yet.
    """

    def __init__(
        self,
        metrics: xr.Dataset,
        finished: np.ndarray,
        runs: np.ndarray,
        now: np.ndarray,
        criterion: str,
    ) -> None:
        if not isinstance(metrics, xr.Dataset):
            raise TypeError(
                f"metrics must be a Dataset with dims (run, step), got {type(metrics).__name__}"
            )
        self.names = [str(n) for n, v in metrics.items() if set(v.dims) == {"run", "step"}]
        if criterion not in self.names:
            raise ValueError(
                f"metrics has no {criterion!r} with dims (run, step), which convergence is told "
                f"by; it has {self.names}"
            )
        missing = sorted(set(finished.tolist()) - set(metrics["run"].values.tolist()))
        if missing:
            raise ValueError(f"metrics lacks the runs {missing} of the fit")
        used = metrics[self.names].transpose("run", "step")
        self.steps = used["step"].values.astype(float)
        known = used.sel(run=finished)
        begun = used.reindex(run=runs)  # metrics of a run in progress may not be recorded
        past = self.steps <= now[:, None]
        self.finished = {name: known[name].values.astype(float) for name in self.names}
        self.so_far = {
            name: np.where(past, begun[name].values.astype(float), np.nan) for name in self.names
        }


def metric_ahead(
    known: Metrics,
    name: str,
    event: np.ndarray,
    time: np.ndarray,
    donor: np.ndarray,
    now: np.ndarray,
    ahead: np.ndarray,
) -> np.ndarray:
    """Let a metric go on as it did in finished runs, about the step of convergence.

    It goes the way of the donor from as long before the donor's convergence as the run's own is
    ahead. Before that it waits where the donor was at the same share of its way as the run is now.
    What the run is off the donor now fades until it converges. Positive metrics differ by a factor,
    others by a sum, and none goes where it was in no run.

    Parameters
    ----------
    known : Metrics
    name : str
    event : ndarray (finished run)
        Step of convergence; NaN where there is none.
    time : ndarray (sample, run)
        Steps of convergence of the runs in progress.
    donor : ndarray (sample, run)
        Finished runs that converge.
    now : ndarray (run)
    ahead : ndarray (ahead)
        Steps after now.

    Returns
    -------
    ndarray (sample, run, ahead)
        NaN where the donor has no value of it.
    """
    finished, so_far = known.finished[name], known.so_far[name]
    seen = np.concatenate([finished[np.isfinite(finished)], so_far[np.isfinite(so_far)]])
    positive = bool(seen.size and seen.min() > 0.0)
    out = np.full((*time.shape, len(ahead)), np.nan)
    h = np.append(0.0, ahead)
    for run, i in np.ndindex(time.shape[1], len(finished)):
        samples = np.flatnonzero(donor[:, run] == i)
        there = np.isfinite(finished[i])
        if not samples.size or not there.any():
            continue
        values = np.log(finished[i, there]) if positive else finished[i, there]
        remains = (time[samples, run] - now[run])[:, None]
        waits = event[i] * now[run] / np.maximum(time[samples, run], now[run] + 1e-9)
        at = np.maximum(event[i] - remains + h, np.where(remains > 0, waits[:, None], -np.inf))
        path = np.interp(at, known.steps[there], values)
        own = so_far[run, np.isfinite(so_far[run])]
        if own.size:
            off = (np.log(own[-1]) if positive else own[-1]) - path[:, :1]
            fades = np.maximum(remains, _FORGETS * event[i])
            path = path + off * np.maximum(1.0 - h / fades, 0.0)
        out[samples, run] = path[:, 1:]
    if seen.size:
        low, high = seen.min(), seen.max()
        out = np.clip(np.exp(out) if positive else out, low, high)
    return out
