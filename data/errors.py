"""What a build says when it cannot go on."""


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
