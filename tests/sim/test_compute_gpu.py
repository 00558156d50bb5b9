"""GPUs, pools, and the constant times of the paper's study."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sim.compute
from placement import Placement
from sim import SimulationError
from sim.compute import (
    GPUS,
    DecodePool,
    PrefillPool,
    constant_times,
    expert_ns,
    gpu_model,
    throughput_per_gpu,
    tpot_s,
)


def test_public_names() -> None:
    """What the package exports."""
    assert sim.compute.__all__ == [
        "GPUS",
        "DecodePool",
        "GpuModel",
        "Pool",
        "PrefillPool",
        "StepTimes",
        "constant_times",
        "expert_ns",
        "expert_seconds",
        "gpu_model",
        "step_times",
        "throughput_per_gpu",
        "tpot_s",
    ]
    assert all(hasattr(sim.compute, name) for name in sim.compute.__all__)


def test_presets_are_the_vendors_figures() -> None:
    """Dense peaks are half of the sparse ones, NVLink a direction half of both ways."""
    assert list(GPUS) == ["H800", "H100", "H200", "B200"]
    sparse_fp8 = {"H800": 3958e12, "H100": 3958e12, "H200": 3958e12, "B200": 72e15 / 8}
    memory = {"H800": (80, 3.35), "H100": (80, 3.35), "H200": (141, 4.8), "B200": (1440 / 8, 8)}
    nvlink = {"H800": 400e9, "H100": 900e9, "H200": 900e9, "B200": 14.4e12 / 8}
    for name, gpu in GPUS.items():
        assert gpu.name == name
        assert gpu is gpu_model(name)
        assert (gpu.flops_8bit, gpu.flops_16bit) == (sparse_fp8[name] / 2, sparse_fp8[name] / 4)
        assert (gpu.memory_bytes / 1e9, gpu.memory_Bps / 1e12) == memory[name]
        assert gpu.nvlink_Bps == nvlink[name] / 2


def test_number_formats_choose_the_peak() -> None:
    """FP8 and its scales take the 8-bit peak, BF16 and unpacked 4-bit weights the 16-bit one."""
    gpu = gpu_model("H100")
    assert gpu.flops(1 + 4 / 128**2) == 1979e12 * 0.62
    assert gpu.flops(2.0) == gpu.flops(0.5 + 1 / 32) == 989.5e12 * 0.62


def test_efficiency_follows_from_the_published_kernels() -> None:
    """Two thirds of an expert at 1297 TFLOP/s and one third at 1099: 1223 of 1979."""
    together = 1 / (2 / 3 / 1297 + 1 / 3 / 1099)
    assert together / 1979 == pytest.approx(gpu_model("H800").efficiency, abs=0.005)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_Bps": 0.0}, "GPU 'H100': memory_Bps is 0.0; expected a finite number above 0"),
        ({"flops_8bit": float("nan")}, "flops_8bit is nan"),
        ({"nvlink_Bps": float("inf")}, "nvlink_Bps is inf"),
        ({"memory_bytes": -1}, "memory_bytes is -1"),
        ({"efficiency": 1.1}, "efficiency is 1.1; expected a part above 0, at most 1"),
        ({"efficiency": 0.0}, "efficiency is 0.0"),
        ({"efficiency": float("nan")}, "efficiency is nan"),
        ({"tile_tokens": 0}, "tile_tokens is 0; expected at least 1 token"),
        ({"launch_s": -1e-6}, "launch_s is -1e-06; expected a finite number of seconds"),
        ({"launch_s": float("nan")}, "launch_s is nan"),
    ],
)
def test_impossible_gpus_are_refused(change: dict[str, Any], message: str) -> None:
    """One line names the GPU, the field and what was expected."""
    with pytest.raises(SimulationError, match=message):
        replace(gpu_model("H100"), **change)


def test_unknown_gpus_list_the_known() -> None:
    """The error says which there are."""
    with pytest.raises(
        SimulationError, match=r"GPU 'A100' is not known; .* H800, H100, H200, B200"
    ):
        gpu_model("A100")


def test_pools_count_tokens() -> None:
    """Decoding checks drafts and emits those that hold; prefill counts what it reads."""
    decode = DecodePool(256, 2000, drafts=3, accepted=1.5)
    assert (decode.phase, decode.tokens_per_request) == ("decode", 4)
    assert decode.batch_tokens(72) == 73_728
    # 0.1 s a step, 2.5 tokens of a request in it: 40 ms; 256 x 2.5 / 0.1 = 6400 tokens/s a GPU.
    assert tpot_s(decode, 0.1) == pytest.approx(0.04)
    assert throughput_per_gpu(decode, 0.1, tokens=73_728, gpus=72) == pytest.approx(6400)
    assert tpot_s(DecodePool(1, 0), 0.1) == 0.1
    prefill = PrefillPool(4, 4096)
    assert (prefill.phase, prefill.tokens_per_request) == ("prefill", 4096)
    assert prefill.batch_tokens(32) == 524_288
    # 16,384 tokens a GPU in 2 s.
    assert throughput_per_gpu(prefill, 2.0, tokens=524_288, gpus=32) == pytest.approx(8192)


def test_the_published_step_is_its_throughput() -> None:
    """22,282 tokens/s of 8 GPUs with 256 requests each are 91.9 ms a step (FACTS.md, section 3)."""
    per_gpu = throughput_per_gpu(DecodePool(256, 2000), 91.9e-3, tokens=72 * 256, gpus=72)
    assert 8 * per_gpu == pytest.approx(22_282, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DecodePool(0, 0), "decode pool: requests_per_gpu is 0; expected at least 1"),
        (lambda: DecodePool(1, -1), "kv_tokens is -1; expected at least 0"),
        (lambda: DecodePool(1, 0, drafts=-1), "drafts is -1"),
        (lambda: DecodePool(1, 0, tp=0), "tp is 0; expected at least 1"),
        (lambda: DecodePool(1, 0, accepted=0.5), "0.5 accepted of 0 drafts; expected 0 to 0"),
        (lambda: DecodePool(1, 0, drafts=1, accepted=float("nan")), "nan accepted of 1 drafts"),
        (lambda: PrefillPool(1, 0), "prefill pool: prompt_tokens is 0; expected at least 1"),
        (
            lambda: PrefillPool(1, 1, shared="none"),  # type: ignore[arg-type]
            "shared is 'none'; expected replicated or routed",
        ),
        (
            lambda: throughput_per_gpu(PrefillPool(1, 1), 0.0, tokens=1, gpus=1),
            "throughput of a step of 0.0 s; expected a step above 0 s",
        ),
    ],
)
def test_impossible_pools_are_refused(make: Any, message: str) -> None:
    """One line says what, and what was expected."""
    with pytest.raises(SimulationError, match=message):
        make()


def test_constant_times_by_hand() -> None:
    """Tokens of a GPU's slots add up before they are timed; nothing else takes time."""
    where = Placement(
        model="two layers",
        layers=2,
        experts=2,
        gpus=3,
        gpus_per_server=1,
        slot_layer=[0, 0, 0, 1, 1],
        slot_gpu=[0, 0, 2, 1, 2],
        slot_expert=[0, 1, 1, 0, 1],
        policy="test",
    )
    times = constant_times(where, np.array([1, 2, 4, 0, 5]), 0.5e-9)
    # 3 tokens of half a ns take 2 ns, not 1 + 1 of each slot rounded up.
    assert times.experts.tolist() == [[2, 0, 2], [0, 0, 3]]
    assert times.experts.tolist() == expert_ns(np.array([[3, 0, 4], [0, 0, 5]]), 0.5e-9).tolist()
    assert not times.attention.any()
    assert not times.tail.any()
    assert times.tail.shape == (3,)
    with pytest.raises(SimulationError, match="for 5 slots; expected one number each"):
        constant_times(where, np.array([1]), 1e-9)
    with pytest.raises(SimulationError, match="expert_seconds_per_token"):
        constant_times(where, np.array([1, 2, 4, 0, 5]), -1.0)
