"""Which tensors are selected, under which names, and what is said of the others."""

import json

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bayesphase.recording.parameters import select_parameters  # noqa: E402


class Small(nn.Module):
    """One of everything that the default rule has to tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 6))
        self.conv = nn.Conv2d(3, 5, (2, 7))
        self.batch_norm = nn.BatchNorm2d(5)
        self.fc = nn.Linear(6, 4)
        self.norm = nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.ones(4))
        self.lm_head = nn.Linear(6, 11, bias=False)
        self.lm_head.weight = self.embed.weight


def names(selection) -> list[str]:
    return [matrix.name for matrix in selection.matrices]


def test_the_default_rule_and_its_reasons() -> None:
    selection = select_parameters(Small())
    assert names(selection) == ["conv", "fc"]
    assert selection.biases == ("conv.bias", "fc.bias")
    assert selection.left_out == {
        "embed.weight": "embedding",
        "pos_embed": "embedding, by its name",
        "batch_norm.weight": "norm layer",
        "batch_norm.bias": "norm layer",
        "norm.weight": "norm layer",
        "norm.bias": "norm layer",
        "scale": "neither a matrix nor a bias",
        "lm_head.weight": "the same tensor as embed.weight",
    }


def test_every_parameter_is_accounted_for_once() -> None:
    module = Small()
    selection = select_parameters(module)
    counted = [m.source for m in selection.matrices] + [*selection.biases, *selection.left_out]
    everything = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    assert sorted(counted) == sorted(everything)


def test_kinds_layers_shapes_and_values() -> None:
    module = Small()
    selection = select_parameters(module)
    conv, fc = selection.matrices
    assert (conv.layer, conv.kind, conv.shape) == ("conv", "conv2d", (5, 3 * 2 * 7))
    assert (fc.layer, fc.kind, fc.shape) == ("fc", "linear", (4, 6))
    (first, second), biases = selection.read(module)
    assert torch.equal(first, module.conv.weight.flatten(1))
    assert torch.equal(second, module.fc.weight)
    assert torch.equal(biases[1], module.fc.bias)
    assert not first.requires_grad


def test_include_and_exclude() -> None:
    selection = select_parameters(
        Small(), include=["embed.*", "pos_embed", "scale"], exclude=["conv.*"]
    )
    assert names(selection) == ["pos_embed", "embed", "fc"]
    assert "scale" in selection.biases
    assert selection.left_out["conv.bias"] == "excluded by 'conv.*'"


def test_a_tied_tensor_counts_once_and_exclude_sees_both_names() -> None:
    module = nn.Module()
    module.a, module.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    module.b.weight = module.a.weight
    module.c = nn.Linear(3, 2)
    assert names(select_parameters(module)) == ["a", "c"]
    assert names(select_parameters(module, exclude=["b.*"])) == ["c"]


@pytest.mark.parametrize("kdim", [None, 4])
def test_multihead_attention_is_split_by_head(kdim: int | None) -> None:
    module = nn.Module()
    module.attn = nn.MultiheadAttention(6, 3, kdim=kdim, vdim=kdim, add_bias_kv=True)
    selection = select_parameters(module)
    kinds = [matrix.kind for matrix in selection.matrices]
    assert kinds == ["query"] * 3 + ["key"] * 3 + ["value"] * 3 + ["output"]
    assert {m.layer for m in selection.matrices} == {"attn", "attn.out_proj"}
    assert selection.biases == (
        "attn.in_proj_bias",
        "attn.bias_k",
        "attn.bias_v",
        "attn.out_proj.bias",
    )
    matrices, _ = selection.read(module)
    if kdim is None:
        assert names(selection)[4] == "attn.key.head1"
        assert torch.equal(matrices[4], module.attn.in_proj_weight[6 + 2 : 6 + 4])
    else:
        assert names(selection)[4] == "attn.k_proj_weight.head1"
        assert torch.equal(matrices[4], module.attn.k_proj_weight[2:4])


def test_a_bare_attention_has_no_layer_in_its_names() -> None:
    assert names(select_parameters(nn.MultiheadAttention(4, 2)))[0] == "query.head0"


@pytest.mark.parametrize("axis", [0, 1])
def test_declared_heads(axis: int) -> None:
    module = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    selection = select_parameters(module, heads={"0.weight": (axis, 2)}, kinds={"0.*": "query"})
    assert names(selection) == ["0.weight.head0", "0.weight.head1", "1"]
    assert [m.kind for m in selection.matrices] == ["query", "query", "linear"]
    (_, second, _), _ = selection.read(module)
    assert torch.equal(second, module[0].weight.narrow(axis, 3, 3))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_weight_with_a_head_axis_splits_along_it(axis: int) -> None:
    module = nn.Module()
    heads = torch.randn(4, 5, 6)
    module.W_Q = nn.Parameter(heads.movedim(0, axis).contiguous())
    selection = select_parameters(module, heads={"W_Q": (axis, 4)})
    assert [m.shape for m in selection.matrices] == [(5, 6)] * 4
    assert torch.equal(selection.read(module)[0][2], heads[2])


def test_a_selection_is_json() -> None:
    told = json.loads(select_parameters(Small()).to_json())
    assert told["left_out"]["embed.weight"] == "embedding"
    assert told["matrices"][1] == {
        "name": "fc",
        "layer": "fc",
        "kind": "linear",
        "shape": [4, 6],
        "source": "fc.weight",
        "axis": 0,
        "start": 0,
        "stop": -1,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ["nothing*"]}, "'nothing\\*' matches no parameter; there are .*fc.weight"),
        ({"exclude": ["Fc.*"]}, "'Fc.\\*' matches no parameter"),
        ({"heads": {"fc.weight": (0, 3)}}, "4 entries along axis 0, .* into 3 heads"),
        ({"heads": {"fc.weight": (2, 2)}}, "expected \\(axis, number of heads\\)"),
        ({"exclude": ["*.weight"]}, "no weight matrix is left of the 11 parameters of Small"),
    ],
)
def test_what_is_wrong_is_said(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_parameters(Small(), **options)


def test_something_else_than_a_network_is_refused() -> None:
    with pytest.raises(TypeError, match=r"network is of type OrderedDict, expected a torch.nn.Mod"):
        select_parameters(Small().state_dict())


def test_a_network_that_changed_is_refused() -> None:
    selection = select_parameters(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match=r"has no parameter '0.bias', which the selection names"):
        selection.read(nn.Sequential(nn.Linear(3, 2, bias=False)))
    with pytest.raises(ValueError, match=r"changed its shape .*: select again"):
        selection.read(nn.Sequential(nn.Linear(5, 2)))
