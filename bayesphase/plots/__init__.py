"""From tables to figures: computes no statistics, never calls show, changes no global setting."""

from bayesphase.plots.boundaries import plot_boundaries
from bayesphase.plots.checks import plot_predictive_checks
from bayesphase.plots.forecast import plot_forecast
from bayesphase.plots.pca import plot_pca
from bayesphase.plots.phases import plot_phases
from bayesphase.plots.probabilities import plot_phase_probabilities
from bayesphase.plots.pseudo_residuals import plot_pseudo_residuals
from bayesphase.plots.training_map import plot_training_map
from bayesphase.plots.visited import plot_visited_counts

__all__ = [
    "plot_boundaries",
    "plot_forecast",
    "plot_pca",
    "plot_phase_probabilities",
    "plot_phases",
    "plot_predictive_checks",
    "plot_pseudo_residuals",
    "plot_training_map",
    "plot_visited_counts",
]
