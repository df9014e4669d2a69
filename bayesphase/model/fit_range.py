"""Several fits of the same features, at the same time where there are cores or a cluster for it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from functools import partial
from inspect import signature
from itertools import product
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import xarray as xr

from bayesphase._checks import check_count, threads
from bayesphase.model.fit import fit
from bayesphase.model.spec import specify

if TYPE_CHECKING:
    from distributed import Client

# seconds that idle worker processes are kept for the next call: to start one takes a few
_KEEP_WORKERS = 300

# one fit at a time in a Dask worker, which would start one in each of its threads: each can use all
# of them, and PyMC compiles in one thread only
_TURN = Lock()


class FitRangeError(RuntimeError):
    """Some fits failed; `fits` are the others."""

    def __init__(self, message: str, fits: dict[str, xr.DataTree]) -> None:
        super().__init__(message)
        self.fits = fits


_Fit = partial[xr.DataTree]
_Outcome = xr.DataTree | Exception


class _Job(NamedTuple):
    """A fit to be done, waiting for features, cores and progressbar; and how errors call it."""

    fit: _Fit
    title: str

    @property
    def n_states(self) -> int:
        return self.fit.keywords["n_states"]

    @property
    def chains(self) -> int:
        return self.fit.keywords["chains"]


def fit_range(
    features: xr.DataArray,
    n_states: Iterable[int] = range(1, 7),
    *,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    client: "Client | None" = None,
    workers: int | None = None,
    cores: int | None = None,
    progressbar: bool = True,
    **settings: Any,
) -> dict[str, xr.DataTree]:
    """Fit one model per number of states, and per variant of the settings.

    The draws are the same, bit for bit, as those of `fit` with the same seed, whichever way the
    fits are shared out (on machines of one kind).

    Parameters
    ----------
    features : DataArray (run, step, feature)
    n_states : iterable of int
    variants : mapping of str to mapping, optional
        Settings to compare, by the name that their fits shall have, such as
        ``{"wide": {"priors": {...}}, "default": {}}``. Each goes on top of `settings`.
    client : distributed.Client, optional
        Fits are tasks on its Dask cluster. A worker does one fit at a time, with as many chains at
        once as it has threads: `chains` threads per worker are best. What was running on a worker
        that dies is started again elsewhere.
    workers : int, optional
        How many fits run at the same time on this machine, each in a process of its own; 1 is one
        after the other in this process. By default as many as there are cores for, when every fit
        runs all of its chains at once.
    cores : int, optional
        Cores to use for all fits together, all of them by default; with a `client`, for each fit.
    progressbar : bool
        Show the sampler's progress, or, of fits that run at the same time, how many are done.
    **settings
        Passed on to `fit`.

    Returns
    -------
    dict
        Fits by their number of states as text, ``{"1": ..., "2": ...}``, or by variant and number,
        ``{"wide 1": ..., "wide 2": ..., "default 1": ...}``: the form in which ArviZ's comparisons
        take them.

    Raises
    ------
    TypeError, ValueError
        As `fit` does.
    RuntimeError
        If some of the fits failed: it says which and why, and has the others as its `fits`. If all
        did, the error of the first is raised as it is.

    Examples
    --------
    >>> import bayesphase as bp
    >>> data = bp.simulate(n_states=2, n_runs=2, n_steps=60, random_seed=1)
    >>> fits = bp.fit_range(data["features"], range(1, 4), random_seed=1)  # doctest: +SKIP
    >>> bp.boundaries(fits["3"])  # doctest: +SKIP

    On a Dask cluster:

    >>> from distributed import Client  # doctest: +SKIP
    >>> with Client() as client:  # doctest: +SKIP
    ...     fits = bp.fit_range(data["features"], range(1, 9), client=client)
    """
    available = threads(cores)
    jobs = _jobs(features, n_states, variants or {"": {}}, settings)
    features = features.compute()  # lazy ones may hang on a file that workers can't open
    if client is not None:
        if workers is not None:
            raise ValueError(f"workers={workers!r} is for this machine: leave it out with client")
        if not hasattr(client, "get_executor"):
            raise TypeError(f"client must be a distributed.Client, got {client!r}")
        return _fits(jobs, _on_cluster(client, features, jobs, cores, progressbar))
    if workers is None:
        workers = max(available // max(job.chains for job in jobs.values()), 1)
    workers = min(check_count("workers", workers, least=1), len(jobs))
    if workers > 1:
        each = max(available // workers, 1)
        return _fits(jobs, _in_processes(workers, features, jobs, each, progressbar))
    here = {"cores": cores, "progressbar": progressbar}
    return _fits(
        jobs, {key: _outcome(partial(job.fit, features, **here)) for key, job in jobs.items()}
    )


def _jobs(
    features: xr.DataArray,
    n_states: Iterable[int],
    variants: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> dict[str, _Job]:
    """List the fits by the keys of the result; whatever can be is checked before one is begun."""
    if not isinstance(n_states, Iterable):
        raise TypeError(f"n_states must be numbers of states such as range(1, 7), got {n_states!r}")
    if not isinstance(variants, Mapping):
        raise TypeError(f"variants must be settings of fit by name, got {variants!r}")
    jobs = {}
    for (variant, changed), k in product(variants.items(), n_states):
        title = f"n_states={k!r}" + (f" of variant {variant!r}" if variant else "")
        with _naming(title):
            if shared := {"cores", "progressbar"} & set(changed):
                raise ValueError(
                    f"a variant can't have its own {sorted(shared)}: all fits share it"
                )
            given = signature(fit).bind(features, k, **{**settings, **changed})
            given.apply_defaults()
            own = {name: given.arguments[name] for name in given.kwargs}
            names = ("emission", "transition", "priors", "known_states")
            model = {name: own[name] for name in names}
            specify(features, k, **model)
            check_count("chains", own["chains"], least=1)
        del own["cores"], own["progressbar"]
        key = f"{variant} {k}" if variant else str(k)
        if key in jobs:
            raise ValueError(f"n_states holds {k} more than once")
        jobs[key] = _Job(partial(fit, n_states=k, **own), title)
    if not jobs:
        raise ValueError("n_states is empty: there is nothing to fit")
    return jobs


def _in_processes(
    workers: int, features: xr.DataArray, jobs: Mapping[str, _Job], cores: int, progressbar: bool
) -> dict[str, _Outcome]:
    """Do the fits in processes on this machine, each with so many `cores`."""
    # unlike the standard library's pool, loky's needs no `if __name__ == "__main__"` in a script,
    # and takes classes that are defined in a notebook
    from joblib.externals.loky import get_reusable_executor

    pool = get_reusable_executor(workers, timeout=_KEEP_WORKERS)
    try:
        return _at_once(
            jobs, lambda job: pool.submit(_on_worker, features, job.fit, cores), progressbar
        )
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise


def _on_cluster(
    client: "Client",
    features: xr.DataArray,
    jobs: Mapping[str, _Job],
    cores: int | None,
    progressbar: bool,
) -> dict[str, _Outcome]:
    """Do the fits as tasks of a Dask client, each with at most `cores`."""
    import dask

    # a task that returns the features, since scattered data are lost with the worker that holds
    # them while a result is made anew; Dask's advice on large tasks is to scatter
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
        there = client.submit(_same, features, pure=False)
    # not pure: the same call without a seed is another fit
    submit = partial(client.get_executor(pure=False).submit, _on_dask_worker, there)
    return _at_once(jobs, lambda job: submit(job.fit, cores, priority=job.n_states), progressbar)


def _same(features: xr.DataArray) -> xr.DataArray:
    return features


def _on_dask_worker(features: xr.DataArray, fit_to: _Fit, cores: int | None) -> xr.DataTree:
    from distributed import get_worker

    threads = get_worker().state.nthreads
    with _TURN:
        return _on_worker(features, fit_to, min(cores or threads, threads))


def _on_worker(features: xr.DataArray, fit_to: _Fit, cores: int) -> xr.DataTree:
    if fit_to.keywords["sampler"] == "pymc":
        cores = 1  # its chains are processes, and a worker can't start any
    return fit_to(features, cores=cores, progressbar=False)


def _at_once(
    jobs: Mapping[str, _Job], submit: Callable[[_Job], "Future[xr.DataTree]"], progressbar: bool
) -> dict[str, _Outcome]:
    """Submit all fits and gather what comes of them, under a bar that counts them."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = ("fits", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # the longest first, so that none of them is begun when all others are done
    order = sorted(jobs, key=lambda key: jobs[key].n_states, reverse=True)
    outcomes = {}
    with Progress(*columns, disable=not progressbar) as progress:
        bar = progress.add_task("fits", total=len(jobs))
        waiting = {submit(jobs[key]): key for key in order}
        try:
            for future in as_completed(list(waiting)):
                outcomes[waiting.pop(future)] = _outcome(future.result)
                progress.advance(bar)
        finally:
            for future in waiting:
                future.cancel()
    return outcomes


def _outcome(result: Callable[[], xr.DataTree]) -> _Outcome:
    """Return the fit, or the error that it ended with."""
    try:
        return result()
    except Exception as error:
        return error


def _fits(jobs: Mapping[str, _Job], outcomes: Mapping[str, _Outcome]) -> dict[str, xr.DataTree]:
    """Return the fits in the order of the jobs; raise if any failed, without losing the others."""
    fits, failed = {}, {}
    for key, job in jobs.items():
        outcome = outcomes[key]
        if isinstance(outcome, Exception):
            failed[job.title] = outcome
        else:
            fits[key] = outcome
    if not failed:
        return fits
    title, first = next(iter(failed.items()))
    if not fits:
        with _naming(title):
            raise first
    reasons = "; ".join(f"{t}: {type(error).__name__}: {error}" for t, error in failed.items())
    raise FitRangeError(
        f"{len(failed)} of {len(jobs)} fits failed, the others are this error's `fits`. {reasons}",
        fits,
    ) from first


@contextmanager
def _naming(title: str) -> Iterator[None]:
    """Note on an error which fit it belongs to."""
    try:
        yield
    except Exception as error:
        error.add_note(f"This was the fit with {title}.")
        raise
