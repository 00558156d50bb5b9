"""The study's tables in Markdown, and its findings in plain sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from placement import POLICIES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from experiments.expected import Expected

PIPELINED, DATA_PARALLEL = "pipelined", "data-parallel"

_BOTTLENECK = (
    "Why so many hops buy so little time: under pipelined attention all tokens of a layer leave "
    "from, and return to, the network cards of one server, and those cards are the busiest links "
    "wherever the experts sit. Placement spares them only the choices that stay on that server."
)


def study_markdown(hops: pd.DataFrame, workload: str, *, expected: Expected | None = None) -> str:
    """Write the page ``tables.md`` of the study."""
    cells = _select(hops, PIPELINED, "analytic")
    parts = [
        (
            f"# Hops of {cells['policy'].nunique()} placement policies on "
            f"{cells['cluster'].nunique()} clusters of 256 GPUs"
        ),
        (
            f"Workload: {workload}. Hops count network links, dispatch plus collect, all k "
            "choices of a token, mean over MoE layers, measured by replaying "
            f"{int(cells['tokens'].iloc[0]):,} tokens that no policy "
            "has seen. Bold is the least."
        ),
    ]
    for model in cells["model"].unique():
        of_model = cells[cells["model"] == model]
        parts += [f"## {model}, pipelined attention", *_model_tables(of_model)]
    parts += ["## What the tables say", "\n".join(f"- {line}" for line in findings(hops))]
    parts += [_BOTTLENECK, *_against_expected(cells, expected)]
    parts += [*_data_parallel(hops), *_packet(hops)]
    return "\n\n".join(parts) + "\n"


def findings(hops: pd.DataFrame) -> list[str]:
    """Say in sentences what the study found."""
    cells = _select(hops, PIPELINED, "analytic")
    return [
        line
        for model in cells["model"].unique()
        for line in _model_findings(model, cells[cells["model"] == model])
    ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table, first column left, the others right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def _model_tables(cells: pd.DataFrame) -> list[str]:
    measured = _pivot(cells, "hops_per_token_layer", _hops_text, least=True)
    balance = _pivot(cells, "balance_server", lambda row: f"{row['balance_server']:.2f}")
    return [
        "Hops per token and layer, and the change against round-robin:",
        measured,
        "Step time, ms (analytic network), and the change against round-robin:",
        _pivot(cells, "step_s", _against("step_s", cells)),
        "Imbalance (mean over layers of the busiest server's load over the mean server's):",
        balance,
    ]


def _model_findings(model: str, cells: pd.DataFrame) -> list[str]:
    best = cells[cells["policy"] == "ilp-load"].set_index("cluster")
    turns = cells[cells["policy"] == "round-robin"].set_index("cluster")
    lines = []
    if not (best.empty or turns.empty):
        proven = (best["status"] == "optimal").sum()
        step = 100 * (1 - best["step_s"] / turns["step_s"])
        lines.append(
            f"{model}: ilp-load saves {_range(best['saving_pct'])} % of round-robin's hops and "
            f"{_range(step)} % of its step; {proven} of {len(best)} solves are proven optimal "
            "(gap 0). The price is balance: its busiest server carries "
            f"{_range(best['balance_server'], 2)} times the mean."
        )
    greedy = cells[cells["policy"] == "greedy-load"].set_index("cluster")
    if not (best.empty or greedy.empty):
        excess = 100 * (greedy["expected_hops"] / best["bound_hops"] - 1)
        lines.append(
            f"{model}: greedy-load, which needs no solver, comes within {_range(excess, 2)} % of "
            "the proven optimum on the loads it was given."
        )
    blind = cells[cells["policy"] == "ilp"]
    if not blind.empty:
        ranges = ", ".join(
            f"{row['cluster']} {row['optima_low_hops']:.1f}-{row['optima_high_hops']:.1f}"
            for _, row in blind.iterrows()
        )
        lines.append(
            f"{model}: the unweighted ilp has many optima; over them the expected hops range "
            f"over {ranges}. The one shown takes experts by id from the cheapest servers."
        )
    return lines + [
        _own_finding(model, policy, cells[cells["policy"] == policy].set_index("cluster"), turns)
        for policy in cells["policy"].unique()
        if policy not in POLICIES and not turns.empty
    ]


def _own_finding(model: str, policy: str, own: pd.DataFrame, turns: pd.DataFrame) -> str:
    """Say what a policy of the user's own gains and costs."""
    step = 100 * (1 - own["step_s"] / turns["step_s"])
    return (
        f"{model}: {policy}, a policy of your own, saves {_range(own['saving_pct'])} % of "
        f"round-robin's hops and {_range(step)} % of its step; its busiest server carries "
        f"{_range(own['balance_server'], 2)} times the mean."
    )


def _against_expected(cells: pd.DataFrame, expected: Expected | None) -> list[str]:
    """Lay the figures typed in beside ours."""
    if expected is None:
        return []
    ours = cells.set_index(["model", "cluster", "policy"])["hops_per_token_layer"]
    rows = []
    for *cell, theirs in expected.hops.itertuples(index=False, name=None):
        hops = ours[tuple(cell)]
        rows.append([*cell, f"{theirs:.2f}", f"{hops:.2f}", f"{100 * (hops / theirs - 1):+.1f} %"])
    header = ["model", "cluster", "policy", "theirs", "ours", "ours against theirs"]
    return [
        "## Against the figures typed in",
        f"Hops per token and layer as {expected.name} has them, and as measured here:",
        markdown_table(header, rows),
    ]


def _data_parallel(hops: pd.DataFrame) -> list[str]:
    cells = _select(hops, DATA_PARALLEL, "analytic")
    if cells.empty:
        return []
    return [
        "## The same policies under data-parallel attention",
        "Expected hops per token and layer (measured ones scatter with the tokens drawn):",
        _pivot(cells, "expected_hops", lambda row: f"{row['expected_hops']:.3f}"),
        "Step time, ms (analytic network), and the change against round-robin:",
        _pivot(cells, "step_s", _against("step_s", cells)),
        (
            "Tokens now start on all GPUs alike and return to where they came from. Where a fabric "
            "looks the same from every server, all servers are on average equally far from the "
            "tokens: an expert costs the same wherever it sits, and the hop objective has nothing "
            f"to gain. {_symmetry(cells)} There is much to lose, though: a policy that is blind "
            "to balance heats single GPUs and their network cards, and the step waits for them. "
            "Left to win are balance, fewer copies and replicas."
        ),
    ]


def _symmetry(cells: pd.DataFrame) -> str:
    """Say on which clusters hops do not move at all, and how little on the others."""
    least = cells.groupby("cluster", sort=False)["expected_hops"].agg(["min", "max"])
    spread = 100 * (least["max"] / least["min"] - 1)
    still = [str(name) for name in spread.index[spread < 1e-7]]
    parts = [f"That is so on {' and '.join(still)}."] if still else []
    moving = [f"{name} by up to {value:.1f} %" for name, value in spread.items() if value >= 1e-7]
    if moving:
        parts.append(
            f"Hops move a little on {' and '.join(moving)}: a router with fewer global links than "
            "its neighbours is farther from everybody, so its servers cost more."
        )
    return " ".join(parts)


def _packet(hops: pd.DataFrame) -> list[str]:
    cells = _select(hops, PIPELINED, "packet")
    if cells.empty:
        return []
    row = cells.iloc[0]
    table = markdown_table(
        ["policy", "hops", "step, ms", "busiest link, us", "mean queue wait, us"],
        [
            [
                cell["policy"],
                f"{cell['hops_per_token_layer']:.2f}",
                f"{1e3 * cell['step_s']:.3f}",
                f"{1e6 * cell['busiest_link_s']:.2f}",
                f"{1e6 * cell['queue_wait_mean_s']:.2f}",
            ]
            for _, cell in cells.iterrows()
        ],
    )
    return [
        f"## {row['model']} on {row['cluster']}, chunk by chunk",
        (
            f"{int(row['tokens'])} tokens in one step over hashed single paths, store-and-forward "
            "FIFO links. Busiest link: its bytes over its bandwidth, dispatch plus combine, mean "
            "over layers. Queue wait: mean over chunks and links crossed."
        ),
        table,
    ]


def _select(hops: pd.DataFrame, attention: str, network: str) -> pd.DataFrame:
    return hops[(hops["attention"] == attention) & (hops["network"] == network)]


def _pivot(
    cells: pd.DataFrame, column: str, text: Callable[[pd.Series], str], *, least: bool = False
) -> str:
    """A table of policies by clusters; `least` sets the smallest of a column in bold."""
    clusters, policies = cells["cluster"].unique(), cells["policy"].unique()
    rows = []
    for policy in policies:
        row = [policy]
        for cluster in clusters:
            column_cells = cells[cells["cluster"] == cluster]
            cell = column_cells[column_cells["policy"] == policy].iloc[0]
            best = least and cell[column] <= column_cells[column].min()
            row.append(f"**{text(cell)}**" if best else text(cell))
        rows.append(row)
    return markdown_table(["policy", *clusters], rows)


def _hops_text(row: pd.Series) -> str:
    hops = f"{row['hops_per_token_layer']:.2f}"
    if row["policy"] == "round-robin" or pd.isna(row["saving_pct"]):
        return hops
    text = f"{hops} ({-row['saving_pct']:+.1f} %)"
    if pd.isna(row["optima_low_hops"]):
        return text
    return f"{text}, its optima {row['optima_low_hops']:.1f} to {row['optima_high_hops']:.1f}"


def _against(column: str, cells: pd.DataFrame) -> Callable[[pd.Series], str]:
    """Write a time in ms with its change against round-robin on the same cluster."""
    turns = cells[cells["policy"] == "round-robin"].set_index("cluster")[column]

    def text(row: pd.Series) -> str:
        value = f"{1e3 * row[column]:.2f}"
        if row["policy"] == "round-robin" or row["cluster"] not in turns.index:
            return value
        return f"{value} ({100 * (row[column] / turns[row['cluster']] - 1):+.1f} %)"

    return text


def _range(values: pd.Series, digits: int = 1) -> str:
    low, high = f"{values.min():.{digits}f}", f"{values.max():.{digits}f}"
    return low if low == high else f"{low}-{high}"
