"""Where the parameters of several blocks lie in one array, along a leading axis that a scan runs over."""

STACKS = frozenset({"blocks", "layers"})  # names of such modules
