"""Checkpoints are read whatever lies beside the weights in them, and nothing of that is made."""

import argparse
import collections
import functools
import pathlib
import random
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import hostile  # noqa: E402

from bayesphase.recording.files import Refused, open_weights  # noqa: E402
from bayesphase.recording.inert import Unread, describe  # noqa: E402


def read(path: Path, **settings: object) -> dict[str, torch.Tensor]:
    weights = open_weights(path, **settings)
    found = {name: weights.read(name) for name in weights.tensors}
    told = {n: (tuple(t.shape), str(t.dtype)) for n, t in found.items()}
    assert told == dict(weights.tensors)
    return found


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(expected) and all(torch.equal(found[n], expected[n]) for n in found)


class Config(dict):
    """Configuration as OmegaConf's: a mapping with attributes, and with a way to its parent."""

    def __init__(self, **values: object) -> None:
        super().__init__(values)
        self.parent = self


BESIDE = {
    "arguments": argparse.Namespace(lr=0.1, path=pathlib.Path("a")),
    "numpy number": np.int64(3),
    "numpy array": np.arange(300.0),
    "path": pathlib.Path("runs/a"),
    "partial": functools.partial(torch.optim.SGD, lr=0.1),
    "defaultdict": collections.defaultdict(list, {1: [2], (3, "a"): 4, torch.float32: 5}),
    "counter": collections.Counter("aab"),
    "set": {1, 2},
    "large": 2**3000,
    "config": Config(a=Config(b=1), c=[1, 2]),
    "random": (random.getstate(), np.random.default_rng(1).bit_generator.state),
    "class": Config,
    "object": hostile.network(),
}


@pytest.mark.parametrize("key", ["model", "state_dict"])
@pytest.mark.parametrize("beside", list(BESIDE))
def test_ordinary_checkpoints_are_read(tmp_path: Path, beside: str, key: str) -> None:
    more = {"args": BESIDE[beside]}
    if key == "state_dict":
        more = {"pytorch-lightning_version": "2.5.0", "hyper_parameters": more}
    for order in ({key: hostile.weights(), **more}, {**more, key: hostile.weights()}):
        torch.save(order, tmp_path / "step1.pt")
        found = read(tmp_path / "step1.pt")
        assert {n.split(".")[-1] for n in found} == {"weight", "bias"}
        assert same(dict(zip(hostile.weights(), found.values(), strict=True)), hostile.weights())


# what `by_memo` leaves on the stack is no single object
@pytest.mark.parametrize("route", [route for route in hostile.INERT if route != "by_memo"])
def test_what_would_run_lies_inert_beside_weights(tmp_path: Path, route: str) -> None:
    sentinel = tmp_path / "sentinel"
    hurtful = hostile.ROUTES[route](sentinel)[2:-1]  # without PROTO and STOP

    def change(data: bytes) -> bytes:
        assert data.endswith(b"u.")  # SETITEMS of the outer dict
        return data[:-2] + b"X" + hostile.text("more") + hurtful + b"u."

    state = {"model": hostile.weights(), "epoch": 3}
    hostile.changed(tmp_path / "step1.pt", change, state)
    # memo places 0 and 1 are those of the outer dict and its first key, which nothing reads again
    assert same(read(tmp_path / "step1.pt"), hostile.weights())
    assert not sentinel.exists()


def test_an_object_among_the_weights_is_refused(tmp_path: Path) -> None:
    weights = hostile.weights()
    torch.save({"model": weights | {"x": pathlib.Path("a")}}, tmp_path / "step1.pt")
    with pytest.raises(Refused, match=r"'x' among its weights is a pathlib\..*Path, which is not"):
        read(tmp_path / "step1.pt")
    torch.save({"model": hostile.network(), "epoch": 1}, tmp_path / "step1.pt")
    with pytest.raises(
        Refused, match=r"there is model \(a torch.nn.*Sequential, which is not read"
    ):
        read(tmp_path / "step1.pt")
    plain = {"d": torch.float32, "s": torch.Size([1]), "l": [1], "a._extra_state": np.int64(1)}
    torch.save({"model": weights | plain}, tmp_path / "step1.pt")
    assert same(read(tmp_path / "step1.pt"), weights)


def test_every_layout_and_dtype_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    flat = torch.randn(60)
    given = {
        "flat": flat,
        "view": flat[6:30].view(4, 6),
        "transposed": flat[:12].view(3, 4).t(),
        "strided": flat[1::7],
        "expanded": flat[:1].expand(4),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    names = "bool int8 uint8 int16 int32 int64 float16 bfloat16 float32 float64 complex64"
    names += " complex128 uint16 uint32 uint64 float8_e4m3fn float8_e5m2 float8_e8m0fnu"
    for name in names.split():
        given[name] = torch.tensor([[0.0, 1.0, 2.0], [4.0, 1.0, 0.5]]).to(getattr(torch, name))
    torch.save(given, tmp_path / "a.pt")
    theirs = torch.load(tmp_path / "a.pt", weights_only=True)
    found = read(tmp_path / "a.pt")
    assert list(found) == list(theirs)
    for name, tensor in theirs.items():
        assert found[name].stride() == tensor.stride()
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].cdouble(), tensor.detach().cdouble()), name


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(X" + hostile.text("storage") + b"ctorch\nFloatStorage\nX" + hostile.text("0")
STORAGE += b"X" + hostile.text("cpu") + b"%stQ"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (STORAGE % b"K\x11", "claims 68 bytes, more than are there"),
        (STORAGE % b"J\xff\xff\xff\xff", "without class, key or size"),
        (b"X" + hostile.text("storage") + b"Q", "no storage"),
        (b"(NNNNNtQ", "no storage"),
        (TENSOR + b"(NK\x00))t" + b"R", "no storage, shape or strides"),
        (TENSOR + b"(" + STORAGE % b"K\x04" + b"K\x00K\x01\x85)\x89NtR", "1 dims and 0 strides"),
        (
            TENSOR + b"(" + STORAGE % b"K\x04" + b"K\x00J\xff\xff\xff\xff\x85K\x01\x85tR",
            "no numbers of entries",
        ),
        (TENSOR + b"(" + STORAGE % b"K\x04" + b"K\x00\x88\x85K\x01\x85tR", "no numbers"),
        (TENSOR + b"(" + b"N" * 100 + b"tR", "100 arguments"),
        (b"K\x01)R", "calls what is no name"),
        (b"}]K\x01s", "unhashable"),
        (b"}K\x01K\x02K\x03u", "list index out of range|out of range"),
        (b"h\x05", "5"),
        (b"\x8e" + (2**62).to_bytes(8, "little"), "expected"),
        (b"X\xff\xff\xff\xffa", "expected"),
        (b"\x8b\xff\xff\xff\x7fa", "expected|not enough"),
    ],
)
def test_what_is_not_sound_is_refused(tmp_path: Path, body: bytes, reason: str) -> None:
    hostile.zipped(tmp_path / "a.pt", b"\x80\x02" + body + b".")
    with pytest.raises(Refused, match=f"its pickle is not sound .*({reason})"):
        read(tmp_path / "a.pt")


def test_a_tensor_that_its_storage_does_not_hold(tmp_path: Path) -> None:
    inside = STORAGE % b"K\x10"
    for offset, refused in ((b"K\x0e", False), (b"K\x0f", True)):
        tensor = TENSOR + b"(" + inside + offset + b"K\x02\x85K\x01\x85\x89NtR"
        hostile.zipped(tmp_path / "a.pt", b"\x80\x02}X" + hostile.text("w") + tensor + b"s.")
        if refused:
            with pytest.raises(Refused, match="more than its storage holds"):
                read(tmp_path / "a.pt")
        else:
            assert same(read(tmp_path / "a.pt"), {"w": torch.zeros(2)})


@pytest.mark.parametrize(
    "data",
    [
        b"N" + b"\x85" * 1_000_000,  # tuples in tuples
        b"}N" + b"\x85" * 1_000_000 + b"Ns",  # as a key, whose hash is computed in depth
        b"}(" + b"N" * 300_000 + b"tq\x00Ns" + b"h\x00Ns" * 300_000,  # a long one, often
        b"}q\x00" + b"(X\x01\x00\x00\x00ah\x00" * 300_000 + b"u" * 100,  # marks
        b"cx\n" + b"y" * 3_000_000 + b"\nq\x00" + b"h\x00)R0" * 300_000,  # a long name
    ],
)
def test_depth_and_repetition_take_neither_stack_nor_time(data: bytes) -> None:
    start = time.perf_counter()
    describe(b"\x80\x02" + data + b".", {})
    assert time.perf_counter() - start < 30


def test_the_number_of_opcodes_is_bounded() -> None:
    with pytest.raises(ValueError, match="more than 2097152 opcodes"):
        describe(b"\x80\x02" + b"N" * 2**21 + b".", {})
    assert isinstance(describe(b"\x80\x02cos\nsystem\n.", {}), Unread)


def test_the_order_of_bytes_is_that_of_the_machine(tmp_path: Path) -> None:
    torch.save(hostile.weights(), tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as own, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for record in own.infolist():
            order = record.filename.endswith("/byteorder")
            new.writestr(record.filename, b"middle" if order else own.read(record))
    with pytest.raises(Refused, match=r"its byte order is 'middle', expected '(little|big)'"):
        read(tmp_path / "b.pt")
