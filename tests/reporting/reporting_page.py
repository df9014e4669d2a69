"""Hand-made fits with hostile names, and a page taken apart."""

from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr
from synthetic import fit_from_paths

HOSTILE = "</script><img src=x onerror=alert(1)>"
STEPS = 10 * np.arange(40)
RUNS = [HOSTILE, '$$x$$ & "it\'s"', "c"]


def hand_made(n_states: int = 3) -> xr.DataTree:
    """Make a fit: the first run enters 1 at 100 and 2 at 200 to 220 and the second stays in 0.

    The third goes back from 1 to 0 at 300, and lacks its first two checkpoints.
    """
    draws = []
    for last in (20, 21, 21, 22):
        a = np.repeat([0, 1, 2], [10, last - 10, 40 - last])
        c = np.repeat([-1, 0, 1, 0], [2, 13, 15, 10])
        draws.append([a, np.zeros(40, int), c])
    rng = np.random.default_rng(0)
    slope = np.array([2.0, 0.5, -1.0])[np.array(draws)[0]]
    features = np.cumsum(slope[..., None] * [1, -1, 0.1], axis=1) + rng.normal(0, 0.01, (3, 40, 3))
    fit = fit_from_paths(
        np.tile(np.minimum(draws, n_states - 1), (1, 30, 1, 1)).reshape(2, 60, 3, 40),
        steps=STEPS,
        runs=RUNS,
        n_states=n_states,
        features=features,
    )
    observed = fit["observed_data"].to_dataset()
    fit["observed_data"] = xr.DataTree(observed.assign_coords(epoch=("step", STEPS / 2)))
    likelihood = fit["log_likelihood"].to_dataset()
    noise = rng.normal(n_states, 0.3, (2, 60, 3))
    fit["log_likelihood"] = xr.DataTree(likelihood + noise)
    fit.attrs = {
        "n_states": n_states,
        "emission": "gaussian",
        "transition": "sticky",
        "random_seed": 7,
    }
    return fit


def hand_made_metrics() -> xr.Dataset:
    """Make losses that fall at a rate of their own in each run; the last run has a gap."""
    fall = 10.0 ** -(np.linspace(0, 4, 40) * np.array([[1], [0.5], [0.8]]))
    fall[2, 5:9] = np.nan
    grid = ("run", "step")
    return xr.Dataset(
        {
            "train_loss": (grid, fall, {"units": "nats"}),
            "eval_loss": (grid, fall + 0.1, {"units": "nats"}),
            "eval_accuracy": (grid, 1 - fall),
            "weight_var": (grid, 1 + fall),
        },
        coords={"run": RUNS, "step": STEPS, "epoch": ("step", STEPS / 2)},
        attrs={"source": HOSTILE},
    )


def hand_made_forecast() -> xr.Dataset:
    """Make a forecast of two runs, at 100 and 150.

    The first is to enter 1 and may never converge, the other has.
    """
    n, rng = 41, np.random.default_rng(0)
    order = np.linspace(0.0, 1.0, n)
    to_come = ("sample", "run", "ahead")
    entry = np.stack([np.zeros(n), 150 + 200 * order, np.full(n, np.nan)], axis=1)
    converged = np.stack([200 + 300 * order, np.full(n, 120.0)], axis=1)
    converged[-8:, 0] = np.inf
    return xr.Dataset(
        {
            "phase_probability": (("run", "state"), [[0.9, 0.1, 0.0], [0.25, 0.75, 0.0]]),
            "entry_step": (("sample", "run", "state"), np.stack([entry, 0 * entry], axis=1)),
            "converged_step": (("sample", "run"), converged),
            "eval_accuracy": (to_come, rng.random((n, 2, 30))),
            "eval_loss": (to_come, rng.random((n, 2, 30))),
        },
        coords={
            "run": [HOSTILE, "b"],
            "ahead": 10.0 * np.arange(1, 31),
            "state": [0, 1, 2],
            "now": ("run", [100.0, 150.0]),
        },
        attrs={"converged": "eval_loss < 0.1"},
    )


def counts_table() -> xr.Dataset:
    """Make what `state_counts` would return of fits of two and three states."""
    values = {
        "probability": [np.nan, 0.25, 0.75],
        "mcse": [np.nan, 0.01, 0.02],
        "log_evidence": [np.nan, -10.0, -8.9],
        "log_evidence_mcse": [np.nan, 0.1, 0.1],
        "probability_wider": [np.nan, 0.6, 0.4],
        "mcse_wider": [np.nan, 0.01, 0.01],
        "visited_probability": [0.0, 0.05, 0.95],
    }
    return xr.Dataset(
        {name: ("n_states", column) for name, column in values.items()},
        coords={"n_states": [1, 2, 3]},
        attrs={"verdict": "3 states are the most probable.", "believable": True},
    )


class Page(HTMLParser):
    """The elements of a page, with their attributes, text and ancestors."""

    VOID = frozenset({"meta", "input", "img", "br", "link", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[SimpleNamespace] = []
        self.open: list[SimpleNamespace] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        inside = [element.attrs.get("id") for element in self.open]
        element = SimpleNamespace(tag=tag, attrs=dict(attrs), text="", inside=inside)
        self.elements.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop().tag == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, tag: str, **attrs: str) -> list[SimpleNamespace]:
        return [
            e
            for e in self.elements
            if e.tag == tag and all(e.attrs.get(k.strip("_")) == v for k, v in attrs.items())
        ]

    def rows(self, table: str) -> list[list[SimpleNamespace]]:
        """Cells of the body of a table."""
        cells: list[list[SimpleNamespace]] = []
        for element in self.elements:
            if element.tag == "tr" and table in element.inside:
                cells.append([])
            elif element.tag in ("td", "th") and table in element.inside and cells:
                cells[-1].append(element)
        return [row for row in cells[1:] if row]
