"""From the ``config.json`` of a Hugging Face model to its `MoEModel`, by the family's own keys.

Which layers are MoE, and which keys say so, is what the families' published modelling code does
with them: DeepSeek, Kimi and GLM put `first_k_dense_replace` dense layers first and take every
`moe_layer_freq`-th layer from there; Qwen takes layers whose number plus one divides by
`decoder_sparse_step`, `mlp_only_layers` aside; Mixtral, OLMoE and gpt-oss have no dense layers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from workloads._config_keys import MAX_LAYERS, ConfigKeys, parse, shown
from workloads._config_storage import storage_of
from workloads.architecture import Architecture, GroupedAttention, LatentAttention
from workloads.errors import WorkloadError
from workloads.model import MAX_EXPERTS, MoEModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike

    from workloads.architecture import Attention

CONFIG = "config.json"
"""Name of the file in a model's folder."""
TOPK_METHODS = ("greedy", "group_limited_greedy", "noaux_tc")
"""How DeepSeek's routers choose; the first knows no groups."""

Experts: TypeAlias = "Callable[[ConfigKeys], _Experts]"
Layers: TypeAlias = "Callable[[ConfigKeys, int], tuple[int, ...]]"


@dataclass(frozen=True, slots=True)
class _Experts:
    """What a family's keys say of its experts, in the terms of `MoEModel`."""

    experts: int
    moe_intermediate: int
    shared: int = 0
    n_group: int | None = None
    topk_group: int | None = None
    mtp_layers: int = 0


@dataclass(frozen=True, slots=True)
class _Family:
    """How the keys of a family are read."""

    experts: Experts
    layers: Layers
    attention: Callable[[ConfigKeys], Attention]


def is_config_path(name: str) -> bool:
    """Return whether a model's name is to be taken as a path: it ends in .json or has a slash."""
    return name.endswith(".json") or "/" in name or os.sep in name


def config_file(path: str | PathLike[str]) -> Path:
    """Return the file that `path` stands for: itself, or the ``config.json`` of a folder."""
    return Path(path) / CONFIG if os.path.isdir(path) else Path(path)  # noqa: PTH112  never raises


def read_config(path: str | PathLike[str]) -> MoEModel:
    """Read a model's shape from its Hugging Face ``config.json``.

    The model is called after its folder (in a Hugging Face cache, after the repository), or after
    the file where that has another name. Nothing is downloaded.

    Parameters
    ----------
    path
        The file, or the folder it is in.

    Raises
    ------
    WorkloadError
        If it cannot be read, is of no known family, or does not describe a model; one line with
        the file, the key and what was expected.
    """
    file = config_file(path)
    try:
        return _model(_name_of(file), parse(file))
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None


def _name_of(file: Path) -> str:
    """Links are not followed: in a Hugging Face cache they lead to files named by their hash."""
    folder = Path(os.path.abspath(file)).parent  # noqa: PTH100  resolve() follows links
    if file.name != CONFIG:
        return file.stem
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name or file.stem


def _model(name: str, keys: ConfigKeys) -> MoEModel:
    family = _family(keys)
    layers = keys.integer("num_hidden_layers", most=MAX_LAYERS)
    moe_layers = family.layers(keys, layers)
    shape = family.experts(keys)
    dense = keys.integer("intermediate_size") if len(moe_layers) < layers else None
    return MoEModel(
        name,
        layers,
        moe_layers,
        shape.experts,
        keys.integer("num_experts_per_tok", "experts_per_token", most=shape.experts),
        shape.shared,
        keys.integer("hidden_size"),
        shape.moe_intermediate,
        n_group=shape.n_group,
        topk_group=shape.topk_group,
        mtp_layers=shape.mtp_layers,
        storage=storage_of(keys),
        architecture=Architecture(
            family.attention(keys),
            keys.integer("vocab_size"),
            dense,
            tied=keys.flag("tie_word_embeddings"),
        ),
    )


def _family(keys: ConfigKeys) -> _Family:
    kind, allowed = keys.content.get("model_type"), ", ".join(FAMILIES)
    if isinstance(kind, str) and kind in FAMILIES:
        return FAMILIES[kind]
    if isinstance(keys.content.get("text_config"), dict):
        raise WorkloadError(
            f"key 'text_config': model_type {shown(kind)} keeps its language model there, beside "
            "parts that are not counted here; expected that object in a file of its own, with a "
            f"model_type of {allowed}"
        )
    if "model_type" not in keys.content:
        raise keys.missing("model_type", f"one of {allowed}")
    raise keys.wrong("model_type", f"one of {allowed}")


def _dense_first(keys: ConfigKeys, layers: int) -> tuple[int, ...]:
    first = keys.integer("first_k_dense_replace", least=0)
    every = keys.optional("moe_layer_freq") or 1
    chosen = tuple(layer for layer in range(first, layers) if layer % every == 0)
    if not chosen:
        raise WorkloadError(
            f"key 'first_k_dense_replace' is {first} and 'moe_layer_freq' {every}, which leave no "
            f"MoE layer among the {layers} of 'num_hidden_layers'; expected one at least"
        )
    return chosen


def _sparse_step(keys: ConfigKeys, layers: int) -> tuple[int, ...]:
    every = keys.optional("decoder_sparse_step") or 1
    dense = set(keys.integers("mlp_only_layers", least=0, most=layers - 1))
    chosen = (layer for layer in range(layers) if (layer + 1) % every == 0)
    kept = tuple(layer for layer in chosen if layer not in dense)
    if not kept:
        raise WorkloadError(
            f"key 'decoder_sparse_step' is {every} and 'mlp_only_layers' names {len(dense)} "
            f"layers, which leave no MoE layer among the {layers} of 'num_hidden_layers'; expected "
            "one at least"
        )
    return kept


def _all_layers(keys: ConfigKeys, layers: int) -> tuple[int, ...]:
    types = keys.texts("layer_types")
    if types and len(types) != layers:
        raise WorkloadError(
            f"key 'layer_types' has {len(types)} entries; expected {layers}, as "
            "'num_hidden_layers' says"
        )
    return tuple(range(layers))


def _deepseek(keys: ConfigKeys) -> _Experts:
    return _Experts(
        experts=keys.integer("n_routed_experts", most=MAX_EXPERTS),
        moe_intermediate=keys.integer("moe_intermediate_size"),
        shared=keys.nullable("n_shared_experts", least=0) or 0,
    )


def _deepseek_v2(keys: ConfigKeys) -> _Experts:
    return _with_groups(keys, "greedy")


def _deepseek_v3(keys: ConfigKeys) -> _Experts:
    """Also Kimi-K2's and GLM-4.5's."""
    mtp_layers = keys.optional("num_nextn_predict_layers", least=0, most=MAX_LAYERS) or 0
    return replace(_with_groups(keys, "noaux_tc"), mtp_layers=mtp_layers)


def _with_groups(keys: ConfigKeys, topk_method: str) -> _Experts:
    """Read the limit on groups; `topk_method` is how the family chooses without that key.

    A choice from all groups is no limit, and the model is then one without groups.
    """
    shape = _deepseek(keys)
    if keys.word("topk_method", TOPK_METHODS, topk_method) == "greedy":
        return shape
    n_group, topk_group = keys.nullable("n_group"), keys.nullable("topk_group")
    if n_group == topk_group:
        return shape
    if n_group is not None and shape.experts % n_group:
        raise keys.wrong("n_group", f"a divisor of 'n_routed_experts', {shape.experts}")
    return replace(shape, n_group=n_group, topk_group=topk_group)


def _qwen2(keys: ConfigKeys) -> _Experts:
    """The one shared expert counts as so many of the routed experts' width."""
    shape, shared = _qwen3(keys), keys.nullable("shared_expert_intermediate_size", least=0) or 0
    if shared % shape.moe_intermediate:
        raise WorkloadError(
            f"key 'shared_expert_intermediate_size' is {shared}; expected a multiple of "
            f"'moe_intermediate_size', {shape.moe_intermediate}"
        )
    return replace(shape, shared=shared // shape.moe_intermediate)


def _qwen3(keys: ConfigKeys) -> _Experts:
    return _Experts(_num_experts(keys), keys.integer("moe_intermediate_size"))


def _mixtral(keys: ConfigKeys) -> _Experts:
    return _Experts(_num_experts(keys), keys.integer("intermediate_size"))


def _num_experts(keys: ConfigKeys) -> int:
    """Files that transformers 5 has saved use the second name for families of the first."""
    return keys.integer("num_experts", "num_local_experts", most=MAX_EXPERTS)


def _latent(keys: ConfigKeys) -> LatentAttention:
    return LatentAttention(
        heads=keys.integer("num_attention_heads"),
        q_rank=keys.nullable("q_lora_rank"),
        kv_rank=keys.integer("kv_lora_rank"),
        rope=keys.integer("qk_rope_head_dim"),
        nope=keys.integer("qk_nope_head_dim"),
        value=keys.integer("v_head_dim"),
    )


def _grouped(keys: ConfigKeys) -> GroupedAttention:
    heads, kv_heads = keys.integer("num_attention_heads"), keys.integer("num_key_value_heads")
    if heads % kv_heads:
        raise WorkloadError(
            f"key 'num_key_value_heads' is {kv_heads}; expected a divisor of "
            f"'num_attention_heads', {heads}"
        )
    return GroupedAttention(heads, kv_heads, _head(keys, heads))


def _head(keys: ConfigKeys, heads: int) -> int:
    head, hidden = keys.optional("head_dim"), keys.integer("hidden_size")
    if head is not None:
        return head
    if hidden % heads:
        raise keys.missing(
            "head_dim", f"an integer, for 'num_attention_heads' {heads} does not divide {hidden}"
        )
    return hidden // heads


FAMILIES: Mapping[str, _Family] = MappingProxyType(
    {
        "deepseek": _Family(_deepseek, _dense_first, _grouped),
        "deepseek_v2": _Family(_deepseek_v2, _dense_first, _latent),
        "deepseek_v3": _Family(_deepseek_v3, _dense_first, _latent),
        "kimi_k2": _Family(_deepseek_v3, _dense_first, _latent),
        "glm4_moe": _Family(_deepseek_v3, _dense_first, _grouped),
        "qwen2_moe": _Family(_qwen2, _sparse_step, _grouped),
        "qwen3_moe": _Family(_qwen3, _sparse_step, _grouped),
        "mixtral": _Family(_mixtral, _all_layers, _grouped),
        "olmoe": _Family(_mixtral, _all_layers, _grouped),
        "gpt_oss": _Family(_mixtral, _all_layers, _grouped),
    }
)
"""Families by their model_type."""
