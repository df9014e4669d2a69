"""The whole path on the runs that ship with the project: metrics, fits, tables, figures, page."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from rich.console import Console

SHIPPED = Path(__file__).parents[1] / "data" / "modular_addition.nc"


def demo(
    console: "Console",
    *,
    data: Path = SHIPPED,
    output: Path = Path("demo"),
    n_states: Iterable[int] = (2, 3, 4),
    random_seed: int = 1,
) -> list[Path]:
    """Fit the shipped runs with several numbers of phases, say what was found and draw it.

    Parameters
    ----------
    console : rich.console.Console
        Where to say it.
    data : path
        A metrics file.
    output : path
        Folder for figures, fits and the report; made if it is not there.
    n_states : iterable of int
    random_seed : int

    Returns
    -------
    list of path
        What was written.

    Raises
    ------
    FileNotFoundError
        If there is no such metrics file.
    """
    import bayesphase as bp

    if not data.exists():
        raise FileNotFoundError(
            f"no metrics at {str(data)!r}; the runs of the project are in the data folder of its "
            f"repository: run this there, or name a file with --data"
        )
    output.mkdir(parents=True, exist_ok=True)
    metrics = bp.open_metrics(data)
    features = bp.features(metrics)
    checkpoints = features.notnull().any("feature").sum("step")
    console.print(
        f"{data.name}: {features.sizes['run']} runs of {int(checkpoints.min())} to "
        f"{int(checkpoints.max())} checkpoints, {features.sizes['feature']} features: "
        f"{', '.join(features['feature'].values)}."
    )
    written: list[Path] = []
    fits = {}
    for k in n_states:
        console.rule(f"{k} phases")
        with console.status(f"sampling the posterior with {k} phases"):
            fit = bp.fit(features, k, draws=500, random_seed=random_seed, progressbar=False)
        fits[str(k)] = fit
        console.print(bp.diagnose(fit).attrs["verdict"])
        console.print(_switch_table(fit, metrics))
        written.append(bp.save_fit(fit, output / f"fit_{k}_phases.nc"))
        written += _figures(fit, metrics, features, output)
    console.rule()
    console.print(
        "A switch is the step of the first checkpoint in the next phase: median and 90% interval, "
        "given the sequence of phases that is most probable, with probability p. Runs may come "
        "back to a phase. A phase is a law of motion of the weights: how fast metrics drift, "
        "depending on where they are, and how noisily. Intervals are right if the model is: where "
        "a verdict calls it too sure, they are too narrow. How many phases there really were is "
        "another question (notebooks/02_how_many_phases)."
    )
    console.print(f"Fits and figures are in {output}/:")
    for path in written:
        console.print(f"  {path.name}")
    with console.status("comparing the numbers of phases and writing the report"):
        try:
            page = bp.report(fits, output / "report.html", metrics=metrics, random_seed=random_seed)
        except ModuleNotFoundError as error:
            console.print(f"There is no report: {error}.", markup=False)
            return written
    said = f"All of it is in one page, to be opened in a browser: {page}"
    console.print(said, markup=False, soft_wrap=True)
    return [*written, page]


def _switch_table(fit: xr.DataTree, metrics: xr.Dataset) -> Any:
    from rich.table import Table

    import bayesphase as bp

    switches = bp.switches(fit, ci_prob=0.9)
    accuracies = [name for name in ("train_accuracy", "eval_accuracy") if name in metrics]
    table = Table(title="Steps at which runs change phase, and reach 90% accuracy")
    for heading in ("run", "p", "phases"):
        table.add_column(heading)
    for heading in ("step", "90% interval", *(f"{n.replace('_', ' ')} > 0.9" for n in accuracies)):
        table.add_column(heading, justify="right")
    for run in switches["run"].values:
        of_run = switches.sel(run=run).dropna("switch")
        lines = [_line(of_run.sel(switch=number)) for number in of_run["switch"].values]
        reached = [_first_above(metrics[name].sel(run=run)) for name in accuracies]
        first = [str(run), f"{float(of_run['probability']):.2f}"]
        for number, line in enumerate(lines or [("no switch", "", "")]):
            table.add_row(*(first if number == 0 else ["", ""]), *line, *reached)
            reached = [""] * len(reached)
        table.add_section()
    return table


def _line(switch: xr.Dataset) -> tuple[str, str, str]:
    step, lower, upper = (float(switch[name]) for name in ("step", "lower", "upper"))
    phases = f"{int(switch['state_from'])} to {int(switch['state_to'])}"
    return phases, f"{step:.0f}", f"{lower:.0f} to {upper:.0f}"


def _first_above(accuracy: xr.DataArray) -> str:
    above = accuracy["step"].values[accuracy.values > 0.9]
    return f"{above[0]}" if above.size else "never"


def _figures(
    fit: xr.DataTree, metrics: xr.Dataset, features: xr.DataArray, output: Path
) -> list[Path]:
    import matplotlib.pyplot as plt

    import bayesphase as bp

    names = [name for name in ("train_loss", "eval_loss") if name in metrics]
    losses = metrics[names] if names else None  # features are drawn instead
    drawn = {
        "phases": lambda: bp.plot_phases(fit, loss=losses),
        "probabilities": lambda: bp.plot_phase_probabilities(fit),
        "boundaries": lambda: bp.plot_boundaries(fit),
        "pca": lambda: bp.plot_pca(bp.pca(features), fit),
        "map": lambda: bp.plot_training_map(fit),
    }
    if "example_loss" in metrics:
        drawn["pca_of_losses"] = lambda: bp.plot_pca(bp.pca(metrics["example_loss"]), fit)
    written = []
    for name, draw in drawn.items():
        axes = draw()
        figure = getattr(axes, "figure", None) or axes.flat[0].figure
        path = output / f"{name}_{fit.attrs['n_states']}_phases.png"
        figure.savefig(path, dpi=200)
        plt.close(figure)
        written.append(path)
    return written
