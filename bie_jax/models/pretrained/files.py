"""What `save_pretrained` of Hugging Face's `transformers` wrote: `model.safetensors`, and `config.json` beside it.

Only safetensors files are read: other formats are pickles, which run what they contain.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def read_files(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors, and what `config.json` beside them says (empty without one)."""
    file = path / WEIGHTS if path.is_dir() else path
    if not file.exists():
        others = [p.name for p in sorted(file.parent.glob("*")) if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5")]
        instead = f"; {', '.join(others)} cannot be read, because it may run code" if others else ""
        raise FileNotFoundError(f"there is no {file}{instead}. save_pretrained of `transformers` writes it")
    if file.suffix != ".safetensors":
        raise ValueError(f"{file.name} cannot be read: only .safetensors files are, because others may run code")
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a safetensors file: {error}") from None
    for name, tensor in tensors.items():
        # Whole numbers are quantized weights, whose scale stands elsewhere, or counters.
        if tensor.dtype.kind in "biuc" and tensor.ndim > 1:
            raise ValueError(f"{file}: {name} is of {tensor.dtype}; only weights in floats are read")
    beside = file.parent / CONFIG
    try:
        config = json.loads(beside.read_text()) if beside.exists() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{beside} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{beside} holds {type(config).__name__}, not named values")
    return tensors, config


def entries_of(config: dict[str, Any], *keys: str) -> list[Any]:
    """What `config.json` says of a ViT that its tensors do not tell."""
    if not config:
        raise ValueError(f"{CONFIG} beside the weights is missing or empty, and only it tells a ViT's number of heads")
    missing = [key for key in keys if key not in config]
    if missing:
        raise ValueError(
            f"{CONFIG} beside the weights has no {', '.join(missing)}, which the tensors do not tell; save_pretrained "
            "of `transformers` writes it"
        )
    return [config[key] for key in keys]
