"""Runs by their labels, and policies beside each other in tables."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from experiments.comparing import compare_policies, remarks, shown_metrics
from experiments.comparison_tables import comparison_latex, comparison_markdown
from experiments.errors import FigureError
from experiments.labels import labelled
from experiments.results import read_results

if TYPE_CHECKING:
    from pathlib import Path

HOPS = "hops_per_token_layer"


def table(seeds: int = 8, policies: tuple[str, ...] = ("ilp-load", "round-robin")) -> pd.DataFrame:
    """Return runs whose hops are 50, 60, ... by policy and scatter alike with the seed."""
    cells = list(product(range(len(policies)), range(seeds)))
    found = pd.DataFrame(cells, columns=["at", "workload.seed"])
    return found.assign(
        model="DeepSeek-R1",
        cluster="fat-tree",
        policy=[policies[at] for at in found["at"]],
        **{
            "attention.kind": "pipelined",
            "placement.beta": None,
            HOPS: 50.0 + 10 * found["at"] + found["workload.seed"],
        },
    ).drop(columns="at")


def compared(runs: pd.DataFrame) -> pd.DataFrame:
    """Compare hops."""
    return compare_policies(labelled(runs), [HOPS], np.random.default_rng(0))


def test_labels_of_one_sweep() -> None:
    """What does not vary is not said; seeds pair runs."""
    found = labelled(table())
    assert set(found["series"]) == {"ilp-load", "round-robin"}
    assert set(found["setting"]) == {""}
    assert list(found["replicate"][:2]) == ["seed=0", "seed=1"]


def test_options_of_a_policy_make_series() -> None:
    """Options that differ among the runs of a policy are part of its name, absent ones not."""
    capped = table(2, ("ilp-load",)).assign(**{"placement.beta": 1.5})
    found = labelled(pd.concat([table(2), capped], ignore_index=True))
    assert set(found["series"]) == {"ilp-load", "ilp-load beta=1.5", "round-robin"}


def test_options_that_go_with_a_policy_are_not_said() -> None:
    """An option that every run of a policy has, and no run of another, says nothing."""
    runs = table(2)
    runs["placement.beta"] = np.where(runs["policy"] == "ilp-load", 1.5, np.nan)
    assert set(labelled(runs)["series"]) == {"ilp-load", "round-robin"}


def test_other_keys_make_settings() -> None:
    """Keys beside the placement that differ are a place of their own, or averaged on demand."""
    both = [table(2).assign(**{"attention.kind": kind}) for kind in ("pipelined", "data-parallel")]
    runs = pd.concat(both, ignore_index=True)
    assert set(labelled(runs)["setting"]) == {"pipelined", "data-parallel"}
    over = labelled(runs, ["attention.kind"])
    assert set(over["setting"]) == {""}
    assert list(over["replicate"][:1]) == ["seed=0 data-parallel"]


def test_rows_are_in_order() -> None:
    """Rows go by their labels, numbers in them by size, however the table was sorted."""
    runs = pd.concat([table(11).assign(tokens=each) for each in (1024, 512)], ignore_index=True)
    found = labelled(runs.sample(frac=1, random_state=0))
    assert list(dict.fromkeys(found["setting"])) == ["tokens=512", "tokens=1024"]
    seeds = found["workload.seed"].to_numpy().reshape(4, 11)
    assert (seeds == np.arange(11)).all()


def test_labels_that_are_refused() -> None:
    """A key to average over that is none, and two runs of the same labels, are named."""
    with pytest.raises(
        FigureError, match=r"--over tokens: no such column; allowed: workload\.seed"
    ):
        labelled(table(), ["tokens"])
    with pytest.raises(FigureError, match="two for DeepSeek-R1, fat-tree, ilp-load, seed=0"):
        labelled(pd.concat([table(), table()], ignore_index=True))
    with pytest.raises(FigureError, match="missing column 'policy'"):
        labelled(table().drop(columns="policy"))


def test_comparison_by_hand() -> None:
    """Always 10 hops more on the same 8 seeds: p = 2/256, though both scatter by 7."""
    found = compared(table()).set_index("series")
    assert found.loc["ilp-load", "mean"] == 53.5
    assert bool(found.loc["ilp-load", "best"])
    assert np.isnan(found.loc["ilp-load", "p_value"])
    assert found.loc["round-robin", ["mean", "pairs", "p_value"]].tolist() == [63.5, 8, 2 / 256]
    assert bool(found.loc["round-robin", "significant"])
    assert found.loc["round-robin", "low"] < 63.5 < found.loc["round-robin", "high"]


def test_several_policies_raise_p() -> None:
    """Holm: of three others the least p, 2/64 of 6 seeds, is raised to 6/64: not significant."""
    found = compared(table(6, ("ilp-load", "a", "b", "c")))
    assert sorted(found["p_value"].dropna()) == [6 / 64] * 3
    assert not found["significant"].any()
    # 3 tests at 5 %: 2 / 2^n <= 0.05 / 3 from n = 7 on.
    assert "expected at least 7 seeds" in remarks(found)[1]
    assert len(remarks(compared(table(7, ("ilp-load", "a", "b", "c"))))) == 1


def test_only_common_seeds_pair() -> None:
    """Seeds that one policy lacks do not count as pairs."""
    runs = table()
    lacking = (runs["policy"] == "round-robin") & (runs["workload.seed"] > 2)
    found = compared(runs[~lacking]).set_index("series")
    assert found.loc["round-robin", ["pairs", "p_value"]].tolist() == [3, 2 / 8]


def test_rounding_is_no_difference() -> None:
    """Figures that differ by the rounding of a sum are equal: both best, and p is 1."""
    runs = table(8)
    runs.loc[8:, HOPS] = runs[HOPS].to_numpy()[:8] * (1 + 1e-14)
    found = compared(runs).set_index("series")
    assert found["best"].all()
    assert found["p_value"].dropna().tolist() == [1.0]
    runs.loc[8:, HOPS] *= 1 + 1e-6
    assert bool(compared(runs).set_index("series").loc["round-robin", "significant"])


def test_one_run_of_each() -> None:
    """Single runs have no interval, and the page says that nothing can be significant."""
    found = compared(table(1))
    assert found[["low", "high"]].isna().all(axis=None)
    page = comparison_markdown(found)
    assert "| ilp-load | **50.00** |" in page
    assert "no difference can be called significant" in page
    assert "†" not in page


def test_markdown() -> None:
    """Least in bold, a dagger where the difference may be chance, the seeds it would take."""
    page = comparison_markdown(compared(table(5)))
    assert "## DeepSeek-R1, fat-tree" in page
    row = next(line for line in page.splitlines() if line.startswith("| ilp-load"))
    assert row.startswith("| ilp-load | **52.0 ± ")
    row = next(line for line in page.splitlines() if line.startswith("| round-robin"))
    assert row.endswith("† |")
    assert "expected at least 6 seeds" in page
    assert "†" not in comparison_markdown(compared(table(8))).split("Mean of")[0]


def test_latex() -> None:
    """The same in LaTeX; what TeX would read as commands is escaped."""
    page = comparison_latex(compared(table(5, ("ilp-load", r"my_{50%} & \co $x$ <2"))))
    assert r"\begin{tabular}{lr}" in page
    assert r"my\_\{50\%\} \& \textbackslash{}co \$x\$ \textless{}2 & $62.0 \pm " in page
    assert r"ilp-load & $\mathbf{52.0} \pm " in page
    assert r"^{\dagger}$ \\" in page
    assert page.count("{") == page.count("}")


def test_metrics_that_runs_have() -> None:
    """Figures that some run lacks are left out; with none left, the table is refused."""
    runs = table().assign(tpot_s=None, step_s=1.0)
    assert shown_metrics(runs) == [HOPS, "step_s"]
    with pytest.raises(FigureError, match="no column to compare; expected one of hops_per"):
        shown_metrics(runs[["model"]])


def test_where(tmp_path: Path) -> None:
    """Runs are chosen by the text of a value; unknown columns and values list what there is."""
    path = tmp_path / "runs.csv"
    table().to_csv(path, index=False)
    assert len(read_results(path, {"workload.seed": "3"}).runs) == 2
    assert len(read_results(path, {"placement.beta": "none"}).runs) == 16
    with pytest.raises(FigureError, match=r"--where seed: no such column; allowed: workload\.seed"):
        read_results(path, {"seed": "3"})
    with pytest.raises(FigureError, match="--where policy=eplb: no such run; found: ilp-load"):
        read_results(path, {"policy": "eplb"})


@pytest.mark.parametrize("name", ["none.csv", "text.txt", "broken.parquet", "empty.csv"])
def test_what_is_no_table(name: str, tmp_path: Path) -> None:
    """A file that is not there, of another kind or broken is refused in one line."""
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "broken.parquet").write_text("hello")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(FigureError, match=f"{name}: ") as error:
        read_results(tmp_path / name)
    assert "\n" not in str(error.value)


def test_seeds_needed() -> None:
    """Differences of mean 1 and deviation 2: 34 seeds for two policies; said under the table."""
    runs = table(6)
    # 1 +- a by turns has a deviation of a sqrt(6/5); Cohen's tables have 34 pairs for 1/2.
    turns = np.tile([1.0, -1.0], 3) * 2 * np.sqrt(5 / 6)
    runs.loc[6:, HOPS] = runs[HOPS].to_numpy()[:6] + 1 + turns
    found = compared(runs).set_index("series")
    assert found.loc["round-robin", "needed"] == 34
    assert not found.loc["round-robin", "significant"]
    assert "as seen here: hops: round-robin 34." in comparison_markdown(compared(runs))
    assert "as seen here" not in comparison_markdown(compared(table(8)))
