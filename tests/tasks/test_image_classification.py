"""The networks that classify images, with and without what makes them stable, and their data."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

from bayesphase.recording.parameters import select_parameters  # noqa: E402
from bayesphase.tasks.image_classification import (  # noqa: E402
    build_cnn,
    build_mlp,
    shift_and_mirror,
)
from bayesphase.tasks.image_files import read_images  # noqa: E402
from bayesphase.tasks.networks import ResidualNetwork  # noqa: E402
from bayesphase.tasks.settings import ImageCNN, ImageMLP  # noqa: E402
from bayesphase.tasks.training import train  # noqa: E402

PLAIN = {"batch_norm": False, "residual": False}


def network(**options: object) -> ResidualNetwork:
    settings = {"width": 2, "n_blocks": 2, "batch_norm": True, "residual": True, **options}
    return ResidualNetwork(3, 5, **settings).double()


def n_parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_by_default_it_is_the_resnet18_of_small_images() -> None:
    whole = ResidualNetwork(3, 100, width=64, n_blocks=2, batch_norm=True, residual=True)
    assert n_parameters(whole) == 11_220_132
    plain = ResidualNetwork(3, 100, width=64, n_blocks=2, **PLAIN)
    shortcuts = 64 * 128 + 128 * 256 + 256 * 512
    norms = 2 * (5 * 64 + 5 * 128 + 5 * 256 + 5 * 512)
    assert n_parameters(plain) == n_parameters(whole) - shortcuts - norms


def test_what_is_measured_of_it() -> None:
    kinds = [m.kind for m in select_parameters(network()).matrices]
    assert kinds == ["conv2d"] * 20 + ["linear"]
    selection = select_parameters(network(**PLAIN))
    assert [m.kind for m in selection.matrices] == ["conv2d"] * 17 + ["linear"]
    assert selection.biases == ("head.bias",)
    assert "stages.3.1.conv2" in [m.name for m in selection.matrices]


def test_initial_weights_have_the_variance_of_he() -> None:
    convolution = ResidualNetwork(3, 5, width=64, n_blocks=1, **PLAIN).stages[0][0].conv1
    expected = (2 / (64 * 9)) ** 0.5
    assert float(convolution.weight.detach().std()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_network_is_what_its_definition_says(residual: bool, batch_norm: bool) -> None:
    whole = network(residual=residual, batch_norm=batch_norm).eval()
    for module in whole.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight)
            torch.nn.init.uniform_(module.bias)
            module.running_mean.uniform_()
            module.running_var.uniform_(0.5, 2)
    weights = dict(whole.state_dict())

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        if not batch_norm:
            return x
        mean, var, gain, bias = (
            weights[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gain + bias

    images = torch.rand(4, 3, 8, 8, dtype=torch.double)
    x = functional.conv2d(images, weights["stem.weight"], padding=1)
    x = normed(x, "norm").relu()
    for stage in range(4):
        for block in range(2):
            name, stride = f"stages.{stage}.{block}", 2 if stage and not block else 1
            y = functional.conv2d(x, weights[f"{name}.conv1.weight"], padding=1, stride=stride)
            y = normed(y, f"{name}.norm1").relu()
            y = functional.conv2d(y, weights[f"{name}.conv2.weight"], padding=1)
            y = normed(y, f"{name}.norm2")
            if residual and stride == 2:
                x = functional.conv2d(x, weights[f"{name}.shortcut.0.weight"], stride=2)
                x = normed(x, f"{name}.shortcut.1")
            x = (y + x if residual else y).relu()
    assert x.shape == (4, 16, 1, 1)
    logits = x.mean((2, 3)) @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(whole(images), logits)


def test_images_are_flattened_for_the_mlp_and_standardised_for_the_cnn() -> None:
    images = read_images("digits")
    mlp, cnn = build_mlp(ImageMLP()), build_cnn(ImageCNN(width=2))
    assert torch.equal(mlp.train_data[0], torch.from_numpy(images.train))
    pixels = mlp.train_data[0][:4].flatten(1)
    hidden = (pixels @ mlp.network.hidden.weight.T).relu()
    torch.testing.assert_close(mlp.network(pixels), hidden @ mlp.network.output.weight.T)
    assert mlp.network.hidden.weight.shape == (800, 64)
    assert float(cnn.train_data[0].mean()) == pytest.approx(0, abs=1e-4)
    assert float(cnn.train_data[0].std()) == pytest.approx(1, abs=1e-3)
    mean, spread = images.train.mean(), images.train.std()
    np.testing.assert_allclose(cnn.eval_data[0], (images.test - mean) / spread, rtol=1e-4)
    assert cnn.vary is None


def test_the_examples_that_are_evaluated_can_be_fewer() -> None:
    task = build_mlp(ImageMLP(evaluate=30))
    assert [len(part) for part in (*task.measured, *task.eval_data)] == [30] * 4
    assert len(task.train_data[0]) == 1438


def test_photographs_are_shifted_and_mirrored() -> None:
    images = torch.arange(3 * 12 * 10).reshape(1, 3, 12, 10).float().expand(400, -1, -1, -1)
    out, labels = shift_and_mirror((images, torch.arange(400)), torch.Generator().manual_seed(0))
    assert torch.equal(labels, torch.arange(400))
    assert out.is_contiguous()
    padded = np.pad(images[0].numpy(), [(0, 0), (4, 4), (4, 4)], mode="reflect")
    found = {}
    for i in range(9):
        for j in range(9):
            crop = padded[:, i : i + 12, j : j + 10]
            found[crop.tobytes()] = (i, j, False)
            found[np.ascontiguousarray(crop[:, :, ::-1]).tobytes()] = (i, j, True)
    drawn = [found[np.ascontiguousarray(image.numpy()).tobytes()] for image in out]
    assert {i for i, _, _ in drawn} == {j for _, j, _ in drawn} == set(range(9))
    assert 150 < sum(mirrored for *_, mirrored in drawn) < 250
    assert len(set(drawn)) > 140


def test_a_folder_of_photographs_is_trained_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, n in (("train.bin", 12), ("test.bin", 6)):
        rng.integers(3, size=(n, 3074), dtype=np.uint8).tofile(tmp_path / name)
    settings = ImageCNN(data=str(tmp_path), width=2, n_blocks=1, epochs=1, every=1, batch_size=6)
    assert build_cnn(settings).vary is shift_and_mirror
    ds = train(0, settings=settings, n_examples=6)
    assert list(ds["step"].values) == [0, 1, 2]
    assert ds.attrs["images"] == "CIFAR-100"
    assert ds["example_loss"].notnull().all()


@pytest.mark.parametrize(
    ("settings", "accuracy"),
    [(ImageMLP(epochs=8, every=48), 0.9), (ImageCNN(width=8, n_blocks=1, epochs=4, every=24), 0.7)],
)
def test_digits_are_learned(settings: ImageMLP | ImageCNN, accuracy: float) -> None:
    ds = train(0, settings=settings)
    assert float(ds["eval_accuracy"][0, -1]) > accuracy > 0.3 > float(ds["eval_accuracy"][0, 0])
    assert float(ds["train_loss"][0, -1]) < float(ds["train_loss"][0, 0])
