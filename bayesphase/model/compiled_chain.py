"""The chain's part of the compiled density: from coordinates to log-potentials, and back.

Coordinates x are those of `conjugate`, one variable after the other: centred log-ratios of the
initial probabilities, if these are free, then those of the rows of transition probabilities, or the
log odds of the shares that rows are broken into, or logarithms of rates of switching. They are
stretched coordinates u of the sampler. The gradient is the prior's, updated by what is expected of
the path; see there. Chains that bring their own prior do so in compiled code, too; see `hdp_prior`.
"""

from typing import Any, NamedTuple

import numpy as np

from bayesphase.model.exponential import derivative, matrices
from bayesphase.model.simd import inlined, inner


class Plan(NamedTuple):
    """How log-potentials are made of a chain's variables.

    `order` (state, state) lists the states in which a row of shares ends, in the order in which
    they are broken off, and -1 for those that it does not lead to; it is empty where rows are no
    shares. `first` (1) is the state that all runs start in, -1 where any can. `kinds` (kind, 3)
    lists the matrices by what leads to them: the number of the gap, and the only state that is left
    and the only one that is entered, -1 where any can be. `gaps` (gap) is empty but in continuous
    time.
    """

    order: np.ndarray = np.zeros((0, 0), np.int64)
    first: np.ndarray = np.full(1, -1)
    kinds: np.ndarray = np.array([[0, -1, -1]])
    gaps: np.ndarray = np.zeros(0)


class Chain(NamedTuple):
    """What compiled code is told of a chain, all arrays flat.

    The first four are those of `Plan`; `simplex` (row, state) holds the concentrations of
    probabilities, and `pairs` (2, share or rate) the parameters of Beta or gamma priors, or what a
    prior of its own takes.
    """

    order: np.ndarray
    first: np.ndarray
    kinds: np.ndarray
    gaps: np.ndarray
    simplex: np.ndarray
    pairs: np.ndarray


@inlined
def stretched(blocks: Any, triangles: Any, centre: Any, u: Any) -> Any:
    """Read the coordinates x = centre + L u, with lower triangles of the sizes `blocks`."""
    n_dim = 0
    for size in blocks:
        n_dim += size
    x = np.empty(n_dim)
    at, corner = 0, 0
    for size in blocks:
        for i in range(size):
            x[at + i] = centre[at + i]
            for j in range(i + 1):
                x[at + i] += triangles[corner + i * size + j] * u[at + j]
        at += size
        corner += size * size
    return x


@inlined
def pull_stretched(blocks: Any, triangles: Any, slope: Any, gradient: Any) -> None:
    """Turn the `slope` in x into that in u."""
    at, corner = 0, 0
    for size in blocks:
        for j in range(size):
            gradient[at + j] = 0.0
            for i in range(j, size):
                gradient[at + j] += triangles[corner + i * size + j] * slope[at + i]
        at += size
        corner += size * size


@inner
def _log_simplex(x: Any, out: Any) -> None:
    """Write logarithms of probabilities with the centred log-ratios `x`, all but the last."""
    free, last, top = x.shape[0], 0.0, 0.0
    for i in range(free):
        out[i] = x[i]
        last -= x[i]
        top = max(top, x[i])
    out[free] = last
    top = max(top, last)
    norm = 0.0
    for i in range(free + 1):
        norm += np.exp(out[i] - top)
    norm = top + np.log(norm)
    for i in range(free + 1):
        out[i] -= norm


@inner
def _pull_simplex(log_probs: Any, counts: Any, a: Any, slope: Any) -> float:
    """Log prior, and the `slope` of the posterior.

    The Jacobian of the centred log-ratios is the product of all probabilities (times their number):
    a Dirichlet density and its Jacobian together are the sum of a log p.
    """
    free, value, weight = slope.shape[0], 0.0, 0.0
    for i in range(free + 1):
        value += a[i] * log_probs[i]
        weight += a[i] + counts[i]
    last = a[free] + counts[free] - weight * np.exp(log_probs[free])
    for i in range(free):
        slope[i] = a[i] + counts[i] - weight * np.exp(log_probs[i]) - last
    return value


@inlined
def _log_initial(chain: Any, x: Any, n_states: int) -> Any:
    """Log-initial probabilities (state)."""
    out = np.full(n_states, -np.inf)
    if chain.first[0] >= 0:
        out[chain.first[0]] = 0.0
    else:
        _log_simplex(x[: n_states - 1], out)
    return out


@inlined
def _pull_initial(chain: Any, log_probs: Any, counts: Any, slope: Any) -> float:
    """Log prior of the initial probabilities; writes their part of the slope."""
    if chain.first[0] >= 0:
        return 0.0
    return _pull_simplex(log_probs, counts, chain.simplex, slope[: log_probs.shape[0] - 1])


@inlined
def _rest(chain: Any, n_states: int) -> int:
    """Place of the first coordinate that is not of the initial probabilities."""
    return 0 if chain.first[0] >= 0 else n_states - 1


@inlined
def _softplus(x: float) -> float:
    return max(x, 0.0) + np.log1p(np.exp(-abs(x)))


@inlined
def _follows(chain: Any, at: int, place: int, n_states: int) -> bool:
    """Whether something is left of a row after the entry at this place."""
    return place + 1 < n_states and chain.order[at + 1] >= 0


@inner
def log_steps(chain: Any, x: Any, n_states: int) -> Any:
    """Log-transitions (1, state, state) and log-initial (state), one move per checkpoint."""
    at, free = _rest(chain, n_states), n_states - 1
    out = np.full((1, n_states, n_states), -np.inf)
    if chain.order.shape[0] == 0:
        for i in range(n_states):
            _log_simplex(x[at + i * free : at + (i + 1) * free], out[0, i])
        return out, _log_initial(chain, x, n_states)
    for i in range(n_states):
        left = 0.0
        for place in range(n_states):
            entry = i * n_states + place
            j = chain.order[entry]
            if j >= 0:
                out[0, i, j] = left
                if _follows(chain, entry, place, n_states):
                    out[0, i, j] -= _softplus(-x[at])
                    left -= _softplus(x[at])
                    at += 1
    return out, _log_initial(chain, x, n_states)


@inner
def pull_steps(
    chain: Any, x: Any, log_probs: Any, initial: Any, counts: Any, first_states: Any, slope: Any
) -> float:
    """Log prior; writes the slope, given expected `counts` (1, state, state) and first states."""
    n_states = counts.shape[1]
    at, free = _rest(chain, n_states), n_states - 1
    value = _pull_initial(chain, initial, first_states, slope)
    if chain.order.shape[0] == 0:
        for i in range(n_states):
            a = chain.simplex[(i + 1) * n_states : (i + 2) * n_states]
            own = slope[at + i * free : at + (i + 1) * free]
            value += _pull_simplex(log_probs[0, i], counts[0, i], a, own)
        return value
    first, n_shares = at, chain.pairs.shape[0] // 2
    for i in range(n_states):
        left = 0.0
        for j in range(n_states):
            left += counts[0, i, j]
        for place in range(n_states):
            entry = i * n_states + place
            if chain.order[entry] >= 0 and _follows(chain, entry, place, n_states):
                taken = counts[0, i, chain.order[entry]]
                left -= taken
                alpha, beta = chain.pairs[at - first], chain.pairs[n_shares + at - first]
                value -= alpha * _softplus(-x[at]) + beta * _softplus(x[at])
                share = 1.0 / (1.0 + np.exp(-x[at]))
                slope[at] = alpha + taken - (alpha + taken + beta + left) * share
                at += 1
    return value


@inlined
def _rates(chain: Any, x: Any, n_states: int) -> Any:
    rates, at = np.zeros((n_states, n_states)), _rest(chain, n_states)
    for i in range(n_states):
        for j in range(n_states):
            if i != j:
                rates[i, j] = np.exp(x[at])
                at += 1
    return rates


@inner
def log_in_time(chain: Any, x: Any, n_states: int) -> Any:
    """Log-transitions (gap, state, state) and log-initial (state), moves at any time."""
    probs = matrices(_rates(chain, x, n_states), chain.gaps)
    return np.log(probs), _log_initial(chain, x, n_states)


@inner
def pull_in_time(
    chain: Any, x: Any, log_probs: Any, initial: Any, counts: Any, first_states: Any, slope: Any
) -> float:
    """Log prior; writes the slope, given expected `counts` (gap, state, state) and first states."""
    n_gaps, n_states, _ = counts.shape
    rates = _rates(chain, x, n_states)
    weights = np.zeros(counts.shape)
    for g in range(n_gaps):
        for i in range(n_states):
            for j in range(n_states):
                if counts[g, i, j] > 0.0:
                    weights[g, i, j] = counts[g, i, j] * np.exp(-log_probs[g, i, j])
    path = derivative(rates, chain.gaps, weights)
    first, n_rates = _rest(chain, n_states), chain.pairs.shape[0] // 2
    value = _pull_initial(chain, initial, first_states, slope)
    at = first
    for i in range(n_states):
        for j in range(n_states):
            if i != j:
                alpha, beta = chain.pairs[at - first], chain.pairs[n_rates + at - first]
                rate = rates[i, j]
                value += alpha * x[at] - beta * rate
                slope[at] = alpha + rate * path[i, j] - (beta + path[i, i]) * rate
                at += 1
    return value


@inlined
def narrowed(chain: Any, by_gap: Any) -> Any:
    """Log-transitions (kind, state, state) of those by gap, -inf where what is known rules out."""
    n_kinds, n_states = chain.kinds.shape[0] // 3, by_gap.shape[1]
    out = np.full((n_kinds, n_states, n_states), -np.inf)
    for kind in range(n_kinds):
        gap, left = chain.kinds[3 * kind], chain.kinds[3 * kind + 1]
        entered = chain.kinds[3 * kind + 2]
        for i in range(n_states):
            for j in range(n_states):
                if (left < 0 or left == i) and (entered < 0 or entered == j):
                    out[kind, i, j] = by_gap[gap, i, j]
    return out


@inlined
def gathered(chain: Any, transitions: Any, n_gaps: int) -> Any:
    """Transitions by gap (gap, state, state) of those by kind."""
    n_kinds, n_states, _ = transitions.shape
    out = np.zeros((n_gaps, n_states, n_states))
    for kind in range(n_kinds):
        gap = chain.kinds[3 * kind]
        for i in range(n_states):
            for j in range(n_states):  # sums of arrays take seconds to compile
                out[gap, i, j] += transitions[kind, i, j]
    return out
