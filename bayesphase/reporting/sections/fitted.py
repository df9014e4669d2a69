"""What was fitted: the runs, the features, and the models."""

from typing import Any

import numpy as np

from bayesphase.reporting import cells, words
from bayesphase.reporting.cells import Column, Table
from bayesphase.reporting.gather import Analysis, FitTables
from bayesphase.reporting.sections._section import Section


def section(analysis: Analysis) -> Section:
    """Say what was fitted to what."""
    features = analysis.features
    present = features.notnull().any("feature").values
    steps = features["step"].values
    of_runs = [steps[row] for row in present]
    runs = Table(
        "table-of-runs",
        "Runs",
        [
            Column("run", numeric=False),
            Column("checkpoints"),
            Column("first step"),
            Column("last step"),
            Column("missing values", "of features at these checkpoints"),
        ],
        cells.rows(
            (
                (
                    cells.text(run),
                    cells.number(len(at)),
                    *(cells.number(at[i]) if len(at) else cells.text("") for i in (0, -1)),
                    cells.number(np.isnan(values[there]).sum()),
                )
                for run, at, values, there in zip(
                    analysis.runs, of_runs, features.values, present, strict=True
                )
            ),
            analysis.runs,
        ),
    )
    return Section(
        "fitted",
        "What was fitted",
        {
            "features": [str(name) for name in features["feature"].values],
            "models": [_model(tables) for tables in analysis.fits],
            "runs": runs,
            "recorded": _recorded(analysis),
        },
    )


def _model(tables: FitTables) -> dict[str, Any]:
    """Describe one fit by its attributes, as far as it has them."""
    attrs, state = tables.fit.attrs, tables.fit["paths"].to_dataset()["state"]
    lines = {}
    if emission := attrs.get("emission"):
        meaning = words.PHASES_ARE.get(emission)
        lines["A phase is"] = f"{meaning} ({emission})" if meaning else emission
    if transition := attrs.get("transition"):
        meaning = words.TRANSITIONS_ARE.get(transition)
        lines["Switches are"] = f"{meaning} ({transition})" if meaning else transition
    drawn = words.counted(state.sizes["draw"], "draw")
    sampling = f"{words.counted(state.sizes['chain'], 'chain')} of {drawn}"
    if "tune" in attrs:
        sampling += f" after {attrs['tune']} tuning steps each"
    if "sampler" in attrs:
        sampling += f", by {attrs['sampler']}"
    if attrs.get("random_seed") is not None:
        sampling += f", random seed {attrs['random_seed']}"
    lines["Sampled"] = sampling
    if "bayesphase_version" in attrs:
        lines["Fitted with"] = f"bayesphase {attrs['bayesphase_version']}"
    return {"title": tables.title, "lines": lines}


def _recorded(analysis: Analysis) -> dict[str, str]:
    """Return what the metrics say of how they were recorded, but for long lists."""
    attrs = {} if analysis.metrics is None else analysis.metrics.attrs
    said = {str(name).replace("_", " "): str(value) for name, value in attrs.items()}
    return {name: value for name, value in said.items() if len(value) <= 300}
