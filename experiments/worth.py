"""An old placement against a new one: replay both, and time the move over the cluster's links."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments.choice import check_fits, evaluated
from experiments.costs import ANYWHERE, link_cost, replica_problem
from experiments.replaying import replay
from experiments.run import prepare
from placement import DataParallel, evaluate
from placement.memory import slot_bytes
from placement.moves.worth import StepFigures, Worth, transfers, worth
from placement.replicas import make_rule
from placement.replicas.rules import gpu_load, replica_flows

if TYPE_CHECKING:
    from experiments.run import Setting
    from experiments.spec import RunSpec
    from placement import Placement
    from placement.moves.worth import Transfers
    from topologies import Router


def weigh(
    old: Placement,
    new: Placement,
    spec: RunSpec,
    *,
    names: tuple[str, str] = ("the old placement", "the new placement"),
) -> Worth:
    """Say what moving from `old` to `new` costs and gains in the run's setting.

    Placements with one slot an expert are replayed. Where one has replicas, which a replay does
    not take, both are priced from the profile under the run's replica rule: hops, balance and
    busiest links, and no step time.

    Parameters
    ----------
    old, new
        Placements of the run's model on its cluster.
    spec
        Model, cluster, attention, workload and network; of its placement the replica rule and
        the bytes per parameter.
    names
        What errors call the two placements: their files.

    Raises
    ------
    ExperimentError
        If a placement is of another model, shape or cluster.
    """
    setting = prepare(spec)
    for placement, name in zip((old, new), names, strict=True):
        check_fits(placement, setting.problem, name)
    moves = transfers(old, new, server_distance=setting.router.server_distance())
    weight = slot_bytes(setting.model, bytes_per_parameter=spec.placement.bytes_per_parameter)
    step = _expected if old.redundant or new.redundant else _replayed
    return worth(
        moves,
        gpus_per_server=old.gpus_per_server,
        bytes_per_slot=weight,
        moving_s=moving_seconds(moves, setting.router, bytes_per_slot=weight),
        steps=(step(old, spec, setting), step(new, spec, setting)),
        step_tokens=setting.workload.trace.tokens,
    )


def moving_seconds(moves: Transfers, router: Router, *, bytes_per_slot: int) -> float:
    """Seconds to copy all experts at once: the busiest link's bytes over its bandwidth.

    The links are taken to be free of other traffic; a path's latency comes on top.
    """
    if len(moves) == 0:
        return 0.0
    size = np.full(len(moves), bytes_per_slot, dtype=np.int64)
    carried = router.link_bytes(moves.src, moves.dst, size)[0]
    latency = router.path_latency(moves.src, moves.dst)
    return float((carried / router.cluster.bandwidth_Bps).max() + latency.max())


def _replayed(placement: Placement, spec: RunSpec, setting: Setting) -> StepFigures:
    result = replay(spec, setting, placement)
    expected = evaluate(placement, setting.problem)
    return StepFigures(
        hops=expected.hops_per_token_layer,
        byte_hops=float(result.byte_hops),
        busiest_s=float(result.busiest_s.sum()),
        step_s=result.step_s,
        balance_gpu=expected.balance_gpu,
    )


def _expected(placement: Placement, spec: RunSpec, setting: Setting) -> StepFigures:
    expected = evaluated(placement, setting, spec.placement.replica_rule)
    return StepFigures(
        hops=expected.hops_per_token_layer,
        byte_hops=None,
        busiest_s=_busiest_seconds(placement, spec, setting),
        step_s=None,
        balance_gpu=expected.balance_gpu,
    )


def _busiest_seconds(placement: Placement, spec: RunSpec, setting: Setting) -> float | None:
    """Expected seconds of the busiest links; None where GPU loads alone do not decide them.

    They do where every token takes a replica with the same probability, wherever it is.
    """
    if (
        spec.placement.replica_rule not in ANYWHERE
        or setting.router.rule != "shares"
        or not isinstance(setting.attention, DataParallel)
    ):
        return None
    problem = replica_problem(setting, setting.problem)
    flows = replica_flows(placement, problem, make_rule(spec.placement.replica_rule))
    return float(link_cost(setting).seconds(gpu_load(placement, flows)).max(axis=2).sum())
