"""Reading a Python file that a flag names, as `--config=FILE.py:VARIANT`: what it makes, or one line on why not."""

import importlib.util
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

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
    file = File("config", name, path)
    return file.call("get_config", [variant] if colon else [], ConfigDict)


class File(NamedTuple):
    """A Python file that a flag names, with a function that tells what it is for.

    Attributes:
        flag: that names it, without dashes.
        name: as it was typed.
        path: of the file.
    """

    flag: str
    name: str
    path: str

    def call(self, function: str, arguments: list[str], returns: type[_Result]) -> _Result:
        """What the function of the file returns.

        Args:
            function: its name.
            arguments: none, or a variant.
            returns: the type that it must be of.

        Raises:
            ConfigError: for what is no such file; where the file itself fails, with its line.
        """
        what, example = _EXAMPLES[self.flag]
        folder = Path(example).parent
        if not Path(self.path).is_file():
            kind = "a folder" if Path(self.path).is_dir() else "no file"
            raise self.refusal(f"{self.path!r} is {kind}; {what}s lie in {folder}/, e.g. {example}")
        if Path(self.path).suffix != ".py":
            raise self.refusal(f"a {what} is a Python file (.py) with a function {function}, as those of {folder}/")
        found = getattr(self._run(), function, None)
        if not callable(found):
            raise self.refusal(f"the file has no function {function}, as those of {folder}/ have")
        try:
            inspect.signature(found).bind(*arguments)
        except TypeError:
            given = f"has no variants; leave :{arguments[0]} out" if arguments else "needs a variant, FILE.py:VARIANT"
            raise self.refusal(f"its {function} {given}") from None
        result = self._guarded(lambda: found(*arguments))
        if not isinstance(result, returns):
            expected = f"{returns.__module__.partition('.')[0]}.{returns.__name__}"
            raise self.refusal(f"its {function} returns {type(result).__name__}, not a {expected}")
        return result

    def refusal(self, why: str) -> ConfigError:
        """One line that says what is wrong with the file."""
        return ConfigError(f"--{self.flag}={visible(self.name)}: {visible(why)}")

    def _run(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"{self.flag}_file", self.path)
        assert spec is not None
        assert spec.loader is not None  # of a file that ends in .py
        module = importlib.util.module_from_spec(spec)
        self._guarded(lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
        return module

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """Somebody's code: whatever it raises becomes one line, with the last line of their file that was run."""
        try:
            return call()
        except (Exception, SystemExit) as error:
            if isinstance(error, SyntaxError) and error.filename == self.path:
                lines = [error.lineno]
            else:
                trace = traceback.extract_tb(error.__traceback__)
                lines = [frame.lineno for frame in trace if frame.filename == self.path]
            where = f"line {lines[-1]}: " if lines and lines[-1] else ""
            said = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
            # What a file of configs/ says of a variant is a sentence; of any other error the kind is half of it.
            kind = "" if type(error) is ValueError else type(error).__name__ + ": " * bool(said)
            raise self.refusal(f"{where}{kind}{said}") from None


_EXAMPLES = {
    "config": ("configuration", "configs/vqvae_idr0093.py"),
    "sweep": ("sweep", "configs/sweeps/latent_size.py"),
}
