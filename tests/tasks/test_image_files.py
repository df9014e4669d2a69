"""Images from the files that data sets are published in, made by hand, and broken in many ways."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest

from bayesphase.tasks.image_files import read_images

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    for part, n in (("train", 5), ("t10k", 3)):
        images = RNG.integers(256, size=(n, 4, 6))
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(n) * 2))
    return tmp_path


def records(n: int, label_bytes: int) -> np.ndarray:
    return RNG.integers(10, size=(n, label_bytes + 3072), dtype=np.uint8)


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        (tmp_path / name).write_bytes(records(2, 1).tobytes())
    return tmp_path


@pytest.fixture
def cifar100(tmp_path: Path) -> Path:
    for name, n in (("train.bin", 3), ("test.bin", 2)):
        (tmp_path / name).write_bytes(records(n, 2).tobytes())
    return tmp_path


def test_digits_are_there_without_files() -> None:
    images = read_images("digits")
    assert images.train.shape == (1438, 1, 8, 8)
    assert images.test.shape == (359, 1, 8, 8)
    assert (images.train.min(), images.train.max()) == (0, 1)
    assert images.n_classes == 10
    assert sorted(set(images.test_labels.tolist())) == list(range(10))
    assert not images.natural
    other = read_images("digits", split_seed=1)
    assert not np.array_equal(images.test, other.test)
    both = [np.concatenate([i.train, i.test]).sum((1, 2, 3)) for i in (images, other)]
    assert sorted(both[0]) == sorted(both[1])


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_as_of_mnist(mnist: Path, packed: bool) -> None:
    raw = (mnist / "train-images-idx3-ubyte").read_bytes()
    if packed:
        for path in list(mnist.iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    images = read_images(str(mnist))
    assert images.train.shape == (5, 1, 4, 6)
    assert images.test.shape == (3, 1, 4, 6)
    expected = np.frombuffer(raw[16:], np.uint8).reshape(5, 4, 6) / 255
    np.testing.assert_allclose(images.train[:, 0], expected, rtol=1e-6)
    assert images.train_labels.tolist() == [0, 2, 4, 6, 8]
    assert (images.n_classes, images.natural) == (9, False)


def test_batches_as_of_cifar_10(cifar10: Path) -> None:
    images = read_images(str(cifar10))
    assert images.train.shape == (10, 3, 32, 32)
    assert images.test.shape == (2, 3, 32, 32)
    third = np.frombuffer((cifar10 / "data_batch_2.bin").read_bytes(), np.uint8)[:3073]
    assert images.train_labels[2] == third[0]
    # a record is all of red, row by row, then green, then blue
    assert images.train[2, 1, 3, 4] == pytest.approx(third[1 + 1024 + 3 * 32 + 4] / 255)
    assert (images.name, images.natural) == ("CIFAR-10", True)


def test_batches_as_of_cifar_100_have_a_coarse_and_a_fine_label(cifar100: Path) -> None:
    images = read_images(str(cifar100))
    raw = np.frombuffer((cifar100 / "test.bin").read_bytes(), np.uint8).reshape(2, 3074)
    assert images.test_labels.tolist() == raw[:, 1].tolist()
    np.testing.assert_allclose(images.test.reshape(2, -1), raw[:, 2:] / 255, rtol=1e-6)
    assert images.train.shape == (3, 3, 32, 32)
    assert images.name == "CIFAR-100"


def test_no_folder_and_no_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'nowhere', expected 'digits' or a folder"):
        read_images("nowhere")
    with pytest.raises(FileNotFoundError, match="holds neither train-images-idx3-ubyte"):
        read_images(str(tmp_path))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": [1]}))
    with pytest.raises(FileNotFoundError, match=r"holds pickles.*get the binary version"):
        read_images(str(tmp_path))


def huge() -> bytes:
    return bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"abc"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"", "begins with , expected 00 00 08 03"),
        ("train-images-idx3-ubyte", idx(np.zeros(4)), "begins with 00 00 08 01, expected"),
        ("train-images-idx3-ubyte", b"\0\0\x0d\x03" + b"\0" * 12, "begins with 00 00 0d 03"),
        ("train-images-idx3-ubyte", idx(np.zeros((5, 4, 6)))[:-1], "holds 119 bytes .* 120"),
        ("train-images-idx3-ubyte", idx(np.zeros((5, 4, 6))) + b"x", "holds 121 bytes"),
        ("train-images-idx3-ubyte", idx(np.zeros((0, 4, 6))), "holds 0 bytes .* and not 0"),
        ("train-images-idx3-ubyte", huge(), "holds 3 bytes after its head"),
        ("train-images-idx3-ubyte", idx(np.zeros((6, 4, 6))), "has 6 images and 5 labels of train"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((3, 4, 4))), "of .4, 6. to train on and of .4, 4."),
    ],
    ids=["empty", "labels", "doubles", "short", "long", "none", "huge", "more", "sizes"],
)
def test_idx_files_that_are_broken(mnist: Path, name: str, content: bytes, message: str) -> None:
    (mnist / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_images(str(mnist))


def test_files_that_are_missing(mnist: Path) -> None:
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="lacks the file t10k-labels-idx1-ubyte"):
        read_images(str(mnist))


@pytest.mark.parametrize(
    "content", [b"plain", gzip.compress(bytes(100))[:-9]], ids=["plain", "cut short"]
)
def test_files_that_are_not_compressed_or_cut_short(mnist: Path, content: bytes) -> None:
    (mnist / "train-images-idx3-ubyte").unlink()
    (mnist / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"can't be uncompressed|begins with"):
        read_images(str(mnist))


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes(3073 * 2 + 1)], ids=len)
def test_batches_that_are_cut_short(cifar10: Path, content: bytes) -> None:
    (cifar10 / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(ValueError, match=f"has {len(content)} bytes, expected a multiple of 3073"):
        read_images(str(cifar10))


def test_batches_that_are_missing_or_of_another_data_set(cifar10: Path) -> None:
    wrong = records(2, 1)
    wrong[1, 0] = 10
    (cifar10 / "test_batch.bin").write_bytes(wrong.tobytes())
    with pytest.raises(ValueError, match="has the label 10, expected less than 10 for CIFAR-10"):
        read_images(str(cifar10))
    (cifar10 / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks the file data_batch_4.bin of CIFAR-10"):
        read_images(str(cifar10))
