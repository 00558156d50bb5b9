"""Bad input of a simulation, through the command line: one line, status 2, nothing written."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import cli

if TYPE_CHECKING:
    from pathlib import Path

TREE = """builder = "fat-tree"
[parameters]
leaves_per_pod = 2
servers_per_leaf = 2
gpus_per_server = 2
aggregations_per_pod = 2
"""
"""8 GPUs, 40 links: card up and down 0 to 15, NVLink 16 to 31, cables 32 to 39."""
DRAGON = """builder = "dragonfly"
[parameters]
a = 2
p = 1
h = 1
groups = 3
gpus_per_server = 2
"""
RAILS = """builder = "rail"
[parameters]
groups = {groups}
servers_per_group = 2
spines = {spines}
gpus_per_server = 2
"""

RUN: dict[str, Any] = {
    "model": "DeepSeekMoE-16B",
    "cluster": "tree.toml",
    "tokens": 64,
    "workload": {"profile_tokens": 256},
    "placement": {"policy": "round-robin"},
    "network": {"kind": "analytic", "routing": "hash"},
}
KINDS = ("analytic", "fluid", "packet")


class Words(str):
    """A value as TOML writes it."""

    __slots__ = ()


def toml(value: Any) -> str:
    """Write a value, or a table, as TOML."""
    if isinstance(value, Words | bool):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(each):08x}" for each in value) + '"'
    return repr(value)


def with_values(**changes: Any) -> dict[str, Any]:
    """Return the run with other values; ``table__key`` names one in a table."""
    run = deepcopy(RUN)
    for name, value in changes.items():
        *table, key = name.split("__")
        (run.setdefault(table[0], {}) if table else run)[key] = value
    return run


def simulate(folder: Path, run: dict[str, Any], cluster: str = TREE) -> int:
    """Run `topomoe simulate` on files in `folder`; every output asked for."""
    (folder / "tree.toml").write_text(cluster)
    (folder / "run.toml").write_text(
        "".join(f"{key} = {toml(value)}\n" for key, value in run.items())
    )
    outputs = ("--json", "figures.json", "--out", "tables", "--perfetto", "trace.json.gz")
    words = [word if word[:2] == "--" else str(folder / word) for word in outputs]
    return cli.status(["simulate", str(folder / "run.toml"), *words])


def refused(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    run: dict[str, Any],
    message: str,
    cluster: str = TREE,
) -> None:
    """Expect status 2, one line that names the file and says `message`, and no new file."""
    inputs = {"run.toml", "tree.toml", *(each.name for each in folder.glob("*.npz"))}
    status = simulate(folder, run, cluster)
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"topomoe: {folder}/"), err
    assert message in err
    assert {each.name for each in folder.iterdir()} == inputs


@pytest.fixture
def refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Expect a refusal; see `refused`."""
    return lambda run, message, cluster=TREE: refused(tmp_path, capsys, run, message, cluster)


@pytest.mark.parametrize("key", ["host_bandwidth_Bps", "nvlink_bandwidth_Bps"])
@pytest.mark.parametrize("value", ["0", "0.0", "-1.0", "nan", "inf", "-inf", "true", '"fast"'])
def test_no_bandwidth(refuses: Any, key: str, value: str) -> None:
    """A link without a bandwidth, or with none that is a number."""
    refuses(RUN, f"tree.toml: fat-tree: {key} is ", TREE + f"{key} = {value}\n")
    refuses(RUN, "expected a number from 1 to 1e+18", TREE + f"{key} = {value}\n")


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (TREE + "host_latency_s = -1.0\n", "host_latency_s is -1.0; expected a number from 0 to 1"),
        (TREE + "bandwidth = 5\n", "unknown parameter 'bandwidth'; allowed: gpus_per_server"),
        ("size = 5\n" + TREE, "unknown key 'size'; allowed: builder, name, parameters"),
        (RAILS.format(groups=2, spines=0), "spines is 0; expected"),
        (RAILS.format(groups=1, spines=0), "rail_rule is 'direct', and no cable joins the rails"),
        ('builder = "ring"\n[parameters]\n', "unknown builder 'ring'; allowed: dragonfly"),
        (TREE[:30], "tree.toml"),
        ("", "tree.toml: missing key 'builder'"),
    ],
)
def test_no_cluster(refuses: Any, cluster: str, message: str) -> None:
    """Unknown keys, negative latencies, and fabrics that leave GPUs apart."""
    refuses(RUN, message, cluster)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at_s", [0.0, 1e-6])
@pytest.mark.parametrize("link", ["gpu0->switch0", "gpu0->nvlink0", 8])
def test_an_unreachable_pair(refuses: Any, kind: str, at_s: float, link: str | int) -> None:
    """Dead links that cut a GPU off, at once and during the step, on every network."""
    fault = {"at_s": at_s, "link": link, "dead": True}
    run = with_values(network__kind=kind, faults=[fault])
    refuses(run, "run.toml: partition: no path of living links for the message from GPU")


@pytest.mark.parametrize(
    ("link", "message"),
    [
        (99999, "link 99999 does not exist; expected 0 to 39"),
        (-1, "link -1 does not exist; expected 0 to 39"),
        ("gpu0->gpu1", "link 'gpu0->gpu1' does not exist; from gpu0 links lead to nvlink0"),
        ("gpu0", "link 'gpu0'; expected a number, 'src->dst' or [src, dst]"),
        ("", "link ''; expected a number"),
        ([0, 99], "link (0, 99): no node '99'; expected a node number below 16"),
        ([0, 1, 2], 'expected a number, "src->dst" or [src, dst], got [0, 1, 2]'),
        (1.5, 'expected a number, "src->dst" or [src, dst], got 1.5'),
        (True, 'expected a number, "src->dst" or [src, dst], got True'),
    ],
)
def test_an_unknown_link(refuses: Any, link: Any, message: str) -> None:
    """A fault of a link that there is not."""
    run = with_values(faults=[{"at_s": 0.0, "link": link, "dead": True}])
    refuses(run, f"run.toml: faults.0.link: {message}")


@pytest.mark.parametrize(
    ("at_s", "message"),
    [
        ("-1.0", "greater than or equal to 0, got -1.0"),
        ("-1e-12", "greater than or equal to 0, got -1e-12"),
        ("nan", "a finite number, got nan"),
        ("inf", "a finite number, got inf"),
        ('"now"', "a valid number, got 'now'"),
    ],
)
def test_a_time_that_is_none(refuses: Any, at_s: str, message: str) -> None:
    """A fault before the step, or at no time."""
    run = with_values(faults=[{"at_s": Words(at_s), "link": 0, "dead": True}])
    refuses(run, f"run.toml: faults.0.at_s: Input should be {message}")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (with_values(tokens=0), "tokens: Input should be greater than or equal to 1, got 0"),
        (with_values(tokens=-5), "tokens: Input should be greater than or equal to 1, got -5"),
        (with_values(network__chunk_bytes=0), "network.chunk_bytes: Input should be greater"),
        (with_values(network__chunk_bytes=-4096), "or equal to 1, got -4096"),
        (with_values(network__chunk_bytes=0.5), "should be a valid integer, got 0.5"),
        (
            with_values(network={"kind": "packet", "routing": "shares"}),
            "cannot split it as 'shares' does; set routing = \"hash\"",
        ),
        (with_values(network__routing="ugal"), "network.routing: rule 'ugal' needs a dragonfly"),
        (with_values(network__routing="valiant"), "rule 'valiant' needs a dragonfly"),
        (with_values(network__routing="spray"), "Input should be 'shares', 'hash', 'dmodk'"),
        (with_values(network__steps=5), '\'steps\' goes with kind "fluid", not "analytic"'),
        (
            with_values(network={"kind": "fluid", "steps": 0}),
            'network.steps: expected "exact" or a whole number from 1 to 1000000, got 0',
        ),
        (with_values(network={"kind": "fluid", "steps": "most"}), "1000000, got 'most'"),
        (with_values(tokenz=3), "unknown key 'tokenz'; allowed: model, cluster, tokens"),
        (with_values(network__speed=3), "network: unknown key 'speed'; allowed: kind, routing"),
        (with_values(netwrk={"kind": "fluid"}), "unknown key 'netwrk'; allowed: model"),
        (
            with_values(faults=[{"at_s": 0.0, "gpu": 99, "dead": True}]),
            "99 does not exist; expected 0 to 7",
        ),
        (
            with_values(faults=[{"at_s": 0.0, "gpu": 1, "dead": True}]),
            "have no living replica; expected a placement with a replica of each",
        ),
        (
            with_values(faults=[{"at_s": 0.0, "link": 0, "slow": 1e-300}]),
            "faults.0.slow: Input should be greater than or equal to 0.000000001, got 1e-300",
        ),
        (with_values(dispatch__shared_gpus=[0]), "'shared_gpus' goes with shared = \"routed\""),
        (
            with_values(dispatch={"shared": "routed", "shared_gpus": [0, 8]}),
            "shared_gpus [0, 8]: expected distinct GPUs of 0..7",
        ),
        (with_values(dispatch={"shared": "routed", "shared_gpus": []}), "at least one"),
        (
            with_values(dispatch={"shared": "routed", "shared_gpus": [10**19]}),
            "dispatch.shared_gpus.0: Input should be less than or equal to 4194303",
        ),
        (with_values(step__overlap="turns"), "'overlap' goes with 'micro_batches' of 2 or more"),
        (with_values(step__micro_batches=9), "9 micro-batches of at most 8 tokens a GPU"),
    ],
)
def test_no_run(refuses: Any, run: dict[str, Any], message: str) -> None:
    """Tokens, chunks, routing, keys and dead GPUs that no run can have."""
    refuses(run, f"{message}")


def test_dmodk_off_fat_trees(refuses: Any) -> None:
    """The destination picks no path where switches of one level are joined."""
    run = with_values(network__routing="dmodk")
    refuses(run, "run.toml: network.routing: rule 'dmodk' needs a fat-tree", DRAGON)


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        ("tokens", {"topk_ids": np.zeros((0, 27, 6), np.uint8)}, "at least one token"),
        ("sequences", {"topk_ids": np.zeros((2, 27, 6), np.uint8)}, "sequences.npz: "),
        ("keys", {}, "key 'topk_ids' is missing; keys there are: none"),
        ("bytes", None, "bytes.npz: not a readable npz file"),
    ],
)
def test_an_empty_trace(
    refuses: Any, tmp_path: Path, name: str, arrays: dict[str, Any] | None, message: str
) -> None:
    """No tokens, no sequences, no arrays, or no bytes in the file."""
    file = tmp_path / f"{name}.npz"
    file.write_bytes(b"")
    if arrays is not None:
        more = {"seq_lens": np.zeros(0, np.int32)} if arrays else {}
        np.savez(file, **arrays, **more)
    run = with_values(workload={"trace": file.name})
    del run["tokens"]
    refuses(run, message)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clock_that_overflows(refuses: Any, kind: str) -> None:
    """The slowest links there may be, and more bytes than their clock can count the time of."""
    # 200,000 x 27 x 6 messages of 2 to 4 KB over 8 cards of 1 B/s: some 1e19 ns.
    run = with_values(network__kind=kind, tokens=200_000)
    refuses(run, f"run.toml: {kind} clock overflow", TREE + "host_bandwidth_Bps = 1.0\n")


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_step_obeys_the_laws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Hours into a step a clock of floats rounds to hundredths of a ns, and says no untruth."""
    assert simulate(tmp_path, with_values(network__kind=kind, expert_flops=1e6)) == 0
    assert capsys.readouterr().err == ""


VALUES = st.one_of(
    st.sampled_from([0, -1, 1, 2, 7, 2**31, 2**63 - 1, -(2**63), 10**19]),
    st.sampled_from([0.0, -1.0, 1e-300, 1e300, 0.5]),
    st.sampled_from([Words("nan"), Words("inf"), Words("-inf")]),
    st.sampled_from(["", "gpu0->switch0", "fluid", "hash", "exact", "\0", "tree.toml", "x" * 300]),
    st.sampled_from([[], [0], [0, 8], {}, {"at_s": 0.0}, True, False]),
)
FULL: dict[str, Any] = with_values(
    tokens=16,
    network={"kind": "fluid", "routing": "hash", "steps": 10, "seed": 0},
    dispatch={"mode": "per_gpu", "shared": "routed", "shared_gpus": [0, 3], "seed": 0},
    step={"micro_batches": 2, "overlap": "turns"},
    attention={"kind": "data-parallel", "tp": 1},
    faults=[
        {"at_s": 1e-6, "link": 32, "slow": 0.5},
        {"at_s": 2e-6, "link": "switch0->switch2", "dead": True},
    ],
)


def places(run: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to everything in a run but the files it names."""
    inner = run.items() if isinstance(run, dict) else enumerate(run)
    found = [(*path, key) for key, _ in inner if key != "cluster"]
    for at in list(found):
        value = run[at[-1]]
        if isinstance(value, dict | list):
            found += places(value, at)
    return found


def test_the_run_to_be_changed_is_good(tmp_path: Path) -> None:
    """It has every key that is changed, and runs."""
    assert simulate(tmp_path, FULL) == 0


@given(st.lists(st.tuples(st.sampled_from(places(FULL)), VALUES), min_size=1, max_size=2))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_small_changes_never_end_in_a_traceback(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: list[tuple[tuple[Any, ...], Any]],
) -> None:
    """A run with one or two values changed runs, or is refused in one line."""
    run = deepcopy(FULL)
    for path, value in changes:
        table = run
        try:
            for key in path[:-1]:
                table = table[key]
            table[path[-1]] = value
        except (TypeError, KeyError, IndexError):  # the table went with the first change
            continue
    status = simulate(tmp_path, run)
    err = capsys.readouterr().err
    assert status in (0, 2), err
    assert err.count("\n") == (status != 0)


PARAMETERS = (
    *("leaves_per_pod", "servers_per_leaf", "gpus_per_server", "aggregations_per_pod", "pods"),
    *("cores_per_aggregation", "oversubscription", "reach", "host_bandwidth_Bps"),
    *("host_latency_s", "nvlink_bandwidth_Bps", "nvlink_latency_s", "cable_latency_s"),
)


@given(st.dictionaries(st.sampled_from(PARAMETERS), VALUES, min_size=1, max_size=2))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_small_changes_of_a_cluster_never_end_in_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    """A run on a cluster with one or two parameters changed runs, or is refused in one line."""
    lines = dict(line.split(" = ") for line in TREE.splitlines()[2:])
    lines |= {key: toml(value) for key, value in changes.items()}
    cluster = 'builder = "fat-tree"\n[parameters]\n'
    cluster += "".join(f"{key} = {value}\n" for key, value in lines.items())
    run = with_values(tokens=16, network={"kind": "packet", "routing": "hash"})
    status = simulate(tmp_path, run, cluster)
    err = capsys.readouterr().err
    assert status in (0, 2), err
    assert err.count("\n") == (status != 0)


def test_requests_make_no_more_tokens_than_a_run_may_have(refuses: Any) -> None:
    """The product of GPUs, requests and their tokens is bounded as `tokens` is."""
    run = with_values(step={"gpu": "H800", "requests_per_gpu": 12_500_001})
    del run["tokens"]
    # 8 GPUs x 12,500,001 requests x 1 token each.
    refuses(run, "are 100000008 tokens; expected at most 100000000")
    step = {"gpu": "H800", "phase": "prefill", "requests_per_gpu": 1, "prompt_tokens": 10**8}
    refuses(run | {"step": step}, "100000000 tokens each, are 800000000 tokens")


@pytest.mark.parametrize("at_s", [0.0, 1000.0])
def test_faults_after_the_step_are_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], at_s: float
) -> None:
    """A table of zeros alone would not tell that nothing has happened."""
    run = with_values(faults=[{"at_s": at_s, "link": 0, "slow": 0.5}])
    assert simulate(tmp_path, run) == 0
    said = "1 of 1 faults: after the step, which ends at" in capsys.readouterr().out
    assert said == (at_s > 0)


def test_a_cluster_beside_its_run_file_is_found(tmp_path: Path) -> None:
    """An edge list is looked up from the run file's folder, as a TOML file is."""
    (tmp_path / "mine.csv").write_text(
        "a,b,class,count,part\nserver-1,leaf,host,4,ndr\nserver-2,leaf,host,4,ndr\n"
    )
    assert simulate(tmp_path, with_values(cluster="mine.csv")) == 0
