"""Phases of a training run, their boundaries and how sure one can be of them.

Every public name is listed in ``_HOME`` with the module it lives in and is imported when it is
first used, so that ``import bayesphase`` stays quick and nothing here needs torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "collect": "recording.runs",
    "Recorder": "recording.recorder",
    "select_parameters": "recording.parameters",
    "read_log": "recording.importers",
    "Metric": "recording.measured",
    "inspect": "inspection",
    "combine_runs": "combine",
    "validate_metrics": "dataset",
    "open_metrics": "dataset",
    "save_metrics": "dataset",
    "aggregate": "views",
    "standardize": "views",
    "features": "views",
    "pca": "views",
    "turning_points": "views",
    "subspace_overlap": "views",
    "Prior": "model.priors",
    "Gaussian": "model.emissions",
    "StudentT": "model.emissions",
    "FullGaussian": "model.full_gaussian",
    "RandomWalk": "model.emissions",
    "AutoRegressive": "model.emissions",
    "QuadraticDrift": "model.emissions",
    "Sticky": "model.transitions",
    "LeftToRight": "model.transitions",
    "ContinuousTime": "model.transitions",
    "StickyHDP": "model.transitions",
    "hmm_logp": "model.likelihood",
    "build_model": "model.build",
    "simulate": "model.simulate",
    "fit": "model.fit",
    "fit_range": "model.fit_range",
    "fit_modes": "model.fit_modes",
    "checkpoint_log_likelihood": "model.pointwise",
    "run_log_likelihood": "model.pointwise",
    "posterior_predictive": "model.replicate",
    "decode": "model.transfer",
    "open_fit": "results",
    "save_fit": "results",
    "phase_probabilities": "analysis.phases",
    "first_entry": "analysis.phases",
    "switches": "analysis.phases",
    "boundaries": "analysis.phases",
    "dwell_times": "analysis.phases",
    "state_means": "analysis.state_means",
    "visited_states": "analysis.phases",
    "most_likely_path": "analysis.phases",
    "training_map": "analysis.trajectories",
    "forecast": "analysis.forecast",
    "forecast_scores": "analysis.forecast_scores",
    "forks": "analysis.forks",
    "convergence": "analysis.convergence",
    "detours": "analysis.detours",
    "dissimilarity": "analysis.dissimilarity",
    "forecast_intervals": "analysis.forecast_intervals",
    "diagnose": "analysis.diagnostics",
    "pseudo_residuals": "analysis.pseudo_residuals",
    "predictive_checks": "analysis.checks",
    "loo": "analysis.elpd",
    "waic": "analysis.elpd",
    "kfold": "analysis.kfold",
    "lfo": "analysis.lfo",
    "compare": "analysis.compare",
    "log_evidence": "analysis.evidence",
    "state_counts": "analysis.counts",
    "visited_counts": "analysis.visited",
    "mode_weights": "analysis.modes",
    "phase_speeds": "analysis.speeds",
    "report": "reporting.page",
    "plot_phases": "plots",
    "plot_phase_probabilities": "plots",
    "plot_boundaries": "plots",
    "plot_pca": "plots",
    "plot_training_map": "plots",
    "plot_dissimilarity": "plots",
    "plot_pseudo_residuals": "plots",
    "plot_predictive_checks": "plots",
    "plot_visited_counts": "plots",
    "plot_forecast": "plots",
    "plot_comparison": "plots",
    "plot_dwell_times": "plots",
    "plot_modes": "plots",
    "plot_mode_weights": "plots",
    "plot_overview": "plots",
    "plot_state_counts": "plots",
    "plot_state_means": "plots",
    "plot_subspace_overlap": "plots",
}

# Classes that are made from one of another library, which need not be there: not in `__all__`.
_WITH_A_TRAINER = {
    "HFRecorder": "recording.callbacks.huggingface",
    "LightningRecorder": "recording.callbacks.lightning",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name) or _WITH_A_TRAINER.get(name)
    if home is None:
        raise AttributeError(f"module 'bayesphase' has no attribute {name!r}")
    return getattr(import_module(f"bayesphase.{home}"), name)


def __dir__() -> list[str]:
    return __all__
