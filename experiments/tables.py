"""Base of everything read from TOML: frozen, strict, and clear about what is allowed."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from experiments.errors import ExperimentError
from workloads import WorkloadError
from workloads.readers.json_file import read_text_file

if TYPE_CHECKING:
    from pathlib import Path


class Table(BaseModel):
    """A TOML table with known keys only."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, content: Any) -> Any:
        if isinstance(content, dict):
            for key in content:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key '{key}'; allowed: {', '.join(cls.model_fields)}")
        return content


def _shown(value: str | float) -> str:
    """Return a value as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


T = TypeVar("T", bound=Table)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises
    ------
    ExperimentError
        If it cannot be read or is no TOML; one line with the file's name.
    """
    try:
        return tomllib.loads(read_text_file(path).decode())
    except WorkloadError as error:
        raise ExperimentError(f"{path}: {error}") from None
    except RecursionError:
        raise ExperimentError(f"{path}: no valid TOML: nested too deeply") from None
    except ValueError as error:
        # Bad TOML, bad UTF-8, a number of thousands of digits, a NUL in the path.
        raise ExperimentError(f"{path}: no valid TOML: {error}") from error


def resolve(kind: type[T], content: dict[str, Any], where: str) -> T:
    """Turn parsed TOML into its validated table.

    Raises
    ------
    ExperimentError
        One line with the place, the key and what was expected there.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] != "value_error" and isinstance(first["input"], str | int | float):
            message = f"{message}, got {_shown(first['input'])}"
        raise ExperimentError(": ".join(part for part in (where, key, message) if part)) from error
