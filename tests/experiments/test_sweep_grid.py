"""Sweep files: axes to runs, and what is refused before the first one starts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.errors import ExperimentError
from experiments.programs import TABLES
from experiments.sweeping import grid, identify, plan, read_sweep
from experiments.sweeping.grid import Axis, Sweep
from experiments.sweeping.keys import flat, parse_settings, with_settings

if TYPE_CHECKING:
    from pathlib import Path

BASE = '[base]\nmodel = "DeepSeek-V2-Lite"\ncluster = "fat-tree"\ntokens = 16\n'


@pytest.fixture
def sweep_file(tmp_path: Path) -> Any:
    """Write a sweep file and return its path."""

    def write(text: str, base: str = BASE) -> Path:
        path = tmp_path / "sweep.toml"
        path.write_text(base + text)
        return path

    return write


def test_grid_zip_and_list_multiply(sweep_file: Any) -> None:
    """2 policies x 3 rows in step x 2 settings are 12 runs, the last axis changing first."""
    path = sweep_file(
        '[grid]\nplacement.policy = ["round-robin", "contiguous"]\n'
        '[[zip]]\ntokens = [16, 32, 64]\n"network.seed" = [7, 8, 9]\n'
        '[[list]]\nattention.kind = "pipelined"\n[[list]]\nattention = { tp = 2 }\n'
    )
    found = plan(read_sweep(path))
    rows = [
        (
            run.spec.placement.policy,
            run.spec.tokens,
            run.spec.network.seed,
            run.spec.attention.kind,
            run.spec.attention.tp,
        )
        for run in found.runs
    ]
    steps = [("pipelined", 1), ("data-parallel", 2)]
    assert rows == [
        (policy, tokens, seed, *step)
        for policy in ("round-robin", "contiguous")
        for tokens, seed in ((16, 7), (32, 8), (64, 9))
        for step in steps
    ]
    assert len({run.run_id for run in found.runs}) == 12
    assert found.runs[0].label == (
        "placement.policy=round-robin tokens=16 network.seed=7 attention.kind=pipelined"
    )


def test_equal_combinations_are_one_run(sweep_file: Any) -> None:
    """A value that comes twice, or that is the default, makes no second run."""
    found = plan(read_sweep(sweep_file("[grid]\ntokens = [16, 32, 16]\n")))
    assert (len(found.runs), found.repeats) == (2, 1)
    alone = plan(read_sweep(sweep_file("[grid]\nattention.tp = [1]\n"))).runs[0]
    assert alone.run_id == plan(read_sweep(sweep_file(""))).runs[0].run_id


def test_a_list_of_tables_is_a_value(sweep_file: Any) -> None:
    """An axis may take what fails in a step: each step the whole list, or none of it."""
    path = sweep_file("[grid]\nfaults = [[], [{ at_s = 1e-6, gpu = 3, dead = true }]]\n")
    none, one = plan(read_sweep(path)).runs
    assert none.spec.faults == ()
    assert [(each.gpu, each.dead) for each in one.spec.faults] == [(3, True)]


def test_settings_go_on_top_of_the_base(sweep_file: Any) -> None:
    """--set changes the base of every run; values are TOML, or text."""
    override = parse_settings(["tokens=8", "placement.policy=contiguous", "placement.spread=true"])
    assert override == {
        "tokens": 8,
        "placement.policy": "contiguous",
        "placement.spread": True,
    }
    specs = [run.spec for run in plan(read_sweep(sweep_file(""), override)).runs]
    assert [(each.tokens, each.placement.spread) for each in specs] == [(8, True)]


def test_files_are_looked_up_from_where_they_are_named(
    sweep_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a base run file from its folder, of axes from the sweep's, of --set from ours."""
    for folder in ("runs", "here"):
        (tmp_path / folder).mkdir()
    (tmp_path / "runs" / "base.toml").write_text('cluster = "ep32"\n[workload]\nload = "a.json"\n')
    monkeypatch.chdir(tmp_path / "here")
    path = sweep_file('base = "runs/base.toml"\n[grid]\nworkload.judge = ["b.json"]\n', base="")
    sweep = read_sweep(path, parse_settings(["placement.file=c.json"]))
    spec = sweep.resolve(next(sweep.settings()))
    assert spec.workload.load == str(tmp_path / "runs" / "a.json")
    assert spec.workload.judge == str(tmp_path / "b.json")
    assert spec.placement.file == str(tmp_path / "here" / "c.json")


def test_identity_is_content(sweep_file: Any, tmp_path: Path) -> None:
    """A run's id follows what its files hold, not where they lie; spec and inputs show no path."""
    cluster = 'builder = "fat-tree"\n[parameters]\nleaves_per_pod = 2\nservers_per_leaf = 2\n'
    ids = []
    for folder, more in (("a", ""), ("b", ""), ("c", "gpus_per_server = 4\n")):
        (tmp_path / folder).mkdir()
        own = tmp_path / folder / "own.toml"
        own.write_text(f"{cluster}aggregations_per_pod = 2\n{more}")
        sweep = read_sweep(sweep_file(f'[grid]\ncluster = ["{folder}/own.toml"]\n'))
        run = plan(sweep).runs[0]
        identity = identify(run.spec)
        assert identity.spec["cluster"] == identity.inputs["cluster"]["name"] == "own.toml"
        assert str(tmp_path) not in repr((identity.spec, identity.inputs))
        ids.append(run.run_id)
    assert ids[0] == ids[1] != ids[2]
    # The bytes of the file count, whatever its size and however soon it changed.
    own.write_text(own.read_text().replace("= 4", "= 2"))
    assert identify(run.spec).run_id != ids[2]


def test_own_policies_are_content_too(
    sweep_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run by a policy of the user's own has another id once its module has changed."""
    monkeypatch.syspath_prepend(tmp_path)
    ids = []
    for body in ("class Own: ...\n", "class Own: pass\n"):
        (tmp_path / "made_up_policy.py").write_text(body)
        override = parse_settings(["placement.policy=made_up_policy:Own"])
        ids.append(plan(read_sweep(sweep_file(""), override)).runs[0].run_id)
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\nplacement.polcy = [1]\n", r"grid: unknown axis 'placement.polcy'; .*t.policy"),
        ("[grid]\ntoken = [1]\n", r"sweep\.toml: grid: unknown axis 'token'; allowed: model, "),
        ("[grid]\nplacement = [1]\n", "axis 'placement' is a table; expected one of its keys"),
        ("[grid]\ntokens.x = [1]\n", "'tokens' is no table"),
        ("[grid]\ntokens = 5\n", "axis 'tokens' is 5; expected a list of values"),
        ("[grid]\ntokens = []\n", "axis 'tokens' is empty"),
        ("[grid]\n", "grid: has no axis; expected key"),
        ('[grid]\ntokens = ["many"]\n', "run with tokens=many: tokens: .*integer"),
        ("[grid]\nplacement.beta = [0.5]\n", r"run with placement\.beta=0\.5: placement\.beta"),
        ('[grid]\ncluster = ["pisa"]\n', "run with cluster=pisa: unknown cluster 'pisa'"),
        ('[grid]\nmodel = ["GPT"]\n', "run with model=GPT: .*GPT"),
        ('[grid]\nplacement.policy = ["best"]\n', "unknown policy 'best'; allowed: contiguous"),
        ('[grid]\nplacement.policy = ["no_mod:C"]\n', "there is no module 'no_mod'"),
        ('[grid]\nworkload.load = ["none.json"]\n', "none.json: cannot be read"),
        ("[[zip]]\ntokens = [1, 2]\nnetwork.seed = [1]\n", "tokens has 2, network.seed has 1"),
        ("[[zip]]\n", "zip 1: has no axis"),
        ("[zip]\ntokens = [1]\n", r"zip is no list of tables; expected \[\[zip\]\]"),
        ("[[list]]\nnope = 1\n", "list: unknown axis 'nope'"),
        ("[grid]\ntokens = [1]\n[[list]]\ntokens = 2\n", "'tokens' is on two axes"),
        ("[more]\n", "unknown key 'more'; allowed: base, grid, zip, list, tables"),
        ("[base.placement]\nbest = 1\n", "base: unknown key 'placement.best'"),
    ],
)
def test_what_is_no_sweep(sweep_file: Any, text: str, message: str) -> None:
    """One line names file, key and what was expected."""
    with pytest.raises(ExperimentError, match=message) as caught:
        plan(read_sweep(sweep_file(text)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "base", "message"),
    [
        ('base = "nowhere.toml"\n', "", "nowhere.toml: cannot be read"),
        ("base = 3\n", "", "base is 3; expected a table or a run file's name"),
        ('tables = ["cables"]\n' + BASE, "", "expected a list of links, layers"),
        ("[grid\n", "", "no valid TOML"),
        ("grid = 3\n", "", "grid is 3; expected a table of dotted keys"),
    ],
)
def test_what_is_no_sweep_file(sweep_file: Any, text: str, base: str, message: str) -> None:
    """Keys of the file itself are checked, too."""
    with pytest.raises(ExperimentError, match=message):
        read_sweep(sweep_file(text, base=base))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tokens"], "expected key=value"),
        (["toknes=1"], "unknown key 'toknes'"),
        (["tokens=1", "tokens=2"], "given twice"),
        (["network.seed=1"], "it is an axis"),
    ],
)
def test_what_cannot_be_set(sweep_file: Any, words: list[str], message: str) -> None:
    """--set takes a key of a run once, and none that is an axis."""
    with pytest.raises(ExperimentError, match=message):
        read_sweep(sweep_file("[grid]\nnetwork.seed = [0]\n"), parse_settings(words))


def test_a_million_runs_need_a_yes(sweep_file: Any) -> None:
    """They are counted, not made, and the line names the axes."""
    numbers = list(range(1000))
    path = sweep_file(f"[grid]\nworkload.seed = {numbers}\nnetwork.seed = {numbers}\n")
    with pytest.raises(ExperimentError, match=r"1,000,000 runs, 1000 \(workload.seed\) x 1000"):
        plan(read_sweep(path))


def test_tables_are_those_of_a_run() -> None:
    """The names that a sweep file knows without heavy imports are the ones there are."""
    assert grid.TABLES == TABLES


@given(
    st.lists(
        st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True), min_size=0, max_size=3
    )
)
def test_settings_are_the_product(values: list[list[int]]) -> None:
    """Any axes give the product of their steps, each setting all keys once."""
    keys = ("tokens", "network.seed", "workload.seed")[: len(values)]
    axes = tuple(
        Axis("grid", tuple({key: value} for value in axis))
        for key, axis in zip(keys, values, strict=True)
    )
    sweep = Sweep("s", None, {}, axes)
    expected = [dict(zip(keys, row, strict=True)) for row in itertools.product(*values)]
    assert list(sweep.settings()) == expected
    assert sweep.size == len(expected)
    for settings in expected:
        assert dict(flat(with_settings({}, settings))) == settings
