import pytest

from bie_jax.config.schema import ConfigError
from bie_jax.input.channels_by_name import channels_for


def test_channels_for_takes_what_one_of_the_runs_sets_has():
    dataset = {
        "channel_names": ["a", "b", "c"],
        "sets": [{"channel_names": ["a", "b"]}, {"channel_names": ["b", "c"]}],
    }
    assert channels_for("it", {"x": "c", "b": "b", "z": "z"}, dataset) == {"x": "c", "b": "b"}
    for names in (["a"], ["a", "c"], ["a", "b", "c"], ["z"]):
        with pytest.raises(ConfigError, match=r"it has the channels .*; the run takes a, b or b, c: say"):
            channels_for("it", {name: name for name in names}, dataset)


def test_what_is_to_be_typed_is_said():
    dataset = {"channel_names": ["DNA", "my actin"], "sets": [{"channel_names": ["DNA", "my actin"]}]}
    with pytest.raises(
        ConfigError, match=r"it has the channels w1, w2 \(called tubulin\); .* --channels='w1=DNA,w2=my actin'"
    ):
        channels_for("it", {"w1": "w1", "w2": "tubulin"}, dataset)
