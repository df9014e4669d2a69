"""The loop that all tasks share, on networks small enough to be followed by hand."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")

from bayesphase.tasks.settings import Settings  # noqa: E402
from bayesphase.tasks.training import Task, cross_entropy, train  # noqa: E402


def squared(outputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    errors = (outputs[:, 0] - targets) ** 2
    return errors, errors < 0.1


@dataclass(frozen=True, kw_only=True)
class Line(Settings):
    """Learn y = 2 x by gradient descent, from 0."""

    every_epoch: ClassVar[bool] = False
    parts: ClassVar[dict[str, Any]] = {}

    epochs: int = 4
    every: int = 1
    converged: float = 0.99
    batch_size: int = 2
    learning_rate: float = 0.1
    weight_decay: float = 0.0

    def build(self, generator: torch.Generator) -> Task:
        network = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(network.weight)
        torch.nn.init.zeros_(network.bias)
        x = torch.tensor([-1.0, 1.0, -1.0, 1.0])
        return Task(
            name="line",
            network=network,
            optimiser=torch.optim.SGD(network.parameters(), lr=self.learning_rate),
            train_data=(x[:, None], 2 * x),
            eval_data=(x[:3, None], 2 * x[:3]),
            **{"judge": squared, "units": "1", **self.parts},
        )


def line(**parts: Any) -> type[Line]:
    return dataclass(frozen=True, kw_only=True)(type("Other", (Line,), {"parts": parts}))


def test_the_steps_are_those_of_gradient_descent() -> None:
    ds = train(0, settings=Line(batch_size=4, epochs=6))
    w = 2 * (1 - 0.8 ** np.arange(7))  # with all examples in a batch, w -> w - 2 lr (w - 2)
    np.testing.assert_allclose(ds["trace"].values[0, :, 0], w, rtol=1e-6)
    for name in ("train_loss", "eval_loss"):
        np.testing.assert_allclose(ds[name].values[0], (w - 2) ** 2, rtol=1e-5)
    assert (ds["train_accuracy"].values[0] == ((w - 2) ** 2 < 0.1)).all()


def test_checkpoints_can_be_counted_in_steps_or_in_epochs() -> None:
    by_step = train(0, settings=Line(every=3))
    assert list(by_step["step"].values) == [0, 3, 6]
    assert list(by_step["epoch"].values) == [0, 1.5, 3]
    counted = type("ByEpoch", (Line,), {"every_epoch": True})
    by_epoch = train(0, settings=counted(every=2))
    assert list(by_epoch["step"].values) == [0, 4, 8]
    assert list(by_epoch["epoch"].values) == [0, 2, 4]
    assert by_epoch["epoch"].dtype.kind == "i"


def test_a_tail_is_counted_in_epochs_from_when_it_converged_for_good() -> None:
    whole = train(0, settings=Line(epochs=40))
    since = float(whole["epoch"][int((whole["eval_accuracy"][0] >= 0.99).values.argmax())])
    assert 0 < since < 20
    short = train(0, settings=Line(epochs=40, tail=5))
    assert float(short["epoch"][-1]) == since + 5
    xr.testing.assert_equal(short, whole.sel(step=short["step"]))


def test_evaluating_in_parts_is_evaluating() -> None:
    whole, parts = (train(0, settings=line(at_once=n)()) for n in (100, 2))
    xr.testing.assert_allclose(whole, parts, rtol=1e-12)


def test_the_examples_that_are_measured_need_not_be_those_to_train_on() -> None:
    measured = (torch.tensor([[1.0]]), torch.tensor([5.0]))
    ds = train(0, settings=line(measured=measured)())
    w, b = ds["trace"].values[0, :, 0], ds["bias_mean"].values[0]
    np.testing.assert_allclose(ds["train_loss"].values[0], (w + b - 5) ** 2, rtol=1e-6)
    assert float(ds["eval_loss"][0, 0]) == 4


def test_batches_vary_and_evaluation_does_not() -> None:
    seen = []

    def vary(batch: tuple, generator: torch.Generator) -> tuple:
        seen.append(len(batch[0]))
        return batch[0], torch.full_like(batch[1], 7.0)

    ds = train(0, settings=line(vary=vary)(epochs=200, every=400))
    assert seen == [2] * 400
    assert float(ds["bias_mean"][0, -1]) == pytest.approx(7, abs=1e-4)
    assert float(ds["eval_loss"][0, -1]) == pytest.approx((81 + 25 + 81) / 3, rel=1e-3)


class Dropping(Line):
    """With initial weights and dropout, whose draws are PyTorch's own."""

    def build(self, generator: torch.Generator) -> Task:
        network = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(1, 1))
        return replace(
            super().build(generator),
            network=network,
            optimiser=torch.optim.SGD(network.parameters(), lr=0.1),
        )


def test_a_seed_decides_what_pytorch_draws_and_leaves_its_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = train(1, settings=Dropping())
    assert torch.equal(torch.rand(3), expected)
    xr.testing.assert_identical(train(1, settings=Dropping()), one)
    assert not one.equals(train(2, settings=Dropping()).assign_coords(run=one["run"]))


def test_what_is_said_of_a_run() -> None:
    settings = line(attrs={"text": "none"}, labels=torch.tensor([7, 8, 9]))()
    ds = train(0, settings=settings, n_examples=2)
    assert (ds.attrs["task"], ds.attrs["text"]) == ("line", "none")
    assert list(ds["example"].values) == [7, 8]
    assert ds["example_loss"].attrs["units"] == "1"
    with pytest.raises(ValueError, match="n_examples is 4, expected at most 3"):
        train(0, settings=settings, n_examples=4)


def test_cross_entropy() -> None:
    losses, right = cross_entropy(
        torch.tensor([[0.0, math.log(3)], [5, 5.1]]), torch.tensor([1, 0])
    )
    assert float(losses[0]) == pytest.approx(math.log(4 / 3))
    assert right.tolist() == [True, False]
