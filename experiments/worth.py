"""An old placement against a new one: replay both, and time the move over the cluster's links."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments.errors import ExperimentError
from experiments.run import prepare, replay
from placement import evaluate
from placement.memory import slot_bytes
from placement.moves.worth import StepFigures, Worth, transfers, worth

if TYPE_CHECKING:
    from experiments.run import Setting
    from experiments.spec import RunSpec
    from placement import Placement
    from placement.moves.worth import Transfers
    from topologies import Router


def weigh(
    old: Placement, new: Placement, spec: RunSpec, *, bytes_per_parameter: float = 1.0
) -> Worth:
    """Say what moving from `old` to `new` costs and gains in the run's setting.

    Parameters
    ----------
    old, new
        Placements of the run's model on its cluster.
    spec
        Model, cluster, attention, workload and network; its own placement is not looked at.
    bytes_per_parameter
        Of the experts' weights: 1 for FP8, 2 for BF16.

    Raises
    ------
    PlacementError, ExperimentError
        If the placements are of another model, shape or cluster.
    """
    setting = prepare(spec)
    _check_fit(old, setting)
    moves = transfers(old, new, server_distance=setting.router.server_distance())
    weight = slot_bytes(setting.model, bytes_per_parameter=bytes_per_parameter)
    return worth(
        moves,
        gpus_per_server=old.gpus_per_server,
        bytes_per_slot=weight,
        moving_s=moving_seconds(moves, setting.router, bytes_per_slot=weight),
        steps=(_step(old, spec, setting), _step(new, spec, setting)),
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


def _step(placement: Placement, spec: RunSpec, setting: Setting) -> StepFigures:
    result = replay(spec, setting, placement)
    return StepFigures(
        hops=evaluate(placement, setting.problem).hops_per_token_layer,
        byte_hops=float(result.byte_hops),
        busiest_s=float(result.busiest_s.sum()),
        step_s=result.step_s,
    )


def _check_fit(old: Placement, setting: Setting) -> None:
    cluster = setting.router.cluster
    for what, have, want in (
        ("model", old.model, setting.model.name),
        ("GPUs", old.gpus, cluster.gpus),
        ("GPUs per server", old.gpus_per_server, cluster.gpus_per_server),
    ):
        if have != want:
            raise ExperimentError(
                f"the old placement has {what} {have!r}, cluster '{cluster.name}' and run have "
                f"{want!r}; expected the same"
            )
