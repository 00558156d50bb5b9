"""One decode step of DeepSeek-R1 on 256 GPUs: where the wall time of a replay goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from experiments.replaying import replay
from experiments.run import place, prepare
from experiments.spec import PlacementSpec, RunSpec
from experiments.step_spec import StepSpec
from sim import AnalyticNetwork, ConstantCompute, MessageSizes
from sim.batch import Batch
from sim.free import critical_ns
from sim.messages import exchange
from sim.step import run_step

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS_PER_GPU = 128


def step_rows(repeats: int = 5) -> list[dict[str, Any]]:
    """Replay 58 layers, dispatch and combine, 256 GPUs with 128 tokens each, analytically.

    Message counting, both runs of the step (on the network, and on a free one for the critical
    compute) and the laws are in the seconds; compiling is not.

    Returns
    -------
    list of dict
        ``part`` and ``seconds`` (best of `repeats`): the whole replay, and its parts run alone.
    """
    spec = RunSpec(
        cluster="fat-tree",
        placement=PlacementSpec(policy="round-robin"),
        step=StepSpec(gpu="H800", requests_per_gpu=TOKENS_PER_GPU, kv_tokens=2000),
    )
    setting = prepare(spec)
    placement = place(spec.placement, setting).placement
    trace, attention = setting.workload.trace, setting.attention
    sizes = MessageSizes.from_model(setting.model)
    sent = exchange(trace, placement, attention, sizes=sizes)
    batch = Batch.of(placement, sent, ConstantCompute(0.0).times(placement, sent))

    parts: dict[str, Callable[[], object]] = {
        "replay": lambda: replay(spec, setting, placement),
        "counting messages": lambda: exchange(trace, placement, attention, sizes=sizes),
        "step on the network": lambda: run_step(AnalyticNetwork(setting.router), [batch]),
        "step on a free network": lambda: critical_ns([batch]),
    }
    return [{"part": name, "seconds": _best(run, repeats)} for name, run in parts.items()]


def _best(run: Callable[[], object], repeats: int) -> float:
    run()
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return min(taken)
