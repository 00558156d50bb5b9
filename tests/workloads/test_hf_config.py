"""Models from Hugging Face config files, against the presets and against wrong files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workloads import PRESETS, MoEModel, WorkloadError, model, read_config
from workloads.hf_config import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGS = Path(__file__).with_name("configs")
"""A config.json for every preset, typed in from the public keys of the models."""
GOLDEN = {path.name: path / "config.json" for path in sorted(CONFIGS.iterdir())}

DELETED = object()
"""Stands for the value of a key that is taken out."""


def golden(name: str, **changes: Any) -> dict[str, Any]:
    """Return the content of a golden file with some keys changed."""
    content = json.loads(GOLDEN[name].read_text()) | changes
    return {key: value for key, value in content.items() if value is not DELETED}


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., MoEModel]:
    """Read a golden file with some keys changed."""

    def read(name: str, **changes: Any) -> MoEModel:
        file = tmp_path / name / "config.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(golden(name, **changes)))
        return read_config(file)

    return read


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_reproduced(name: str) -> None:
    """The published keys of a model give exactly its preset, from the file and from its folder."""
    assert read_config(GOLDEN[name]) == read_config(CONFIGS / name) == model(name)
    assert model(str(CONFIGS / name)) == model(name)


KEYS = {
    "DeepSeek-R1": "hidden_size first_k_dense_replace n_group topk_group q_lora_rank kv_lora_rank "
    "v_head_dim num_nextn_predict_layers intermediate_size moe_intermediate_size n_shared_experts "
    "vocab_size",
    "Mixtral-8x7B": "intermediate_size num_local_experts num_hidden_layers",
    "Qwen3-30B-A3B": "head_dim num_experts num_experts_per_tok",
    "GLM-4.5": "num_key_value_heads n_routed_experts",
}
"""Keys that a model is made of."""


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, keys in KEYS.items() for key in keys.split()]
)
def test_every_key_counts(changed: Callable[..., MoEModel], name: str, key: str) -> None:
    """The comparison with presets can fail: another value under a key gives another model."""
    assert changed(name, **{key: golden(name)[key] * 2}) != model(name)


def test_shared_experts_of_qwen2(changed: Callable[..., MoEModel]) -> None:
    """Qwen's one shared expert of 5632 counts as 4 of 1408; null is none."""
    qwen = read_config(GOLDEN["Qwen1.5-MoE-A2.7B"])
    assert (qwen.shared_experts, qwen.experts, qwen.top_k, qwen.layers) == (4, 60, 4, 24)
    assert changed("Qwen1.5-MoE-A2.7B", shared_expert_intermediate_size=None).shared_experts == 0


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        # 0..11: numbers plus one that 3 divides, without layer 5.
        (
            "Qwen3-30B-A3B",
            {"num_hidden_layers": 12, "decoder_sparse_step": 3, "mlp_only_layers": [5]},
            (2, 8, 11),
        ),
        ("Qwen3-30B-A3B", {"num_hidden_layers": 4, "mlp_only_layers": [0, 3]}, (1, 2)),
        # From layer 3 on, those that 2 divides.
        ("DeepSeek-V3", {"num_hidden_layers": 9, "moe_layer_freq": 2}, (4, 6, 8)),
        ("DeepSeekMoE-16B", {"num_hidden_layers": 3, "first_k_dense_replace": 0}, (0, 1, 2)),
    ],
)
def test_interleaved_layers(
    changed: Callable[..., MoEModel],
    name: str,
    changes: dict[str, Any],
    expected: tuple[int, ...],
) -> None:
    """MoE layers have their absolute numbers, whatever lies between them."""
    got = changed(name, **changes)
    assert got.moe_layers == expected
    dense = got.hidden_layers - len(expected)
    width = golden(name)["intermediate_size"] if dense else None
    assert got.architecture is not None
    assert got.architecture.dense_intermediate == width


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("DeepSeek-V2", {"topk_method": "greedy"}, (None, None)),
        ("DeepSeek-V2", {"topk_method": DELETED}, (None, None)),
        ("DeepSeek-V2", {"topk_group": 8}, (None, None)),
        ("DeepSeek-V2", {}, (8, 3)),
        ("DeepSeek-V3", {"topk_method": DELETED}, (8, 4)),
        ("GLM-4.5", {"n_group": None, "topk_group": None}, (None, None)),
    ],
)
def test_groups(
    changed: Callable[..., MoEModel],
    name: str,
    changes: dict[str, Any],
    expected: tuple[int | None, int | None],
) -> None:
    """A greedy router has no groups, and a choice from all groups is no limit."""
    got = changed(name, **changes)
    assert (got.n_group, got.topk_group) == expected


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("DeepSeek-V3", {"quantization_config": None}, (2.0, 2.0, 2.0)),
        (
            "DeepSeek-V3",
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 32]}},
            # A 4-byte scale per 2048 numbers.
            (1 + 1 / 512, 1 + 1 / 512, 2.0),
        ),
        ("DeepSeek-V3", {"quantization_config": {"quant_method": "fp8"}}, (1.0, 1.0, 2.0)),
        ("OLMoE-1B-7B", {"torch_dtype": "float32"}, (4.0, 4.0, 4.0)),
        ("OLMoE-1B-7B", {"torch_dtype": DELETED, "dtype": "float16"}, (2.0, 2.0, 2.0)),
        ("gpt-oss-20b", {}, (0.53125, 2.0, 2.0)),
    ],
)
def test_number_formats(
    changed: Callable[..., MoEModel],
    name: str,
    changes: dict[str, Any],
    expected: tuple[float, float, float],
) -> None:
    """Bytes of a weight follow `dtype` and the two quantisations that are known."""
    storage = changed(name, **changes).storage
    assert (storage.experts, storage.linear, storage.other) == expected


def test_modules_that_stay_unquantised(changed: Callable[..., MoEModel]) -> None:
    """Routers, norms and the head may be kept out of FP8; attention would be counted wrongly."""
    block = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    kept = ["lm_head", "model.layers.0.input_layernorm", "model.layers.0.mlp.gate"]
    table = {**block, "modules_to_not_convert": kept}
    assert changed("Qwen3-30B-A3B", quantization_config=table).bytes_per_parameter == 1 + 4 / 16_384
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.gate_proj"):
        table = {**block, "modules_to_not_convert": [*kept, name]}
        with pytest.raises(WorkloadError, match=f"modules_to_not_convert' names '{name}'"):
            changed("Qwen3-30B-A3B", quantization_config=table)


def test_files_that_transformers_saved(changed: Callable[..., MoEModel]) -> None:
    """transformers 5 writes num_local_experts where the published file says num_experts."""
    saved = changed("Qwen3-30B-A3B", num_experts=DELETED, num_local_experts=128)
    assert saved == model("Qwen3-30B-A3B")


def test_head_dim_by_default(changed: Callable[..., MoEModel]) -> None:
    """Without head_dim it is hidden_size over heads, 4096 / 32, and must come out even."""
    assert changed("Mixtral-8x7B", head_dim=None) == model("Mixtral-8x7B")
    # 5120 does not divide by GLM's 96 heads.
    with pytest.raises(WorkloadError, match="key 'head_dim' is missing; expected an integer"):
        changed("GLM-4.5", head_dim=DELETED)


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is called after its folder, its repository in a cache, or its file."""
    text = GOLDEN["OLMoE-1B-7B"].read_text()
    cached = tmp_path / "models--allenai--OLMoE-1B-7B-0924" / "snapshots" / "a1b2"
    (tmp_path / "mine").mkdir()
    cached.mkdir(parents=True)
    for file in (tmp_path / "mine" / "config.json", tmp_path / "olmoe.json", tmp_path / "blob"):
        file.write_text(text)
    # A cache links the file to its content.
    (cached / "config.json").symlink_to(tmp_path / "blob")
    assert read_config(tmp_path / "mine").name == "mine"
    assert read_config(tmp_path / "olmoe.json").name == "olmoe"
    assert read_config(cached).name == "OLMoE-1B-7B-0924"
    monkeypatch.chdir(tmp_path / "mine")
    assert model("./") == model("config.json") == replace(model("OLMoE-1B-7B"), name="mine")


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("Mixtral-8x7B", {"model_type": "llama"}, "key 'model_type' is \"llama\"; expected one of"),
        ("Mixtral-8x7B", {"model_type": ["mixtral"]}, "key 'model_type' is [\"mixtral\"]"),
        ("Mixtral-8x7B", {"model_type": DELETED}, "key 'model_type' is missing; expected one of"),
        (
            "Mixtral-8x7B",
            {"model_type": "glm4v_moe", "text_config": {"model_type": "glm4_moe"}},
            "key 'text_config': model_type \"glm4v_moe\" keeps its language model there",
        ),
        ("Mixtral-8x7B", {"hidden_size": DELETED}, "key 'hidden_size' is missing; expected an int"),
        ("Mixtral-8x7B", {"hidden_size": None}, "key 'hidden_size' is null; expected an integer"),
        ("Mixtral-8x7B", {"hidden_size": True}, "key 'hidden_size' is true; expected an integer"),
        ("Mixtral-8x7B", {"hidden_size": "4096"}, "key 'hidden_size' is \"4096\"; expected an int"),
        ("Mixtral-8x7B", {"hidden_size": 4096.0}, "key 'hidden_size' is 4096.0; expected an int"),
        ("Mixtral-8x7B", {"hidden_size": float("nan")}, "key 'hidden_size' is NaN; expected"),
        ("Mixtral-8x7B", {"hidden_size": -1}, "expected an integer from 1 to 16777216"),
        ("Mixtral-8x7B", {"num_hidden_layers": 10**9}, "'num_hidden_layers' is 1000000000; exp"),
        ("Mixtral-8x7B", {"num_local_experts": 65_537}, "from 1 to 65536"),
        ("Mixtral-8x7B", {"num_experts": 9}, "key 'num_experts' is 9, but 'num_local_experts' is"),
        ("Mixtral-8x7B", {"num_local_experts": DELETED}, "'num_experts' or 'num_local_experts' is"),
        ("Mixtral-8x7B", {"num_experts_per_tok": 9}, "expected an integer from 1 to 8"),
        ("Mixtral-8x7B", {"num_key_value_heads": 5}, "expected a divisor of 'num_attention_heads'"),
        ("Mixtral-8x7B", {"num_key_value_heads": DELETED}, "key 'num_key_value_heads' is missing"),
        ("Mixtral-8x7B", {"tie_word_embeddings": 1}, "expected true or false"),
        ("Mixtral-8x7B", {"torch_dtype": "int8"}, "expected one of bfloat16, float16, float32"),
        (
            "gpt-oss-20b",
            {"experts_per_token": 8},
            "but 'experts_per_token' is 8; expected the same",
        ),
        ("gpt-oss-20b", {"layer_types": ["full_attention"]}, "'layer_types' has 1 entries; expec"),
        ("gpt-oss-20b", {"layer_types": [1] * 24}, "expected a list of texts"),
        ("gpt-oss-20b", {"layer_types": "full"}, "expected a list of texts"),
        ("DeepSeek-V3", {"n_group": 7}, "key 'n_group' is 7; expected a divisor of 'n_routed_exp"),
        ("DeepSeek-V3", {"topk_group": 9}, "topk_group is 9, expected 1..8"),
        ("DeepSeek-V3", {"topk_group": None}, "n_group and topk_group come together"),
        ("DeepSeek-V3", {"n_group": DELETED}, "key 'n_group' is missing"),
        ("DeepSeek-V3", {"topk_method": "magic"}, "expected one of greedy, group_limited_greedy"),
        ("DeepSeek-V3", {"q_lora_rank": DELETED}, "key 'q_lora_rank' is missing; expected an int"),
        ("DeepSeek-V3", {"n_shared_experts": DELETED}, "key 'n_shared_experts' is missing"),
        ("DeepSeek-V3", {"first_k_dense_replace": 61}, "leave no MoE layer among the 61"),
        ("DeepSeek-V3", {"moe_layer_freq": 0}, "key 'moe_layer_freq' is 0; expected an integer"),
        ("DeepSeek-V3", {"moe_layer_freq": [0, 1]}, "key 'moe_layer_freq' is [0, 1]; expected an"),
        ("DeepSeek-V3", {"intermediate_size": DELETED}, "key 'intermediate_size' is missing"),
        (
            "DeepSeek-V3",
            {"quantization_config": {"quant_method": "awq"}},
            "key 'quantization_config.quant_method' is \"awq\"; expected fp8 or mxfp4",
        ),
        ("DeepSeek-V3", {"quantization_config": "fp8"}, "expected an object"),
        (
            "DeepSeek-V3",
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128]}},
            "key 'quantization_config.weight_block_size' is [128]; expected two integers",
        ),
        ("Qwen3-30B-A3B", {"mlp_only_layers": [48]}, "expected a list of integers from 0 to 47"),
        ("Qwen3-30B-A3B", {"mlp_only_layers": list(range(48))}, "leave no MoE layer among the 48"),
        ("Qwen3-30B-A3B", {"decoder_sparse_step": 49}, "leave no MoE layer"),
        (
            "Qwen1.5-MoE-A2.7B",
            {"shared_expert_intermediate_size": 1409},
            "expected a multiple of 'moe_intermediate_size', 1408",
        ),
    ],
)
def test_wrong_values(
    changed: Callable[..., MoEModel], name: str, changes: dict[str, Any], expected: str
) -> None:
    """Each is refused in one line that names the file, the key and what was expected."""
    with pytest.raises(WorkloadError) as caught:
        changed(name, **changes)
    said = str(caught.value)
    assert expected in said
    assert f"{name}/config.json: " in said
    assert "\n" not in said


def test_unknown_families_list_the_known(changed: Callable[..., MoEModel]) -> None:
    """The message for another model_type names every family that is read."""
    with pytest.raises(WorkloadError) as caught:
        changed("OLMoE-1B-7B", model_type="gpt2")
    assert all(family in str(caught.value) for family in FAMILIES)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "not valid JSON (truncated?)"),
        (b'{"model_type": "mixtral"', "not valid JSON (truncated?)"),
        (b"\xff\xfe\x00", "not valid JSON (truncated?)"),
        (b"[" * 100_000, "not valid JSON (truncated?)"),
        (b"[]", "expected an object with the keys of a Hugging Face config.json"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' is there twice; expected each key once"),
        (b'{"model_type": ' + b"9" * 5000 + b"}", "not valid JSON (truncated?)"),
        (b" " * (16 << 20) + b"{}", "larger than 16777216 bytes, the most that is read"),
    ],
)
def test_wrong_files(tmp_path: Path, data: bytes, expected: str) -> None:
    """What is no JSON object is refused in one line with the file's name."""
    file = tmp_path / "config.json"
    file.write_bytes(data)
    with pytest.raises(WorkloadError) as caught:
        read_config(file)
    assert str(caught.value).startswith(f"{file}: {expected}")


def test_missing_files(tmp_path: Path) -> None:
    """A folder without the file, a repository's name and an impossible path are refused."""
    for path in (tmp_path, tmp_path / "gone.json", "Qwen/Qwen3-30B-A3B", "a\0.json"):
        with pytest.raises(WorkloadError, match="cannot be read") as caught:
            read_config(path)
        assert "\n" not in str(caught.value)


def read_or_refuse(file: Path) -> MoEModel | str:
    """Return the model, or the message it is refused with."""
    try:
        return read_config(file)
    except WorkloadError as error:
        return str(error)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_change_gives_a_model_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    """Fuzzed files are read or refused, never a traceback of another kind."""
    name = data.draw(st.sampled_from(sorted(GOLDEN)))
    content = golden(name)
    for key in data.draw(st.lists(st.sampled_from(sorted(content)), max_size=3)):
        content[key] = data.draw(JSON_VALUES)
    text = json.dumps(content)
    cut = data.draw(st.integers(0, len(text)) | st.just(len(text)))
    file = tmp_path / "config.json"
    file.write_text(text[:cut])
    got = read_or_refuse(file)
    if isinstance(got, MoEModel):
        assert got.layers >= 1
        assert got.kv_bytes_per_token > 0
        assert got.parameters > 0
    else:
        assert got.startswith(f"{file}: ")
        assert "\n" not in got
