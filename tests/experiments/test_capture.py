"""Router choices of tiny random models, against the router's maths on its inputs."""

from __future__ import annotations

import json
import os
import shutil
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from router_oracle import chosen

from experiments.capture.loading import load_model
from experiments.capture.record import CaptureOptions, capture
from experiments.capture.routers import RouterRecorder, find_routers
from experiments.cli import status
from experiments.errors import ExperimentError, RunError
from workloads import StoredTrace, read_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.capture

VOCABULARY = 48
UNKNOWN = "w0"
STOP = 1
NEW = 6
PROMPTS = ["w2 w3 w4 w5 w6 w7 w8", "w9", "w10 w11 w12 w13", "w14 w15", "w16 w17 w18 w19 w20 w21"]
"""Five prompts of 7, 1, 4, 2 and 6 tokens."""

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.5,
    "eos_token_id": STOP,
    "bos_token_id": None,
    "pad_token_id": None,
}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
GROUPED = {"n_group": 4, "topk_group": 2, "num_experts_per_tok": 4, "n_shared_experts": 1}
DEEPSEEK = GROUPED | {"n_routed_experts": 16, "moe_intermediate_size": 16}
QWEN = {"num_experts": 16, "num_experts_per_tok": 3, "moe_intermediate_size": 16}
OSS = {"num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": 4}

MODELS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "deepseek_v3": (DEEPSEEK | LATENT | {"first_k_dense_replace": 2}, (2, 3)),
    "deepseek_v2": (
        DEEPSEEK | LATENT | {"first_k_dense_replace": 1, "topk_method": "group_limited_greedy"},
        (1, 2, 3),
    ),
    "glm4_moe": (DEEPSEEK | {"first_k_dense_replace": 1, "head_dim": 8}, (1, 2, 3)),
    "mixtral": ({"num_local_experts": 8, "num_experts_per_tok": 2}, (0, 1, 2, 3)),
    "olmoe": ({"num_experts": 16, "num_experts_per_tok": 4}, (0, 1, 2, 3)),
    # Layers 1 and 3 by the step, without 3.
    "qwen3_moe": (
        QWEN | {"head_dim": 8, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
        (1,),
    ),
    "qwen2_moe": (QWEN | {"shared_expert_intermediate_size": 32}, (0, 1, 2, 3)),
    "gpt_oss": (OSS, (0, 1, 2, 3)),
}
"""Keys of a config beside the common ones, and the layers that are MoE."""


def make(folder: Path, kind: str) -> None:
    """Save a random model of a family and a tokenizer of words."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **(COMMON | MODELS[kind][0]))
    network = transformers.AutoModelForCausalLM.from_config(config)
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        # Zero as they are made; a model's own are not.
        if name.endswith(("e_score_correction_bias", "router.bias")):
            value.data.uniform_(-0.5, 0.5)
    network.generation_config.eos_token_id = STOP
    network.save_pretrained(folder)
    words = {f"w{at}": at for at in range(VOCABULARY)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(words), unk_token=UNKNOWN
    )
    tokenizer.save_pretrained(folder)


def word_tokenizer(words: dict[str, int]) -> Any:
    """Return a tokenizer whose tokens are words between blanks."""
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415  where it is there

    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for every family, and the prompts."""
    # Threads that wait for each other cost more than these models do.
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("models")
    (root / "prompts.txt").write_text("\n".join(PROMPTS))
    for kind in MODELS:
        make(root / kind, kind)
    return {kind: root / kind for kind in MODELS}


@cache
def slow_capture(folder: Path, kind: str) -> list[tuple[NDArray[Any], int]]:
    """Return the choices of every prompt and its length, one prompt at a time, without a cache.

    The answer grows by passes over the whole sequence; the last pass gives the routers' inputs,
    from which the ids are computed by hand. The last token of an answer is not fed.
    """
    network = load_model(folder, "cpu").network
    config = network.config
    groups = (getattr(config, "n_group", 1) or 1, getattr(config, "topk_group", 1) or 1)
    routers = find_routers(network, read_config(folder), "oracle")
    inputs: list[Any] = []
    for router in routers:
        router.register_forward_pre_hook(lambda _, given: inputs.append(given[0].numpy()))
    out = []
    for prompt in PROMPTS:
        ids = [int(word[1:]) for word in prompt.split()]
        length = len(ids)
        for _ in range(NEW):
            inputs.clear()
            with torch.inference_mode():
                logits = network(input_ids=torch.tensor([ids]), use_cache=False).logits
            following = int(logits[0, -1].argmax())
            ids.append(following)
            if following == STOP:
                break
        rows = [
            chosen(kind, router, given.reshape(len(ids) - 1, -1), groups)
            for router, given in zip(routers, inputs, strict=True)
        ]
        out.append((np.stack(rows, axis=1), length))
    return out


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("kind", MODELS)
def test_choices_are_the_routers_own(
    folders: dict[str, Path], tmp_path: Path, kind: str, batch_size: int
) -> None:
    """Ids, lengths and phases equal the maths on unpadded prompts, whatever the batch."""
    folder, out = folders[kind], tmp_path / "new.trace"
    options = CaptureOptions(new_tokens=NEW, batch_size=batch_size, device="cpu")
    captured = capture(folder, folder.parent / "prompts.txt", out, options)
    shape = read_config(folder)
    assert shape.moe_layers == MODELS[kind][1]
    trace = StoredTrace.open(out, shape).trace()
    expected = slow_capture(folder, kind)
    assert trace.seq_lens.tolist() == [len(rows) for rows, _ in expected]
    assert np.array_equal(np.sort(trace.topk, axis=2), np.concatenate([r for r, _ in expected]))
    phase = [int(at >= length) for rows, length in expected for at in range(len(rows))]
    assert trace.phase is not None
    assert trace.phase.tolist() == phase
    # 7 + 1 + 4 + 2 + 6.
    assert (captured.prefill_tokens, captured.decode_tokens) == (20, sum(phase))
    assert captured.decode_tokens > len(PROMPTS)


@pytest.mark.parametrize("kind", MODELS)
def test_weights_are_those_of_the_network(folders: dict[str, Path], kind: str) -> None:
    """What a config says of a model's size is the size of the network made from it, exactly.

    Left out on both sides: norms and biases, and the gate of Qwen's shared expert.
    """
    network, shape = load_model(folders[kind], "cpu").network, read_config(folders[kind])
    small = ("bias", "shared_expert_gate.weight")
    matrices = {
        name: weight.numel()
        for name, weight in network.named_parameters()
        if weight.ndim > 1 and not name.endswith(small)
    }
    assert shape.parameters == sum(matrices.values())
    experts = sum(size for name, size in matrices.items() if ".experts." in name)
    assert shape.layers * shape.experts * shape.parameters_per_expert == experts


def test_the_logits_alone_would_be_wrong(folders: dict[str, Path]) -> None:
    """The oracle can fail: without DeepSeek-V3's bias and groups it gives other ids."""
    folder = folders["deepseek_v3"]
    network = load_model(folder, "cpu").network
    routers = find_routers(network, read_config(folder), "oracle")
    inputs = np.random.Generator(np.random.PCG64(0)).normal(size=(50, 32))
    right = chosen("deepseek_v3", routers[0], inputs, (4, 2))
    given = torch.tensor(inputs, dtype=torch.float32)
    with torch.inference_mode():
        logits, _, ids = routers[0](given)
    assert np.array_equal(np.sort(ids.numpy(), axis=1), right)
    assert not np.array_equal(np.sort(logits.topk(4).indices.numpy(), axis=1), right)
    assert not np.array_equal(chosen("mixtral", routers[0], inputs, (4, 2)), right)


def test_an_answer_ends_with_its_stop_token(folders: dict[str, Path], tmp_path: Path) -> None:
    """A sequence whose answer begins with the stop token has no generated token, others go on."""
    folder = tmp_path / "stops"
    shutil.copytree(folders["olmoe"], folder)
    loaded = load_model(folder, "cpu")
    ids = [int(word[1:]) for word in PROMPTS[0].split()]
    with torch.inference_mode():
        first = int(loaded.network(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"eos_token_id": first}))
    options = CaptureOptions(new_tokens=NEW, device="cpu")
    capture(folder, folders["olmoe"].parent / "prompts.txt", tmp_path / "a.trace", options)
    lengths = StoredTrace.open(tmp_path / "a.trace").seq_lens
    assert lengths[0] == len(ids)
    assert max(lengths - [7, 1, 4, 2, 6]) == NEW - 1


def test_prompts_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    """With 0 or 1 new tokens nothing generated is fed: the trace holds the prompts."""
    folder = folders["mixtral"]
    for new in (0, 1):
        out = tmp_path / f"{new}.trace"
        options = CaptureOptions(new_tokens=new, device="cpu")
        got = capture(folder, folder.parent / "prompts.txt", out, options)
        assert (got.prefill_tokens, got.decode_tokens) == (20, 0)
        assert StoredTrace.open(out).seq_lens.tolist() == [7, 1, 4, 2, 6]


def test_command(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From prompts with domains to a trace that `place` takes with the model's own config."""
    folder, prompts, out = folders["qwen3_moe"], tmp_path / "p.jsonl", tmp_path / "new.trace"
    lines = [{"prompt": text, "domain": "ab"[at % 2]} for at, text in enumerate(PROMPTS)]
    prompts.write_text("\n".join(map(json.dumps, lines)))
    words = ["--model", folder, "--prompts", prompts, "--out", out, "--max-new-tokens", NEW]
    figures = tmp_path / "figures.json"
    assert status(["capture", *map(str, words), "--json", str(figures)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "prompt tokens (prefill)" in said.out
    content = json.loads(figures.read_text())
    assert (content["sequences"], content["prefill_tokens"]) == (5, 20)
    assert content["domains"] == ["a", "b"]
    trace = StoredTrace.open(out).trace()
    assert trace.domain is not None
    assert [trace.domain_names[at] for at in trace.domain] == ["a", "b", "a", "b", "a"]
    map_file = tmp_path / "map.json"
    words = ["--cluster", "ep32", "--model", folder, "--trace", out, "--out", map_file]
    assert status(["place", "--layer-slots", "16", *map(str, words)]) == 0
    assert map_file.exists()
    # A second time the folder is there.
    words = ["--model", folder, "--prompts", prompts, "--out", out]
    assert status(["capture", *map(str, words)]) == 2


def nothing(_: Path) -> None:
    """Leave the folder as it is."""


def no_tokenizer(folder: Path) -> None:
    """Take the tokenizer out."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def no_weights(folder: Path) -> None:
    """Take the weights out."""
    (folder / "model.safetensors").unlink()


def truncated(folder: Path) -> None:
    """Cut the weights short."""
    os.truncate(folder / "model.safetensors", 1000)


def lacking(folder: Path) -> None:
    """Take a router's weights out of the file."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415  where it is there

    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in sorted(weights) if "gate.weight" in name)]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def other_layers(folder: Path) -> None:
    """Let the config name other MoE layers than transformers builds."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"moe_layer_freq": 3}))


def own_code(folder: Path) -> None:
    """Let the model come with code, which would leave a file."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "kimi_k2", "auto_map": {"AutoConfig": "own.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(folder.parent / 'ran')!r}, 'w')")


@pytest.mark.parametrize(
    ("spoil", "words", "message"),
    [
        (no_tokenizer, "", "its tokenizer cannot be loaded"),
        (no_weights, "", "its model cannot be loaded"),
        (truncated, "", "its model cannot be loaded"),
        (lacking, "", "its files lack weights, such as 'model.layers."),
        (other_layers, "", "has a router, its config.json says otherwise"),
        (own_code, "", "contains custom code which must be executed"),
        (nothing, "--device cuda:77", "device 'cuda:77' cannot be used"),
        (nothing, "--device toaster", "device 'toaster' cannot be used"),
        # 7 + 58 tokens pass through 64 positions.
        (
            nothing,
            "--max-new-tokens 59",
            "prompts.txt: line 1: 7 tokens and up to 59 new ones; expected at most the 64",
        ),
    ],
)
def test_broken_models(
    folders: dict[str, Path],
    tmp_path: Path,
    spoil: Callable[[Path], None],
    words: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, status 2, no trace is left behind, and no code of the model's has run."""
    folder = tmp_path / "model"
    shutil.copytree(folders["deepseek_v3"], folder)
    spoil(folder)
    prompts = folders["deepseek_v3"].parent / "prompts.txt"
    paths = ["--model", folder, "--prompts", prompts, "--out", tmp_path / "new.trace"]
    assert status(["capture", *map(str, paths), *words.split()]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_networks_that_are_not_as_expected(folders: dict[str, Path]) -> None:
    """No routers, routers that return something else, or are passed by: said, never guessed."""
    loaded = load_model(folders["mixtral"], "cpu")
    shape = read_config(folders["mixtral"])
    with pytest.raises(ExperimentError, match="no module in a layer whose class name ends in"):
        find_routers(torch.nn.Linear(2, 2), shape, "here")
    routers = find_routers(loaded.network, shape, "here")
    ids = torch.tensor([[1, 2]])
    with RouterRecorder(routers, shape) as recorder:
        loaded.network(input_ids=ids)
        with pytest.raises(RunError, match=r"layer 0 returned ids of shapes \[\(2, 2\)\]"):
            recorder.take(1, 3)
    with RouterRecorder(routers, shape) as recorder:
        forward = routers[1].forward
        routers[1].forward = lambda given: forward(given)[:2]
        with pytest.raises(RunError, match="MixtralTopKRouter does not return"):
            loaded.network(input_ids=ids)
        routers[1].forward = forward
    with (
        RouterRecorder(routers, shape) as recorder,
        pytest.raises(RunError, match=r"shapes \[\] in a pass"),
    ):
        recorder.take(1, 2)


def test_running_out_of_memory_is_one_line(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that fails half-way is reported with the batch, and no trace is left behind."""

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(transformers.MixtralForCausalLM, "forward", fail)
    folder = folders["mixtral"]
    options = CaptureOptions(batch_size=2, device="cpu")
    with pytest.raises(RunError, match=r"2 prompts of up to 7 tokens: CUDA out of memory.; where"):
        capture(folder, folder.parent / "prompts.txt", tmp_path / "new.trace", options)
    assert list(tmp_path.iterdir()) == []
