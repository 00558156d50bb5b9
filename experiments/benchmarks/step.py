"""One decode step of DeepSeek-R1 on 256 GPUs: where the time of a replay goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.benchmarks.clocks import timed
from experiments.benchmarks.section import Section, Target, column
from experiments.replaying import replay
from experiments.run import place, prepare
from experiments.spec import NetworkSpec, PlacementSpec, RunSpec
from experiments.step_spec import StepSpec
from sim import AnalyticNetwork, MessageSizes, PoolCompute
from sim.batch import Batch
from sim.compute import DecodePool, gpu_model
from sim.free import critical_ns
from sim.messages import exchange
from sim.step import run_step

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS_PER_GPU = 128

CASE = RunSpec(
    cluster="fat-tree",
    placement=PlacementSpec(policy="round-robin"),
    step=StepSpec(gpu="H800", requests_per_gpu=TOKENS_PER_GPU, kv_tokens=2000),
)

ANALYTIC, FLUID = "replay, analytic", "replay, fluid, hashed paths"


def step_rows(repeats: int = 5, *, fluid: bool = False) -> list[dict[str, Any]]:
    """Replay 58 layers, dispatch and combine, 256 GPUs with 128 tokens each.

    Message counting, both runs of the step (on the network, and on a free one for the critical
    compute) and the laws are in the seconds; compiling is not.

    Parameters
    ----------
    repeats
        The best time of so many runs counts.
    fluid
        Whether to replay it on the fluid network too, once.

    Returns
    -------
    list of dict
        ``part``, ``seconds`` of the wall and ``cpu_s`` of the processor: the whole replay, its
        parts run alone, and the replay on the fluid network.
    """
    rows = []
    for part, run in _parts().items():
        run()
        rows.append({"part": part} | timed(run, repeats)[1]._asdict())
    if fluid:
        spec = CASE.model_copy(update={"network": NetworkSpec(kind="fluid", routing="hash")})
        setting = prepare(spec)
        placement = place(spec.placement, setting).placement
        _, clocks = timed(lambda: replay(spec, setting, placement), 1)
        rows.append({"part": FLUID} | clocks._asdict())
    return rows


def _parts() -> dict[str, Callable[[], object]]:
    """Return the analytic replay, and what it consists of."""
    setting = prepare(CASE)
    placement = place(CASE.placement, setting).placement
    trace, attention = setting.workload.trace, setting.attention
    sizes = MessageSizes.from_model(setting.model)
    sent = exchange(trace, placement, attention, sizes=sizes)
    pool = DecodePool(requests_per_gpu=TOKENS_PER_GPU, kv_tokens=CASE.step.kv_tokens)
    compute = PoolCompute(setting.model, gpu_model("H800"), pool)
    batch = Batch.of(placement, sent, compute.times(placement, sent))
    return {
        ANALYTIC: lambda: replay(CASE, setting, placement),
        "counting messages": lambda: exchange(trace, placement, attention, sizes=sizes),
        "step on the network": lambda: run_step(AnalyticNetwork(setting.router), [batch]),
        "step on a free network": lambda: critical_ns([batch]),
    }


STEP_SECTION = Section(
    "One decode step replayed: R1, 58 layers out and back, 256 GPUs, 128 tokens each",
    lambda _data, everything: step_rows(fluid=everything),
    {
        "part": ("part", ""),
        "seconds": ("seconds", ".3f"),
        "cpu_s": ("processor seconds", ".3f"),
    },
    (
        Target("R1 decode step, analytic: processor seconds", column("cpu_s", part=ANALYTIC), 0.5),
        Target("R1 decode step, fluid: processor seconds", column("cpu_s", part=FLUID), 30),
    ),
    needs_data=False,
)
