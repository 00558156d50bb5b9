"""Router maths in numpy, written from the papers and not from any library: expert ids from inputs.

DeepSeek-V3: arXiv 2412.19437, 2.1.2 (sigmoid affinities, bias added for the choice only, groups
scored by their two best); DeepSeek-V2: arXiv 2405.04434, 2.2.2 (softmax, groups scored by their
best); the others take the k largest logits, which softmax does not reorder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def chosen(kind: str, router: Any, inputs: NDArray[Any], groups: tuple[int, int]) -> NDArray[Any]:
    """Return the ids a router chooses, ascending, int64 [tokens, k]; `groups` as (all, taken)."""
    weight = {name: value.double().numpy() for name, value in router.state_dict().items()}
    score = inputs.astype(np.float64) @ weight["weight"].T
    if kind in ("deepseek_v3", "glm4_moe"):
        score = 1 / (1 + np.exp(-score)) + weight["e_score_correction_bias"]
        score = within_groups(score, groups, best=2)
    elif kind == "deepseek_v2":
        score = within_groups(score, groups, best=1)
    elif kind == "gpt_oss":
        score = score + weight["bias"]
    return np.sort(np.argsort(-score, axis=1)[:, : router.top_k], axis=1)


def within_groups(score: NDArray[Any], groups: tuple[int, int], best: int) -> NDArray[Any]:
    """Forbid all experts but those of the groups whose `best` experts sum highest."""
    parted = score.reshape(len(score), groups[0], -1)
    value = np.sort(parted, axis=2)[:, :, -best:].sum(axis=2)
    allowed = np.zeros_like(value, dtype=bool)
    np.put_along_axis(allowed, np.argsort(-value, axis=1)[:, : groups[1]], values=True, axis=1)
    return np.where(allowed[:, :, None], parted, -np.inf).reshape(score.shape)
