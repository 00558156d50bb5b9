"""Loading a model and its tokenizer from a folder, without the network and without its code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.errors import ExperimentError
from workloads.hf_config import CONFIG

if TYPE_CHECKING:
    from pathlib import Path

INSTALL = (
    "PyTorch and transformers are needed to run a model; install the extra 'capture': "
    "pip install -e '.[capture]' in topomoe's folder"
)
WEIGHTS_MISSING = (
    "its files lack weights, such as {name!r}; expected every weight of {kind}: transformers would "
    "draw the missing at random"
)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model ready to run.

    Attributes
    ----------
    folder
        Where it is from.
    network
        The torch module, in evaluation mode.
    tokenizer
        Its tokenizer.
    """

    folder: Path
    network: Any
    tokenizer: Any

    @property
    def positions(self) -> int | None:
        """Most tokens of a sequence; None where the config does not say."""
        most = getattr(self.network.config, "max_position_embeddings", None)
        return None if most is None else int(most)

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        return int(self.network.get_input_embeddings().weight.shape[0])

    @property
    def stops(self) -> frozenset[int]:
        """Tokens that end a sequence."""
        ids = getattr(self.network.generation_config, "eos_token_id", None)
        ids = getattr(self.network.config, "eos_token_id", None) if ids is None else ids
        return frozenset(ids if isinstance(ids, list) else [] if ids is None else [ids])


def require_libraries() -> None:
    """See that PyTorch and transformers are there.

    Raises
    ------
    ExperimentError
        If one is missing; the message says how to install it.
    """
    try:
        import torch  # noqa: F401, PLC0415  seconds, and an extra
        import transformers  # noqa: PLC0415
    except ImportError as error:
        raise ExperimentError(f"{INSTALL} ({error})") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def model_folder(path: Path) -> Path:
    """Return the folder of a model, given itself or its ``config.json``.

    Raises
    ------
    ExperimentError
        If it is neither.
    """
    if path.is_dir():
        return path
    if path.name == CONFIG and path.is_file():
        return path.parent
    raise ExperimentError(
        f"{path}: expected the folder of a model, with config.json, weights (safetensors) and "
        "tokenizer; nothing is downloaded"
    )


def load_model(folder: Path, device: str | None) -> LoadedModel:
    """Load model and tokenizer from the files of `folder` alone.

    Weights are read from safetensors files, so that nothing is unpickled, and code that comes
    with a model is not run.

    Parameters
    ----------
    device
        ``cpu``, ``cuda``, ``cuda:1`` ..., or ``auto``, which spreads the layers over GPUs (with
        the package accelerate); by default the first GPU, or the CPU where there is none.

    Raises
    ------
    ExperimentError
        If there is no such device, or the files cannot be loaded, or lack weights.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415  seconds

    place = None if device == "auto" else _device(device)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = _loaded(AutoTokenizer, folder, "tokenizer", **options)
    if device == "auto":
        options["device_map"] = "auto"
    network, report = _loaded(
        AutoModelForCausalLM,
        folder,
        "model",
        dtype="auto",
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    missing = sorted(report["missing_keys"])
    if missing:
        lack = WEIGHTS_MISSING.format(name=missing[0], kind=type(network).__name__)
        raise ExperimentError(f"{folder}: {lack}")
    network.eval()
    return LoadedModel(folder, network if place is None else network.to(place), tokenizer)


def _device(name: str | None) -> Any:
    import torch  # noqa: PLC0415  as above

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ExperimentError(
            f"device '{name}' cannot be used: {first_line(error)}; expected cpu, cuda, cuda:1 or "
            "another that PyTorch finds here, or auto"
        ) from None
    return place


def _loaded(maker: Any, folder: Path, what: str, **options: Any) -> Any:
    try:
        return maker.from_pretrained(str(folder), **options)
    except MemoryError:
        raise
    except Exception as error:  # whatever a library makes of broken files
        raise ExperimentError(
            f"{folder}: its {what} cannot be loaded: {first_line(error)}"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error, for libraries write many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
