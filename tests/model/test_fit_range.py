"""Several fits at the same time are those that come one after the other."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from itertools import pairwise
from pathlib import Path

import pytest

import bayesphase as bp
from bayesphase._checks import threads
from bayesphase.model import fit_range as module
from bayesphase.model.emissions import Gaussian

QUICK = {"draws": 50, "tune": 50, "n_restarts": 2, "progressbar": False}
WIDE = {"mean": bp.Prior("Normal", mu=0.0, sigma=10.0)}
VARIANTS = {"wide": {"priors": WIDE}, "short": {"draws": 20, "random_seed": 2}}


@pytest.fixture(scope="module")
def features():
    data = bp.simulate(n_states=2, n_runs=2, n_steps=60, n_features=2, random_seed=1)
    return data["features"]


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def one_by_one(features):
    """What `fit` says, and so must any way of doing several."""
    fits = {
        str(k): bp.fit(features, k, emission="gaussian", random_seed=1, **QUICK) for k in (1, 2)
    }
    for name, changed in VARIANTS.items():
        for k in (1, 2):
            fits[f"{name} {k}"] = bp.fit(
                features, k, emission="gaussian", **{"random_seed": 1, **QUICK, **changed}
            )
    return fits


@pytest.fixture(params=["here", "processes", "cluster"])
def way(request):
    """Return the arguments that say where fits are done."""
    if request.param == "cluster":
        return {"client": request.getfixturevalue("client")}
    return {"workers": 1 if request.param == "here" else 2}


def assert_same(fits, expected):
    assert list(fits) == list(expected)
    for key, fit in fits.items():
        assert fit.equals(expected[key]), key
        assert fit.attrs == expected[key].attrs


def test_each_number_of_states_has_its_fit(features, one_by_one, way):
    turned = features.transpose("feature", "step", "run")
    fits = bp.fit_range(turned, [2, 1], emission="gaussian", random_seed=1, **QUICK, **way)
    assert_same(fits, {key: one_by_one[key] for key in ("2", "1")})


def test_each_variant_has_its_fits(features, one_by_one, way):
    fits = bp.fit_range(
        features, [1, 2], emission="gaussian", variants=VARIANTS, random_seed=1, **QUICK, **way
    )
    assert_same(fits, {key: one_by_one[key] for key in ("wide 1", "wide 2", "short 1", "short 2")})
    assert fits["short 1"]["posterior"].sizes["draw"] == 20
    assert "sigma=10.0" in fits["wide 2"].attrs["priors"]["mean"]


def test_without_a_seed_no_fit_is_taken_for_another(features, way):
    again = {"first": {}, "second": {}}
    fits = bp.fit_range(features, [1], emission="gaussian", variants=again, **QUICK, **way)
    first, second = (fit["posterior"]["mean"] for fit in fits.values())
    assert not first.equals(second)


def test_a_fit_that_fails_is_named_and_the_others_are_kept(features, one_by_one, way):
    variants = {"short": VARIANTS["short"], "none": {"draws": 0}}
    with pytest.raises(RuntimeError, match="1 of 2 fits failed") as caught:
        bp.fit_range(
            features, [2], emission="gaussian", variants=variants, random_seed=1, **QUICK, **way
        )
    reason = "n_states=2 of variant 'none': ValueError: draws must be at least 1, got 0"
    assert reason in str(caught.value)
    assert_same(caught.value.fits, {"short 2": one_by_one["short 2"]})


def test_where_all_fits_fail_the_error_is_that_of_fit(features, way):
    with pytest.raises(ValueError, match="draws must be at least 1, got 0") as caught:
        bp.fit_range(features, [2, 1], emission="gaussian", draws=0, progressbar=False, **way)
    assert caught.value.__notes__ == ["This was the fit with n_states=2."]


class Deadly(Gaussian):
    """Kills the first process that receives it."""

    def __init__(self, marker: Path, home: int) -> None:
        self.marker, self.home = marker, home

    def __reduce__(self):
        return arrive, (self.marker, self.home)


def arrive(marker: Path, home: int) -> Gaussian:
    if os.getpid() == home:  # where Dask's scheduler runs
        return Deadly(marker, home)
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return Gaussian()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_worker_that_is_killed_on_a_cluster_is_survived(features, one_by_one, client, tmp_path):
    deadly = Deadly(tmp_path / "killed", os.getpid())
    fits = bp.fit_range(features, [1, 2], emission=deadly, random_seed=1, client=client, **QUICK)
    assert deadly.marker.exists()
    assert_same(fits, {key: one_by_one[key] for key in ("1", "2")})


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_worker_that_is_killed_here_is_told_of(features, tmp_path):
    deadly = Deadly(tmp_path / "killed", os.getpid())
    with pytest.raises(RuntimeError, match=r"terminated[\s\S]*fit with n_states="):
        bp.fit_range(features, [1, 2], emission=deadly, workers=2, **QUICK)


SCRIPT = """
import sys, time
from pathlib import Path

import bayesphase as bp
from bayesphase.model.emissions import Gaussian

class Slow(Gaussian):
    def __reduce__(self):
        return arrive, ()

def arrive():
    import os
    (Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(100)

sys.argv[1:] = [{folder!r}]
data = bp.simulate(n_states=2, n_runs=2, n_steps=60, random_seed=1)
bp.fit_range(data["features"], [1, 2], emission=Slow(), workers=2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT")
def test_interrupting_a_script_stops_its_workers(tmp_path):
    """A plain script at that: not guarded by its `__name__`, with a class of its own."""
    marks = tmp_path / "marks"
    marks.mkdir()
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(folder=str(marks))))
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(list(marks.iterdir())) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert "\nKeyboardInterrupt\n" in said  # loky's resource tracker may have a last word
    assert process.returncode == -signal.SIGINT
    workers = [int(mark.name) for mark in marks.iterdir()]
    assert len(workers) == 2
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.fixture
def begun(monkeypatch):
    """Record what fits are begun with, none of which is done; processes are threads."""
    calls = []

    @wraps(bp.fit)
    def record(features, n_states, **settings):
        calls.append({"n_states": n_states, **settings})
        return "fit"

    monkeypatch.setattr(module, "fit", record)
    monkeypatch.setattr(module, "threads", lambda cores: 10 if cores is None else threads(cores))
    monkeypatch.setattr(
        "joblib.externals.loky.get_reusable_executor",
        lambda workers, timeout: ThreadPoolExecutor(1, thread_name_prefix=str(workers)),
    )
    return calls


@pytest.mark.parametrize(
    ("arguments", "cores"),
    [
        ({}, 5),  # two fits of four chains
        ({"chains": 5}, 5),
        ({"chains": 1}, 3),  # three fits: there are no more
        ({"cores": 8}, 4),
        ({"workers": 3}, 3),
        ({"workers": 3, "cores": 2}, 1),
        ({"sampler": "pymc"}, 1),  # its chains are processes themselves
        ({"variants": {"a": {"chains": 1}, "b": {"chains": 2}}}, 2),
    ],
)
def test_cores_are_shared_out(features, begun, arguments, cores):
    bp.fit_range(features, [1, 2, 3], emission="gaussian", **arguments)
    assert {call["cores"] for call in begun} == {cores}
    # the longest is begun first, and bars of several samplers are not shown
    assert sorted((call["n_states"] for call in begun), reverse=True) == [
        call["n_states"] for call in begun
    ]
    assert {call["progressbar"] for call in begun} == {False}


@pytest.mark.parametrize("arguments", [{"cores": 7}, {"chains": 6}, {"workers": 1}])
def test_where_chains_fill_the_cores_it_is_one_after_the_other(features, begun, arguments):
    assert list(bp.fit_range(features, [1, 2], emission="gaussian", **arguments)) == ["1", "2"]
    assert [call["n_states"] for call in begun] == [1, 2]
    assert {call["cores"] for call in begun} == {arguments.get("cores")}
    assert {call["progressbar"] for call in begun} == {True}


def test_fits_are_counted_while_they_are_done(features, begun, capsys):
    bp.fit_range(features, [1, 2, 3], emission="gaussian", workers=2, progressbar=False)
    assert capsys.readouterr().out == ""
    bp.fit_range(features, [1, 2, 3], emission="gaussian", workers=2)
    assert "3/3" in capsys.readouterr().out


def when(features, *, cores, progressbar, sampler):
    """Stand in for a fit: tells when it ran and on how many cores."""
    begin = time.monotonic()
    time.sleep(0.1)
    return begin, time.monotonic(), cores


@pytest.mark.parametrize(
    ("sampler", "cores", "used"),
    [("nutpie", None, 3), ("nutpie", 2, 2), ("nutpie", 8, 3), ("pymc", None, 1)],
)
def test_a_worker_of_a_cluster_does_one_fit_at_a_time_with_its_threads(sampler, cores, used):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        call = partial(when, sampler=sampler)
        futures = [client.submit(module._on_dask_worker, i, call, cores) for i in range(3)]
        times = sorted(client.gather(futures))
    for (_, end, n_cores), (begin, _, _) in pairwise(times):
        assert end <= begin
        assert n_cores == used


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_states": 3}, TypeError, r"n_states must be numbers of states such as .* got 3"),
        ({"n_states": []}, ValueError, "n_states is empty"),
        ({"n_states": [2, 2]}, ValueError, "n_states holds 2 more than once"),
        ({"n_states": [2, 0]}, ValueError, "got 0\nThis was the fit with n_states=0"),
        ({"n_states": ["2"]}, TypeError, "n_states must be an integer, got '2'"),
        ({"draw": 10}, TypeError, "unexpected keyword argument 'draw'"),
        ({"chains": 0}, ValueError, "chains must be at least 1, got 0"),
        ({"cores": 0}, ValueError, "cores must be at least 1, got 0"),
        ({"workers": 0}, ValueError, "workers must be at least 1, got 0"),
        ({"workers": 2, "client": object()}, ValueError, "workers=2 .* leave it out with client"),
        ({"client": "tcp://cluster"}, TypeError, "client must be a distributed.Client, got 'tcp:"),
        ({"variants": ["a"]}, TypeError, r"variants must be settings of fit by name, got \['a'\]"),
        (
            {"variants": {"a": {"emission": "poisson"}}},
            ValueError,
            "got 'poisson'\nThis was the fit with n_states=1 of variant 'a'",
        ),
        ({"variants": {"a": {"cores": 2}}}, ValueError, "a variant can't have its own .'cores'."),
        ({"variants": {"a": {"n_states": 2}}}, TypeError, "multiple values for .* 'n_states'"),
    ],
)
def test_bad_arguments_are_named_before_any_fit(features, begun, arguments, error, message):
    with pytest.raises(error, match=message):
        bp.fit_range(features, **{"n_states": [1, 2], **arguments})
    assert not begun
