"""Is the posterior of the number of states right as often as it says? The full study is slow."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import sbc
import xarray as xr

import bayesphase as bp

N_DATA_SETS = 200
MOST = 5
SCALE = bp.Prior("InverseGamma", alpha=20.0, beta=10.0)
# what the numbers of states are drawn for in turn: emission, its priors, runs and checkpoints
SETTINGS: dict[str, tuple[Any, dict[str, bp.Prior], int, int]] = {
    f"{name}, {n_runs} run{'s' if n_runs > 1 else ''}": (emission, priors, n_runs, n_steps)
    for name, emission, priors in (
        (
            "constant",
            bp.Gaussian(),
            {"mean": bp.Prior("Normal", mu=0.0, sigma=2.0), "scale": SCALE},
        ),
        (
            "drift",
            bp.RandomWalk(),
            {"drift": bp.Prior("Normal", mu=0.0, sigma=1.5), "scale": SCALE},
        ),
    )
    for n_runs, n_steps in ((1, 120), (8, 40))
}
BINS = np.array([0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0])
WIDTHS = (0.5, 0.9)


class Outcome(NamedTuple):
    """Of one data set: its true number of states, the `stated` probability of each (n_states), and
    how much of the posterior the intervals hold and how often the truth is in them, by width.
    """

    true: int
    stated: np.ndarray
    mass: dict[float, np.ndarray]
    inside: dict[float, np.ndarray]


def outcome(setting: str, seed: int, most: int = MOST) -> Outcome:
    """Draw a number of states, parameters and data; fit every number."""
    emission, priors, n_runs, n_steps = SETTINGS[setting]
    rng = np.random.default_rng([20251, seed])
    true = int(rng.integers(1, most + 1))
    model = {"emission": emission, "transition": "sticky", "priors": priors}
    truth = sbc.simulate(sbc.grid(rng, n_runs, n_steps, uneven=False), rng, true, **model)
    fits = bp.fit_range(
        truth.features,
        range(1, most + 1),
        random_seed=seed,
        draws=300,
        chains=2,
        n_restarts=4,
        workers=1,
        progressbar=False,
        **model,
    )
    stated = bp.state_counts(fits, random_seed=1)["probability"].values
    rows = truth.spec.rows
    true_path = rows.to_grid(truth.states, (n_runs, n_steps), -1)
    drawn = [fit["paths"]["state"].values.reshape(-1, n_runs, n_steps) for fit in fits.values()]
    each = zip(drawn, stated, strict=True)
    weight = np.concatenate([np.full(len(paths), p / len(paths)) for paths, p in each])
    ends = first_and_last_switch(np.concatenate(drawn))
    return Outcome(true, stated, *coverage(ends, weight, first_and_last_switch(true_path)))


def first_and_last_switch(path: np.ndarray) -> np.ndarray:
    """Place (..., end, run) of the first and last switch of paths (..., run, step), or NaN."""
    switch = np.diff(path, axis=-1) != 0
    first, last = switch.argmax(axis=-1), switch.shape[-1] - 1 - switch[..., ::-1].argmax(axis=-1)
    ends = np.stack([first, last], axis=-2).astype(float)
    ends[~np.broadcast_to(switch.any(axis=-1)[..., None, :], ends.shape)] = np.nan
    return ends


def coverage(
    draws: np.ndarray, weight: np.ndarray, truth: np.ndarray
) -> tuple[dict[float, np.ndarray], dict[float, np.ndarray]]:
    """What equal-tailed intervals of weighted draws hold, and whether the truth is in them.

    draws: (draw, end, run), over all numbers of states; NaN where there is no switch, which also
    leaves out runs that truly have none: what is stated is about those that have.
    """
    mass, inside = {w: [] for w in WIDTHS}, {w: [] for w in WIDTHS}
    for end, run in np.argwhere(~np.isnan(truth)):
        at = draws[:, end, run]
        switched = ~np.isnan(at)
        if not weight[switched].sum() > 0:
            continue
        order = np.argsort(at[switched], kind="stable")
        value, w = at[switched][order], weight[switched][order] / weight[switched].sum()
        cumulative = w.cumsum() / w.sum()
        for width in WIDTHS:
            tails = np.array([0.5 - width / 2, 0.5 + width / 2])
            lower, upper = value[np.minimum(np.searchsorted(cumulative, tails), len(value) - 1)]
            mass[width].append(w[(value >= lower) & (value <= upper)].sum())
            inside[width].append(lower <= truth[end, run] <= upper)
    return ({k: np.array(v) for k, v in mass.items()}, {k: np.array(v) for k, v in inside.items()})


def z_of_scores(true: np.ndarray, stated: np.ndarray) -> dict[str, float]:
    """Standard scores of the mean number and the Brier score, if all probabilities are right.

    true: (set), numbers from 1; stated: (set, n_states). The second is Spiegelhalter's test (1986,
    doi:10.1002/sim.4780050506), for more than two outcomes.
    """
    n = np.arange(1, stated.shape[1] + 1)
    brier = 1.0 - 2.0 * stated + (stated**2).sum(axis=1, keepdims=True)  # if n were true
    found = {}
    for name, score in {"number": np.broadcast_to(n, stated.shape), "Brier": brier}.items():
        mean = (stated * score).sum(axis=1)
        variance = (stated * (score - mean[:, None]) ** 2).sum()
        got = score[np.arange(len(true)), true - 1]
        found[name] = float((got - mean).sum() / np.sqrt(variance))
    return found


def table_of_bins(true: np.ndarray, stated: np.ndarray) -> xr.Dataset:
    """Probabilities by their size: how many, their mean, how often they were true, and z."""
    is_true = np.arange(1, stated.shape[1] + 1) == true[:, None]
    which = np.clip(np.digitize(stated, BINS) - 1, 0, len(BINS) - 2)
    n, p, hits, variance = (
        np.bincount(which.ravel(), np.broadcast_to(x, stated.shape).ravel(), len(BINS) - 1)
        for x in (1.0, stated, is_true, stated * (1.0 - stated))
    )
    with np.errstate(invalid="ignore"):
        columns = {"n": n, "stated": p / n, "true": hits / n, "z": (hits - p) / np.sqrt(variance)}
    return xr.Dataset({name: ("bin", column) for name, column in columns.items()})


def _truths(rng: np.random.Generator, stated: np.ndarray) -> np.ndarray:
    return 1 + (rng.random((len(stated), 1)) > stated.cumsum(axis=1)).sum(axis=1)


def test_the_test_passes_what_is_calibrated_and_fails_what_is_too_sure():
    rng = np.random.default_rng(1)
    stated = rng.dirichlet(np.full(MOST, 0.3), N_DATA_SETS)
    true = _truths(rng, stated)
    assert all(abs(z) < 3 for z in z_of_scores(true, stated).values())
    assert (abs(table_of_bins(true, stated)["z"]) < 3).all()
    sure = stated**2.5 / (stated**2.5).sum(axis=1, keepdims=True)
    assert z_of_scores(true, sure)["Brier"] > 4
    assert abs(table_of_bins(true, sure)["z"]).max() > 4
    assert z_of_scores(np.minimum(true + 1, MOST), stated)["number"] > 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # evidences of too many states may be rough
def test_numbers_of_states_are_as_probable_as_stated(capsys):
    names = list(SETTINGS)
    seeds = range(N_DATA_SETS)
    outcomes = [outcome(names[seed % len(names)], seed) for seed in seeds]
    of_setting = np.arange(N_DATA_SETS) % len(names)
    with capsys.disabled():
        z = report(outcomes, of_setting)
    assert max(abs(value) for value in z) < 3


def report(outcomes: list[Outcome], of_setting: np.ndarray) -> list[float]:
    """Print the tables and return all standard scores that have to be small."""
    true = np.array([o.true for o in outcomes])
    stated = np.stack([o.stated for o in outcomes])
    bins = table_of_bins(true, stated)
    z = [value for value in bins["z"].values if not np.isnan(value)]
    print("\nstated between      n  mean stated  true     z")  # noqa: T201
    for low, high, row in zip(BINS, BINS[1:], bins.to_dataframe().itertuples(), strict=False):
        said = f"{row.n:8.0f} {row.stated:12.3f} {row.true:5.3f} {row.z:5.1f}"
        print(f"{low:4.2f} and {high:4.2f} {said}")  # noqa: T201
    prior = f"log score {-np.log(MOST):.2f} and Brier score {1 - 1 / MOST:.2f}"
    print(f"The prior: {prior}. The posterior:")  # noqa: T201
    for i, name in [(None, "all"), *enumerate(SETTINGS)]:
        chosen = np.flatnonzero((of_setting == i) | (i is None))
        if not chosen.size:
            continue
        t, p = true[chosen], stated[chosen]
        at_truth = p[np.arange(len(t)), t - 1]
        brier = np.mean(1.0 - 2.0 * at_truth + (p**2).sum(axis=1))
        scores = z_of_scores(t, p)
        line = f"{name}: {len(t)} sets, most probable true in {np.mean(p.argmax(1) + 1 == t):.0%} "
        line += f"(stated {p.max(1).mean():.0%}), log score {np.log(at_truth).mean():.2f}, Brier "
        line += f"{brier:.2f} (z {scores['Brier']:.1f}), number z {scores['number']:.1f}"
        z += scores.values()
        for width in WIDTHS:
            mass = [outcomes[s].mass[width] for s in chosen if outcomes[s].mass[width].size]
            inside = [outcomes[s].inside[width] for s in chosen if outcomes[s].mass[width].size]
            errors = np.array([np.sum(i - m) for i, m in zip(inside, mass, strict=True)])
            in_errors = errors.sum() / np.sqrt(np.sum(errors**2))
            if i is None:  # the spread of few errors, all of one sign, says too little of chance
                z.append(in_errors)
            line += (
                f"; {width:.0%} intervals hold {np.concatenate(mass).mean():.3f}, cover "
                f"{np.concatenate(inside).mean():.3f} of {sum(map(len, mass))} (z {in_errors:.1f})"
            )
        print(line)  # noqa: T201
    return z
