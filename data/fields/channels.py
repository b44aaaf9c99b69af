"""Which channels of a source a set has, and what they are called there."""

from data.errors import BuildError


def choose_channels(found: tuple[str, ...], wanted: str | None) -> dict[str, str]:
    """What `--channels` means: the source's channels -> names in the set, in the set's order.

    Args:
        found: channels of the source.
        wanted: None: all as they are. "a,b": some of them in this order, or, if none of the names is the source's, new
            names for all of them in order. "w1=DNA,w2=RNA": some of them, renamed.

    Raises:
        BuildError: for anything else.
    """
    if wanted is None:
        return {channel: channel for channel in found}
    entries = [entry.strip() for entry in wanted.split(",")]
    pairs = [entry.split("=") for entry in entries]
    sources = [pair[0] for pair in pairs]
    there = f"the source has the channels {', '.join(found)}"
    if any(len(pair) > 2 or not all(pair) for pair in pairs):
        raise BuildError(f"--channels={wanted}: expected a,b or source=name,source=name; {there}")
    if all(len(pair) == 1 for pair in pairs) and not set(sources) & set(found):
        if len(sources) != len(found):
            raise BuildError(f"--channels={wanted}: {len(sources)} names for {len(found)} channels; {there}")
        chosen = dict(zip(found, sources, strict=True))
    else:
        unknown = [name for name in sources if name not in found]
        if unknown:
            raise BuildError(f"--channels={wanted}: there is no {', '.join(unknown)}; {there}")
        chosen = {pair[0]: pair[-1] for pair in pairs}
    if len(chosen) < len(entries) or len(set(chosen.values())) < len(chosen):
        raise BuildError(f"--channels={wanted}: a channel is named twice")
    return chosen
