"""How a run moves between states: one class per structure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bayesphase.model.priors import Prior

Parameters = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sticky:
    """Any state may follow any other, and staying is the rule: one step per checkpoint.

    `initial_probs` (state) and the rows of `transition_probs` (state, state_next) are Dirichlet.
    Rows have concentration `concentration` everywhere and `stickiness` more on the diagonal, as in
    the sticky HDP-HMM (Fox et al. 2011, doi:10.1214/10-AOAS395) with a fixed number of states.

    Parameters
    ----------
    concentration : float
        Prior number of transitions to every state; positive.
    stickiness : float
        Prior number of further transitions to the state itself; at least 0.
    """

    concentration: float = 1.0
    stickiness: float = 20.0

    name: ClassVar[str] = "sticky"
    dims: ClassVar[dict[str, tuple[str, ...]]] = {
        "initial_probs": ("state",),
        "transition_probs": ("state", "state_next"),
    }

    def __post_init__(self) -> None:  # noqa: D105
        if not self.concentration > 0 or not self.stickiness >= 0:
            raise ValueError(
                f"concentration must be positive and stickiness at least 0, got "
                f"{self.concentration} and {self.stickiness}"
            )

    def _pseudo_counts(self, n_states: int) -> np.ndarray:
        diagonal = self.stickiness * np.eye(n_states)
        return np.full((n_states, n_states), self.concentration) + diagonal

    def priors(self, n_states: int) -> dict[str, Prior]:
        """Give the default priors."""
        return {
            "initial_probs": Prior("Dirichlet", a=np.ones(n_states)),
            "transition_probs": Prior("Dirichlet", a=self._pseudo_counts(n_states)),
        }

    def log_potentials(self, parameters: Parameters, xp: Any) -> tuple[Any, Any]:
        """Log-transitions (gap, state, state), one gap, and log-initial probabilities (state)."""
        return xp.log(parameters["transition_probs"])[None], xp.log(parameters["initial_probs"])

    def maximise(
        self, expected_transitions: np.ndarray, first_states: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float]:
        """M-step, at the posterior mean so that no probability is 0.

        Parameters
        ----------
        expected_transitions : ndarray (gap, state, state)
        first_states : ndarray (state)
            Expected number of runs that start in each state.

        Returns
        -------
        parameters : dict
        log_prior : float
            Of these parameters, up to a constant.
        """
        counts = self._pseudo_counts(len(first_states))
        rows = expected_transitions.sum(axis=0) + counts
        initial = first_states + 1.0
        parameters = {
            "initial_probs": initial / initial.sum(),
            "transition_probs": rows / rows.sum(axis=1, keepdims=True),
        }
        log_prior = np.sum(counts * np.log(parameters["transition_probs"]))
        log_prior += np.sum(np.log(parameters["initial_probs"]))
        return parameters, float(log_prior)

    def jitter(
        self, rng: np.random.Generator, parameters: Parameters, size: float
    ) -> dict[str, np.ndarray]:
        """Move probabilities by about `size` on the log scale."""
        moved = {}
        for name in self.dims:
            factor = np.exp(size * rng.normal(size=parameters[name].shape))
            product = parameters[name] * factor
            moved[name] = product / product.sum(axis=-1, keepdims=True)
        return moved


TRANSITIONS = {Sticky.name: Sticky}
