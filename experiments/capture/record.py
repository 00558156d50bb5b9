"""From a model's folder and a file of prompts to a stored trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.capture.generation import route_batch
from experiments.capture.loading import load_model, model_folder, require_libraries
from experiments.capture.prompts import read_prompts
from experiments.capture.routers import RouterRecorder, find_routers
from experiments.errors import ExperimentError
from workloads import MoEModel, TraceWriter, read_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from experiments.capture.loading import LoadedModel
    from experiments.capture.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Captured:
    """What was recorded.

    Attributes
    ----------
    model
        The model, from its config.
    sequences, prefill_tokens, decode_tokens
        How many there are: a sequence for each prompt.
    domains
        Kinds of traffic among the prompts, in their order.
    """

    model: MoEModel
    sequences: int
    prefill_tokens: int
    decode_tokens: int
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """How a model is run.

    Attributes
    ----------
    new_tokens
        Most tokens generated for a prompt; up to 1, only prompts are recorded.
    batch_size
        Prompts that go through the model together.
    device
        As `load_model` takes it.
    """

    new_tokens: int = 32
    batch_size: int = 8
    device: str | None = None


def capture(
    model_path: Path,
    prompts_file: Path,
    out: Path,
    options: CaptureOptions,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Captured:
    """Run prompts through a model and write what its routers choose to the stored trace `out`.

    Sequences stand in the order of the prompts, prompt tokens marked as prefill and generated
    ones as decode. The trace is there whole once all prompts are through, and not before.

    Raises
    ------
    ExperimentError, WorkloadError
        If an input cannot be used, or `out` is there already.
    RunError
        If the model fails on the prompts.
    """
    folder = model_folder(model_path)
    shape, prompts = read_config(folder), read_prompts(prompts_file)
    source = f"routers of {shape.name} on {prompts_file.name}"
    with TraceWriter(
        out,
        model=shape,
        experts=shape.experts,
        layers=shape.layers,
        top_k=shape.top_k,
        source=source,
    ) as writer:
        require_libraries()
        progress("loading the model ...")
        loaded = load_model(folder, options.device)
        ids = _encode(loaded, prompts, prompts_file, options.new_tokens)
        routers = find_routers(loaded.network, shape, str(loaded.folder))
        prefill = decode = 0
        with RouterRecorder(routers, shape) as recorder:
            for first in range(0, len(prompts), options.batch_size):
                progress(f"prompt {first + 1} of {len(prompts)} ...")
                batch = slice(first, first + options.batch_size)
                got = route_batch(loaded, recorder, ids[batch], new_tokens=options.new_tokens)
                for prompt, (chosen, phase) in zip(prompts[batch], got, strict=True):
                    writer.append(chosen, phase=phase, domain=prompt.domain)
                    decode += int(phase.sum())
                    prefill += len(phase) - int(phase.sum())
    domains = dict.fromkeys(prompt.domain for prompt in prompts if prompt.domain is not None)
    return Captured(shape, len(prompts), prefill, decode, tuple(domains))


def _encode(
    model: LoadedModel, prompts: list[Prompt], file: Path, new_tokens: int
) -> list[list[int]]:
    """Turn every prompt into tokens before the first goes through the model.

    Raises
    ------
    ExperimentError
        If one has no tokens, too many, or some that the model does not know; the message names
        its line.
    """
    most, encoded = model.positions, []
    for prompt in prompts:
        ids = list(model.tokenizer(prompt.text)["input_ids"])
        where = f"{file}: line {prompt.line}"
        if not ids:
            raise ExperimentError(f"{where}: the tokenizer makes no token of it; expected some")
        if max(ids) >= model.vocabulary:
            raise ExperimentError(
                f"{where}: the tokenizer gives token {max(ids)}, the model knows "
                f"{model.vocabulary}; expected the tokenizer of {model.folder}"
            )
        if most is not None and len(ids) + max(new_tokens - 1, 0) > most:
            raise ExperimentError(
                f"{where}: {len(ids)} tokens and up to {new_tokens} new ones; expected at most the "
                f"{most} positions of the model"
            )
        encoded.append(ids)
    return encoded
