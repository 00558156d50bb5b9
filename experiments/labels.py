"""What a table of runs varies: what is compared, where, and over what is averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.errors import FigureError
from experiments.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

PLACE = ("model", "setting", "cluster")
"""Columns that say where policies are compared: a panel of a figure, a block of a table."""
SEEDS = ("workload.seed", "network.seed", "dispatch.seed", "placement.search_seed")
"""Keys that runs are repeated over; figures average over them."""
MOST_PANELS = 12
_BARE = ("attention.kind", "network.kind", "dispatch.mode", "step.gpu", "step.phase")
"""Keys whose values say enough without them."""


def labelled(runs: pd.DataFrame, over: Sequence[str] = ()) -> pd.DataFrame:
    """Add what figures and tables call the runs.

    Added are ``series``: the policy, with those of its options that differ among its runs;
    ``setting``: the other keys that differ within a model and cluster; and ``replicate``: the
    seeds, by which runs of different series are paired. Rows come in the order of these.

    Parameters
    ----------
    runs
        The collected table: a row per run.
    over
        Further keys that runs are averaged over, as if they were seeds.

    Raises
    ------
    FigureError
        If model, cluster or policy are missing, a key of `over` is none, or two runs have the
        same labels.
    """
    for column in ("model", "cluster", "policy"):
        if column not in runs.columns:
            raise FigureError(f"runs: missing column '{column}'; expected the table of a store")
    keys = [str(name) for name in runs.columns if _is_key(str(name))]
    unknown = [name for name in over if name not in keys]
    if unknown:
        raise FigureError(f"--over {unknown[0]}: no such column; allowed: {', '.join(keys)}")
    repeated = [key for key in keys if key in (*SEEDS, *over)]
    rest = [key for key in keys if key not in repeated]
    options = [key for key in rest if key.startswith("placement.") and key != "placement.policy"]
    others = [key for key in rest if not key.startswith("placement.")]
    options = _varied(runs, options, ("model", "cluster", "policy"))
    others = _varied(runs, others, ("model", "cluster"))
    found = runs.assign(
        series=_words(runs, options, first=runs["policy"].astype(str)),
        setting=_words(runs, others),
        replicate=_words(runs, repeated),
    )
    _check_distinct(found)
    order = [*PLACE, "series", "replicate"]
    return found.sort_values(order, key=_natural, kind="stable", ignore_index=True)


def _natural(texts: pd.Series[str]) -> pd.Series[str]:
    """Write numbers so that their order as texts is their order: 512 before 1024."""
    return texts.astype(str).str.replace(r"\d+", lambda found: found.group().zfill(12), regex=True)


def _is_key(column: str) -> bool:
    """Whether a column is a key of the run file, other than the ones every figure names."""
    table, dot, _ = column.partition(".")
    if column in ("model", "cluster", "workload"):
        return False
    return table in RunSpec.model_fields and (
        bool(dot) or column in ("tokens", "expert_flops", "faults")
    )


def _varied(runs: pd.DataFrame, keys: Sequence[str], within: Sequence[str]) -> list[str]:
    """Return the keys that have more than one value for some values of `within`."""
    if not keys:
        return []
    counts = runs.groupby(list(within))[list(keys)].nunique(dropna=False)
    return [key for key in keys if (counts[key] > 1).any()]


def _words(runs: pd.DataFrame, keys: Sequence[str], first: Iterable[str] | None = None) -> Any:
    """Return what the keys of every run are, in words."""
    starts = first if first is not None else [""] * len(runs)
    columns = [runs[key].tolist() for key in keys]
    return [
        " ".join(filter(None, [start, *map(_word, keys, values)]))
        for start, *values in zip(starts, *columns, strict=True)
    ]


def _word(key: str, value: Any) -> str:
    absent = value is None or value is False or (isinstance(value, float) and value != value)  # noqa: PLR0124  NaN
    if absent:
        return ""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if key in _BARE:
        return text
    return f"{key.rpartition('.')[2].replace('_', '-')}={text}"


def _check_distinct(found: pd.DataFrame) -> None:
    labels = [*PLACE, "series", "replicate"]
    twice = found.duplicated(labels)
    if twice.any():
        row = found.loc[twice, labels].iloc[0]
        raise FigureError(
            f"runs: two for {', '.join(str(each) for each in row if each)}; expected one of each: "
            "choose with --where"
        )


def check_panels(rows: pd.DataFrame, what: str) -> None:
    """Refuse a table of more places than one figure shows.

    Raises
    ------
    FigureError
        If there are more than `MOST_PANELS`.
    """
    count = len(rows[list(PLACE)].drop_duplicates())
    if count > MOST_PANELS:
        settings = list(dict.fromkeys(filter(None, rows["setting"])))
        example = f", as {settings[0]!r}" if settings else ""
        raise FigureError(
            f"{what}: {count} combinations of model, cluster and setting{example}; one figure "
            f"shows {MOST_PANELS}: choose with --where, or average with --over"
        )
