"""Reading a configuration file, `FILE.py` or `FILE.py:VARIANT`: a table of values, or one line on why there is none."""

import importlib.util
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from ml_collections import ConfigDict

from bie_jax.config.schema import ConfigError
from bie_jax.files.foreign_text import visible

_Result = TypeVar("_Result")


def load_config_file(name: str) -> ConfigDict:
    """What `get_config` of a file returns.

    Args:
        name: path of the file and, behind a colon, what `get_config` is given.

    Raises:
        ConfigError: for what is no such file; where the file itself fails, with its line.
    """
    path, colon, variant = name.partition(":")
    if not Path(path).is_file():
        kind = "a folder" if Path(path).is_dir() else "no file"
        raise _refusal(name, f"{path!r} is {kind}; configurations lie in configs/, e.g. configs/vqvae_idr0093.py")
    if Path(path).suffix != ".py":
        raise _refusal(name, "a configuration is a Python file (.py) with a function get_config, as those of configs/")
    get_config = getattr(_run(name, path), "get_config", None)
    if not callable(get_config):
        raise _refusal(name, "the file has no function get_config, as those of configs/ have")
    arguments = [variant] if colon else []
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        what = f"has no variants; leave :{variant} out" if colon else "needs a variant, FILE.py:VARIANT"
        raise _refusal(name, f"its get_config {what}") from None
    config = _guarded(name, path, lambda: get_config(*arguments))
    if not isinstance(config, ConfigDict):
        raise _refusal(name, f"its get_config returns {type(config).__name__}, not a ml_collections.ConfigDict")
    return config


def _run(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("config_file", path)
    assert spec is not None
    assert spec.loader is not None  # of a file that ends in .py
    module = importlib.util.module_from_spec(spec)
    _guarded(name, path, lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
    return module


def _guarded(name: str, path: str, call: Callable[[], _Result]) -> _Result:
    """Somebody's code: whatever it raises becomes one line, with the last line of their file that was run."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError) and error.filename == path:
            lines = [error.lineno]
        else:
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f"line {lines[-1]}: " if lines and lines[-1] else ""
        said = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
        # What a file of configs/ says of a variant is a sentence; of any other error the kind is half of what it says.
        kind = "" if type(error) is ValueError else type(error).__name__ + ": " * bool(said)
        raise _refusal(name, f"{where}{kind}{said}") from None


def _refusal(name: str, why: str) -> ConfigError:
    return ConfigError(f"--config={visible(name)}: {visible(why)}")
