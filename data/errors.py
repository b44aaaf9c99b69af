"""What a build says when it cannot go on."""

import contextlib
from collections.abc import Iterator


class BuildError(ValueError):
    """A set that cannot be built from what was given; the message says what is wrong, where, and what to do."""


class BadInputError(BuildError):
    """One field that cannot be read. With `--skip-bad` it is listed and left out; without, the build stops.

    Attributes:
        source: the file or URL.
        place: plate, well, site and channel, as far as they are known.
        problem: what is wrong with it.
    """

    def __init__(self, source: str, place: str, problem: str):
        super().__init__(f"{source}: {problem}" + (f" ({place})" if place else ""))
        self.source, self.place, self.problem = source, place, problem

    def __reduce__(self):  # an exception with three arguments does not come back from a worker by itself
        return type(self), (self.source, self.place, self.problem)


@contextlib.contextmanager
def naming_skip_bad(skip_bad: bool) -> Iterator[None]:
    """What stops a build for one field can be passed by, and the message says how.

    Args:
        skip_bad: whether it is passed by already.
    """
    try:
        yield
    except BadInputError as error:
        if skip_bad:
            raise
        problem = f"{error.problem}; --skip-bad=FILE.csv leaves such fields out and lists them"
        raise BadInputError(error.source, error.place, problem) from None
