"""The public names are there, documented and alike in their signatures; their examples run."""

import doctest
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import bayesphase

PUBLIC = [name for name in bayesphase.__all__ if name != "__version__"]
# These are promised: taking one away breaks somebody's notebook.
PROMISED = {
    *("collect", "Recorder", "select_parameters", "read_log", "Metric", "inspect"),
    *("open_metrics", "save_metrics", "validate_metrics", "combine_runs"),
    *("aggregate", "standardize", "features", "pca"),
    *("Prior", "build_model", "hmm_logp", "simulate"),
    *("Gaussian", "StudentT", "RandomWalk", "AutoRegressive", "QuadraticDrift", "FullGaussian"),
    *("Sticky", "LeftToRight", "ContinuousTime", "StickyHDP"),
    *(
        "fit",
        "fit_range",
        "fit_modes",
        "mode_weights",
        "checkpoint_log_likelihood",
        "run_log_likelihood",
    ),
    *("open_fit", "save_fit", "loo", "waic", "kfold", "lfo", "compare"),
    *("phase_probabilities", "switches", "boundaries", "dwell_times", "most_likely_path"),
    *("first_entry", "visited_states", "training_map", "diagnose"),
    *("log_evidence", "state_counts", "visited_counts", "plot_visited_counts"),
    *("plot_phases", "plot_phase_probabilities", "plot_boundaries", "plot_pca"),
    "plot_training_map",
    *("pseudo_residuals", "posterior_predictive", "predictive_checks"),
    *("plot_pseudo_residuals", "plot_predictive_checks"),
    *("decode", "forecast", "forecast_intervals", "forecast_scores", "plot_forecast"),
}
# Functions take one thing, their data, by position. These have a reason to take more, or none.
POSITIONAL = {
    "Metric": ["name", "function"],
    "build_model": ["features", "n_states"],
    "fit": ["features", "n_states"],
    "fit_range": ["features", "n_states"],
    "fit_modes": ["features", "n_states"],
    "checkpoint_log_likelihood": ["fit"],
    "run_log_likelihood": ["fit", "features"],
    "decode": ["fit", "features"],
    "forecast": ["fit", "features"],
    "forecast_scores": ["features", "metrics", "n_states"],
    "kfold": ["features", "n_states"],
    "hmm_logp": ["log_emission", "log_transition", "log_initial"],
    "plot_pca": ["pca_table", "fit"],
    "save_fit": ["fit", "path"],
    "save_metrics": ["ds", "path"],
    "simulate": [],
    # options only
    **{name: [] for name in ("Gaussian", "StudentT", "RandomWalk")},
    **{name: [] for name in ("AutoRegressive", "QuadraticDrift", "FullGaussian")},
    **{name: [] for name in ("Sticky", "LeftToRight", "ContinuousTime", "StickyHDP")},
}
# What PyMC, ArviZ and xarray call otherwise, and so do we.
OTHER_WORDS = {
    "seed": "random_seed",
    "random_state": "random_seed",
    "rng": "random_seed",
    "hdi_prob": "ci_prob",
    "credible_interval": "ci_prob",
    "n_draws": "draws",
    "n_chains": "chains",
    "k": "n_states",
    "axes": "ax",
}


def public(name: str) -> Any:
    return getattr(bayesphase, name)


def sections(thing: Any) -> dict[str, list[str]]:
    """Split a numpydoc docstring into the lines of its sections."""
    found: dict[str, list[str]] = {"": []}
    lines = (inspect.getdoc(thing) or "").splitlines()
    section = found[""]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line and set(following) == {"-"} and len(line) == len(following):
            section = found.setdefault(line, [])
        elif set(line) != {"-"}:
            section.append(line)
    return found


def documented_parameters(thing: Any) -> list[str]:
    entries = [line for line in sections(thing).get("Parameters", []) if re.match(r"[\w*]", line)]
    return [name for entry in entries for name in entry.split(" : ")[0].split(", ")]


def parameters(thing: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(thing).parameters.values())


def test_names_are_listed() -> None:
    assert dir(bayesphase) == sorted(bayesphase.__all__)
    assert len(set(bayesphase.__all__)) == len(bayesphase.__all__)
    assert set(PUBLIC) >= PROMISED


def test_version_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == bayesphase.__version__


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="module 'bayesphase' has no attribute 'plot_show'"):
        _ = bayesphase.plot_show
    assert not hasattr(bayesphase, "sample")


@pytest.mark.parametrize("name", PUBLIC)
def test_it_is_what_it_is_called(name: str) -> None:
    thing = public(name)
    assert callable(thing)
    assert thing.__name__ == name
    assert thing.__module__.startswith("bayesphase.")


@pytest.mark.parametrize("name", PUBLIC)
def test_it_is_documented(name: str) -> None:
    thing = public(name)
    summary = sections(thing)[""][0]
    assert summary.endswith((".", "?"))
    expected = [
        {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "") + p.name
        for p in parameters(thing)
    ]
    assert documented_parameters(thing) == expected
    if not inspect.isclass(thing):
        assert any(sections(thing)["Returns"])


@pytest.mark.parametrize("name", [n for n in PUBLIC if not inspect.isclass(public(n))])
def test_it_is_annotated(name: str) -> None:
    signature = inspect.signature(public(name))
    assert signature.return_annotation is not signature.empty
    assert all(p.annotation is not p.empty for p in signature.parameters.values())


@pytest.mark.parametrize("name", PUBLIC)
def test_only_data_are_taken_by_position(name: str) -> None:
    given = [p.name for p in parameters(public(name)) if p.kind is p.POSITIONAL_OR_KEYWORD]
    if name in POSITIONAL:
        assert given == POSITIONAL[name]
    else:
        assert len(given) == 1
    assert not [p for p in parameters(public(name)) if p.kind is p.VAR_POSITIONAL]


@pytest.mark.parametrize("name", PUBLIC)
def test_parameters_have_the_names_that_pymc_and_arviz_use(name: str) -> None:
    used = {p.name: OTHER_WORDS[p.name] for p in parameters(public(name)) if p.name in OTHER_WORDS}
    assert not used


@pytest.mark.parametrize("name", [n for n in PUBLIC if n.startswith("plot_")])
def test_figures_take_axes(name: str) -> None:
    last = parameters(public(name))[-1]
    assert (last.name, last.default) == ("ax", None)


EXAMPLES = {
    test.name: test for name in PUBLIC for test in doctest.DocTestFinder().find(public(name), name)
}
EXAMPLES = {name: test for name, test in EXAMPLES.items() if test.examples}


def test_there_are_examples() -> None:
    assert {"Prior", "build_model", "diagnose", "fit", "simulate"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run_and_print_what_they_say(name: str) -> None:
    test = EXAMPLES[name]
    test.globs = {}  # an example imports what it uses
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append, clear_globs=False)
    assert not report, "".join(report)


def test_the_reference_has_every_public_name_once() -> None:
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^   (\w+)$", page, flags=re.MULTILINE)
    assert sorted(listed) == sorted([*PUBLIC, *bayesphase._WITH_A_TRAINER])


def test_the_citation_is_of_this_version() -> None:
    citation = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {bayesphase.__version__}\n" in citation
