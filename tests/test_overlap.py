"""Overlap of subspaces and cosine content, by what they are for subspaces that are known."""

import numpy as np
import pytest
import xarray as xr

import bayesphase as bp


def of(values):
    values = np.asarray(values, float)
    return xr.DataArray(
        values,
        dims=("run", "step", "example"),
        coords={
            "run": [f"seed {i}" for i in range(len(values))],
            "step": 10 * np.arange(values.shape[1]),
            "example": np.arange(values.shape[2]),
        },
        attrs={"units": "nats"},
    )


def in_plane(rng, *axes, n=50, n_examples=6):
    basis = np.eye(n_examples)[list(axes)]
    return rng.normal(size=(n, len(axes))) @ basis


def test_the_same_plane_has_one_and_orthogonal_planes_nothing():
    rng = np.random.default_rng(0)
    x = of([in_plane(rng, 0, 1), in_plane(rng, 0, 1), in_plane(rng, 2, 3), in_plane(rng, 1, 2)])
    table = bp.subspace_overlap(x, n_components=2)
    half = 0.5**0.5  # one of two directions is shared
    expected = [[1, 1, 0, half], [1, 1, 0, half], [0, 0, 1, half], [half, half, half, 1]]
    np.testing.assert_allclose(table["rmsip"], expected, atol=1e-7)
    assert float(table["rmsip_random"]) == pytest.approx((2 / 6) ** 0.5)
    assert all({"long_name", "units"} <= set(v.attrs) for v in table.data_vars.values())


def test_random_subspaces_have_what_it_says():
    rng = np.random.default_rng(1)
    table = bp.subspace_overlap(of(rng.normal(size=(6, 40, 200))), n_components=4)
    others = table["rmsip"].values[~np.eye(6, dtype=bool)]
    np.testing.assert_allclose((others**2).mean() ** 0.5, table["rmsip_random"], rtol=0.1)


def test_joint_components_of_one_run_are_its_own():
    rng = np.random.default_rng(2)
    table = bp.subspace_overlap(of([in_plane(rng, 0, 1, 2)]), n_components=3)
    np.testing.assert_allclose(table["rmsip_joint"], 1)
    np.testing.assert_allclose(table["explained_by_joint"], 1)


def test_the_shared_variance_is_that_of_the_projections():
    rng = np.random.default_rng(3)
    x = of(rng.normal(size=(2, 30, 5)) * [5, 4, 3, 2, 1])
    table = bp.subspace_overlap(x, n_components=2)
    loadings = bp.pca(x, n_components=2)["loadings"].values
    for r, run in enumerate(x.values):
        run = run - run.mean(axis=0)
        share = ((run @ loadings) ** 2).sum() / (run**2).sum()
        np.testing.assert_allclose(table["explained_by_joint"][r], share)


def test_cosines_have_a_content_of_one_and_random_walks_nearly():
    time = np.linspace(0, 1, 400)
    cosines = np.stack([np.cos(np.pi * time), 0.3 * np.cos(2 * np.pi * time)], axis=1)
    directions = np.linalg.qr(np.random.default_rng(4).normal(size=(30, 2)))[0].T
    table = bp.subspace_overlap(of([cosines @ directions]), n_components=2)
    np.testing.assert_allclose(table["cosine_content"].isel(run=0), [1, 1], atol=0.02)
    walks = np.random.default_rng(5).normal(size=(2, 120, 150)).cumsum(axis=1)
    content = bp.subspace_overlap(of(walks), n_components=2)["cosine_content"]
    assert (content > 0.9).all()
    noise = np.random.default_rng(6).normal(size=(2, 120, 150))
    assert (bp.subspace_overlap(of(noise), n_components=2)["cosine_content"] < 0.2).all()


def test_a_run_with_too_few_checkpoints_is_unknown():
    rng = np.random.default_rng(7)
    values = rng.normal(size=(3, 20, 6))
    values[1, 2:] = np.nan
    values[2] = np.nan
    table = bp.subspace_overlap(of(values), n_components=3)
    assert table["rmsip_joint"].notnull().values.tolist() == [True, False, False]
    assert table["rmsip"].notnull().sum() == 1
    assert table["cosine_content"].isel(run=[1, 2]).isnull().all()


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="x must be a DataArray"):
        bp.subspace_overlap(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="n_components must be from 1 to the 6 examples, got 9"):
        bp.subspace_overlap(of(np.random.default_rng(0).normal(size=(1, 20, 6))), n_components=9)
