"""A whole range of K: posteriors with boundaries, beside the selection that the paper makes.

The paper (arXiv 2308.09543) fits hmmlearn's GaussianHMM for every K, here with diagonal
covariances, with 5 restarts of at most 32 iterations, and takes the lowest BIC. Both get the same
data and the same machine, one after the other, imports excluded, caches on disk warm.
"""

from time import perf_counter
from typing import Any

from tests.benchmarks.alone import TooLong, alone
from tests.benchmarks.data import case
from tests.benchmarks.peers import installed
from tests.benchmarks.report import Settings, complain, duration, show

SIZES = ("L",)
# enough for a smallest effective sample size of 400, unless there are more states than in the data
_DRAWS, _TUNE = 150, 100


def run(settings: Settings) -> list[str]:
    """Print a table per size: one row per K, then the totals and their ratio."""
    failures: list[str] = []
    alone("peers.ours:warm_up")
    for size in settings.sizes or SIZES:
        limit = 60.0 * settings.minutes * settings.max_states
        try:
            ours = alone(
                "selection:measure_ours",
                limit=limit,
                size=size,
                max_states=settings.max_states,
                draws=settings.draws or _DRAWS,
                tune=settings.tune or _TUNE,
                chains=settings.chains,
                seed=settings.seed,
            )
            paper: Any = None
            if installed("hmmlearn"):
                paper = alone(
                    "selection:measure_paper",
                    limit=limit,
                    size=size,
                    max_states=settings.max_states,
                )
        except (TooLong, RuntimeError) as error:
            failures.append(complain(f"{size}: {type(error).__name__}: {error}"))
            continue
        _show(settings, size, ours, paper)
    return failures


def _show(settings: Settings, size: str, ours: dict[str, Any], paper: Any) -> None:
    rows: list[tuple[Any, ...]] = []
    for i, fitted in enumerate(ours["fits"]):
        theirs = (duration(paper["seconds"][i]), paper["steps"][i]) if paper else (None, None)
        ess = (fitted["ess"], f"{fitted['rhat']:.3f}", fitted["divergences"])
        rows.append((f"K = {i + 1}", *ess, *theirs))
    total, theirs = ours["total"], paper["total"] if paper else None
    rows.append(("all, in wall time", duration(total), "", "", duration(theirs), ""))
    if paper:
        note = (
            f"bayesphase / hmmlearn = {total / theirs:.2f}; its BIC chooses K = {paper['chosen']}"
        )
    else:
        note = "hmmlearn is not installed"
    show(
        f"Range of K, {case(size)}: bayesphase with {settings.chains} chains of "
        f"{settings.tune or _TUNE} + {settings.draws or _DRAWS} and boundaries "
        f"({duration(ours['boundaries'])} of it); hmmlearn with 5 restarts",
        ["", "min bulk ESS", "max R-hat", "div.", "hmmlearn", "EM steps"],
        rows,
        f"{note}. ESS of K above the true number, or where chains sit in different modes, is low "
        "for what the data are, not for what the sampler does: see R-hat.",
    )


def measure_ours(
    *, size: str, max_states: int, draws: int, tune: int, chains: int, seed: int
) -> dict[str, Any]:
    """Fit every K and find the boundaries; runs in a process of its own."""
    import bayesphase as bp
    from tests.benchmarks.peers.ours import warm_up
    from tests.benchmarks.posterior import summary

    warm_up()
    problem = case(size)
    start = perf_counter()
    fits = bp.fit_range(
        problem.features,
        range(1, max_states + 1),
        emission="gaussian",
        draws=draws,
        tune=tune,
        chains=chains,
        random_seed=seed,
        progressbar=False,
    )
    fitted = perf_counter()
    for fit in fits.values():
        bp.boundaries(fit)
    end = perf_counter()
    summaries = []
    for fit in fits.values():
        drawn = {name: fit["posterior"][name].values for name in problem.parameters}
        quality = summary(drawn)
        diverging = int(fit["sample_stats"]["diverging"].sum())
        summaries.append(
            {key: quality[key] for key in ("ess", "rhat")} | {"divergences": diverging}
        )
    return {"total": end - start, "boundaries": end - fitted, "fits": summaries}


def measure_paper(*, size: str, max_states: int) -> dict[str, Any]:
    """Select K with hmmlearn; runs in a process of its own."""
    import hmmlearn.hmm  # noqa: F401  # so that the import is not timed

    from tests.benchmarks.peers.hmmlearn import selection

    return selection(case(size), max_states=max_states)
