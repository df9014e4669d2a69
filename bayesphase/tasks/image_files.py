"""Images to classify: scikit-learn's digits, or the files that MNIST and CIFAR are published in.

Only the binary files are read, whose format says where each byte is: idx as on the page of MNIST
(http://yann.lecun.com/exdb/mnist), also compressed, and the binary version of CIFAR-10 and
CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html). Pickles are never opened.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

_UNSIGNED_BYTE = 8
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR10 = ([f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"])
_CIFAR100 = (["train.bin"], ["test.bin"])
_PICKLES = ("data_batch_1", "train")


class Images(NamedTuple):
    """Images and what they show.

    Attributes
    ----------
    name : str
    train, test : ndarray of float32
        From 0 to 1, shape (example, channel, height, width).
    train_labels, test_labels : ndarray of int64
        From 0 up, shape (example,).
    natural : bool
        Photographs, which show the same when they are mirrored or shifted; digits do not.
    """

    name: str
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    natural: bool

    @property
    def n_classes(self) -> int:
        """One more than the largest label."""
        return 1 + int(max(self.train_labels.max(), self.test_labels.max()))


def read_images(data: str, *, split_seed: int = 0) -> Images:
    """Read a data set.

    Parameters
    ----------
    data : str
        ``"digits"``, which comes with scikit-learn: 1797 images of 8 x 8, a fifth of them to test.
        Otherwise a folder that holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and
        the same of ``t10k`` (MNIST and what is published like it; ".gz" may follow), or
        ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin`` (CIFAR-10), or
        ``train.bin`` and ``test.bin`` (CIFAR-100, whose fine labels are taken).
    split_seed : int
        Chooses the digits to test.

    Returns
    -------
    Images

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or it lacks a file.
    ValueError
        If a file is not of its format, cut short, or does not fit the others.
    """
    if data == "digits":
        return _digits(split_seed)
    folder = Path(data)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"data is {data!r}, expected 'digits' or a folder, and there is no such folder"
        )
    if _found(folder, "train-images-idx3-ubyte"):
        images = _idx_folder(folder)
    elif (folder / _CIFAR10[0][0]).exists():
        images = _cifar(folder, "CIFAR-10", _CIFAR10, label_bytes=1, n_classes=10)
    elif (folder / _CIFAR100[0][0]).exists():
        images = _cifar(folder, "CIFAR-100", _CIFAR100, label_bytes=2, n_classes=100)
    else:
        raise FileNotFoundError(f"{data!r} {_what_is_missing(folder)}")
    return images


def _what_is_missing(folder: Path) -> str:
    if any((folder / name).exists() for name in _PICKLES):
        return "holds pickles, which could run anything: get the binary version of CIFAR"
    return (
        "holds neither train-images-idx3-ubyte (as MNIST does), data_batch_1.bin (CIFAR-10) nor "
        "train.bin (CIFAR-100): give the folder that these files are in"
    )


def _digits(split_seed: int) -> Images:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(split_seed).permutation(len(labels))
    test, train = np.split(order, [len(labels) // 5])
    return Images("digits", images[train], labels[train], images[test], labels[test], False)


def _found(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.exists()), None)


def _idx_folder(folder: Path) -> Images:
    arrays = []
    for part in ("train", "t10k"):
        images = _idx(folder, f"{part}-images-idx3-ubyte", 3)
        labels = _idx(folder, f"{part}-labels-idx1-ubyte", 1)
        if len(images) != len(labels):
            raise ValueError(
                f"{str(folder)!r} has {len(images)} images and {len(labels)} labels of {part}, "
                "expected one label for each image"
            )
        arrays += [_scaled(images[:, None]), labels.astype(np.int64)]
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise ValueError(
            f"{str(folder)!r} has images of {arrays[0].shape[2:]} to train on and of "
            f"{arrays[2].shape[2:]} to test, expected one size"
        )
    train, train_labels, test, test_labels = arrays
    return Images(folder.resolve().name, train, train_labels, test, test_labels, False)


def _idx(folder: Path, name: str, ndim: int) -> np.ndarray:
    """Read an array of unsigned bytes: two zeros, a type, the number of dims, their sizes, it."""
    path = _found(folder, name)
    if path is None:
        raise FileNotFoundError(f"{str(folder)!r} lacks the file {name}")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * ndim)
            if head[:4] != bytes([0, 0, _UNSIGNED_BYTE, ndim]) or len(head) < 4 + 4 * ndim:
                raise ValueError(
                    f"{str(path)!r} begins with {head[:4].hex(' ')}, expected 00 00 08 0{ndim}: an "
                    f"idx file of bytes in {ndim} dims"
                )
            shape = tuple(int(n) for n in np.frombuffer(head, ">u4", offset=4))
            size = math.prod(shape)
            body = file.read()
    except (gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{str(path)!r} can't be uncompressed: {error}") from error
    if len(body) != size or not size:
        raise ValueError(
            f"{str(path)!r} holds {len(body)} bytes after its head, expected {size}, and not 0, for"
            f" the shape {shape} that it states"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _cifar(
    folder: Path,
    name: str,
    files: tuple[Sequence[str], Sequence[str]],
    *,
    label_bytes: int,
    n_classes: int,
) -> Images:
    """Read records of one label or two, the fine one last, and the colours red, green and blue."""
    record = label_bytes + math.prod(_CIFAR_SHAPE)
    arrays = []
    for names in files:
        rows = []
        for path in (folder / file for file in names):
            if not path.exists():
                raise FileNotFoundError(f"{str(folder)!r} lacks the file {path.name} of {name}")
            if not (size := path.stat().st_size) or size % record:
                raise ValueError(
                    f"{str(path)!r} has {size} bytes, expected a multiple of {record}, what an "
                    f"image of {name} takes"
                )
            rows.append(np.fromfile(path, np.uint8).reshape(-1, record))
        records = np.concatenate(rows)
        labels = records[:, label_bytes - 1].astype(np.int64)
        if labels.max() >= n_classes:
            raise ValueError(
                f"{str(folder)!r} has the label {labels.max()}, expected less than {n_classes} "
                f"for {name}"
            )
        arrays += [_scaled(records[:, label_bytes:].reshape(-1, *_CIFAR_SHAPE)), labels]
    train, train_labels, test, test_labels = arrays
    return Images(name, train, train_labels, test, test_labels, True)


def _scaled(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255
