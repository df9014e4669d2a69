"""Language models: what is hidden, what is asked, what the networks can see, and how they learn."""

import sys

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from bayesphase.tasks import language_model  # noqa: E402
from bayesphase.tasks.language_model import MASK, NOT_ASKED, each_byte, hide  # noqa: E402
from bayesphase.tasks.settings import CausalLanguageModel, MaskedLanguageModel  # noqa: E402
from bayesphase.tasks.training import train  # noqa: E402

TINY = {"context": 16, "n_examples": 80, "train_fraction": 0.8, "width": 8, "n_layers": 1}
TINY |= {"n_heads": 2, "hidden": 12, "batch_size": 16, "evaluate": 12, "epochs": 2, "every": 2}
PROSE = b"The quick brown fox jumps over the lazy dog, and nobody minds. " * 40


@pytest.fixture(autouse=True)
def _text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "docstrings", lambda: PROSE)


def test_bytes_are_hidden_as_in_bert() -> None:
    text = torch.randint(97, 123, (500, 40), generator=torch.Generator().manual_seed(1))
    tokens, targets = hide(text, 6, torch.Generator().manual_seed(0))
    asked = targets != NOT_ASKED
    assert (asked.sum(1) == 6).all()
    assert torch.equal(targets[asked], text[asked])
    assert torch.equal(tokens[~asked], text[~asked])
    # of 3000 bytes that are asked for, 80 % masked, 10 % random (of which few are as before)
    masked = float((tokens[asked] == MASK).double().mean())
    kept = float((tokens[asked] == text[asked]).double().mean())
    assert masked == pytest.approx(0.8, abs=0.03)
    assert kept == pytest.approx(0.1 + 0.1 / 256, abs=0.025)
    assert tokens.max() == MASK
    # every place is asked for as often
    assert asked.double().mean(0).numpy() == pytest.approx(np.full(40, 0.15), abs=0.06)


def test_losses_and_accuracies_are_means_over_what_is_asked() -> None:
    logits = torch.randn(2, 3, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[2, NOT_ASKED, 1], [NOT_ASKED, NOT_ASKED, 3]])
    losses, right = each_byte(logits, targets)
    logp = logits.log_softmax(-1)
    assert losses.tolist() == pytest.approx(
        [-float(logp[0, 0, 2] + logp[0, 2, 1]) / 2, -float(logp[1, 2, 3])]
    )
    best = logits.argmax(-1)
    expected = [(float(best[0, 0] == 2) + float(best[0, 2] == 1)) / 2, float(best[1, 2] == 3)]
    assert right.tolist() == expected


def test_the_causal_model_is_asked_for_the_next_byte_and_does_not_see_it() -> None:
    task = CausalLanguageModel(**TINY).build(torch.Generator())
    tokens, targets = task.eval_data
    assert tokens.shape == targets.shape == (12, 16)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    assert bytes([*tokens[0].tolist(), int(targets[0, -1])]) in PROSE
    task.network.eval()
    other = tokens.clone()
    other[:, 9:] = 120
    before, after = (task.predict(t).detach() for t in (tokens, other))
    torch.testing.assert_close(after[:, :9], before[:, :9])
    assert not torch.allclose(after[:, 9:], before[:, 9:])


def test_the_masked_model_sees_both_sides_and_each_batch_is_masked_anew() -> None:
    task = MaskedLanguageModel(**TINY).build(torch.Generator())
    tokens, targets = task.eval_data
    assert ((targets != NOT_ASKED).sum(1) == 2).all()
    assert (tokens == MASK).any()
    task.network.eval()
    other = tokens.clone()
    other[:, 9] = 120
    before, after = (task.predict(t).detach() for t in (tokens, other))
    assert before.shape == (12, 16, 257)
    assert not torch.allclose(after[:, 0], before[:, 0])
    generator = torch.Generator().manual_seed(0)
    raw = tuple(part[:4] for part in task.train_data)
    one, two = (task.vary(raw, generator) for _ in range(2))
    assert not torch.equal(one[1], two[1])
    for drawn in (one, two):
        asked = drawn[1] != NOT_ASKED
        assert torch.equal(drawn[1][asked], raw[0][asked])


@pytest.mark.parametrize("kind", [MaskedLanguageModel, CausalLanguageModel])
def test_they_are_recorded_and_a_seed_decides_everything(kind: type) -> None:
    settings = kind(**TINY)
    ds = train(1, settings=settings, n_examples=5)
    assert list(ds["step"].values) == [0, 2, 4, 6, 8]
    assert list(ds["epoch"].values) == [0, 0.5, 1, 1.5, 2]
    kinds = list(ds["kind"].values)
    assert [kinds.count(k) for k in ("query", "key", "value")] == [2, 2, 2]
    assert not [name for name in ds["parameter"].values if "embed" in name and "out" not in name]
    assert ds["eval_loss"].attrs["units"] == "nats per byte"
    assert float(ds["eval_loss"][0, 0]) == pytest.approx(np.log(256), abs=0.2)
    np.testing.assert_allclose(
        ds["example_loss"].values[0, -1], ds["example_loss"].values[0, -1].astype(float)
    )
    assert ds.attrs["text"].startswith("docstrings of Python")
    xr.testing.assert_identical(train(1, settings=settings, n_examples=5), ds)
    assert not np.allclose(train(2, settings=settings)["l2_norm"], ds["l2_norm"])


@pytest.mark.parametrize("kind", [MaskedLanguageModel, CausalLanguageModel])
def test_they_learn(kind: type) -> None:
    ds = train(0, settings=kind(**TINY | {"epochs": 30, "every": 120, "learning_rate": 1e-2}))
    assert float(ds["eval_loss"][0, -1]) < 3.3 < float(ds["eval_loss"][0, 0])
    assert float(ds["eval_accuracy"][0, -1]) > 0.15


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match="transformers"):
        train(0, settings=CausalLanguageModel(**TINY))
