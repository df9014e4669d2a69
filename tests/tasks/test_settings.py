"""The settings of the tasks: the paper's by default, each with its help, and none that is wrong."""

from dataclasses import fields
from typing import get_args, get_type_hints

import pytest

from bayesphase.tasks.settings import TASKS, Settings


@pytest.mark.parametrize("name", TASKS)
def test_every_setting_says_what_it_is_and_has_a_default(name: str) -> None:
    hints = get_type_hints(TASKS[name], include_extras=True)
    for field in fields(TASKS[name]):
        _, text = get_args(hints[field.name])
        assert text[-1] in ".]", field.name
    assert TASKS[name]() == TASKS[name]()
    assert (TASKS[name].__doc__ or "").endswith(".")


def test_the_defaults_are_those_of_the_paper() -> None:
    expected = {
        # batch, learning rate, weight decay, checkpoint every, converged at
        "modular-addition": (2048, 1e-3, 1.0, 10),
        "sparse-parity": (32, 0.1, 0.01, 10),
        "image-mlp": (256, 1e-3, 0.01, 20),
        "image-cnn": (256, 1e-3, 0.01, 20),
    }
    for name, values in expected.items():
        s = TASKS[name]()
        assert (s.batch_size, s.learning_rate, s.weight_decay, s.every) == values, name
    parity = TASKS["sparse-parity"]()
    assert (parity.n_bits, parity.n_relevant, parity.hidden) == (40, 3, 128)
    assert (parity.n_train, parity.n_eval, parity.converged) == (1000, 100, 0.9)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sparse-parity", {"n_relevant": 41}, "n_relevant is 41, expected at most 40"),
        ("sparse-parity", {"hidden": 0}, "hidden is 0, expected 1 or more"),
        ("sparse-parity", {"tail": 0}, "tail is 0, expected 1 or more"),
        ("image-mlp", {"learning_rate": 0.0}, "learning_rate is 0.0, expected more than 0"),
        ("image-mlp", {"learning_rate": float("nan")}, "learning_rate is nan, expected more"),
        ("image-cnn", {"weight_decay": -1.0}, "weight_decay is -1.0, expected 0 or more"),
        ("image-cnn", {"converged": 90.0}, "converged is 90.0, expected an accuracy from 0 to 1"),
        ("masked-lm", {"mask_fraction": 0.01}, "mask_fraction is 0.01, expected a share"),
        ("masked-lm", {"width": 66}, "width is 66, expected a multiple of n_heads, 4"),
        ("causal-lm", {"dropout": 1.0}, "dropout is 1.0, expected a share"),
        ("causal-lm", {"train_fraction": 1.0}, "train_fraction is 1.0, expected a share"),
    ],
)
def test_settings_that_make_no_sense(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TASKS[name](**options)


def test_a_task_must_be_built() -> None:
    with pytest.raises(NotImplementedError):
        Settings(epochs=1, every=1, converged=0.5, batch_size=1).build(None)
