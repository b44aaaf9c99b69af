"""Which channels of any images are those that a run was trained on: their names say it, never their order."""

import shlex
from collections.abc import Mapping
from typing import Any

from bie_jax.config.schema import ConfigError


def channels_for(what: str, channels: Mapping[str, str], dataset: dict[str, Any]) -> dict[str, str]:
    """The channels of some images that a run takes, by their names.

    Args:
        what: the images are called in a message.
        channels: all of them, as they are called there -> as training calls them.
        dataset: the run's `dataset.json`.

    Returns:
        The same without those that the run does not know.

    Raises:
        ConfigError: unless these are all channels of one of the run's sets.
    """
    known = {source: name for source, name in channels.items() if name in dataset["channel_names"]}
    if any(sorted(known.values()) == sorted(described["channel_names"]) for described in dataset["sets"]):
        return known
    called = [source if source == name else f"{source} (called {name})" for source, name in channels.items()]
    takes = " or ".join(", ".join(described["channel_names"]) for described in dataset["sets"])
    example = ",".join(f"{ours}={theirs}" for ours, theirs in zip(channels, dataset["sets"][0]["channel_names"]))
    raise ConfigError(
        f"{what} has the channels {', '.join(called)}; the run takes {takes}: say which is which, e.g. "
        f"--channels={shlex.quote(example)}"
    )
