"""Simulation-based calibration of every emission family and transition structure.

A quick one of two families is always run; the full one is slow and prints its table.
"""

from typing import Any

import numpy as np
import pytest
import sbc
import xarray as xr

import bayesphase as bp

N_QUICK, N_DATA_SETS = 40, 200
# probability of a false alarm, of all quantities of a setting together
LEVEL = 0.01

Prior = bp.Prior
SCALE = Prior("InverseGamma", alpha=20.0, beta=10.0)
LEVELS = {"mean": Prior("Normal", mu=0.0, sigma=2.0), "scale": SCALE}
# far from where a large value would run away
DRIFTS = {
    "drift": Prior("Normal", mu=0.0, sigma=0.5),
    "scale": Prior("InverseGamma", alpha=20.0, beta=4.0),
    "slope": Prior("Normal", mu=-0.4, sigma=0.06),
    "curvature": Prior("Normal", mu=0.0, sigma=0.01),
}
OFFSETS = {"offset_scale": Prior("HalfNormal", sigma=0.5)}
EMISSIONS: dict[str, tuple[Any, dict[str, Prior]]] = {
    "gaussian": (bp.Gaussian(), LEVELS),
    "student_t": (bp.StudentT(), LEVELS),
    "full_gaussian": (bp.FullGaussian(), LEVELS),
    "offsets": (bp.Gaussian(offsets=True), {**LEVELS, **OFFSETS}),
    "random_walk": (
        bp.RandomWalk(),
        {"drift": Prior("Normal", mu=0.0, sigma=1.5), "scale": SCALE},
    ),
    "autoregressive": (
        bp.AutoRegressive(),
        {
            "level": Prior("Normal", mu=0.0, sigma=2.0),
            "scale": SCALE,
            "rate": Prior("LogNormal", mu=-1.0, sigma=0.4),
        },
    ),
    "quadratic_drift": (bp.QuadraticDrift(), DRIFTS),
    "offsets_of_drifts": (bp.QuadraticDrift(offsets=True), {**DRIFTS, **OFFSETS}),
}
CYCLE = ((True, True, False), (False, True, True), (True, False, True))
# number of states, structure, and whether some states are known
TRANSITIONS: dict[str, tuple[int, Any, bool]] = {
    "sticky": (2, bp.Sticky(), False),
    "masked": (3, bp.Sticky(allowed=CYCLE), False),
    "left_to_right": (3, bp.LeftToRight(), False),
    "skip": (3, bp.LeftToRight(skip=True), False),
    "continuous_time": (2, bp.ContinuousTime(dwell_share=0.25), False),
    "known_states": (2, bp.Sticky(), True),
    "sticky_hdp": (5, bp.StickyHDP(), False),
}
SETTINGS = [
    *((family, "sticky") for family in EMISSIONS),
    *(("gaussian", structure) for structure in TRANSITIONS if structure != "sticky"),
    ("quadratic_drift", "left_to_right"),
    ("student_t", "continuous_time"),
]


def simulated(setting: tuple[str, str], rng: np.random.Generator, n_steps: int) -> sbc.Truth:
    """Draw a data set; of known states nothing is revealed yet."""
    emission, priors = EMISSIONS[setting[0]]
    n_states, transition, _ = TRANSITIONS[setting[1]]
    on = sbc.grid(rng, n_steps=n_steps)
    model = {"emission": emission, "transition": transition, "priors": priors}
    return sbc.simulate(on, rng, n_states, **model)


def known_of(truth: sbc.Truth) -> xr.DataArray:
    """Reveal the state of every tenth checkpoint of the first run."""
    rows = truth.spec.rows
    known = rows.to_grid(truth.states.astype(float), truth.features.shape[:2], np.nan)
    known[1:], known[:, np.arange(known.shape[1]) % 10 > 0] = np.nan, np.nan
    return truth.features.isel(feature=0, drop=True).copy(data=known)


def ranks_of(
    setting: tuple[str, str], n: int, *, wrong: dict[str, Prior] | None = None, n_steps: int = 60
) -> dict[str, np.ndarray]:
    """Ranks (set) of each quantity in `n` data sets, fitted under priors that may be wrong."""
    found = [_ranks_of_one(setting, seed, wrong or {}, n_steps) for seed in range(n)]
    return {name: np.array([ranks[name] for ranks in found]) for name in found[0]}


def _ranks_of_one(
    setting: tuple[str, str], seed: int, wrong: dict[str, Prior], n_steps: int
) -> dict[str, int]:
    # other numbers for every setting: what is by chance in one is not in all
    rng = np.random.default_rng([*"-".join(setting).encode(), seed])
    truth = simulated(setting, rng, n_steps)
    known = known_of(truth) if TRANSITIONS[setting[1]][2] else None
    if known is not None:
        truth = truth.with_known(known)
    fit = bp.fit(
        truth.features,
        truth.spec.n_states,
        emission=truth.spec.emission,
        transition=truth.spec.structure,
        priors={**EMISSIONS[setting[0]][1], **wrong},
        known_states=known,
        random_seed=seed,
        draws=200,
        chains=2,
        n_restarts=3,
        cores=1,
        progressbar=False,
    )
    return sbc.ranks(truth, fit, rng)


def p_values(ranks: dict[str, np.ndarray]) -> dict[str, float]:
    """P-values of uniformity, by Bonferroni for all quantities together."""
    return {name: min(1.0, len(ranks) * sbc.p_value(r)) for name, r in ranks.items()}


def test_the_test_itself_has_its_level_and_some_power():
    rng = np.random.default_rng(3)
    p = np.array([sbc.p_value(rng.integers(0, sbc.N_KEPT + 1, 200)) for _ in range(400)])
    for level in (0.05, 0.2):
        assert abs(np.mean(p < level) - level) < 3 * np.sqrt(level * (1 - level) / len(p))
    truth, draws = rng.normal(size=(400, 1)), rng.normal(size=(400, sbc.N_KEPT))
    for wrong in (0.8 * draws, 1.3 * draws, draws + 0.3):
        assert sbc.p_value((wrong < truth).sum(axis=1)) < 0.001


def test_ranks_are_uniform_quickly():
    p = p_values(ranks_of(("gaussian", "sticky"), N_QUICK, n_steps=40))
    assert min(p.values()) > LEVEL, p


def test_ranks_under_a_wrong_prior_are_not():
    """A posterior that expects scales a third too large is found out."""
    wrong = {"scale": Prior("InverseGamma", alpha=20.0, beta=13.3)}
    p = p_values(ranks_of(("gaussian", "sticky"), N_QUICK // 2, n_steps=40, wrong=wrong))
    assert p["sum of scale"] < LEVEL


def test_only_the_likelihood_sees_that_a_posterior_ignores_the_data():
    """Draws from the prior have uniform ranks of all parameters and paths."""
    found = []
    for seed in range(N_QUICK // 2):
        rng = np.random.default_rng([20252, seed])
        truth = simulated(("gaussian", "sticky"), rng, 40)
        found.append(sbc.ranks_in_prior(truth, rng))
    p = p_values({name: np.array([ranks[name] for ranks in found]) for name in found[0]})
    assert p.pop("log likelihood") < 0.001
    assert min(p.values()) > LEVEL, p


# Where laws of motion differ little, a phase that few checkpoints are in may begin in many places:
# each is a mode of its own, which holds less than the one without this phase, though not all do.
MANY_MODES = pytest.mark.xfail(reason="chains stay in the mode of the fewest phases", strict=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(s, marks=MANY_MODES if s == ("quadratic_drift", "left_to_right") else ())
        for s in SETTINGS
    ],
    ids="-".join,
)
def test_ranks_are_uniform(setting, capsys):
    p = p_values(ranks_of(setting, N_DATA_SETS))
    with capsys.disabled():
        said = ", ".join(f"{name} {value:.2g}" for name, value in p.items())
        print(f"\n{' '.join(setting)}, {N_DATA_SETS} data sets, adjusted p: {said}")  # noqa: T201
    assert min(p.values()) > LEVEL
