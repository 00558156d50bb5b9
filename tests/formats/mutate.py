"""Documents made wrong: cut, mistyped, huge, NaN, negative, doubled and shuffled."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 20)
    | st.sampled_from([10**9, 2**31, 2**63, -(2**63), 10**30, 1e308, 1e999, float("nan"), 0.5, 1.0])
    | st.text(max_size=3)
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def mutate(data: st.DataObject, document: Any) -> Any:
    """Return a copy of a document with one to three places of it changed."""
    holder = [copy.deepcopy(document)]
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        parent, key = data.draw(st.sampled_from(_places(holder)), label="place")
        _change(data, parent, key)
    return holder[0] if holder else None


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (list or dictionary, index or key) below a value."""
    if isinstance(value, dict):
        own = [(value, key) for key in value]
    elif isinstance(value, list):
        own = [(value, at) for at in range(len(value))]
    else:
        return []
    below = [place for parent, key in own for place in _places(parent[key])]
    return (own + below) or [([None], 0)]


def _change(data: st.DataObject, parent: Any, key: Any) -> None:
    kind = data.draw(st.sampled_from(["junk", "near", "drop", "double", "swap"]), label="change")
    if kind == "junk":
        parent[key] = data.draw(JUNK)
    elif kind == "near" and type(parent[key]) is int:
        parent[key] += data.draw(st.sampled_from([-1, 1]))
    elif kind == "drop":
        del parent[key]
    elif kind == "double" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif kind == "swap" and isinstance(parent, list):
        other = data.draw(st.integers(0, len(parent) - 1))
        parent[key], parent[other] = parent[other], parent[key]
    elif isinstance(parent, dict):
        parent[data.draw(st.text(max_size=3))] = data.draw(JUNK)


def cut_or_flip(data: st.DataObject, content: bytes) -> bytes:
    """Return a proper beginning of a file, or the file with one byte changed."""
    place = data.draw(st.integers(0, len(content) - 1), label="place")
    if data.draw(st.booleans(), label="cut"):
        return content[:place]
    changed = bytearray(content)
    changed[place] = data.draw(st.integers(0, 255), label="byte")
    return bytes(changed)


def one_line_of(error: Exception, file: object) -> str:
    """Return the message of an error, and see that it is one line that begins with the file."""
    message = str(error)
    assert message.startswith(f"{file}: "), message
    assert "\n" not in message
    assert len(message) < 1000
    return message


def as_json(document: Any) -> bytes:
    """Write a document as JSON, NaN and infinities as Python does."""
    return json.dumps(document).encode()


def outcome(read: Callable[[], Any], file: object, errors: type[Exception]) -> tuple[str, Any]:
    """Return the refusal, or what was read."""
    try:
        return "", read()
    except errors as error:
        return one_line_of(error, file), None
