"""An old placement against a new one: replay both, and time the move over the cluster's links."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments.choice import check_fits, evaluated
from experiments.replaying import replay
from experiments.run import prepare
from placement.memory import slot_bytes
from placement.moves.worth import StepFigures, Worth, saving_error, transfers, worth

if TYPE_CHECKING:
    from experiments.run import Setting
    from experiments.spec import RunSpec
    from placement import Placement
    from placement.moves.worth import Transfers
    from sim import SimResult
    from topologies import Router


def weigh(
    old: Placement,
    new: Placement,
    spec: RunSpec,
    *,
    names: tuple[str, str] = ("the old placement", "the new placement"),
) -> Worth:
    """Say what moving from `old` to `new` costs and gains in the run's setting.

    Both are replayed on the same tokens, replicas under the run's replica rule.

    Parameters
    ----------
    old, new
        Placements of the run's model on its cluster.
    spec
        Model, cluster, attention, workload, network and step; of its placement the replica rule
        and the bytes per parameter.
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
    replays = [replay(spec, setting, placement) for placement in (old, new)]
    changed = np.unique(moves.layer)
    before, after = ((each.layer_end_s - each.layer_start_s)[changed] for each in replays)
    rule = spec.placement.replica_rule
    return worth(
        moves,
        gpus_per_server=old.gpus_per_server,
        bytes_per_slot=weight,
        moving_s=moving_seconds(moves, setting.router, bytes_per_slot=weight),
        steps=(_figures(old, setting, rule, replays[0]), _figures(new, setting, rule, replays[1])),
        step_tokens=setting.workload.trace.tokens,
        scatter_s=saving_error(before, after),
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


def _figures(placement: Placement, setting: Setting, rule: str, result: SimResult) -> StepFigures:
    expected = evaluated(placement, setting, rule)
    return StepFigures(
        expected_hops=expected.hops_per_token_layer,
        profile_balance_gpu=expected.balance_gpu,
        hops_per_token_layer=result.hops_per_token_layer,
        byte_hops=float(result.byte_hops),
        balance_server=result.balance_server,
        balance_gpu=result.balance_gpu,
        gpus_per_token_layer=result.gpus_per_token_layer,
        servers_per_token_layer=result.servers_per_token_layer,
        busiest_s=float(result.busiest_s.sum()),
        step_s=result.step_s,
    )
