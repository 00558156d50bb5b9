"""Every format of expert maps: golden examples, write and read again, wrong in every way."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutate import as_json, cut_or_flip, mutate, outcome

from placement import Placement, PlacementError
from placement.formats import MAP_FORMATS, guess_map, map_format
from workloads import model
from workloads.readers.peek import peek

if TYPE_CHECKING:
    from pathlib import Path

    from workloads import MoEModel

ROWS = [[0, 1, 2, 0, 3, 1], [3, 2, 1, 0, 2, 2]]
"""Two MoE layers of 4 experts on 2 GPUs of 3 slots."""

EVEN = [[0, 1, 2, 3], [0, 1, 2, 3]]


def npy(array: Any) -> bytes:
    """Return an array as the content of an npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


def devices(rows: list[list[int]], size: int) -> list[dict[str, Any]]:
    """Return the layers of a vllm-ascend map."""
    return [
        {
            "layer_id": layer,
            "device_count": len(row) // size,
            "device_list": [
                {"device_id": d, "device_expert": row[d * size : (d + 1) * size]}
                for d in range(len(row) // size)
            ],
        }
        for layer, row in enumerate(rows)
    ]


DOUBLED = {"phy2log": ROWS, "logcnt": [[2, 2, 1, 1], [1, 1, 3, 1]]} | {
    "log2phy": [
        [[0, 3, -1], [1, 5, -1], [2, -1, -1], [4, -1, -1]],
        [[3, -1, -1], [2, -1, -1], [1, 4, 5], [0, -1, -1]],
    ]
}
"""log2phy and logcnt of ROWS, by hand: layer 0 holds expert 0 in slots 0 and 3, and so on."""

GOLDEN: dict[str, tuple[Any, list[list[int]]]] = {
    "sglang": ({"physical_to_logical_map": [[0, 1, 2, 3, 0, 1], *ROWS]}, ROWS),
    "vllm-proposal-mapping": (
        {
            "record_type": "eplb_initial_mapping",
            "version": 1,
            "num_redundant_experts": 2,
            "num_slots": 6,
            "initial_global_assignments": {"0": ROWS[0], "1": ROWS[1]},
        },
        ROWS,
    ),
    # Experts 0 and 2 on rank 0, 1 and 3 on rank 1, in every layer.
    "vllm-proposal-ranks": ({"expert_to_ep_rank": [0, 1, 0, 1]}, [[0, 2, 1, 3]] * 2),
    "ascend": (
        {
            "moe_layer_count": 2,
            "layer_list": devices([[0, 1, 2, 2, 3, 1], [3, 2, 1, 0, 2, 3]], 3),
        },
        [[0, 1, 2, 2, 3, 1], [3, 2, 1, 0, 2, 3]],
    ),
    "eplb-json": (DOUBLED, ROWS),
}
"""Documents in JSON by hand, and the slots of both layers, GPU after GPU."""

YAML = """# a map of two layers
num_slots: 6
layer_updates_per_iter: 0
initial_global_assignments:
  1: [0, 1, 2, 0, 3, 1]
  2:
  - 3
  - 2
  - 1
  - 0
  - 2
  - 2
"""


def read(name: str, file: Path, content: bytes, shape: MoEModel, ranks: int | None = 2) -> Any:
    """Read a map of two GPUs on one server."""
    file.write_bytes(content)
    return MAP_FORMATS[name].read(file, model=shape, ranks=ranks, gpus_per_server=1)


def refused(name: str, file: Path, content: bytes, shape: MoEModel, ranks: int | None = 2) -> str:
    """Return the one line that refuses a file."""
    file.write_bytes(content)
    message, found = outcome(
        lambda: MAP_FORMATS[name].read(file, model=shape, ranks=ranks, gpus_per_server=1),
        file,
        PlacementError,
    )
    assert found is None
    return message


def on_gpus(placement: Placement) -> list[list[list[int]]]:
    """Return the experts of every layer and GPU."""
    table: dict[tuple[int, int], list[int]] = defaultdict(list)
    slots = zip(placement.slot_layer, placement.slot_gpu, placement.slot_expert, strict=True)
    for layer, gpu, expert in slots:
        table[int(layer), int(gpu)].append(int(expert))
    return [[table[layer, g] for g in range(placement.gpus)] for layer in range(placement.layers)]


def split(rows: list[list[int]], ranks: int = 2) -> list[list[list[int]]]:
    """Deal rows of slots to GPUs by the plain rule: slot p of P on GPU p // (P / ranks)."""
    return [
        [[row[p] for p in range(len(row)) if p // (len(row) // ranks) == gpu] for gpu in range(2)]
        for row in rows
    ]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_documents(name: str, file: Path, tiny: MoEModel) -> None:
    """A document made by hand is read slot by slot, accepted, and known by what is in it."""
    document, rows = GOLDEN[name]
    placement = read(name, file, as_json(document), tiny)
    assert on_gpus(placement) == split(rows)
    assert MAP_FORMATS[name].check(file, model=tiny, ranks=2) == []
    assert guess_map(peek(file), tiny) == name.removesuffix("-json")


def test_golden_yaml(file: Path, tiny: MoEModel) -> None:
    """TensorRT-LLM's file names layers by absolute numbers; both styles of lists are read."""
    assert on_gpus(read("trtllm", file, YAML.encode(), tiny)) == split(ROWS)
    assert MAP_FORMATS["trtllm"].check(file, model=tiny, ranks=2) == []
    assert guess_map(peek(file), tiny) == "trtllm"
    # What dumps of Python objects look like: one list, twice.
    alias = "num_slots: 4\ninitial_global_assignments:\n  1: &id001 [0, 1, 2, 3]\n  2: *id001\n"
    assert on_gpus(read("trtllm", file, alias.encode(), tiny)) == split(EVEN)


@pytest.mark.parametrize("dtype", ["int32", "bool", "uint8"])
def test_golden_omni(file: Path, tiny: MoEModel, dtype: str) -> None:
    """Rank, layer, expert: ranks may hold unequal numbers; the file says how many ranks."""
    held = np.zeros((2, 2, 4), dtype=dtype)
    held[0, 0, [0, 1, 2]] = held[1, 0, [2, 3]] = held[0, 1, [0]] = held[1, 1, [1, 2, 3]] = 1
    placement = read("omni", file, npy(held), tiny, ranks=None)
    assert on_gpus(placement) == [[[0, 1, 2], [2, 3]], [[0], [1, 2, 3]]]
    assert MAP_FORMATS["omni"].check(file, model=tiny) == []
    assert guess_map(peek(file), tiny) == "omni"


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_golden_vllm_table(file: Path, tiny: MoEModel, dtype: str) -> None:
    """The table of vLLM's EPLB, of any integer type."""
    content = npy(np.array(ROWS, dtype=dtype))
    assert on_gpus(read("vllm-p2l", file, content, tiny)) == split(ROWS)
    assert guess_map(peek(file), tiny) == "vllm-p2l"


def test_golden_eplb_archive(file: Path, tiny: MoEModel) -> None:
    """phy2log alone will do; the other two, where given, must agree with it."""
    buffer = io.BytesIO()
    np.savez(buffer, phy2log=np.array(ROWS))
    assert on_gpus(read("eplb", file, buffer.getvalue(), tiny)) == split(ROWS)
    np.savez(buffer := io.BytesIO(), **{key: np.array(value) for key, value in DOUBLED.items()})
    assert on_gpus(read("eplb", file, buffer.getvalue(), tiny)) == split(ROWS)


def test_the_eplb_example_goes_round(file: Path, tiny: MoEModel) -> None:
    """The tables written for ROWS are those made by hand."""
    placement = read("eplb", file, as_json(DOUBLED), tiny)
    assert json.loads(MAP_FORMATS["eplb-json"].write(placement, model=tiny)) == DOUBLED


@st.composite
def placements(draw: st.DrawFn, name: str, shape: MoEModel) -> Placement:
    """Draw a placement that a format can hold and its engine loads."""
    ranks = draw(st.sampled_from([1, 2, 4]))
    extra = draw(st.sampled_from([0, 0, 4])) if name != "vllm-proposal-ranks" else 0
    each = (shape.experts + extra) // ranks
    rows = []
    for _ in range(shape.layers):
        base = draw(st.permutations(range(shape.experts)))
        more = draw(st.permutations(range(shape.experts))) if extra else []
        # Dealt in turn, both halves of a GPU's slots are from different permutations.
        row = [[] for _ in range(ranks)]
        for turn in (base, more):
            for at, expert in enumerate(turn):
                row[at % ranks].append(expert)
        rows.append(row)
    if name == "vllm-proposal-ranks":
        rows = [rows[0]] * shape.layers
    if name in ("ascend", "omni") and any(len(set(gpu)) < each for row in rows for gpu in row):
        rows = [[sorted(set(gpu)) for gpu in row] for row in rows]
        sizes = {len(gpu) for row in rows for gpu in row}
        if name == "ascend" and len(sizes) > 1:
            rows = [[list(range(shape.experts))] * ranks] * shape.layers
    if name in ("omni", "vllm-proposal-ranks"):
        rows = [[sorted(gpu) for gpu in row] for row in rows]
    cells = [(i, g, e) for i, row in enumerate(rows) for g, gpu in enumerate(row) for e in gpu]
    layer, gpu, expert = np.array(cells, dtype=np.int32).T
    return Placement(
        shape.name, shape.layers, shape.experts, ranks, 1, layer, gpu, expert, policy="drawn"
    )


@pytest.mark.parametrize("name", MAP_FORMATS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_what_is_written_is_read_again(
    name: str, file: Path, tiny: MoEModel, data: st.DataObject
) -> None:
    """Write, read: the same placement; the same bytes again; accepted; known by its content."""
    placement, form = data.draw(placements(name, tiny)), map_format(name)
    content = form.write(placement, model=tiny)
    file.write_bytes(content)
    again = form.read(file, model=tiny, ranks=placement.gpus, gpus_per_server=1)
    assert again == placement
    assert form.write(again, model=tiny) == content or name == "topomoe"
    assert form.check(file, model=tiny, ranks=placement.gpus) == []
    assert guess_map(peek(file), tiny) == name.removesuffix("-json")
    if form.carries_ranks:
        assert form.read(file, model=tiny, gpus_per_server=1) == placement
    else:
        assert "give the ranks" in refused(name, file, content, tiny, ranks=None)


def test_the_comparison_sees_a_difference(file: Path, tiny: MoEModel) -> None:
    """Two slots of different GPUs exchanged make another placement: the suite can fail."""
    rows = [[0, 1, 2, 3, 3, 1], ROWS[1]]
    one = read("vllm-p2l", file, npy(ROWS), tiny)
    other = read("vllm-p2l", file, npy(rows), tiny)
    assert other != one
    for name in ("sglang", "vllm-proposal-mapping", "eplb-json"):
        assert on_gpus(other) != TWINS[name](GOLDEN[name][0]) == on_gpus(one)


TWINS: dict[str, Any] = {
    "sglang": lambda d: split(d["physical_to_logical_map"][1:]),
    "vllm-proposal-mapping": lambda d: split(
        [d["initial_global_assignments"][str(i)] for i in range(2)]
    ),
    "vllm-proposal-ranks": lambda d: (
        [[[e for e in range(4) if d["expert_to_ep_rank"][e] == g] for g in range(2)]] * 2
    ),
    "ascend": lambda d: [
        [device["device_expert"] for device in layer["device_list"]] for layer in d["layer_list"]
    ],
    "eplb-json": lambda d: split(d["phy2log"][-2:]),
}
"""What documents mean, read without any check."""


@pytest.mark.parametrize("name", GOLDEN)
@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_changed_documents_are_refused_or_read_right(
    name: str, file: Path, tiny: MoEModel, data: st.DataObject
) -> None:
    """Whatever is changed: one line that names the file, or what the document says."""
    document = mutate(data, GOLDEN[name][0])
    file.write_bytes(as_json(document))
    form = MAP_FORMATS[name]
    message, placement = outcome(
        lambda: form.read(file, model=tiny, ranks=2, gpus_per_server=1), file, PlacementError
    )
    findings = form.check(file, model=tiny, ranks=2)
    assert all("\n" not in finding for finding in findings)
    if placement is None:
        # What cannot be read is not accepted either.
        assert message
        assert findings
    else:
        assert on_gpus(placement) == TWINS[name](document)


@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_changed_yaml_is_refused_or_read_right(
    file: Path, tiny: MoEModel, data: st.DataObject
) -> None:
    """YAML in flow style is JSON; the same changes, the same promise."""
    golden = {
        "num_slots": 6,
        "layer_updates_per_iter": 0,
        "initial_global_assignments": {"1": ROWS[0], "2": ROWS[1]},
    }
    document = mutate(data, golden)
    text = json.dumps(document).replace('"1": [', "1: [").replace('"2": [', "2: [")
    file.write_bytes(text.encode())
    form = MAP_FORMATS["trtllm"]
    message, placement = outcome(
        lambda: form.read(file, model=tiny, ranks=2, gpus_per_server=1), file, PlacementError
    )
    if placement is None:
        assert message
        assert form.check(file, model=tiny, ranks=2)
    else:
        table = document["initial_global_assignments"]
        assert on_gpus(placement) == split([table["1"], table["2"]])


@pytest.mark.parametrize("name", MAP_FORMATS)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damaged_files_are_refused_or_placements(
    name: str, file: Path, tiny: MoEModel, data: st.DataObject
) -> None:
    """A file cut anywhere, or with one byte changed, ends in one line or in a placement."""
    rows = [[0, 1, 2, 3]] * 2
    layer, expert = np.repeat([0, 1], 4), np.array(rows).ravel()
    gpu = np.tile([0, 0, 1, 1], 2)
    whole = Placement("tiny", 2, 4, 2, 1, layer, gpu, expert, policy="golden")
    form = MAP_FORMATS[name]
    file.write_bytes(cut_or_flip(data, form.write(whole, model=tiny)))
    message, placement = outcome(
        lambda: form.read(file, model=tiny, ranks=2, gpus_per_server=1), file, PlacementError
    )
    assert message or isinstance(placement, Placement)
    form.check(file, model=tiny, ranks=2)
    peek(file)


@pytest.mark.parametrize("name", MAP_FORMATS)
@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=200))
def test_random_bytes_are_refused(name: str, file: Path, tiny: MoEModel, content: bytes) -> None:
    """Bytes that are no map are refused in one line."""
    assert refused(name, file, content, tiny)


HUGE = {"phy2log": [[0, 1, 2, 3]] * 2}


@pytest.mark.parametrize(
    ("name", "document", "expected"),
    [
        ("sglang", {"physical_to_logical_map": ROWS}, "2 rows, expected 3: SGLang counts all"),
        (
            "sglang",
            {"physical_to_logical_map": [ROWS[0], *ROWS], "source": "x"},
            "unknown key 'source': only 'physical_to_logical_map' is allowed",
        ),
        ("sglang", {"physical_to_logical_map": [*ROWS, [0, 1, 2, 3, 0, 4]]}, "[2][5]: 4, expected"),
        ("sglang", {"physical_to_logical_map": [*ROWS, [0, 1, 2, 3]]}, "[2]: 4 slots, expected 6"),
        ("sglang", {"physical_to_logical_map": [*ROWS, [0] * 6]}, "[2]: expert 1 has no slot"),
        ("sglang", {"physical_to_logical_map": [*ROWS, [0, 1, 2, 3, True, 0]]}, "got a boolean"),
        ("sglang", {"physical_to_logical_map": [*ROWS, [0, 1, 2, 3, 1.0, 0]]}, "got 1.0"),
        ("sglang", {"logical_count": ROWS}, "key 'physical_to_logical_map' is missing"),
        ("vllm-proposal-ranks", {"expert_to_ep_rank": [0, 2, 0, 2]}, "rank 1 holds no expert"),
        ("vllm-proposal-ranks", {"expert_to_ep_rank": [0, 1, 0]}, "3 ranks, expected 4"),
        (
            "ascend",
            {"moe_layer_count": 3, "layer_list": devices(ROWS, 3)},
            "moe_layer_count: 3 layers, expected 2",
        ),
        (
            "ascend",
            {"moe_layer_count": 2, "layer_list": devices(ROWS, 3)[::-1]},
            "layer_list[0].layer_id: 1, expected 0: lists in the order of their ids",
        ),
        ("eplb-json", {**DOUBLED, "logcnt": [[2, 2, 1, 1], [1, 1, 2, 1]]}, "logcnt[1][2]: 2, but"),
        (
            "eplb-json",
            {**DOUBLED, "log2phy": [DOUBLED["log2phy"][0]] * 2},
            "log2phy[1][0][0]: 0, expected a slot of expert 0",
        ),
    ],
)
def test_each_rule_is_one_line(
    name: str, document: Any, expected: str, file: Path, tiny: MoEModel
) -> None:
    """The line says where, what came and what was expected."""
    assert expected in refused(name, file, as_json(document), tiny)
    findings = MAP_FORMATS[name].check(file, model=tiny, ranks=2)
    assert any(expected in finding for finding in findings)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("  1: ", "  0: "), "key 0 is no MoE layer; expected the MoE layers of tiny by their"),
        (("  1: [", "  # ["), "layer 1 is missing; expected the MoE layers of tiny by their"),
        (("num_slots: 6", "num_slots: 5"), "[1]: 6 slots, expected 5 (num_slots)"),
        (("num_slots: 6", "num_slots: 6\nslots: 1"), "unknown key 'slots'"),
        (("num_slots: 6", "num_slots: 6\n7: 1"), "unknown key '7'"),
        (("num_slots: 6", "6: 6"), "key 'num_slots' is missing; keys there are: '6', 'layer_upda"),
        (("num_slots: 6", "num_slots: 6\nnum_slots: 6"), "line 3: key 'num_slots' stands twice"),
        (("num_slots: 6", "num_slots: 0x6"), "number '0x6', expected plain decimal"),
        (("num_slots: 6", "num_slots: 06"), "number '06', expected plain decimal"),
        (("num_slots: 6", "num_slots: 1:06"), "number '1:06', expected plain decimal"),
        (("num_slots: 6", 'num_slots: "6"'), "num_slots: expected a whole number, got a string"),
        (("num_slots: 6", "num_slots: !!python/name:os.system"), "tag 'tag:yaml.org,2002:python"),
        (("num_slots: 6", "num_slots: *a"), "alias *a of nothing before it"),
        (("num_slots: 6", "num_slots: " + "[" * 5000), "nested more than 8 deep"),
        (("num_slots: 6", "? [1]\n: 2"), "a key is a list or a map"),
        (("[0, 1, 2,", "[0, 1, 2.0,"), "[1][2]: expected a whole number, got a string"),
        (("[0, 1, 2,", "[0, 1, -1,"), "[1][2]: -1, expected 0..3"),
        (("# a map", "--- {}\n---\n#"), "2 documents, expected one"),
        (("# a map", "%"), "not valid YAML"),
    ],
)
def test_each_rule_of_yaml_is_one_line(
    change: tuple[str, str], expected: str, file: Path, tiny: MoEModel
) -> None:
    """Numbers that YAML reads as something else, keys twice, tags and depth are refused."""
    assert expected in refused("trtllm", file, YAML.replace(*change).encode(), tiny)


def test_a_thousand_million_laughs(file: Path, tiny: MoEModel) -> None:
    """Aliases of aliases take no memory, and are no list of slots."""
    lines = ["a0: &a0 [0, 1]"] + [f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}0]" for i in range(1, 7)]
    content = "\n".join(["num_slots: 6", *lines, "initial_global_assignments: *a6"])
    assert "unknown key 'a0'" in refused("trtllm", file, content.encode(), tiny)
    nested = "[*a, *a, *a, *a, *a, *a]"
    table = f"num_slots: 6\ninitial_global_assignments: {{1: &a [0, 1, 2, 3, 0, 1], 2: {nested}}}"
    message = refused("trtllm", file, table.encode(), tiny)
    assert "initial_global_assignments[2][0]: expected a whole number, got a list" in message


def test_findings_of_a_map_that_can_be_read(file: Path, tiny: MoEModel) -> None:
    """A doubled expert on a device corrupts Ascend; a dense row with gaps stops SGLang."""
    document = {"moe_layer_count": 2, "layer_list": devices(ROWS, 3)}
    # Layer 1: device 1 holds 0, 2, 2.
    assert on_gpus(read("ascend", file, as_json(document), tiny)) == split(ROWS)
    (finding,) = MAP_FORMATS["ascend"].check(file, model=tiny, ranks=2)
    assert finding == (
        "layer_list[1]: rank 1 holds expert 2 twice, expected once (1 such cases in all)"
    )
    zeros = {"physical_to_logical_map": [[0] * 6, *ROWS]}
    assert on_gpus(read("sglang", file, as_json(zeros), tiny)) == split(ROWS)
    (finding,) = MAP_FORMATS["sglang"].check(file, model=tiny, ranks=2)
    assert "physical_to_logical_map[0]: expert 1 has no slot; expected every expert" in finding


def test_ranks_must_divide_and_agree(file: Path, tiny: MoEModel) -> None:
    """Six slots on four ranks name what would do; a file of two ranks is not one of four."""
    content = as_json(GOLDEN["sglang"][0])
    message = refused("sglang", file, content, tiny, ranks=4)
    assert "6 slots do not divide by 4 ranks; 4 or 8 would" in message
    (finding,) = MAP_FORMATS["sglang"].check(file, model=tiny, ranks=4)
    assert "6 slots do not divide by 4 ranks" in finding
    ranks = as_json(GOLDEN["vllm-proposal-ranks"][0])
    assert "is a map of 2 ranks, expected 4" in refused("vllm-proposal-ranks", file, ranks, tiny, 4)
    assert "0 ranks, expected 1.." in refused("sglang", file, content, tiny, ranks=0)


def test_what_an_engine_would_not_load_is_not_written(tiny: MoEModel) -> None:
    """Uneven slots, another model, and layers that differ where one map serves all."""
    layer, expert = np.repeat([0, 1], 4), np.tile(range(4), 2)
    uneven = Placement("tiny", 2, 4, 2, 1, layer, np.tile([0, 0, 0, 1], 2), expert, policy="x")
    for name in ("sglang", "trtllm", "vllm-p2l", "ascend"):
        with pytest.raises(PlacementError, match="would not load the placement: layer 0: GPU 1"):
            MAP_FORMATS[name].write(uneven, model=tiny)
    with pytest.raises(PlacementError, match="layer 0: GPU 1 holds 1 slots and GPU 0 of layer 0 3"):
        MAP_FORMATS["eplb"].write(uneven, model=tiny)
    assert MAP_FORMATS["omni"].write(uneven, model=tiny)
    gpu = np.array([0, 0, 1, 1, 1, 1, 0, 0])
    differs = Placement("tiny", 2, 4, 2, 1, layer, gpu, expert, policy="x")
    with pytest.raises(PlacementError, match="layer 1 is placed otherwise than layer 0"):
        MAP_FORMATS["vllm-proposal-ranks"].write(differs, model=tiny)
    for form in MAP_FORMATS.values():
        with pytest.raises(
            PlacementError, match=r"the placement is of tiny .* expected DeepSeek-R1"
        ):
            form.write(differs, model=model("DeepSeek-R1"))


def test_headers_are_judged_before_memory_is_taken(file: Path, tiny: MoEModel) -> None:
    """An array that claims a terabyte, objects, or more than the file holds is refused."""
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (2, 99999999999), }"
    head = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    assert "bytes, expected at most" in refused("vllm-p2l", file, head, tiny)
    wide = io.BytesIO()
    np.savez_compressed(wide, phy2log=np.zeros((2, (128 << 20) // 8 + 1), dtype=np.int64))
    assert len(wide.getvalue()) < 1 << 20
    message = refused("eplb", file, wide.getvalue(), tiny)
    assert "key 'phy2log': 268435472 bytes, expected at most 268435456" in message
    message = refused("trtllm", file, b"num_slots: 1\n" + b"#" * (4 << 20), tiny)
    assert "4194317 bytes, expected at most 4194304" in message
    objects = npy(np.array([[1, 2], [3, None]], dtype=object))
    assert "expected integers, got object" in refused("vllm-p2l", file, objects, tiny)
    assert "header promises" in refused("vllm-p2l", file, npy(ROWS)[:-1], tiny)
    held = np.full((2, 2, 4), 2, dtype=np.int32)
    assert "rank 0, layer 0, expert 0: 2, expected 0 or 1" in refused("omni", file, npy(held), tiny)


def test_unknown_formats_list_the_allowed() -> None:
    """The error names the formats there are."""
    with pytest.raises(PlacementError, match="unknown format 'x' of maps; allowed: topomoe, sgl"):
        map_format("x")


@pytest.mark.real_data
def test_published_omni_maps_are_read(real_data: Path, tmp_path: Path) -> None:
    """Real DeepSeek-V3 maps: uneven ranks and replicas are read as they are and written back."""
    v3, form = model("DeepSeek-V3"), MAP_FORMATS["omni"]
    files = sorted((real_data / "omni-infer-dsv3-placements").glob("*.npz"))
    assert files
    for source in files:
        with np.load(source) as arrays:
            bits = np.unpackbits(arrays["packed"], axis=-1)
            held = bits[..., : arrays["shape"][-1]].astype(np.int32)
        path = tmp_path / "map.npy"
        np.save(path, held)
        placement = form.read(path, model=v3)
        assert placement.gpus == len(held)
        assert len(placement.slot_expert) == held.sum()
        assert form.check(path, model=v3) == []
        path.write_bytes(form.write(placement, model=v3))
        assert np.array_equal(np.load(path), held)
