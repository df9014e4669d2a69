"""Sparse parities: the data, the loss, and a step of the training, by their definitions."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bayesphase.tasks.settings import SparseParity  # noqa: E402
from bayesphase.tasks.sparse_parity import draw, hinge  # noqa: E402
from bayesphase.tasks.training import train  # noqa: E402


def test_the_answer_is_the_parity_of_the_first_bits() -> None:
    (bits, parity), (more_bits, more_parity) = draw(SparseParity())
    assert bits.shape == (1000, 40)
    assert more_bits.shape == (100, 40)
    bits, parity = torch.cat([bits, more_bits]), torch.cat([parity, more_parity])
    assert set(bits.unique().tolist()) == {-1.0, 1.0}
    odd = (bits[:, :3] < 0).sum(1) % 2 == 1
    assert torch.equal(parity < 0, odd)
    # no bit by itself, and no pair, says anything of it: a correlation has a spread of 0.03
    assert float((bits * parity[:, None]).mean(0).abs().max()) < 0.12
    assert abs(float((bits[:, 0] * bits[:, 1] * parity).mean())) < 0.12


def test_split_seeds_draw_other_data_and_seeds_do_not() -> None:
    one, same, other = (draw(SparseParity(split_seed=i))[0][0] for i in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_hinge_loss() -> None:
    losses, right = hinge(torch.tensor([[2.0], [0.5], [-0.25], [0.0]]), torch.tensor([1, 1, 1, -1]))
    assert losses.tolist() == [0, 0.5, 1.25, 1]
    assert right.tolist() == [True, True, False, False]


def test_the_network_and_its_initial_weights() -> None:
    network = SparseParity().build(torch.Generator()).network
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert shapes == {
        "hidden.weight": (128, 40),
        "hidden.bias": (128,),
        "output.weight": (1, 128),
        "output.bias": (1,),
    }
    for layer, n in ((network.hidden, 168), (network.output, 129)):
        bound = (6 / n) ** 0.5
        assert 0.95 * bound < float(layer.weight.detach().abs().max()) <= bound
        assert not layer.bias.any()


def test_a_step_is_one_of_gradient_descent_with_weight_decay() -> None:
    sizes = {"n_train": 8, "n_eval": 4, "n_bits": 5, "hidden": 3, "batch_size": 8}
    settings = SparseParity(**sizes, epochs=1, every=1)
    ds = train(0, settings=settings)
    torch.manual_seed(2**32)  # as training does for seed 0
    network = settings.build(torch.Generator()).network.double()
    bits, parity = (part.double() for part in draw(settings)[0])
    loss = (1 - network(bits)[:, 0] * parity).clamp(min=0).mean()
    assert float(ds["train_loss"][0, 0]) == pytest.approx(float(loss.detach()), rel=1e-6)
    loss.backward()
    for name, layer in (("hidden", network.hidden), ("output", network.output)):
        weight = layer.weight - 0.1 * (layer.weight.grad + 0.01 * layer.weight)
        found = ds["l2_norm"].sel(parameter=name).values[0, 1]
        np.testing.assert_allclose(found, float(weight.detach().norm()), rtol=1e-6)


def test_it_is_learned() -> None:
    settings = SparseParity(n_bits=6, n_relevant=2, n_train=64, n_eval=32, epochs=30, every=30)
    ds = train(0, settings=settings)
    assert float(ds["eval_accuracy"][0, -1]) == 1
    assert float(ds["eval_loss"][0, -1]) < 0.2 < float(ds["eval_loss"][0, 0])
