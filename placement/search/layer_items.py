"""One layer's slots, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class LayerItems:
    """Slots of one layer, ordered by expert.

    Attributes
    ----------
    expert, gpu
        int64 [items]: what a slot holds and where it is.
    first, replicas
        int64 [experts]: the first item of an expert and how many it has.
    """

    expert: NDArray[np.int64]
    gpu: NDArray[np.int64]
    first: NDArray[np.int64]
    replicas: NDArray[np.int64]

    def of_choices(self, choices: NDArray[np.integer]) -> NDArray[np.int64]:
        """Deal tokens to replicas: int64 [tokens, k] items for experts [tokens, k].

        A token takes each replica with the same probability, independently for its choices
        (the rule `equal`); a hash of token and expert draws, so that the deal is always the same.
        """
        token = np.arange(len(choices), dtype=np.uint64)[:, None]
        mixed = token * np.uint64(0x9E3779B97F4A7C15) + choices.astype(np.uint64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        draw = (mixed >> np.uint64(33)).astype(np.int64)
        item: NDArray[np.int64] = self.first[choices] + draw % self.replicas[choices]
        return item

    def share(self, load: NDArray[np.float64]) -> NDArray[np.float64]:
        """Split experts' loads [..., experts] equally over their items."""
        split: NDArray[np.float64] = (load / self.replicas)[..., self.expert]
        return split


def came_from(items: LayerItems, old: LayerItems, gpus_per_server: int) -> NDArray[np.int64]:
    """GPU that every slot of a layer comes from, below 0 for one that is new.

    A slot comes from the expert's old slot on its GPU; else from one in its server; else from
    any that is left.

    Returns
    -------
    int64 [items]
    """
    came = np.full(len(items.expert), -1, dtype=np.int64)
    for expert, (first, replicas) in enumerate(zip(items.first, items.replicas, strict=True)):
        begin = old.first[expert]
        left = old.gpu[begin : begin + old.replicas[expert]].tolist()
        for near in (1, gpus_per_server, np.inf):
            for item in range(first, first + replicas):
                match = [g for g in left if g // near == items.gpu[item] // near]
                if came[item] < 0 and match:
                    came[item] = match[0]
                    left.remove(match[0])
    return came
