"""Several seeds in processes of their own, put together, interrupted and resumed."""

from pathlib import Path

import pytest
import xarray as xr

torch = pytest.importorskip("torch")

from bayesphase import open_metrics  # noqa: E402
from bayesphase.combine import combine_runs  # noqa: E402
from bayesphase.dataset import save_metrics  # noqa: E402
from bayesphase.tasks.seeds import train_seeds  # noqa: E402
from bayesphase.tasks.settings import ModularAddition  # noqa: E402
from bayesphase.tasks.training import train  # noqa: E402

TINY = ModularAddition(modulus=7, epochs=4, every=2, batch_size=8)


def broken(seed: int, **_: object) -> xr.Dataset:
    """Train nothing; it is found by name in the worker process."""
    raise RuntimeError(f"seed {seed} broke")


def test_workers_give_what_training_here_gives(tmp_path: Path) -> None:
    told = []
    ds = train_seeds(
        train,
        path=tmp_path / "m.nc",
        seeds=[0, 1, 2],
        settings=TINY,
        n_examples=3,
        example_runs=2,
        on_checkpoint=lambda *news: told.append(news),
    )
    here = [train(seed, settings=TINY, n_examples=3 * (seed < 2)) for seed in range(3)]
    xr.testing.assert_identical(ds, combine_runs(here))
    xr.testing.assert_identical(open_metrics(tmp_path / "m.nc"), ds)
    assert sorted(news[:2] for news in told) == [(s, e) for s in range(3) for e in (0, 2, 4)]
    assert ds["example_loss"].isnull().all(("step", "example")).values.tolist() == [0, 0, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["m.nc"]


def test_an_interrupted_training_goes_on_with_the_seeds_that_are_missing(tmp_path: Path) -> None:
    parts = tmp_path / "m.nc.parts"
    parts.mkdir()
    marked = train(0, settings=TINY)
    marked["eval_loss"][:] = 7.0
    save_metrics(marked, parts / "seed-0-examples-0.nc")
    told = set()
    ds = train_seeds(
        train,
        path=tmp_path / "m.nc",
        seeds=[0, 1],
        settings=TINY,
        workers=1,
        on_checkpoint=lambda seed, *_: told.add(seed),
    )
    assert told == {1}
    assert (ds["eval_loss"].sel(run="seed 0") == 7).all()

    parts.mkdir()
    save_metrics(marked, parts / "seed-0-examples-0.nc")
    with pytest.raises(ValueError, match=r"seed-0.* is left from .*epochs\": 4.*\"epochs\": 9"):
        train_seeds(
            train, path=tmp_path / "m.nc", seeds=[0], settings=ModularAddition(modulus=7, epochs=9)
        )


def test_no_folder_is_made_to_write_in_and_nothing_is_trained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train_seeds(broken, path=tmp_path / "nowhere" / "m.nc", seeds=[0], settings=TINY)
    assert not list(tmp_path.iterdir())


def test_an_error_in_a_worker_is_raised_and_the_older_file_kept(tmp_path: Path) -> None:
    save_metrics(train(5, settings=TINY), tmp_path / "m.nc")
    with pytest.raises(RuntimeError, match="seed 0 broke"):
        train_seeds(broken, path=tmp_path / "m.nc", seeds=[0], settings=TINY)
    assert list(open_metrics(tmp_path / "m.nc")["run"].values) == ["seed 5"]
