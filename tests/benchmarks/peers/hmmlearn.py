"""hmmlearn: maximum likelihood by EM, recursions in C."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

from tests.benchmarks.data import Case
from tests.benchmarks.peers import Evaluation

# the label of what bayesphase's kernels are to be compared with
YARDSTICK = "hmmlearn, scaled C recursions alone"


def gradients(case: Case) -> Iterator[Evaluation]:
    """The E-step, which is the gradient in other words, and the recursions within it.

    The recursions alone are `forward_scaling`, `backward_scaling` and `compute_scaling_xi_sum` over
    the runs, on a given array of emission probabilities (row, state): no emission, no smoothed
    probabilities, no sufficient statistics.
    """
    import hmmlearn.hmm  # noqa: F401  # so that the import is not timed

    start = perf_counter()
    recursions = _recursions(case)
    value = recursions()
    yield Evaluation(YARDSTICK, recursions, "likelihood", value, None, perf_counter() - start)
    rows = case.values.reshape(-1, case.values.shape[-1])
    lengths = [case.values.shape[1]] * case.values.shape[0]
    for implementation in ("scaling", "log"):
        start = perf_counter()
        model = _model(case, implementation)
        call = _e_step(model, rows, lengths)
        _, value = call()
        build = perf_counter() - start
        yield Evaluation(
            f"hmmlearn, full E-step ({implementation})", call, "likelihood", value, None, build
        )


def _model(case: Case, implementation: str) -> Any:
    from hmmlearn.hmm import GaussianHMM

    p = case.parameters
    model = GaussianHMM(case.n_states, covariance_type="diag", implementation=implementation)
    model.n_features = case.values.shape[-1]
    model.startprob_, model.transmat_ = p["initial_probs"], p["transition_probs"]
    model.means_, model.covars_ = p["mean"], p["scale"] ** 2
    return model


def _e_step(model: Any, rows: np.ndarray, lengths: list[int]) -> Any:
    return lambda: model._do_estep(rows, lengths)


def _recursions(case: Case) -> Any:
    from hmmlearn import _hmmc

    model = _model(case, "scaling")
    frames = [np.ascontiguousarray(model._compute_likelihood(run)) for run in case.values]
    initial, transition = model.startprob_, model.transmat_

    def recursions() -> float:
        total, expected = 0.0, np.zeros_like(transition)
        for frame in frames:
            log_prob, forward, scaling = _hmmc.forward_scaling(initial, transition, frame)
            backward = _hmmc.backward_scaling(initial, transition, frame, scaling)
            expected += _hmmc.compute_scaling_xi_sum(forward, transition, backward, frame)
            total += log_prob
        return total

    return recursions


def selection(
    case: Case, *, max_states: int, restarts: int = 5, iterations: int = 32
) -> dict[str, Any]:
    """Choose K as the paper does: restarts of EM for every K, the lowest BIC wins."""
    from hmmlearn.hmm import GaussianHMM

    rows = case.values.reshape(-1, case.values.shape[-1])
    lengths = [case.values.shape[1]] * case.values.shape[0]
    start = perf_counter()
    bic, seconds, steps = {}, {}, {}
    for k in range(1, max_states + 1):
        begun = perf_counter()
        models = [
            GaussianHMM(k, covariance_type="diag", n_iter=iterations, random_state=restart).fit(
                rows, lengths
            )
            for restart in range(restarts)
        ]
        bic[k] = min(model.bic(rows, lengths) for model in models)
        steps[k] = sum(model.monitor_.iter for model in models)
        seconds[k] = perf_counter() - begun
    return {
        "total": perf_counter() - start,
        "seconds": list(seconds.values()),
        "steps": list(steps.values()),
        "chosen": min(bic, key=bic.__getitem__),
    }
