"""Weights are found in what training loops write, and read as they are."""

import json
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from bayesphase.recording.files import Refused, plain_names  # noqa: E402
from bayesphase.recording.folders import open_checkpoint  # noqa: E402
from bayesphase.recording.parameters import select_parameters  # noqa: E402
from bayesphase.recording.rule import Rule, entries_of_shapes  # noqa: E402


class Net(nn.Module):
    """Everything that has to be told apart by names and shapes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(11, 6)
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 6))
        self.conv = nn.Conv2d(3, 6, 2)
        self.bn = nn.BatchNorm2d(6)
        self.down = nn.Sequential(nn.Conv1d(6, 6, 3), nn.BatchNorm1d(6))
        self.attn = nn.MultiheadAttention(6, 3)
        self.cross = nn.MultiheadAttention(6, 2, kdim=4, vdim=4)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(11))
        self.final = nn.LayerNorm(6)
        self.lm_head = nn.Linear(6, 11, bias=False)
        self.lm_head.weight = self.embed_tokens.weight


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Net().state_dict()


def read(path: Path, **settings: object) -> dict[str, torch.Tensor]:
    weights, _ = open_checkpoint(path, **settings)
    return {name: weights.read(name) for name in weights.tensors}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return set(found) == set(expected) and all(torch.equal(found[n], expected[n]) for n in found)


def test_a_file_and_the_network_in_it_have_the_same_selection(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "step1.pt")
    weights, _ = open_checkpoint(tmp_path / "step1.pt")
    entries = entries_of_shapes(weights.tensors, tied=weights.tied)
    heads = {"attn.*_proj_weight": (0, 3), "cross.*_proj_weight": (0, 2)}
    of_file = Rule.of(n_heads=3, exclude=["cross*"]).select(entries, what="it")
    of_net = select_parameters(Net(), exclude=["cross*"])
    assert {m.name: m for m in of_file.matrices} == {m.name: m for m in of_net.matrices}
    assert set(of_file.biases) == set(of_net.biases)
    assert set(of_net.left_out) <= set(of_file.left_out)
    assert of_file.left_out["lm_head.weight"] == "the same tensor as embed_tokens.weight"
    buffers = {n for n, why in of_file.left_out.items() if why == "buffer, by its name"}
    counters = {"bn.num_batches_tracked", "down.1.num_batches_tracked"}
    assert buffers | counters == {name for name, _ in Net().named_buffers()}
    names = [m.name for m in of_file.matrices if m.layer.startswith("layers")]
    assert names == [f"layers.{i}" for i in range(11)]
    declared = Rule.of(heads={"cross.*_proj_weight": heads["cross.*_proj_weight"]}, n_heads=3)
    assert len([m for m in declared.select(entries, what="it").matrices if m.layer == "cross"]) == 6


def test_without_a_number_of_heads_attention_is_whole_and_says_so(tmp_path: Path) -> None:
    entries = entries_of_shapes({"a.in_proj_weight": ((12, 4), "torch.float32")})
    selection = Rule().select(entries, what="it")
    assert [m.shape for m in selection.matrices] == [(12, 4)]
    assert "give n_heads" in selection.notes["a.in_proj_weight"]
    uneven = Rule.of(n_heads=5).select(entries, what="it")
    assert (
        "12 entries along axis 0 do not split into 5 + 2 x 5 heads"
        in uneven.notes["a.in_proj_weight"]
    )


def test_a_fused_matrix_of_another_shape_than_three_thirds_is_whole() -> None:
    # keys and values of one head (multi-query), of which only the number of query heads is known
    entries = entries_of_shapes({"h.0.attn.c_attn.weight": ((2304, 2048), "torch.float32")})
    selection = Rule.of(n_heads=16).select(entries, what="it")
    assert [m.shape for m in selection.matrices] == [(2304, 2048)]
    assert "2304x2048" in selection.notes["h.0.attn.c_attn.weight"]
    told = Rule.of(n_heads=16, n_kv_heads=1).select(entries, what="it")
    assert [m.kind for m in told.matrices] == ["query"] * 16 + ["key", "value"]
    assert {m.shape for m in told.matrices} == {(128, 2048)}


def test_names_of_transformer_lens() -> None:
    attention = {f"W_{t}": (4, 24, 6) for t in "QKV"} | {f"b_{t}": (4, 6) for t in "QKV"}
    shapes = {f"blocks.0.attn.{n}": shape for n, shape in attention.items()}
    shapes |= {"blocks.0.attn.W_O": (4, 6, 24), "blocks.0.attn.b_O": (24,)}
    shapes |= {"blocks.0.mlp.W_in": (24, 96), "blocks.0.mlp.b_in": (96,), "blocks.0.ln1.w": (24,)}
    shapes |= {"blocks.0.attn.rotary_sin": (8, 6), "blocks.0.attn.rotary_cos": (8, 6)}
    shapes |= {"embed.W_E": (17, 24), "pos_embed.W_pos": (8, 24), "unembed.W_U": (24, 17)}
    entries = entries_of_shapes({n: (shape, "torch.float32") for n, shape in shapes.items()})
    selection = Rule().select(entries, what="it")
    assert set(selection.biases) == {n for n in shapes if ".b_" in n}
    left_out = {"embed.W_E", "pos_embed.W_pos", "blocks.0.ln1.w"}
    left_out |= {"blocks.0.attn.rotary_sin", "blocks.0.attn.rotary_cos"}
    assert set(selection.left_out) == left_out
    split = {m.name: m.shape for m in selection.matrices if m.layer == "blocks.0.attn"}
    heads = {f"blocks.0.attn.W_{t}.head{h}": (24, 6) for t in "QKV" for h in range(4)}
    assert split == {**heads, "blocks.0.attn.W_O": (4, 144)}
    assert {m.name for m in selection.matrices} - set(split) == {"blocks.0.mlp.W_in", "unembed.W_U"}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(3, 3)}}}},
        lambda s: {"model": s, "epoch": 3},
        lambda s: {"model_state_dict": s, "optimizer_state_dict": {}},
        lambda s: {"module": s, "dp_world_size": 2},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {f"module.{n}": t for n, t in s.items()},
        lambda s: {f"module._orig_mod.module.{n}": t for n, t in s.items()},
        lambda s: {f"_orig_mod._fsdp_wrapped_module.{n}": t for n, t in s.items()},
        lambda s: {
            "pytorch-lightning_version": "2.5",
            "state_dict": {f"net.{n}": t for n, t in s.items()},
            "hyper_parameters": {"lr": 0.1},
        },
        lambda s: {n: nn.Parameter(t) if t.is_floating_point() else t for n, t in s.items()},
    ],
)
def test_wrappers(tmp_path: Path, wrap) -> None:
    torch.save(wrap(state()), tmp_path / "step1.pt")
    assert same(read(tmp_path / "step1.pt"), state())


def test_a_network_under_another_key(tmp_path: Path) -> None:
    torch.save({"gan": {"generator": state()}}, tmp_path / "step1.pt")
    with pytest.raises(Refused, match=r"no weights are found in it, there is gan: .* key="):
        read(tmp_path / "step1.pt")
    assert same(read(tmp_path / "step1.pt", key="gan/generator"), state())
    with pytest.raises(Refused, match=r"it has no key 'gan/critic', there is generator"):
        read(tmp_path / "step1.pt", key="gan/critic")


def test_numbers_beside_weights_are_not_taken_for_them(tmp_path: Path) -> None:
    torch.save({"weights_ema": state(), "loss": torch.tensor(1.0)}, tmp_path / "step1.pt")
    with pytest.raises(Refused, match=r"there is weights_ema, loss: name theirs with key="):
        read(tmp_path / "step1.pt")
    assert same(read(tmp_path / "step1.pt", key="weights_ema"), state())


def test_names_that_are_the_same_without_their_wrapper_are_refused() -> None:
    with pytest.raises(Refused, match=r"'a._orig_mod.w' and 'a.w' are both the parameter 'a.w'"):
        plain_names({"a._orig_mod.w": 1, "a.w": 2})
    assert plain_names({"module.a": 1, "b": 2}) == {"module.a": "module.a", "b": "b"}


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float32", "float64"]
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_narrow_formats_are_widened_exactly(tmp_path: Path, dtype: str, suffix: str) -> None:
    given = {"a.weight": torch.randn(5, 4).to(getattr(torch, dtype))}
    path = tmp_path / f"step1{suffix}"
    save_file(given, path) if suffix == ".safetensors" else torch.save(given, path)
    weights, _ = open_checkpoint(path)
    assert weights.tensors == {"a.weight": ((5, 4), f"torch.{dtype}")}
    found = weights.read("a.weight")
    assert found.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    assert torch.equal(found.double(), given["a.weight"].double())


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_is_its_effective_update(tmp_path: Path, rslora: bool) -> None:
    a, b, other = torch.randn(2, 6), torch.randn(5, 2), torch.randn(3, 3)
    tensors = {"m.q.lora_A.weight": a, "m.q.lora_B.weight": b, "m.head.weight": other}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = {"lora_alpha": 8, "r": 2, "use_rslora": rslora}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    found = read(tmp_path)
    assert set(found) == {"m.q.weight", "m.head.weight"}
    scale = 8 / (math.sqrt(2) if rslora else 2)
    torch.testing.assert_close(found["m.q.weight"], scale * (b.double() @ a.double()))
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(Refused, match="no single lora_alpha"):
        read(tmp_path)


def test_shards_and_what_an_index_may_not_say(tmp_path: Path) -> None:
    save_file({"a.weight": torch.eye(3)}, tmp_path / "model-1.safetensors")
    save_file({"b.weight": torch.ones(2, 2)}, tmp_path / "model-2.safetensors")
    index = {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors"}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    assert same(read(tmp_path), {"a.weight": torch.eye(3), "b.weight": torch.ones(2, 2)})
    for bad in ("../x", "/etc/passwd", "a\\b", "", 3):
        path.write_text(json.dumps({"weight_map": index | {"b.weight": bad}}))
        with pytest.raises(Refused, match="which is not a file beside it"):
            read(tmp_path)
    path.write_text(json.dumps({"weight_map": index | {"c.weight": "model-2.safetensors"}}))
    with pytest.raises(Refused, match=r"'model-2.safetensors' lacks 'c.weight'"):
        read(tmp_path)
    (tmp_path / "model-2.safetensors").write_bytes(b"")
    with pytest.raises(Refused, match=r"of its shard 'model-2.safetensors': the file is empty"):
        read(tmp_path)
