"""Hidden Markov models done the slow way: every path added up, or plain sums in log space."""

from itertools import product
from typing import NamedTuple

import numpy as np
from hypothesis import settings

from bayesphase.model.lanes import Layout, end_to_end

few_examples = settings(max_examples=30, deadline=None, derandomize=True)


class Problem(NamedTuple):
    """Arguments of `forward_backward`."""

    log_emission: np.ndarray
    log_transition: np.ndarray
    log_initial: np.ndarray
    layout: Layout


class Truth(NamedTuple):
    """What `forward_backward` should say, and every path with its posterior probability."""

    log_likelihood: float
    state_probs: np.ndarray
    expected_transitions: np.ndarray
    paths: np.ndarray
    path_probs: np.ndarray


def random_problem(rng, *, n_states, lengths, n_gaps=1, missing=0.2, size=2.0):
    """Draw potentials that are not normalised, with rows of zeros where nothing was observed."""
    n_rows = sum(lengths)
    log_emission = size * rng.normal(size=(n_rows, n_states))
    log_emission[rng.random(n_rows) < missing] = 0.0
    return Problem(
        log_emission,
        size * rng.normal(size=(n_gaps, n_states, n_states)),
        size * rng.normal(size=n_states),
        end_to_end(lengths, rng.integers(n_gaps, size=n_rows)),
    )


def runs(problem):
    """Split a problem into one problem per run."""
    gap_index, starts, lengths, _ = problem.layout
    for start, length in zip(starts, lengths, strict=True):
        rows = slice(start, start + length)
        yield problem._replace(
            log_emission=problem.log_emission[rows],
            layout=end_to_end([length], gap_index[rows]),
        )


def enumerate_run(problem):
    """Add up all n_states ** n_rows paths of a single run."""
    log_emission, log_transition, log_initial, layout = problem
    n_rows, n_states = log_emission.shape
    paths = np.array(list(product(range(n_states), repeat=n_rows)))
    log_joint = log_initial[paths[:, 0]] + log_emission[np.arange(n_rows), paths].sum(axis=1)
    for t in range(1, n_rows):
        log_joint = log_joint + log_transition[layout.gap_index[t], paths[:, t - 1], paths[:, t]]
    log_likelihood = log_sum(log_joint)
    probs = np.exp(log_joint - log_likelihood)
    state_probs = np.stack([probs @ (paths == k) for k in range(n_states)], axis=1)
    expected = np.zeros_like(log_transition)
    for t in range(1, n_rows):
        np.add.at(expected[layout.gap_index[t]], (paths[:, t - 1], paths[:, t]), probs)
    return Truth(log_likelihood, state_probs, expected, paths, probs)


def log_sum(x, axis=None):
    """Log of the sum of exponentials; minus infinity where there is nothing to add."""
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.squeeze(np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top, axis)


def log_space(problem):
    """Forward and backward messages of a single run, both as plain sums in log space."""
    log_emission, log_transition, log_initial, layout = problem
    n_rows = len(log_emission)
    step = log_transition[layout.gap_index]
    forward = np.empty_like(log_emission)
    backward = np.zeros_like(log_emission)
    forward[0] = log_initial + log_emission[0]
    for t in range(1, n_rows):
        forward[t] = log_sum(forward[t - 1][:, None] + step[t], axis=0) + log_emission[t]
    for t in range(n_rows - 2, -1, -1):
        backward[t] = log_sum(step[t + 1] + (log_emission[t + 1] + backward[t + 1]), axis=1)
    log_likelihood = log_sum(forward[-1])
    expected = np.zeros_like(log_transition)
    for t in range(1, n_rows):
        pair = forward[t - 1][:, None] + step[t] + (log_emission[t] + backward[t])
        expected[layout.gap_index[t]] += np.exp(pair - log_sum(pair))
    # normalised row by row: a sum over a long run has rounding errors of its own size
    joint = forward + backward
    return log_likelihood, np.exp(joint - log_sum(joint, axis=1)[:, None]), expected


def with_unreachable_state(problem):
    """Add a state that no path enters: the same model, too sharp for the scaled recursion.

    At the first row of each run that state would explain the features better than any other, so
    that the probabilities of these are too small for a double.
    """
    n_states = problem.log_initial.shape[0]
    transition = np.full((len(problem.log_transition), n_states + 1, n_states + 1), -np.inf)
    transition[:, :n_states, :n_states] = problem.log_transition
    transition[:, n_states] = 0.0
    log_emission = np.pad(problem.log_emission, ((0, 0), (0, 1)))
    starts = problem.layout.starts
    log_emission[starts, n_states] = problem.log_emission[starts].max(axis=1) + 800.0
    return Problem(
        log_emission, transition, np.append(problem.log_initial, -np.inf), problem.layout
    )
