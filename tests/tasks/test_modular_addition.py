"""The task: the network against PyTorch's own attention, the split, seeds, and what is recorded."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

from bayesphase.contract import VARIABLES  # noqa: E402
from bayesphase.dataset import validate_metrics  # noqa: E402
from bayesphase.tasks.modular_addition import (  # noqa: E402
    Transformer,
    selection_of,
    split_pairs,
)
from bayesphase.tasks.settings import ModularAddition  # noqa: E402
from bayesphase.tasks.training import train  # noqa: E402

TINY = ModularAddition(modulus=7, train_fraction=0.8, epochs=6, every=2, batch_size=16)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_fast_forward_is_that_of_the_whole_transformer(layer_norm: bool) -> None:
    settings = ModularAddition(layer_norm=layer_norm)
    network = Transformer(settings, torch.Generator().manual_seed(0)).double()
    a, b = torch.arange(50), torch.arange(50).flip(0) * 2
    x = network.embed(torch.stack([a, b, torch.full_like(a, 113)], 1)) + network.position.weight
    future = torch.triu(torch.ones(3, 3, dtype=torch.bool), 1)
    x = x + network.attention(x, x, x, attn_mask=future, need_weights=False)[0]
    x = network.norms[0](x) if layer_norm else x
    x = x + network.mlp_out(functional.relu(network.mlp_in(x)))
    x = network.norms[1](x) if layer_norm else x
    torch.testing.assert_close(network(a, b), network.unembed(x)[:, -1], rtol=1e-12, atol=1e-12)


def test_initial_weights_have_the_spread_of_the_paper() -> None:
    network = Transformer(ModularAddition(), torch.Generator().manual_seed(0))
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            assert not parameter.any(), name
        elif name != "position.weight":
            spread = 114 if name == "unembed.weight" else 128
            assert float(parameter.detach().std()) == pytest.approx(spread**-0.5, rel=0.02), name


def test_what_is_measured_of_it() -> None:
    selection = selection_of(Transformer(ModularAddition(), torch.Generator()))
    assert [(m.kind, m.shape) for m in selection.matrices] == [
        *[(kind, (32, 128)) for kind in ("query", "key", "value") for _ in range(4)],
        ("output", (128, 128)),
        ("mlp_in", (512, 128)),
        ("mlp_out", (128, 512)),
        ("unembed", (114, 128)),
    ]
    assert selection.biases == ("mlp_in.bias", "mlp_out.bias")
    assert selection.left_out == {"embed.weight": "embedding", "position.weight": "embedding"}


def test_the_split_covers_all_pairs_once() -> None:
    train_pairs, eval_pairs = split_pairs(ModularAddition())
    assert len(train_pairs.a) == 3830
    both = [torch.cat(parts) for parts in zip(train_pairs, eval_pairs, strict=True)]
    assert sorted((113 * both[0] + both[1]).tolist()) == list(range(113**2))
    assert torch.equal(both[2], (both[0] + both[1]) % 113)


def test_a_training_is_recorded() -> None:
    ds = train(3, settings=TINY, n_examples=4)
    xr.testing.assert_identical(validate_metrics(ds, min_steps=4), ds)
    assert set(ds.data_vars) == set(VARIABLES)
    assert list(ds["run"].values) == ["seed 3"]
    assert list(ds["epoch"].values) == [0, 2, 4, 6]
    assert list(ds["step"].values) == [0, 6, 12, 18]  # 39 pairs make 3 batches of at most 16
    assert ds["eval_loss"].attrs["units"] == "nats"
    assert json.loads(ds.attrs["settings"])["modulus"] == 7
    examples = split_pairs(TINY)[1]
    expected = [7 * int(examples.a[i]) + int(examples.b[i]) for i in range(4)]
    assert list(ds["example"].values) == expected
    assert not ds["nonfinite_count"].any()


def test_the_losses_are_those_of_the_untrained_network_at_step_0() -> None:
    ds = train(3, settings=TINY, n_examples=10)
    network = Transformer(TINY, torch.Generator().manual_seed(3))
    for name, pairs in zip(("train", "eval"), split_pairs(TINY), strict=True):
        logits = network(pairs.a, pairs.b).detach().double()
        loss = -logits.log_softmax(-1)[torch.arange(len(pairs.a)), pairs.answer]
        assert float(ds[f"{name}_loss"][0, 0]) == pytest.approx(float(loss.mean()), rel=1e-12)
        right = (logits.argmax(-1) == pairs.answer).double().mean()
        assert float(ds[f"{name}_accuracy"][0, 0]) == float(right)
    np.testing.assert_allclose(ds["example_loss"][0, 0], loss, rtol=1e-6)


def test_a_seed_decides_everything_and_examples_nothing() -> None:
    one, same, other = (
        train(0, settings=TINY),
        train(0, settings=TINY, n_examples=4),
        train(1, settings=TINY),
    )
    xr.testing.assert_identical(same.drop_vars(["example_loss", "example"]), one)
    assert float(abs(other["l1_norm"].values - one["l1_norm"].values).min()) > 0


def test_training_learns_the_training_pairs() -> None:
    settings = ModularAddition(modulus=7, train_fraction=0.5, epochs=60, every=60, batch_size=8)
    ds = train(0, settings=settings)
    assert float(ds["train_accuracy"][0, -1]) == 1.0
    assert float(ds["train_loss"][0, -1]) < 0.1 < float(ds["train_loss"][0, 0])


def test_it_stops_a_tail_after_it_has_converged() -> None:
    settings = ModularAddition(modulus=7, train_fraction=0.5, epochs=60, every=1, batch_size=32)
    whole = train(0, settings=settings)
    accuracy = whole["eval_accuracy"].values[0]
    threshold = 0.1
    # Five checkpoints in a row are a tail of four epochs; here it takes more than one attempt.
    rows = np.lib.stride_tricks.sliding_window_view(accuracy >= threshold, 5).all(axis=1)
    stop = int(np.flatnonzero(rows)[0]) + 4
    assert (np.diff((accuracy[:stop] >= threshold).astype(int)) == -1).any()
    assert stop < 60
    short = train(0, settings=replace(settings, tail=4, converged=threshold))
    assert list(short["epoch"].values) == list(range(stop + 1))
    xr.testing.assert_equal(short, whole.isel(step=slice(stop + 1)))


def test_progress_is_told_at_every_checkpoint() -> None:
    told = []
    ds = train(
        0, settings=TINY, on_checkpoint=lambda epoch, accuracy: told.append((epoch, accuracy))
    )
    assert told == list(zip(ds["epoch"].values, ds["eval_accuracy"].values[0], strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_fraction": 0.0}, "train_fraction is 0.0, expected a share between 0 and 1"),
        ({"train_fraction": 1.0}, "train_fraction is 1.0, expected"),
        ({"epochs": 0}, "epochs is 0, expected 1 or more"),
        ({"every": -1}, "every is -1, expected 1 or more"),
        ({"batch_size": 0}, "batch_size is 0, expected 1 or more"),
    ],
)
def test_settings_that_make_no_sense(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModularAddition(**options)


def test_more_examples_than_there_are() -> None:
    with pytest.raises(ValueError, match="n_examples is 50, expected at most 10"):
        train(0, settings=TINY, n_examples=50)
