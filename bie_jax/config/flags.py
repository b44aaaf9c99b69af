"""`--config=FILE --config.x.y=value`: what a command line says of a configuration, or one line on why it cannot.

ml_collections answers a bad key, value or file with a traceback, some with one as the error's text.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from bie_jax.config.faults import allowed_values
from bie_jax.config.files import load_config_file
from bie_jax.config.readers import refuse_unread
from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config, ConfigError


def parse(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Parse a command line.

    Args:
        values: with all flags defined.
        argv: the command's name first.

    Returns:
        The command's name and what is no flag.

    Raises:
        ConfigError: for a key, a value or a file that cannot be; in one line.
    """
    try:
        for before, argument in itertools.pairwise(argv):
            if re.match("--?config=", argument):
                load_config_file(argument.partition("=")[2])
            elif before in ("-config", "--config"):
                load_config_file(argument)
        return values(argv)
    except ConfigError:
        raise
    except (KeyError, AttributeError) as error:
        said = str(error.args[0]).replace("\\n", ". ").replace("\n", ". ").replace("\\", "").replace("'", "")
        raise ConfigError(f"the configuration has no such key: {said}") from None
    except (flags.Error, TypeError, ValueError, OSError) as error:
        value = re.search(r"--config\.([\w.]+)=(.*?): ", str(error), re.DOTALL)
        allowed = allowed_values(Config, value[1]) if value else ""
        if value and allowed:
            raise ConfigError(f"config.{value[1]}={value[2]!r}: {allowed}") from None
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ConfigError(lines[-1].strip()) from None


def arguments_of(file: str, values: Mapping[str, Any]) -> list[str]:
    """The arguments that give a configuration: its file, and a value for each key."""
    written = {key: value if isinstance(value, str) else repr(value) for key, value in values.items()}
    return [f"--config={file}", *(f"--config.{key}={value}" for key, value in written.items())]


def config_of(arguments: Sequence[str]) -> ConfigDict:
    """The configuration that `launch.py` would make of some arguments.

    Raises:
        ConfigError: see `parse`.
    """
    argv = ["launch.py", *arguments]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    parse(values, argv)
    config = values["config"].value
    assert isinstance(config, ConfigDict)
    return config


def refuse_unread_values(config: ConfigDict, file: str, tables: Sequence[ConfigDict]) -> None:
    """Refuse a value that nothing reads, if the command line changed it or a file that is not of configs/.

    Args:
        config: as the command line made it.
        file: that it began with.
        tables: of configs/base.py, what a key holds where no run reads it.

    Raises:
        ConfigError: one line for each key.
    """
    stated = load_config_file(file)
    refuse_unread(check_config(config), [stated])
    try:
        of_file = check_config(stated)
    except ConfigError:
        return  # a table that only the command line makes whole; the changes have been looked at
    refuse_unread(of_file, tables)
