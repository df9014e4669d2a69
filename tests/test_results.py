import h5py
import numpy as np
import pytest
import xarray as xr
from synthetic import synthetic_fit

from bayesphase import _storage
from bayesphase.results import open_fit, save_fit

SUFFIXES = (".nc", ".zarr")


@pytest.fixture
def fit():
    fit = synthetic_fit(n_draws=10, missing=0.2)
    fit["paths"]["state"].attrs["units"] = "1"
    fit.attrs |= {
        "sampler": "nutpie",
        "random_seed": 2**40,
        "converged": True,
        "note": None,
        "text": "json: is how we write lists",
        "seeds": [1],
        "names": ["a", "b"],
        "nested": {"prior": {"scale": 0.5}, "empty": []},
        "unicode": "Ünïcode φ",
        "nothing": "",
        "numpy": np.float64(0.9),
    }
    return fit


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_read_equals_what_was_saved(fit, tmp_path, suffix):
    path = tmp_path / f"fit{suffix}"
    assert save_fit(fit, path) == path
    read = open_fit(path)
    xr.testing.assert_identical(read, fit)
    for node in fit.subtree:
        for name, variable in node.variables.items():
            assert read[node.path].variables[name].dtype == variable.dtype, (node.path, name)
    assert read.attrs == fit.attrs
    assert {k: type(v) for k, v in read.attrs.items() if k != "numpy"} == {
        k: type(v) for k, v in fit.attrs.items() if k != "numpy"
    }
    assert read["paths"]["state"].dtype == np.int8
    assert read["sample_stats"]["diverging"].dtype == bool
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("first", SUFFIXES)
@pytest.mark.parametrize("second", SUFFIXES)
def test_a_fit_that_was_read_can_be_saved_again(fit, tmp_path, first, second):
    save_fit(fit, tmp_path / f"one{first}")
    save_fit(open_fit(tmp_path / f"one{first}"), tmp_path / f"two{second}")
    xr.testing.assert_identical(open_fit(tmp_path / f"two{second}"), fit)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_saving_replaces_and_reading_leaves_the_file_closed(fit, tmp_path, suffix):
    path = tmp_path / f"fit{suffix}"
    other = synthetic_fit(n_draws=3)
    save_fit(fit, path)
    read = open_fit(path)
    save_fit(other, path)
    xr.testing.assert_identical(open_fit(path), other)
    xr.testing.assert_identical(read, fit)
    assert list(tmp_path.iterdir()) == [path]


def test_xarray_alone_opens_it(fit, tmp_path):
    save_fit(fit, tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf") as tree:
        np.testing.assert_array_equal(tree["paths/state"], fit["paths/state"])
    save_fit(fit, tmp_path / "fit.zarr")
    with xr.open_datatree(tmp_path / "fit.zarr", engine="zarr") as tree:
        np.testing.assert_array_equal(tree["paths/state"], fit["paths/state"])


def test_netcdf_is_compressed(fit, tmp_path):
    save_fit(fit, tmp_path / "fit.nc")
    with h5py.File(tmp_path / "fit.nc") as file:
        assert file["paths/state"].compression == "gzip"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_failed_writing_leaves_what_was_there(fit, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"fit{suffix}"
    save_fit(fit, path)

    def fails(self, target, **kwargs):
        target.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(xr.DataTree, "to_netcdf", fails)
    monkeypatch.setattr(xr.DataTree, "to_zarr", fails)
    with pytest.raises(OSError, match="disk full"):
        save_fit(synthetic_fit(n_draws=3), path)
    monkeypatch.undo()
    xr.testing.assert_identical(open_fit(path), fit)
    assert list(tmp_path.iterdir()) == [path]


def test_folder_is_put_back_if_it_can_not_be_replaced(tmp_path):
    path = tmp_path / "store.zarr"
    _storage.save(xr.Dataset(attrs={"n": 1}), path)
    with pytest.raises(FileNotFoundError):
        _storage.write_atomically(path, lambda target: None)  # writes nothing
    assert _storage.load(path).attrs == {"n": 1}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_file_cut_short_is_said_to_be(fit, tmp_path, share):
    path = tmp_path / "fit.nc"
    save_fit(fit, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"fit\.nc' can't be read as netCDF .*cut short"):
        open_fit(path)


def test_folder_that_is_no_store_is_neither_read_nor_replaced(fit, tmp_path):
    path = tmp_path / "mine.zarr"
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="can't be read as Zarr"):
        open_fit(path)
    with pytest.raises(FileExistsError, match="is a folder and not a Zarr store"):
        save_fit(fit, path)
    assert (path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["fit", "fit.pkl", "fit.h5"])
def test_other_suffixes(fit, tmp_path, name):
    with pytest.raises(ValueError, match=r"has the suffix .*end the name in '\.nc'"):
        save_fit(fit, tmp_path / name)
    with pytest.raises(ValueError, match=r"has the suffix .*expected the path of what .* '\.nc'"):
        open_fit(tmp_path / name)


def test_errors(fit, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.nc"):
        open_fit(tmp_path / "none.nc")
    with pytest.raises(FileNotFoundError, match=r"make the folder .*nowhere"):
        save_fit(fit, tmp_path / "nowhere" / "fit.nc")
    with pytest.raises(TypeError, match=r"expected the DataTree .* got Dataset"):
        save_fit(fit["posterior"].to_dataset(), tmp_path / "fit.nc")
    with pytest.raises(ValueError, match=r"lacks the groups \['paths'\]"):
        save_fit(xr.DataTree.from_dict({"posterior": xr.Dataset()}), tmp_path / "fit.nc")
    fit.attrs["made_by"] = object()
    with pytest.raises(TypeError, match="attribute 'made_by' is a object, which can't be saved"):
        save_fit(fit, tmp_path / "fit.nc")
    assert not list(tmp_path.iterdir())


def test_metrics_are_no_fit(tmp_path):
    ds = xr.Dataset({"eval_loss": (("run", "step"), [[1.0, 2.0]])}, attrs={"tags": ["x"]})
    _storage.save(ds, tmp_path / "metrics.nc")
    xr.testing.assert_identical(_storage.load(tmp_path / "metrics.nc").to_dataset(), ds)
    with pytest.raises(ValueError, match=r"metrics\.nc' is not a fit"):
        open_fit(tmp_path / "metrics.nc")
