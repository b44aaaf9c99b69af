"""Every key of the schema: a range, and one line with key, value, range and example for whatever does not lie in it."""

import json
import math
import typing

import pytest
from ml_collections import ConfigDict

from bie_jax.config.faults import allowed_values, numbers_of
from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config, ConfigError
from bie_jax.config.stored import flatten
from configs import vqvae_idr0093

TABLE = vqvae_idr0093.get_config().to_dict()
KEYS = list(flatten(TABLE))
NUMBERS = list(numbers_of(Config))
# Of every type there is; a key takes those of its own type, if it does, and is silent about none of the others.
WRONG = (None, -1, 2.5, 10**30, True, "words", "", (), (1,), (1, 2, 3), ("a", "b", "c"), b"x", {"a": 1}, 1j, object())


def _with(key, value):
    table = json.loads(json.dumps(TABLE))
    *groups, last = key.split(".")
    group = table
    for name in groups:
        group = group[name]
    group[last] = value
    return ConfigDict(table)


def _lines(key, value):
    try:
        check_config(_with(key, value))
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_every_number_has_two_ends():
    numbers = {key for key, _, _ in NUMBERS}
    assert all(math.isfinite(low) and math.isfinite(high) and low < high for _, low, high in NUMBERS)
    # Steps are counted in 32 bits.
    assert all(high < 2**31 for key, _, high in NUMBERS if key.endswith("steps"))
    is_number = {key for key, value in flatten(TABLE).items() if type(value) in (int, float)}
    chosen = {key for key in is_number - numbers if " or " in allowed_values(Config, key)}  # 18, 34, 50, 101 or 152
    assert is_number == numbers & is_number | chosen
    assert {"data.crop_size", "eval.image_size", "model.quantizer.levels", "data.mix_weights"} <= numbers


@pytest.mark.parametrize(("key", "low", "high"), NUMBERS)
def test_what_lies_just_outside_is_refused_with_key_value_and_range(key, low, high):
    in_list = isinstance(flatten(TABLE)[key], tuple)
    whole = isinstance(flatten(TABLE)[key][0] if in_list else flatten(TABLE)[key], int)
    beyond = [int(low) - 1, int(high) + 1] if whole else [math.nextafter(low, -1), math.nextafter(high, 2 * high)]
    for value in [*beyond, math.nan, math.inf, -math.inf, float("1e400")]:
        given = tuple(value for _ in flatten(TABLE)[key]) if in_list else value
        (line,) = _lines(key, given)
        assert line.startswith(f"config.{key}={given!r}: expected ")
        assert f"{high:.0f}" in line or f"{high:g}" in line
        assert f"--config.{key}=" in line


@pytest.mark.parametrize(("key", "low", "high"), NUMBERS)
def test_the_ends_themselves_are_in_the_range(key, low, high):
    in_list = isinstance(flatten(TABLE)[key], tuple)
    kind = type(flatten(TABLE)[key][0] if in_list else flatten(TABLE)[key])
    for value in (low, high):
        given = tuple(kind(value) for _ in flatten(TABLE)[key]) if in_list else kind(value)
        # Another key may stand against it; the range does not.
        assert not [line for line in _lines(key, given) if line.startswith(f"config.{key}=")]


@pytest.mark.parametrize("key", KEYS)
def test_a_value_of_another_type_is_one_line(key):
    refused = 0
    for value in WRONG:
        if value in flatten(TABLE).values() and type(value) is type(flatten(TABLE)[key]):
            continue
        lines = _lines(key, value)
        said = [line for line in lines if line.startswith(f"config.{key}=") or line.startswith(f"config.{key}.")]
        for line in said:
            assert "expected " in line or "there is no such key" in line
            assert "Input should" not in line
        refused += bool(said)
    assert refused >= 8


@pytest.mark.parametrize("key", KEYS)
def test_the_example_of_a_message_is_allowed(key):
    example = allowed_values(Config, key).rpartition(f"--config.{key}=")[2].strip("\"'")
    kind = type(flatten(TABLE)[key])
    value = kind(eval(example)) if kind in (tuple, bool, int, float) else example
    assert not [line for line in _lines(key, value) if line.startswith(f"config.{key}=")]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "data.crop_size",
            (32,),
            "config.data.crop_size=(32,): expected two whole numbers from 1 to 32768, (height, width), e.g. "
            "--config.data.crop_size='(32,32)'",
        ),
        ("data.crop_size", ("a",), "config.data.crop_size=('a',): expected two whole numbers"),
        ("data.read_threads", 1000000, "config.data.read_threads=1000000: expected a whole number from 1 to 128"),
        ("eval.seed", 99999999999, "config.eval.seed=99999999999: expected a whole number from 0 to 2147483647"),
        ("optimizer.weight_decay", 1e-320, "weight_decay=1e-320: expected 0, or a number from 1e-12 to 1000000"),
        ("eval.append", 3, "config.eval.append=3: expected 0 to 1000 texts of 1 to 4096 characters"),
        ("data.mix_with", ("a", "", "b"), "config.data.mix_with=('a', '', 'b'): expected 0 to 100 names of folders"),
        ("data.name", "../other", "config.data.name='../other': expected the name of a folder, without a path"),
        ("data.name", "a\nb", r"config.data.name='a\nb': expected the name of a folder"),
        ("eval.label", "\udcff", r"config.eval.label='\udcff': expected a text of 1 to 4096 characters, in UTF-8"),
        ("eval.label", "x" * 5000, "(5002 characters): expected a text of 1 to 4096"),
        ("model", 3, "config.model=3: expected a group of keys, which are set one by one, e.g. --config.model.name=ae"),
    ],
)
def test_messages(key, value, message):
    (line,) = _lines(key, value)
    assert message in line


def test_no_key_is_described_that_is_not_there():
    assert allowed_values(Config, "model.latnt_dim") == ""
    assert typing.cast(str, allowed_values(Config, "data.augment")).endswith("--config.data.augment.flip=True")


def test_what_is_no_table_is_refused():
    with pytest.raises(ConfigError, match=r"is a ml_collections.ConfigDict, not a dict"):
        check_config(TABLE)
