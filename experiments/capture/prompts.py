"""The prompts a model is given: lines of text, or JSON lines with a domain."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.errors import ExperimentError

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES = 256 << 20
"""Largest file that is read."""
KEYS = ("prompt", "domain")
"""Keys of a line of JSON; the second may be left out of all lines."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One sequence to be.

    Attributes
    ----------
    text
        As it stands: no chat template is applied.
    line
        Its line in the file, from 1.
    domain
        The kind of traffic it stands for; None where the file has none.
    """

    text: str
    line: int
    domain: str | None = None


def read_prompts(file: Path) -> list[Prompt]:
    """Read a file of prompts: of ``.jsonl`` every line an object, of others every line a text.

    Lines of nothing but blanks are passed over.

    Raises
    ------
    ExperimentError
        If it cannot be read, holds no prompt, or a line is not what it must be; one line with
        the file's name and the line's number.
    """
    lines = [(at, line) for at, line in enumerate(_lines(file), 1) if line.strip()]
    if not lines:
        raise ExperimentError(f"{file}: holds no prompt; expected one a line")
    if file.suffix != ".jsonl":
        return [Prompt(text, at) for at, text in lines]
    prompts = [_prompt(text, at, f"{file}: line {at}") for at, text in lines]
    labelled = prompts[0].domain is not None
    for prompt in prompts:
        if (prompt.domain is not None) != labelled:
            raise ExperimentError(
                f"{file}: line {prompt.line}: {'no ' * labelled}'domain', unlike line "
                f"{prompts[0].line}; expected one in all lines or in none"
            )
    return prompts


def _lines(file: Path) -> list[str]:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ExperimentError(f"{file}: cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ExperimentError(f"{file}: larger than {MAX_FILE_BYTES} bytes, the most that is read")
    try:
        # Not splitlines: that would break texts at rarer separators, which JSON allows in texts.
        return [line.removesuffix("\r") for line in data.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        at = data.count(b"\n", 0, error.start) + 1
        raise ExperimentError(f"{file}: line {at}: not UTF-8; expected text") from None


def _prompt(text: str, at: int, where: str) -> Prompt:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ExperimentError(f"{where}: expected an object with the keys {', '.join(KEYS)}")
    foreign = [key for key in content if key not in KEYS]
    if foreign:
        raise ExperimentError(f"{where}: unknown key {foreign[0]!r}; allowed: {', '.join(KEYS)}")
    domain = content.get("domain")
    return Prompt(
        _text(content.get("prompt"), "prompt", where),
        at,
        None if domain is None else _text(domain, "domain", where),
    )


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ExperimentError(f"{where}: key '{key}': expected a text that is not blank")
    try:
        value.encode()
    except UnicodeEncodeError:
        half = "holds half a surrogate pair; expected text"
        raise ExperimentError(f"{where}: key '{key}': {half}") from None
    return value
