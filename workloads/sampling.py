"""Traces drawn from expert loads, with exact marginals.

A token chooses k distinct experts; expert e is to be among them with probability
``pi_e = k * load_e``. Drawing one expert after the other by weight without replacement does not
give that: hot experts come out too rarely. Systematic sampling does (W. G. Madow, "On the theory
of systematic sampling, II", Annals of Mathematical Statistics 20, 1949), and in a fresh random
order for every token and layer it ties no two experts together. The order of a token's k choices
is random.

Group-limited routing (`n_group`, `topk_group`) is drawn in two stages. With g_G the load of group
G and t groups to a token, group G is taken with ``pi_G = min(1, c * g_G)``, c such that the pi_G
sum to t; then the experts of the t groups taken are drawn with ``w_e = k * load_e / pi_G``.

The w of the groups taken always sum to k, whichever they are. Let m groups be capped (pi_G = 1);
they are always taken and their w sum to ``k * g_G`` each. The other t - m groups taken have
``pi_G = c * g_G``, so their w sum to ``k / c`` each. Since the pi_G of all groups that are not
capped sum to t - m, their loads sum to ``(t - m) / c``, and this is ``1 - sum of capped g_G``.
Together: ``k * sum of capped g_G + (t - m) * k / c = k``.

So ``pi_G * w_e = k * load_e`` exactly, unless some w_e exceeds 1: then it is capped and its excess
spread over the same group's other experts in proportion to their loads, which keeps the group's
sum. A group always has room: a capped one holds ``k * g_G``, at most its number of experts as no
``k * load_e`` exceeds 1; the others hold ``k / c``, at most what a capped one holds, or ``k / t``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workloads._arrays import ROW_SUM_TOLERANCE, check_load
from workloads._waterfill import water_fill
from workloads.errors import WorkloadError
from workloads.trace import RoutingTrace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workloads.model import MoEModel


@dataclass(frozen=True, slots=True)
class Stages:
    """Probabilities of the two stages.

    Attributes
    ----------
    group_weight
        float64 [layers, groups]: probability that a token may use the group.
    groups_used
        int64 [layers]: groups a token may use.
    weight
        float64 [layers, experts]: probability of an expert given that its group may be used.
    """

    group_weight: NDArray[np.float64]
    groups_used: NDArray[np.int64]
    weight: NDArray[np.float64]


def inclusion_probabilities(
    load: NDArray[np.float64], model: MoEModel
) -> tuple[NDArray[np.float64], float]:
    """Return how probably a token chooses each expert, and how far that is from k * load.

    Parameters
    ----------
    load
        float64 [layers, experts], every row summing to 1.
    model
        Gives k and the groups.

    Returns
    -------
    tuple
        float64 [layers, experts], and the greatest ``|achieved - k * load|``: rounding, except
        under group limits that forbid the wanted probabilities.

    Raises
    ------
    WorkloadError
        The loads do not fit the model, or an expert's k * load exceeds 1.
    """
    design = stages(load, model)
    groups = design.group_weight.shape[1]
    by_expert = np.repeat(design.group_weight, model.experts // groups, axis=1)
    achieved = by_expert * design.weight
    return achieved, float(np.abs(achieved - model.top_k * load).max())


def draw_trace(
    load: NDArray[np.float64],
    model: MoEModel,
    tokens: int,
    rng: np.random.Generator,
    *,
    source: str = "drawn from loads",
    seq_len: int | None = None,
) -> RoutingTrace:
    """Draw the choices of `tokens` independent tokens.

    The choices of a token are distinct, and in random order. A longer trace from the same
    generator state begins with the shorter one.

    Parameters
    ----------
    load
        float64 [layers, experts], every row summing to 1.
    model
        Gives k and the groups.
    tokens
        Tokens to draw.
    rng
        Source of all randomness.
    source
        Carried into the trace.
    seq_len
        Tokens of a sequence, the last one shorter where it must be; by default one sequence.

    Raises
    ------
    WorkloadError
        As `inclusion_probabilities`, or fewer than one token.
    """
    from workloads._kernels import draw  # noqa: PLC0415  numba is slow to import

    if tokens < 1:
        raise WorkloadError(f"cannot draw {tokens} tokens, expected at least 1")
    design = stages(load, model)
    topk = np.empty((tokens, model.layers, model.top_k), dtype=np.uint16)
    draw(rng, design.group_weight, design.groups_used, design.weight, topk)
    return RoutingTrace(
        topk=topk,
        experts=model.experts,
        seq_lens=sequence_lengths(tokens, tokens if seq_len is None else seq_len),
        source=source,
    )


def stages(load: NDArray[np.float64], model: MoEModel) -> Stages:
    """Return the probabilities of both stages under loads, float64 [layers, experts]."""
    wanted = _wanted(load, model)
    groups, used = model.n_group or 1, model.topk_group or 1
    group_weight = np.empty((model.layers, groups))
    groups_used = np.empty(model.layers, dtype=np.int64)
    weight = np.zeros((model.layers, groups, model.experts // groups))
    for layer, by_group in enumerate(wanted.reshape(weight.shape)):
        mass = by_group.sum(axis=1)
        groups_used[layer] = min(used, int(np.count_nonzero(mass)))
        group_weight[layer] = water_fill(mass, float(groups_used[layer]), 1.0)
        for group in np.flatnonzero(mass):
            quota = float(mass[group] / group_weight[layer, group])
            weight[layer, group] = water_fill(by_group[group], quota, 1.0)
    return Stages(group_weight, groups_used, weight.reshape(wanted.shape))


def _wanted(load: NDArray[np.float64], model: MoEModel) -> NDArray[np.float64]:
    """Return k * load, float64 [layers, experts], after all checks."""
    if load.shape != (model.layers, model.experts):
        raise WorkloadError(
            f"load has shape {load.shape}, {model.name} has {(model.layers, model.experts)} "
            "(MoE layers, experts)"
        )
    check_load(load)
    wanted = model.top_k * load
    over = np.argwhere(wanted > 1.0 + ROW_SUM_TOLERANCE)
    if len(over):
        layer, expert = (int(i) for i in over[0])
        raise WorkloadError(
            f"load of MoE layer {layer} (layer {model.moe_layers[layer]} of {model.name}), expert "
            f"{expert}: inclusion probability {model.top_k} x {load[layer, expert]:.12g} = "
            f"{wanted[layer, expert]:.12g}, expected at most 1, as a token chooses an expert once"
        )
    # The rows sum to k only to the tolerance; the sampling rests on the sum being k.
    exact: NDArray[np.float64] = wanted / load.sum(axis=1, keepdims=True)
    return exact


def sequence_lengths(tokens: int, seq_len: int) -> NDArray[np.int32]:
    """Return lengths of sequences of `seq_len` tokens, the last one shorter where it must be."""
    if seq_len < 1:
        raise WorkloadError(f"seq_len is {seq_len}, expected at least 1")
    whole, rest = divmod(tokens, seq_len)
    return np.array([seq_len] * whole + [rest] * (rest > 0), dtype=np.int32)
