"""YAML of strangers: maps, lists and whole numbers; no tags, no key twice, of limited depth."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from placement.errors import PlacementError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DEPTH = 8
MAX_FILE_BYTES = 4 << 20
"""Largest file that is parsed: fifty times a map of DeepSeek-R1."""

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_OTHER_INTEGER = re.compile(r"[-+]?(0[0-7_]+|0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])*)")

# The parser alone, without what makes objects: the one of libyaml where it is built in.
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class _Open:
    """A list or map whose end is still to come."""

    value: list[Any] | dict[Any, Any]
    keys: list[Any] = field(default_factory=list)


def parse_yaml(content: bytes) -> Any:
    """Return what a document holds: dictionaries, lists, integers and, for all else, texts.

    Raises
    ------
    PlacementError
        It is no YAML, or holds tags, a key twice, a number that is not plain decimal, more than
        one document, or is nested too deeply; the message names the line.
    """
    if len(content) > MAX_FILE_BYTES:
        raise PlacementError(f"{len(content)} bytes, expected at most {MAX_FILE_BYTES}")
    try:
        return _built(yaml.parse(content, Loader=_PARSER))
    except yaml.YAMLError as error:
        raise PlacementError(f"not valid YAML: {' '.join(str(error).split())[:300]}") from None
    except ValueError as error:
        if isinstance(error, PlacementError):
            raise
        raise PlacementError(f"not valid YAML: {error}") from None


def _built(events: Iterable[Any]) -> Any:
    root: list[Any] = []
    stack, anchors = [_Open(root)], dict[str, Any]()
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                raise PlacementError(
                    f"line {line}: alias *{event.anchor[:40]} of nothing before it"
                )
            _add(stack[-1], anchors[event.anchor], line)
        elif isinstance(event, yaml.ScalarEvent):
            value = _scalar(event, line)
            _add(stack[-1], value, line)
            anchors |= {event.anchor: value} if event.anchor else {}
        elif isinstance(event, yaml.CollectionStartEvent):
            _check_tag(event, line)
            if len(stack) > MAX_DEPTH:
                raise PlacementError(f"line {line}: nested more than {MAX_DEPTH} deep")
            opened = _Open([] if isinstance(event, yaml.SequenceStartEvent) else {})
            _add(stack[-1], opened.value, line)
            stack.append(opened)
            anchors |= {event.anchor: opened.value} if event.anchor else {}
        elif isinstance(event, yaml.CollectionEndEvent):
            stack.pop()
    if len(root) != 1:
        raise PlacementError(f"{len(root)} documents, expected one")
    return root[0]


def _add(parent: _Open, value: Any, line: int) -> None:
    """Put a value into the list or map that is open; in a map every other one is a key."""
    if isinstance(parent.value, list):
        parent.value.append(value)
    elif parent.keys:
        parent.value[parent.keys.pop()] = value
    elif not isinstance(value, str | int):
        raise PlacementError(f"line {line}: a key is a list or a map, expected a name or a number")
    elif value in parent.value:
        raise PlacementError(f"line {line}: key {str(value)[:40]!r} stands twice, expected once")
    else:
        parent.keys.append(value)


def _scalar(event: Any, line: int) -> str | int:
    _check_tag(event, line)
    text: str = event.value
    if not event.implicit[0] or event.style:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OTHER_INTEGER.fullmatch(text):
        raise PlacementError(
            f"line {line}: number {text[:40]!r}, expected plain decimal digits without a leading 0"
        )
    return text


def _check_tag(event: Any, line: int) -> None:
    if event.tag is not None and event.tag != "!":
        raise PlacementError(f"line {line}: tag {event.tag[:60]!r}, expected none")
