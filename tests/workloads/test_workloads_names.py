"""The public names of the package, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import workloads

PUBLIC = [
    "DECODE",
    "PREFILL",
    "PRESETS",
    "R1_LIKE",
    "Architecture",
    "ExpertProfile",
    "GroupedAttention",
    "LatentAttention",
    "LoadCounts",
    "LoadCurve",
    "LoadStatistics",
    "MoEModel",
    "RoutingTrace",
    "Skew",
    "Storage",
    "StoredTrace",
    "SyntheticWorkload",
    "Topics",
    "TraceCounts",
    "TraceWriter",
    "WorkloadError",
    "WorkloadStatistics",
    "affinity",
    "coactivation",
    "config_file",
    "correlations",
    "count_trace",
    "draw_trace",
    "expected_pairs",
    "fit_curve",
    "fit_trace",
    "gini",
    "inclusion_probabilities",
    "is_config_path",
    "lint_load",
    "lint_trace",
    "load_statistics",
    "loglog_slope",
    "max_over_mean",
    "model",
    "read_chunks",
    "read_config",
    "read_load",
    "read_logical_count",
    "read_trace",
    "split_sequences",
    "stream",
    "synthetic_load",
    "top_share",
    "total_variation",
    "trace_statistics",
    "window_distances",
]


def test_public_names_are_pinned() -> None:
    """A name enters or leaves the package on purpose only."""
    assert workloads.__all__ == PUBLIC
    assert all(getattr(workloads, name) is not None for name in PUBLIC)


def test_importing_stays_cheap() -> None:
    """The package imports without the compiler and without pandas: the command line starts fast."""
    code = "import sys, workloads; print(sorted({'numba', 'pandas', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_traces_are_equal_in_any_process() -> None:
    """The same seed gives the same bytes under another hash seed, in another process."""
    code = (
        "import hashlib, workloads as w;"
        "x = w.SyntheticWorkload(w.model('DeepSeek-R1'), 3);"
        "print(hashlib.sha256(x.trace(20).topk.tobytes() + x.load.tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
