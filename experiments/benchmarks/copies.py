"""Fewest copies on recorded and synthetic tokens: fitted on some, judged on others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from placement import Contiguous, PlacementProblem
from placement.search.copies import copies_per_token, judged_loads
from placement.search.least_copies import LeastCopies
from workloads import ExpertProfile, RoutingTrace, SyntheticWorkload, model, read_trace

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from placement import Placement
    from placement.search.copies import Scope
    from workloads import MoEModel

    Choices = NDArray[np.uint8] | NDArray[np.uint16]

BLOCK = 500
"""Tokens of a block; even blocks train, odd blocks judge."""

BETA = 1.3
"""Cap on the load of a GPU in training, over the mean."""

FLATTEN = (0.0, 1.0)
"""Tokens counted alike, and experts counted alike."""

ROBUST_FORMS: tuple[tuple[str, Any], ...] = (
    ("mean", "mean"),
    ("worst", "worst"),
    ("mean + 0.5 x deviation", 0.5),
)
"""How the domains count together."""


def copies_rows(data: Path) -> list[dict[str, Any]]:
    """Fewest distinct GPUs on V2-Lite traces, 8 GPUs x 8 experts, against contiguous.

    Parameters
    ----------
    data
        Folder of the recorded loads and traces.

    Returns
    -------
    list of dict
        ``fitted`` and ``judged`` name the tokens; ``flatten`` as in `LocalSearch`; judged:
        ``copies`` per token and layer, ``contiguous``, ``fewer`` (share saved), ``balance`` (mean
        over layers of max/mean load of a place), ``balance_worst`` (its maximum),
        ``balance_contiguous``; in training:
        ``copies_training``, ``bound_training``, ``balance_training``; ``seconds``.
    """
    intent, law = _tasks(data)
    even, odd = _split(np.concatenate((intent, law)))
    pairs = (
        ("even blocks", even, "odd blocks", odd),
        ("intent", intent, "law", law),
        ("law", law, "intent", intent),
    )
    lite = model("DeepSeek-V2-Lite")
    rows = []
    for fitted, train, judged, other in pairs:
        problem = _problem(lite, _profile(lite, train, fitted), servers=8, gpus_per_server=1)
        for flatten in FLATTEN:
            policy = LeastCopies(beta=BETA, flatten=flatten)
            placement = policy(problem)
            names = {"fitted": fitted, "judged": judged, "flatten": flatten}
            rows.append(names | _judged(placement, problem, train, other))
    return rows


def robust_rows(data: Path) -> list[dict[str, Any]]:
    """Fit on even blocks of both V2-Lite tasks in several ways, judge on odd blocks of each.

    Parameters
    ----------
    data
        Folder of the recorded loads and traces.

    Returns
    -------
    list of dict
        ``form``: ``pooled`` caps the joint load only, the others the load of every domain;
        for each task ``copies``, ``fewer`` than contiguous, ``balance`` and, in training,
        ``balance_training``; ``objective``, ``bound`` and ``seconds``.
    """
    lite = model("DeepSeek-V2-Lite")
    tasks = dict(zip(("intent", "law"), map(_split, _tasks(data)), strict=True))
    domains = tuple(_profile(lite, even, name) for name, (even, _) in tasks.items())
    pooled = _profile(lite, np.concatenate([even for even, _ in tasks.values()]), "pooled")
    problem = _problem(lite, pooled, servers=8, gpus_per_server=1)
    policies = {"pooled": LeastCopies(beta=BETA, relax=True)}
    for form, robust in ROBUST_FORMS:
        policies[form] = LeastCopies(beta=BETA, relax=True, robust=robust, domains=domains)
    rows = []
    for form, policy in policies.items():
        placement = policy(problem)
        row: dict[str, Any] = {"form": form} | _report(placement)
        for name, (even, odd) in tasks.items():
            judged = _judged(placement, problem, even, odd)
            for key in ("copies", "fewer", "balance", "balance_training"):
                row[f"{key}_{name}"] = judged[key]
        rows.append(row)
    return rows


def synthetic_rows(
    *, tokens: int = 4000, layers: int = 6, proposals: int = 300
) -> list[dict[str, Any]]:
    """Fewest distinct GPUs and servers on tokens drawn with R1's skew and routing groups.

    Parameters
    ----------
    tokens
        Drawn for training, and as many to judge.
    layers
        Only so many layers are placed.
    proposals
        Effort of the search.

    Returns
    -------
    list of dict
        ``servers`` of 8 GPUs, ``scope`` and the columns of `copies_rows`.
    """
    r1 = model("DeepSeek-R1")
    topk = SyntheticWorkload(r1, seed=0).trace(2 * tokens).topk[:, :layers]
    train, other = topk[:tokens], topk[tokens:]
    rows = []
    scopes: tuple[Scope, ...] = ("gpu", "server")
    for servers in (4, 8):
        problem = _problem(r1, _profile(r1, train, "drawn"), servers=servers, gpus_per_server=8)
        for scope in scopes:
            policy = LeastCopies(beta=BETA, relax=True, scope=scope, proposals=proposals)
            judged = _judged(policy(problem), problem, train, other, scope=scope)
            rows.append({"servers": servers, "scope": scope} | judged)
    return rows


def _judged(
    placement: Placement,
    problem: PlacementProblem,
    train: Choices,
    other: Choices,
    *,
    scope: Scope = "gpu",
) -> dict[str, Any]:
    contiguous = Contiguous()(problem)
    before = copies_per_token(contiguous, other, scope=scope)
    copies = copies_per_token(placement, other, scope=scope)
    hottest = judged_loads(placement, other, scope=scope).max(axis=1)
    trained = judged_loads(placement, train, scope=scope).max(axis=1)
    return {
        "copies": copies,
        "contiguous": before,
        "fewer": 1 - copies / before,
        "balance": float(hottest.mean()),
        "balance_worst": float(hottest.max()),
        "copies_training": copies_per_token(placement, train, scope=scope),
        "balance_contiguous": float(
            judged_loads(contiguous, other, scope=scope).max(axis=1).mean()
        ),
        "balance_training": float(trained.max()),
    } | _report(placement)


def _report(placement: Placement) -> dict[str, Any]:
    report = placement.solve
    if report is None:
        return {}
    return {
        "objective": report.objective,
        "bound": report.bound,
        "seconds": report.seconds,
    }


def _tasks(data: Path) -> tuple[Choices, Choices]:
    lite, folder = model("DeepSeek-V2-Lite"), data / "deepseek-v2-lite-traces"
    return read_trace(folder / "intent.npz", lite).topk, read_trace(folder / "law.npz", lite).topk


def _split(topk: NDArray[Any]) -> tuple[Choices, Choices]:
    even = np.arange(len(topk)) // BLOCK % 2 == 0
    return topk[even], topk[~even]


def _profile(of: MoEModel, topk: Choices, source: str) -> ExpertProfile:
    trace = RoutingTrace(
        topk=topk, experts=of.experts, seq_lens=np.array([len(topk)]), source=source
    )
    return ExpertProfile.from_trace(trace, keep_choices=True)


def _problem(
    of: MoEModel, profile: ExpertProfile, *, servers: int, gpus_per_server: int
) -> PlacementProblem:
    """Build a problem with equal counts, and without hops: copies alone count here."""
    return PlacementProblem(
        model=of.name,
        cost=np.zeros((profile.layers, servers)),
        profile=profile,
        top_k=of.top_k,
        gpus_per_server=gpus_per_server,
        layer_slots=-(-of.experts // servers),
        server_slots=-(-profile.layers * of.experts // servers),
    )
