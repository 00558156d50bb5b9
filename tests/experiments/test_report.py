"""The report without a browser: what it says, what it draws, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import report_store

from experiments.cli import status
from experiments.clusters import find_cluster
from experiments.report import measure_named, read_runs
from experiments.report.details import read_details
from experiments.report.differences import differences, reference_of
from experiments.report.network import Drawing, _rebuilt
from experiments.report.runs import SEEDS
from experiments.sweeping import Store, create_store
from topologies import LinkClass

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
STEP = measure_named("step_s")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four real runs."""
    return report_store.make(tmp_path_factory.mktemp("real") / "store")


def forged(folder: Path, **steps: Sequence[float]) -> Store:
    """Make a store of policies with these step times, ms, one a seed."""
    store = create_store(folder)
    for policy, values in steps.items():
        for seed, value in enumerate(values):
            report_store.forge(store, policy=policy, seed=seed, step_s=value / 1e3)
    return store


def said(out: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """Call the command line and return what it printed."""
    assert status([str(word) for word in words]) == code
    printed = out.readouterr()
    return printed.err if code else printed.out


def test_a_difference_by_hand(tmp_path: Path) -> None:
    """Eight pairs with one tenth less each: -10 %, and p = 2 / 2^8."""
    store = forged(tmp_path, ours=[9] * 8, reference=[10] * 8)
    (found,) = differences(read_runs([store]), STEP, "reference")
    # Step by step 1 ms less: 0.0078 = 2 / 256; a spread of nothing gives a point as interval.
    assert found.change() == "-10.0 % [-10.0, -10.0]"
    assert found.verdict() == "better, significant (p = 0.0078, 8 pairs)"
    assert found.p_value == 2 / 2**8


def test_few_pairs_prove_nothing(tmp_path: Path) -> None:
    """Five pairs cannot come to 5 %, and the report says how many could."""
    store = forged(tmp_path, ours=[1] * 5, reference=[10] * 5)
    (found,) = differences(read_runs([store]), STEP, "reference")
    # 2 / 2^5 = 0.0625; 2 / 2^6 = 0.03125.
    assert found.verdict() == "not significant: 5 pairs, where at least 6 are needed"
    # Two policies are two chances of a false alarm: 2 * 2 / 2^7 = 0.03125 is below 0.05.
    store = forged(tmp_path, other=[1] * 5)
    found, _ = differences(read_runs([store]), STEP, "reference")
    assert found.verdict() == (
        "not significant: 5 pairs, where at least 7 are needed among 2 tests"
    )


def test_noise_is_not_a_finding(tmp_path: Path) -> None:
    """Up in half of the seeds and down in the others: not significant, with the p-value."""
    swing = [10 + (-1) ** seed for seed in range(8)]
    store = forged(tmp_path / "even", ours=swing, reference=[10] * 8)
    (found,) = differences(read_runs([store]), STEP, "reference")
    assert found.verdict() == "no difference (8 pairs)"
    # Rounding that always goes the same way is none, either.
    store = forged(tmp_path / "rounded", ours=[10 + 1e-12] * 8, reference=[10] * 8)
    (found,) = differences(read_runs([store]), STEP, "reference")
    assert found.verdict() == "no difference (8 pairs)"
    store = forged(tmp_path / "tilted", ours=[*swing[:-1], 10], reference=[10] * 8)
    (found,) = differences(read_runs([store]), STEP, "reference")
    # Sum 1 of seven differences of size 1: as far out with every assignment of signs.
    assert found.verdict() == "not significant (p = 1, 8 pairs)"


def test_more_may_be_better(tmp_path: Path) -> None:
    """A higher rate of tokens is the good direction; its verdict is not that of a time."""
    store = forged(tmp_path, ours=[11] * 6, reference=[10] * 6)
    runs = read_runs([store])
    (slower,) = differences(runs, STEP, "reference")
    assert slower.verdict().startswith("worse, significant")
    for run in runs:
        run.metrics["tokens_per_s_gpu"] = run.metrics["step_s"]
    (more,) = differences(runs, measure_named("tokens_per_s_gpu"), "reference")
    assert more.verdict().startswith("better, significant")


def test_only_the_same_seeds_are_paired(tmp_path: Path) -> None:
    """A seed that one policy lacks does not count."""
    store = forged(tmp_path, ours=[9, 9, 9], reference=[10])
    (found,) = differences(read_runs([store]), STEP, "reference")
    assert found.found.pairs == 1
    assert found.change() == "-10.0 %"


def test_names(real: Store) -> None:
    """Runs are called by what varies: policy and seed here, nothing that they share."""
    runs = read_runs([real])
    assert [(run.policy, run.cell, run.seed) for run in runs] == [
        ("contiguous", "", "0"),
        ("contiguous", "", "1"),
        ("round-robin", "", "0"),
        ("round-robin", "", "1"),
    ]
    assert "workload.seed" in SEEDS
    assert reference_of([run.policy for run in runs], None) == "round-robin"


def test_options_and_cases_are_named(tmp_path: Path) -> None:
    """An option of a placement belongs to its name, any other key to the case."""
    (tmp_path / "sweep.toml").write_text(
        'tables = []\n[base]\nmodel = "DeepSeek-V2-Lite"\ntokens = 8\n'
        "workload.profile_tokens = 64\n[grid]\n"
        'cluster = ["fat-tree", "dragonfly"]\nattention.tp = [1, 8]\n'
        'placement.policy = ["ilp-load"]\nplacement.layer_slots = [16, 32]\n'
    )
    out = tmp_path / "runs"
    words = ["sweep", tmp_path / "sweep.toml", "--out", out, "--workers", "1"]
    assert status([str(word) for word in words]) == 0
    runs = read_runs([Store(out)])
    assert {run.policy for run in runs} == {"ilp-load, layer_slots 16", "ilp-load, layer_slots 32"}
    assert {run.cell for run in runs} == {
        f"{cluster}, tp {tp}" for cluster in ("fat-tree", "dragonfly") for tp in (1, 8)
    }


def test_is_b_worth_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Yes, no and not shown, each with its reason."""
    store = forged(tmp_path, a=[10] * 6, b=[9] * 6, few=[8] * 2)
    page = tmp_path / "answer.html"
    words = ("report", store.folder, "--out", page, "--compare")
    yes = said(capsys, *words, "a", "b")
    # 2 / 2^6 = 0.03125, one test.
    assert "Yes: step of b against a -10.0 % [-10.0, -10.0]; better, significant (p = 0.031" in yes
    assert "placement.policy: a in A, b in B" in yes
    assert "No: step of a against b +11.1 %" in said(capsys, *words, "b", "a")
    few = said(capsys, *words, "a", "few")
    assert "Not shown: step of few against a -20.0 %" in few
    assert "2 pairs, where at least 6 are needed" in few
    assert "4 runs have no counterpart" in few
    assert "Is few worth it against a?" in page.read_text()


def test_two_runs_and_two_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids of runs are sides of one pair; stores are paired seed by seed and policy by policy."""
    one = forged(tmp_path / "one", a=[10] * 6, c=[20] * 6)
    page = tmp_path / "answer.html"
    first, second = one.ids()[:2]
    text = said(capsys, "report", one.folder, "--compare", first[:10], second, "--out", page)
    assert "Not shown" in text
    # The same policies on the same tokens, in another cluster: what tells the stores apart.
    two = create_store(tmp_path / "two")
    for run_id in one.ids():
        record = one.read(run_id)
        _copy(two, record, cluster="dragonfly")
    text = said(capsys, "report", "--compare", one.folder, two.folder, "--out", page)
    assert "cluster: fat-tree in A, dragonfly in B" in text
    assert "A is one, B is two" in text
    assert str(tmp_path) not in page.read_text()
    assert "of 2 cases" in text
    assert "in 2 no difference is significant" in text


def _copy(store: Store, record: Any, **changes: Any) -> None:
    from experiments.sweeping.identity import Identity, content_id  # noqa: PLC0415
    from experiments.sweeping.record import encode  # noqa: PLC0415

    spec = record.spec | changes
    identity = Identity(spec, record.inputs)
    assert identity.run_id == content_id(spec, record.inputs)
    store.write(identity.run_id, encode(identity, record.metrics), {}, {})


def test_other_work_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sides that route other tokens are compared, and the page says what that is worth."""
    store = forged(tmp_path, a=[10, 20])
    one, two = read_runs([store])
    text = said(
        capsys,
        *("report", store.folder, "--compare", one.run_id, two.run_id),
        *("--out", tmp_path / "a.html"),
    )
    assert "do not carry the same work: workload.seed" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "is no store of runs"),
        ([], "no results: expected the folder of a sweep, or --compare A B"),
        (["STORE", "--metric", "speed"], "unknown metric 'speed'; allowed: step_s, "),
        (["STORE", "--reference", "eplb"], "no run has this policy; allowed: contiguous, round"),
        (["STORE", "--out", "page.pdf"], "expected a name that ends in .html"),
        (["STORE", "--out", "."], "expected a name that ends in .html"),
        (["STORE", "--compare", "round-robin", "magic"], "has no such run, policy or placement"),
        (["STORE", "--compare", "contiguous", "round-robin", "--reference", "x"], "goes without"),
        (["--compare", "STORE", "nowhere"], "is no store of runs"),
        (["STORE", "--compare", "contiguous", "contiguous"], "the same runs on both sides"),
        (["--compare", "STORE", "STORE"], "the same runs on both sides"),
    ],
)
def test_bad_input(
    real: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    """One line that says what was expected, status 2, and nothing written."""
    monkeypatch.chdir(tmp_path)
    given = [str(real.folder) if word == "STORE" else word for word in words]
    error = said(capsys, "report", *given, code=2)
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_empty_store_and_a_side_of_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No run, or several for one of the other side, are refused in one line."""
    empty = create_store(tmp_path / "empty")
    assert "has no run that is done" in said(capsys, "report", empty.folder, code=2)
    many = forged(tmp_path / "many", a=[1, 2], b=[3, 4])
    few = forged(tmp_path / "few", c=[1, 2])
    error = said(capsys, "report", "--compare", many.folder, few.folder, code=2)
    assert "has several runs that differ by placement.policy" in error


def test_a_damaged_run_is_named(
    real: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run file that is not whole stops the report, by its name, and nothing is written."""
    folder, out = tmp_path / "copy", tmp_path / "page.html"
    shutil.copytree(real.folder, folder)
    path = next((folder / "runs").iterdir())
    path.write_text(path.read_text().replace("step_s", "step_z"))
    assert path.name in said(capsys, "report", folder, "--out", out, code=2)
    assert not out.exists()


def test_the_same_bytes(real: Store, tmp_path: Path) -> None:
    """A process with another hash seed writes the same page."""
    here, there = tmp_path / "here.html", tmp_path / "there.html"
    assert status(["report", str(real.folder), "--out", str(here)]) == 0
    code = "from experiments.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, "report", real.folder, "--out", there],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    assert here.read_bytes() == there.read_bytes()


def test_the_page_asks_for_nothing(real: Store, tmp_path: Path) -> None:
    """No address in it but the name of SVG; the browser may run this script alone."""
    out = tmp_path / "page.html"
    assert status(["report", str(real.folder), "--out", str(out)]) == 0
    html = out.read_text()
    assert set(re.findall(r"https?://[^\"' ]+", html)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(src|href)=\"(?!#)", html)
    script = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    assert len(json.loads(data[1])["runs"]) == 4


def test_failed_and_forgotten_runs(tmp_path: Path) -> None:
    """Runs that failed are listed with their reason; one whose provenance is lost is shown."""
    store = forged(tmp_path / "runs", a=[1, 2], b=[2, 3])
    store.write_failure("f" * 64, {"kind": "memory", "message": "took 9 GB <b>"})
    (store.folder / "provenance" / f"{store.ids()[0]}.json").unlink()
    out = tmp_path / "page.html"
    assert status(["report", str(store.folder), "--out", str(out)]) == 0
    html = out.read_text()
    assert "1 runs failed" not in html
    assert "1 run failed" in html
    assert "memory: took 9 GB &lt;b&gt;" in html
    assert html.count("0.50 s") == 3

    # A reason that cannot be read does not hide what is done.
    (store.folder / "failed" / f"{'e' * 64}.json").write_text("{")
    assert status(["report", str(store.folder), "--out", str(out)]) == 0
    html = out.read_text()
    assert "2 runs failed" in html
    assert "its reason is damaged" in html


def test_a_page_too_large_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page above the limit is not written, and the line says how large it would be."""
    store = forged(tmp_path / "runs", a=[1], b=[2])
    monkeypatch.setattr("experiments.report.page.MAX_BYTES", 20_000)
    out = tmp_path / "page.html"
    error = said(capsys, "report", store.folder, "--out", out, code=2)
    assert "the report of 2 runs takes 0.0 MB; expected at most 0.02" in error
    assert not out.exists()


def test_a_figure_that_no_run_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A metric is refused that would leave the page empty, alone and in a comparison."""
    store = forged(tmp_path / "runs", a=[1], b=[2])
    words = ("report", store.folder, "--metric", "balance_gpu")
    assert "no run of" in said(capsys, *words, code=2)
    error = said(capsys, *words, "--compare", "a", "b", code=2)
    assert "do not have it on both sides" in error


def test_little_room_leaves_runs_out(real: Store) -> None:
    """Of every policy the first run is drawn first; what does not fit is counted."""
    runs = read_runs([real])
    details = read_details(runs, room=1)
    assert list(details.of_run) == [runs[0].run_id]
    assert details.left_out == 3
    assert list(read_details(runs, room=10**7).of_run) == [runs[at].run_id for at in (0, 2, 1, 3)]


@pytest.mark.parametrize("name", ["fat-tree", "dragonfly-sparse", "ep32"])
def test_a_line_shows_its_busiest_link(name: str) -> None:
    """Against a search over all links for every line of the drawing."""
    cluster = find_cluster(name).spec.build()
    drawing = Drawing(cluster)
    busy = np.random.default_rng(0).random(cluster.links)
    links = pd.DataFrame({"busy_s": busy, "dispatch_bytes": 1e6, "combine_bytes": busy * 1e6})
    found = drawing.loads(links)
    first = cluster.first_switch
    for at, (kind, one, two, *_) in enumerate(drawing.content["lines"]):
        if kind == LinkClass.HOST:
            gpus = range(one * cluster.gpus_per_server, (one + 1) * cluster.gpus_per_server)
            ends = {(gpu, two + first) for gpu in gpus}
        else:
            ends = {(one + first, two + first)}
        own = [
            value
            for value, a, b in zip(busy, cluster.link_src, cluster.link_dst, strict=True)
            if (a, b) in ends or (b, a) in ends
        ]
        assert found["busy_ms"][at] == pytest.approx(1e3 * max(own), rel=1e-3)
        assert found["megabytes"][at] == pytest.approx(1 + max(own), rel=1e-3)


@pytest.mark.parametrize("name", ["fat-tree", "dragonfly-sparse"])
def test_a_cluster_is_told_from_its_links(name: str) -> None:
    """A cluster file that is gone is drawn from the table of links: the same lines."""
    built = find_cluster(name).spec.build()
    links = pd.DataFrame(
        {
            "src": built.link_src,
            "dst": built.link_dst,
            "class": [LinkClass(kind).name.lower() for kind in built.link_class],
            "bandwidth_Bps": built.bandwidth_Bps,
        }
    )
    rebuilt = _rebuilt("mine.toml", links, built.gpus)
    assert rebuilt.gpus_per_server == built.gpus_per_server
    assert np.array_equal(rebuilt.leaf_of_gpu, built.leaf_of_gpu)
    lines = [
        sorted(map(tuple, Drawing(each).content["lines"]), key=str) for each in (built, rebuilt)
    ]
    assert lines[0] == lines[1]
