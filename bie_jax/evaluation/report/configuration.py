"""The run's configuration."""

from bie_jax.config.schema import Config
from bie_jax.config.stored import flatten
from bie_jax.files.foreign_text import in_html


def configuration_table(config: Config) -> str:
    """One table per group, nested keys with dots."""
    tables = []
    for name, group in config.model_dump().items():
        rows = flatten(group)
        body = "".join(
            f"<tr><th scope='row'>{in_html(key)}</th><td>{in_html(value)}</td></tr>" for key, value in rows.items()
        )
        tables.append(f"<table class='config'><caption>{in_html(name)}</caption><tbody>{body}</tbody></table>")
    return "<div class='configs'>" + "".join(tables) + "</div>"
