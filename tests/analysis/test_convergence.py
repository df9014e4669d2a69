import numpy as np
import pytest
import xarray as xr

from bayesphase.analysis.convergence import convergence


def metrics(values, *, name="eval_accuracy", steps=(0, 10, 100, 1000)):
    coords = {"run": [f"seed {i}" for i in range(len(values))], "step": list(steps)}
    return xr.Dataset({name: (("run", "step"), np.array(values, float))}, coords=coords)


NAN = np.nan
RUNS = metrics(
    [
        [0.1, 0.95, 0.2, 0.99],  # passes, and comes back
        [0.1, 0.9, NAN, 0.91],  # the threshold itself is not past it
        [0.1, 0.2, 0.3, 0.4],  # never
        [0.1, 0.2, NAN, NAN],  # never, but was not seen for long
        [NAN, NAN, NAN, NAN],
    ]
)


def test_it_is_the_first_step_past_the_threshold_and_censored_where_there_is_none():
    table = convergence(RUNS)
    np.testing.assert_array_equal(table["step"], [10, 1000, NAN, NAN, NAN])
    np.testing.assert_array_equal(table["last_step"], [1000, 1000, 1000, 10, NAN])
    np.testing.assert_array_equal(table["converged"], [True, True, False, False, False])
    assert table.attrs == {"metric": "eval_accuracy", "threshold": 0.9, "below": 0}
    assert all({"long_name", "units"} <= set(v.attrs) for v in table.data_vars.values())


def test_a_run_that_never_converges_is_not_coded_as_the_longest_time():
    assert np.isnan(convergence(RUNS)["step"].sel(run="seed 2"))


def test_losses_fall_below():
    losses = metrics([[5.0, 1.0, 0.1, 0.01], [5.0, 4.0, 3.0, 2.0]], name="eval_loss")
    table = convergence(losses, metric="eval_loss", threshold=1.0, below=True)
    np.testing.assert_array_equal(table["step"], [100, NAN])


def test_all_past_at_first_is_doubted():
    losses = metrics([[NAN, 5.0, 1.0, 0.1], [4.0, 3.0, NAN, NAN], [NAN] * 4], name="eval_loss")
    said = r"eval_loss is above 0.5 at the first checkpoint of every run: did you mean below=True\?"
    with pytest.warns(UserWarning, match=said):
        table = convergence(losses, metric="eval_loss", threshold=0.5)
    np.testing.assert_array_equal(table["step"], [10, 0, NAN])
    convergence(losses, metric="eval_loss", threshold=4.5)  # one of them only
    with pytest.warns(UserWarning, match=r"is below 0.9 at .* did you mean below=False\?"):
        convergence(RUNS, below=True)


def test_the_order_of_checkpoints_is_that_of_their_steps():
    shuffled = RUNS.isel(step=[3, 1, 0, 2]).transpose("step", "run")
    xr.testing.assert_equal(convergence(shuffled), convergence(RUNS))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"metrics": RUNS["eval_accuracy"]}, TypeError, "must be an xarray.Dataset, .* DataArray"),
        ({"metric": "accuracy"}, ValueError, r"no variable 'accuracy'; .*\['eval_accuracy'\]"),
        ({"metrics": RUNS.isel(step=0)}, ValueError, r"'eval_accuracy' must have the dims \(run, "),
        ({"threshold": NAN}, ValueError, "threshold must be a finite number, got nan"),
        ({"threshold": "high"}, ValueError, "threshold must be a finite number, got 'high'"),
        ({"threshold": True}, ValueError, "threshold must be a finite number, got True"),
    ],
)
def test_errors(arguments, error, match):
    arguments = {"metrics": RUNS, **arguments}
    with pytest.raises(error, match=match):
        convergence(arguments.pop("metrics"), **arguments)
