import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from synthetic import fit_from_paths

mpl.use("Agg")

STEPS = 10 * np.arange(12)


@pytest.fixture(autouse=True)
def _clean_slate():
    """No figure may be left over, no global setting changed."""
    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before


@pytest.fixture
def fit():
    """Three runs: "a" surely switches at 40 and then at 70, 80 or 90; "b" never leaves state 0 but
    in one draw of four; "c" lacks two checkpoints and skips state 1."""
    draws = []
    for last, leaves in ((7, False), (8, False), (8, False), (9, True)):
        a = np.repeat([0, 1, 2], [4, last - 4, 12 - last])
        b = np.repeat([0, 1], [6, 6]) if leaves else np.zeros(12, int)
        c = np.repeat([0, 2], [5, 7])
        c[[6, 11]] = -1
        draws.append([a, b, c])
    return fit_from_paths(np.array(draws), steps=STEPS, runs=["a", "b", "c"], n_states=3)


@pytest.fixture
def loss():
    shape = (3, 12)
    coords = {"run": ["a", "b", "c"], "step": STEPS}
    fall = np.broadcast_to(10.0 ** -np.linspace(0, 4, 12), shape)
    return xr.Dataset(
        {
            "train_loss": (("run", "step"), fall, {"units": "nats"}),
            "eval_loss": (("run", "step"), fall + 0.1, {"units": "nats"}),
        },
        coords=coords,
    )


@pytest.fixture
def pca_table():
    x = np.linspace(-1, 1, 12)
    scores = np.stack([np.stack([x, i + x**2, 0 * x], axis=-1) for i in range(3)])
    return xr.Dataset(
        {
            "scores": (("run", "step", "component"), scores),
            "explained_variance_ratio": ("component", [0.613, 0.25, 0.1]),
        },
        coords={"run": ["a", "b", "c"], "step": STEPS, "component": [1, 2, 3]},
    )
