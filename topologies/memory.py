"""The last paths found, so that a replay which asks several times finds them once."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from topologies.paths import Paths

MAX_RESULTS, MAX_ENTRIES = 64, 1 << 23
"""Results remembered, and links of all their paths (32 MB)."""


class PathMemory:
    """Paths by the flows they were found for, the least recently asked forgotten first."""

    def __init__(self) -> None:
        self._paths: OrderedDict[bytes, Paths] = OrderedDict()
        self._entries = 0

    def recall(self, flows: Iterable[NDArray[Any]], find: Callable[[], Paths]) -> Paths:
        """Return what `find` gave for the same arrays before, or gives now."""
        digest = blake2b(digest_size=16)
        for array in flows:
            digest.update(f"{array.dtype}{len(array)} ".encode())
            digest.update(array.data)
        key = digest.digest()
        if key in self._paths:
            self._paths.move_to_end(key)
            return self._paths[key]
        paths = find()
        self._paths[key] = paths
        self._entries += len(paths.links) + len(paths.indptr)
        while self._entries > MAX_ENTRIES or len(self._paths) > MAX_RESULTS:
            _, oldest = self._paths.popitem(last=False)
            self._entries -= len(oldest.links) + len(oldest.indptr)
        return paths

    def clear(self) -> None:
        """Forget all."""
        self._paths.clear()
        self._entries = 0
