"""From tables to figures: computes no statistics, never calls show, changes no global setting."""

from bayesphase.plots.boundaries import plot_boundaries
from bayesphase.plots.checks import plot_predictive_checks
from bayesphase.plots.comparison import plot_comparison
from bayesphase.plots.dissimilarity import plot_dissimilarity
from bayesphase.plots.dwell_times import plot_dwell_times
from bayesphase.plots.forecast import plot_forecast
from bayesphase.plots.modes import plot_mode_weights, plot_modes
from bayesphase.plots.overlap import plot_subspace_overlap
from bayesphase.plots.overview import plot_overview
from bayesphase.plots.pca import plot_pca
from bayesphase.plots.phases import plot_phases
from bayesphase.plots.probabilities import plot_phase_probabilities
from bayesphase.plots.pseudo_residuals import plot_pseudo_residuals
from bayesphase.plots.state_counts import plot_state_counts
from bayesphase.plots.state_means import plot_state_means
from bayesphase.plots.training_map import plot_training_map
from bayesphase.plots.visited import plot_visited_counts

__all__ = [
    "plot_boundaries",
    "plot_comparison",
    "plot_dissimilarity",
    "plot_dwell_times",
    "plot_forecast",
    "plot_mode_weights",
    "plot_modes",
    "plot_overview",
    "plot_pca",
    "plot_phase_probabilities",
    "plot_phases",
    "plot_predictive_checks",
    "plot_pseudo_residuals",
    "plot_state_counts",
    "plot_state_means",
    "plot_subspace_overlap",
    "plot_training_map",
    "plot_visited_counts",
]
