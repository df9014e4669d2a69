"""Small transformers that learn a language, byte by byte: a masked model and a causal one.

Both are made from their configuration, with random weights; nothing is downloaded. Hu et al.
(arXiv:2308.09543) studied released runs of BERT (MultiBERTs), which are too large to train here.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from bayesphase.tasks.settings import CausalLanguageModel, LanguageModel, MaskedLanguageModel
from bayesphase.tasks.stdlib_text import cut, describe, docstrings
from bayesphase.tasks.training import Data, Task

N_BYTES = 256
MASK = N_BYTES
"""The token that stands for a byte to be filled in."""
NOT_ASKED = -100
"""The target where nothing is asked."""


def build_masked(settings: MaskedLanguageModel) -> Task:
    """Make a BERT, and text with a share of its bytes hidden, anew in each batch.

    As in Devlin et al. 2019 (doi:10.18653/v1/N19-1423), of the bytes that are asked for 80 % are
    masked, 10 % replaced by a random byte, and 10 % left as they are.
    """
    transformers = _transformers()
    config = transformers.BertConfig(
        vocab_size=N_BYTES + 1,
        hidden_size=settings.width,
        num_hidden_layers=settings.n_layers,
        num_attention_heads=settings.n_heads,
        intermediate_size=settings.hidden,
        hidden_dropout_prob=settings.dropout,
        attention_probs_dropout_prob=settings.dropout,
        max_position_embeddings=settings.context,
        type_vocab_size=1,
        pad_token_id=None,
    )
    n_asked = int(settings.context * settings.mask_fraction)

    def mask(batch: Data, generator: Generator) -> Data:
        return hide(batch[0], n_asked, generator)

    train_text, eval_text, about = _texts(settings, settings.context)
    fixed = torch.Generator().manual_seed(settings.split_seed)
    n = settings.evaluate
    return _task(
        "masked language model",
        settings,
        transformers.BertForMaskedLM(config),
        train_data=(train_text, train_text),
        measured=hide(train_text[:n], n_asked, fixed),
        eval_data=hide(eval_text[:n], n_asked, fixed),
        vary=mask,
        attrs={"text": about},
    )


def build_causal(settings: CausalLanguageModel) -> Task:
    """Make a GPT-NeoX, and text to predict each byte of from those before it."""
    transformers = _transformers()
    config = transformers.GPTNeoXConfig(
        vocab_size=N_BYTES,
        hidden_size=settings.width,
        num_hidden_layers=settings.n_layers,
        num_attention_heads=settings.n_heads,
        intermediate_size=settings.hidden,
        hidden_dropout=settings.dropout,
        attention_dropout=settings.dropout,
        max_position_embeddings=settings.context,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    train_text, eval_text, about = _texts(settings, settings.context + 1)
    train_data = train_text[:, :-1], train_text[:, 1:]
    n = settings.evaluate
    return _task(
        "causal language model",
        settings,
        transformers.GPTNeoXForCausalLM(config),
        train_data=train_data,
        measured=(train_data[0][:n], train_data[1][:n]),
        eval_data=(eval_text[:n, :-1], eval_text[:n, 1:]),
        attrs={"text": about},
    )


def _transformers() -> Any:
    # It looks for a token and for newer files on the network unless told not to.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers

    return transformers


def _texts(settings: LanguageModel, length: int) -> tuple[Tensor, Tensor, str]:
    text = docstrings()
    pieces = torch.from_numpy(
        cut(text, length=length, n=settings.n_examples, split_seed=settings.split_seed)
    )
    n_train = int(settings.n_examples * settings.train_fraction)
    return pieces[:n_train], pieces[n_train:], describe(text)


def _task(name: str, settings: LanguageModel, network: nn.Module, **parts: Any) -> Task:
    return Task(
        name=name,
        network=network,
        optimiser=torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        ),
        predict=lambda tokens: network(input_ids=tokens).logits,
        judge=each_byte,
        units="nats per byte",
        **parts,
    )


def each_byte(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Judge logits (example, byte, class) by bytes (example, byte): means over those asked for."""
    asked = targets != NOT_ASKED
    losses = functional.cross_entropy(
        outputs.transpose(1, 2), targets, ignore_index=NOT_ASKED, reduction="none"
    )
    right = (outputs.argmax(-1) == targets) & asked
    return losses.sum(1) / asked.sum(1), right.sum(1) / asked.sum(1)


def hide(text: Tensor, n_asked: int, generator: Generator) -> Data:
    """Choose bytes of each example to be asked for, and hide them.

    Parameters
    ----------
    text : torch.Tensor
        Bytes, shape (example, byte).
    n_asked : int
        How many bytes of each example.
    generator : torch.Generator

    Returns
    -------
    tuple of torch.Tensor
        Tokens, and targets, -100 where a byte is not asked for; both of shape (example, byte).
    """
    asked = torch.rand(text.shape, generator=generator).argsort(1).argsort(1) < n_asked
    fate = torch.rand(text.shape, generator=generator)
    other = torch.randint(N_BYTES, text.shape, generator=generator)
    hidden = torch.where(fate < 0.8, MASK, torch.where(fate < 0.9, other, -1)).to(text.device)
    asked = asked.to(text.device)
    tokens = torch.where(asked & (hidden >= 0), hidden, text)
    return tokens, torch.where(asked, text, NOT_ASKED)
