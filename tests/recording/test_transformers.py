"""Real models of transformers, saved and collected: metrics are those of each head's own matrix."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
transformers = pytest.importorskip("transformers", minversion="5.0")

from bayesphase import Recorder, collect  # noqa: E402

HIDDEN, HEADS, KV, LAYERS, SIZE = 24, 4, 2, 2, 6
COMMON = {"num_hidden_layers": LAYERS, "vocab_size": 17, "hidden_size": HIDDEN}
COMMON |= {"num_attention_heads": HEADS, "intermediate_size": 32}
TEXT = COMMON | {"max_position_embeddings": 8}


def bert():
    return transformers.BertModel(transformers.BertConfig(**TEXT))


def gpt2():
    config = transformers.GPT2Config(
        n_embd=HIDDEN, n_head=HEADS, n_layer=LAYERS, vocab_size=17, n_positions=8,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def gpt_neox():
    return transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(**TEXT, bos_token_id=0, eos_token_id=0)
    )


def llama():
    config = transformers.LlamaConfig(
        **TEXT, num_key_value_heads=KV, bos_token_id=0, eos_token_id=0
    )
    return transformers.LlamaForCausalLM(config)


def vit():
    config = COMMON | {"image_size": 8, "patch_size": 4}
    config.pop("vocab_size")
    return transformers.ViTForImageClassification(transformers.ViTConfig(**config))


def codegen():
    config = transformers.CodeGenConfig(
        n_embd=HIDDEN * 2, n_head=8, n_layer=LAYERS, vocab_size=17, n_positions=8, rotary_dim=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.CodeGenForCausalLM(config)


def gpt_bigcode(*, multi_query: bool):
    config = transformers.GPTBigCodeConfig(
        n_embd=HIDDEN, n_head=HEADS, n_layer=LAYERS, vocab_size=17, n_positions=8,
        multi_query=multi_query, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPTBigCodeForCausalLM(config)


def gpt_bigcode_multi_query():
    return gpt_bigcode(multi_query=True)


def gpt_bigcode_multi_head():
    return gpt_bigcode(multi_query=False)


def rows(layer, part: str) -> list:
    """Cut a module's weight into equal rows, one per head."""
    weight = layer.get_submodule(part).weight
    return list(weight.reshape(-1, SIZE, HIDDEN))


def heads_of_bert(model, i):
    return {t: rows(model.encoder.layer[i].attention.self, t) for t in ("query", "key", "value")}


def heads_of_gpt2(model, i):
    # out = x W with W (in, out): the model splits out into query, key and value, then into heads
    thirds = model.transformer.h[i].attn.c_attn.weight.split(HIDDEN, dim=1)
    return {
        t: list(w.reshape(HIDDEN, HEADS, SIZE).permute(1, 0, 2))
        for t, w in zip(("query", "key", "value"), thirds, strict=True)
    }


def heads_of_gpt_neox(model, i):
    # the model views the output as (head, 3 x size) and cuts that into query, key and value
    fused = model.gpt_neox.layers[i].attention.query_key_value.weight.view(HEADS, 3, SIZE, HIDDEN)
    return {t: list(fused[:, j]) for j, t in enumerate(("query", "key", "value"))}


def heads_of_codegen(model, i):
    # the model views the output as (4, 3 x local) and cuts that into query, value and key
    fused = model.transformer.h[i].attn.qkv_proj.weight.view(4, 3, 2, SIZE, 2 * HIDDEN)
    return {
        t: list(fused[:, j].reshape(8, SIZE, 2 * HIDDEN))
        for j, t in enumerate(("query", "value", "key"))
    }


def heads_of_multi_query(model, i):
    fused = model.transformer.h[i].attn.c_attn.weight.view(HEADS + 2, SIZE, HIDDEN)
    return {"query": list(fused[:HEADS]), "key": [fused[HEADS]], "value": [fused[HEADS + 1]]}


def heads_of_multi_head(model, i):
    fused = model.transformer.h[i].attn.c_attn.weight.view(HEADS, 3, SIZE, HIDDEN)
    return {t: list(fused[:, j]) for j, t in enumerate(("query", "key", "value"))}


def heads_of_llama(model, i):
    attention = model.model.layers[i].self_attn
    return {t: rows(attention, f"{t[0]}_proj") for t in ("query", "key", "value")}


def heads_of_vit(model, i):
    attention = model.vit.layers[i].attention
    return {t: rows(attention, f"{t[0]}_proj") for t in ("query", "key", "value")}


FAMILIES = {
    "bert": (bert, heads_of_bert, "encoder.layer.{}.attention.self"),
    "gpt2": (gpt2, heads_of_gpt2, "transformer.h.{}.attn.c_attn"),
    "codegen": (codegen, heads_of_codegen, "transformer.h.{}.attn.qkv_proj"),
    "multi_query": (
        gpt_bigcode_multi_query,
        heads_of_multi_query,
        "transformer.h.{}.attn.c_attn",
    ),
    "multi_head": (gpt_bigcode_multi_head, heads_of_multi_head, "transformer.h.{}.attn.c_attn"),
    "gpt_neox": (gpt_neox, heads_of_gpt_neox, "gpt_neox.layers.{}.attention.query_key_value"),
    "llama": (llama, heads_of_llama, "model.layers.{}.self_attn"),
    "vit": (vit, heads_of_vit, "vit.encoder.layer.{}.attention.attention"),
}


def defined(weight) -> dict[str, float]:
    """Compute the metrics as they are written down, in NumPy."""
    w = weight.detach().double().numpy()
    s = np.linalg.svd(w, compute_uv=False)
    l1, l2 = np.abs(w).sum(), np.sqrt((w**2).sum())
    return {
        "l1_norm": l1,
        "l2_norm": l2,
        "l1_l2_ratio": l1 / l2,
        "trace": np.trace(w),
        "spectral_norm": s[0],
        "trace_spectral_ratio": np.trace(w) / s[0],
        "singular_value_mean": s.mean(),
        "singular_value_var": s.var(),
    }


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest):
    torch.manual_seed(1)
    make, heads, layer = FAMILIES[request.param]
    return make(), heads, layer


def saved(model, path: Path, **settings: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(path, **settings)


@pytest.mark.parametrize("shard", ["5GB", "6KB"])
def test_heads_have_the_metrics_of_their_definition(family, shard: str, tmp_path: Path) -> None:
    model, heads, layer = family
    saved(model, tmp_path / "checkpoint-7", max_shard_size=shard)
    sharded = (tmp_path / "checkpoint-7" / "model.safetensors.index.json").exists()
    assert sharded == (shard == "6KB")
    ds = collect(tmp_path, progressbar=False)
    assert json.loads(ds.attrs["missing_checkpoints"]) == []
    assert json.loads(ds.attrs["parameter_selection"])["notes"] == {}
    for i in range(LAYERS):
        for third, matrices in heads(model, i).items():
            here = ds.isel(run=0, step=0)
            own = here["layer"].str.startswith(layer.format(i)) & (here["kind"] == third)
            found = here.isel(parameter=np.flatnonzero(own))
            assert found.sizes["parameter"] == len(matrices)
            labels = [str(p).rpartition(".")[2] for p in found["parameter"].values]
            assert labels == [f"head{h}" for h in range(len(matrices))]
            for h, matrix in enumerate(matrices):
                for name, value in defined(matrix).items():
                    np.testing.assert_allclose(found[name].values[h], value, rtol=1e-9, atol=1e-12)


def test_a_recorder_measures_the_same(family, tmp_path: Path) -> None:
    model, _, _ = family
    saved(model, tmp_path / "checkpoint-7")
    ds = collect(tmp_path, progressbar=False).isel(run=0, step=0)
    recorder = Recorder(model, run="0")
    recorder.record(7)
    live = recorder.dataset().isel(run=0, step=0)
    # ViT's and GPT-NeoX's layers are called otherwise in files: the matrices are the same
    order, live_order = (np.argsort(d["l1_norm"].values) for d in (ds, live))
    for name in [n for n in live.data_vars if "parameter" in live[n].dims]:
        np.testing.assert_allclose(
            ds[name].values[order], live[name].values[live_order], rtol=1e-9, atol=1e-12
        )
    for column in ("kind", "shape"):
        assert list(ds[column].values[order]) == list(live[column].values[live_order])
    for name in ("weight_mean", "weight_median", "weight_var", "bias_mean", "bias_var"):
        np.testing.assert_allclose(ds[name], live[name], rtol=1e-9, atol=1e-14)


def test_half_precision_is_widened_before_any_sum(family, tmp_path: Path) -> None:
    model, heads, layer = family
    saved(model.to(torch.bfloat16), tmp_path / "checkpoint-7")
    ds = collect(tmp_path, progressbar=False).isel(run=0, step=0)
    own = ds["layer"].str.startswith(layer.format(0)) & (ds["kind"] == "query")
    expected = [defined(matrix)["l1_norm"] for matrix in heads(model, 0)["query"]]
    np.testing.assert_allclose(ds["l1_norm"].values[own.values], expected, rtol=1e-12)


def test_shared_tensors_count_once(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = gpt2()
    saved(model, tmp_path / "a" / "checkpoint-1")
    (tmp_path / "b").mkdir()
    torch.save(model.state_dict(), tmp_path / "b" / "step1.pt")
    config = (tmp_path / "a" / "checkpoint-1" / "config.json").read_text()
    (tmp_path / "b" / "config.json").write_text(config)
    ds = collect(tmp_path, progressbar=False)
    assert not [p for p in ds["parameter"].values if "lm_head" in p or "wte" in p]
    for name in ds.data_vars:
        np.testing.assert_array_equal(ds[name].sel(run="a"), ds[name].sel(run="b"))


def test_without_a_configuration_heads_are_given_or_left_whole(tmp_path: Path) -> None:
    torch.manual_seed(1)
    torch.save(llama().state_dict(), tmp_path / "step1.pt")
    whole = collect(tmp_path, progressbar=False)
    notes = json.loads(whole.attrs["parameter_selection"])["notes"]
    assert len(notes) == 3 * LAYERS
    assert all("give n_heads" in note for note in notes.values())
    split = collect(tmp_path, n_heads=HEADS, n_kv_heads=KV, progressbar=False)
    more = LAYERS * (HEADS - 1 + 2 * (KV - 1))
    assert split.sizes["parameter"] == whole.sizes["parameter"] + more
