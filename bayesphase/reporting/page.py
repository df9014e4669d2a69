"""Tables, figures and text put together into one HTML file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from bayesphase.analysis._paths import check_ci_prob
from bayesphase.reporting import words
from bayesphase.reporting.drawn import drawn
from bayesphase.reporting.figures import figures
from bayesphase.reporting.gather import Analysis, gather
from bayesphase.reporting.sections import sections


def report(
    fits: xr.DataTree | Mapping[str, xr.DataTree],
    path: str | os.PathLike[str],
    *,
    metrics: xr.Dataset | None = None,
    forecasts: xr.Dataset | None = None,
    title: str = "Phases of training",
    ci_prob: float = 0.9,
    random_seed: int | None = None,
) -> Path:
    """Write a whole analysis as one HTML file, to be read in a browser, with no network.

    It says what was fitted and whether it can be believed, how many phases there are, where the
    boundaries of each run are and what changes there, and draws it all. What is pointed at in one
    figure of a run is marked in the others.

    Parameters
    ----------
    fits : DataTree or mapping of str to DataTree
        One fit, or several of the same features as `bayesphase.fit_range` returns them. The page
        begins with the most probable of those that can be believed, and can show each.
    path : path-like
        Ends in ``.html`` or ``.htm``. Replaced if it exists.
    metrics : Dataset, optional
        Metrics of the same runs: variables with dims (run, step) whose names end in ``loss`` or
        ``accuracy`` are drawn, at most four of each. Without any, the first features are.
    forecasts : Dataset, optional
        What `bayesphase.forecast` returns of runs in progress with one of the fits: when they
        converge and enter phases is then said, too.
    title : str
    ci_prob : float, default 0.9
        Probability of all intervals.
    random_seed : int, optional
        The same seed gives the same probabilities of numbers of phases, see
        `bayesphase.state_counts`.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    TypeError
        If something is no fit, or `metrics` or `forecasts` no Dataset.
    ValueError
        If the fits are of different features, `metrics` of none of their runs, `forecasts` of
        another number of phases or no forecast, `ci_prob` is not between 0 and 1, or `path` has
        another suffix.
    FileNotFoundError
        If the folder to write in does not exist.
    ModuleNotFoundError
        If Bokeh or Jinja2 is not there: install ``bayesphase[report]``.

    Examples
    --------
    >>> fits = bp.fit_range(x, range(2, 5), random_seed=1)  # doctest: +SKIP
    >>> bp.report(fits, "report.html", metrics=metrics)  # doctest: +SKIP
    >>> ahead = bp.forecast(fits["3"], new_features, metrics=metrics)  # doctest: +SKIP
    >>> bp.report(fits, "report.html", metrics=metrics, forecasts=ahead)  # doctest: +SKIP
    """
    path = checked(path)
    ci_prob = check_ci_prob(ci_prob)
    _require_libraries()
    analysis = gather(fits, metrics, forecasts=forecasts, ci_prob=ci_prob, random_seed=random_seed)
    html = _render(analysis, title=str(title))
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:  # so that there is the old page or the new one, never half of it
        beside.write_text(html, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def checked(path: str | os.PathLike[str]) -> Path:
    """Return where a page can be written; raise what `report` does where it can't."""
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{str(path)!r} has the suffix {path.suffix!r}; end the name in '.html'")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"can't write {str(path)!r}: make the folder {str(path.parent)!r}")
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder: name a file")
    return path


def _require_libraries() -> None:
    try:
        import bokeh  # noqa: F401
        import jinja2  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}: a report needs Bokeh and Jinja2, install bayesphase[report]",
            name=error.name,
        ) from error


def _render(analysis: Analysis, *, title: str) -> str:
    from bokeh.document import Document
    from bokeh.resources import Resources
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bayesphase.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["as_json"] = _as_json
    plots = figures(analysis)
    document = Document()
    for plot in plots.values():
        document.add_root(plot)
    return environment.get_template("page.html").render(
        title=title,
        lead=words.lead(analysis),
        analysis=analysis,
        sections=sections(analysis),
        places=list(plots),
        data=drawn(analysis),
        plots={
            "document": document.to_json(deferred=False),
            "roots": {plot.id: f"figure-{name}" for name, plot in plots.items()},
        },
        bokeh=Resources(mode="inline", components=["bokeh"]).js_raw,
    )


def _as_json(value: Any) -> Any:
    """Write JSON that can stand in a script: no text in it can end that, or begin another."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
