"""What a person may hand in as a configuration: one line on what is wrong with it, and where."""

import numpy as np
import pytest

from bie_jax.config.files import load_config_file
from bie_jax.config.schema import ConfigError


def _file(folder, text, name="mine.py"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


FIRST = "from ml_collections import ConfigDict\n"
BINARY = bytes(np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "the file has no function get_config"),
        ("get_config = 3\n", "the file has no function get_config"),
        ("def get_config():\n    raise RuntimeError('no such luck')\n", "line 2: RuntimeError: no such luck"),
        ("def get_config(:\n    pass\n", "line 1: SyntaxError: "),
        ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
        ("def get_config():\n    assert False\n", "line 2: AssertionError"),
        ("def get_config():\n    open('/no/such/file')\n", "line 2: FileNotFoundError: "),
        ("def get_config():\n    raise ValueError('two\\nlines')\n", "two lines"),
        ("def get_config():\n    return {}\n", "its get_config returns dict, not a ml_collections.ConfigDict"),
        ("def get_config():\n    pass\n", "its get_config returns NoneType, not"),
        ("def get_config(variant):\n    pass\n", "its get_config needs a variant, FILE.py:VARIANT"),
        (BINARY, "SyntaxError: "),
    ],
)
def test_one_line_and_where(tmp_path, text, message):
    path = _file(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_config_file(str(path))
    assert str(error.value).startswith(f"--config={path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.json", r"a configuration is a Python file \(.py\) with a function get_config"),
        ("passwd", r"a configuration is a Python file \(.py\)"),
        ("nothing.py", "is no file; configurations lie in configs/"),
        ("", "is a folder; configurations lie in configs/"),
    ],
)
def test_what_is_no_file_of_python(tmp_path, name, message):
    _file(tmp_path, '{"a": 1}', "a.json")
    _file(tmp_path, "root:x:0:0\n", "passwd")
    with pytest.raises(ConfigError, match=message):
        load_config_file(str(tmp_path / name))


def test_variants(tmp_path):
    path = _file(tmp_path, FIRST + "def get_config(variant=''):\n    return ConfigDict({'variant': variant})\n")
    assert load_config_file(str(path)).variant == ""
    assert load_config_file(f"{path}:small:er").variant == "small:er"
    alone = _file(tmp_path, FIRST + "def get_config():\n    return ConfigDict()\n", "alone.py")
    with pytest.raises(ConfigError, match="its get_config has no variants; leave :small out"):
        load_config_file(f"{alone}:small")
