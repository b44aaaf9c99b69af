"""Reading Parquet tables."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.fs


def read_parquet(path: Path, *, exact: bool = False) -> pd.DataFrame:
    """The table in a file on this machine.

    pandas alone would open the file in Python and lend it to pyarrow's threads; one that still holds it when the
    interpreter ends takes the process down with it ("terminate called without an active exception", one run in ten).
    With a file system of pyarrow's there is nothing of Python's to hold.

    Args:
        path: of the file.
        exact: whether values stay of the file's own types; NumPy's have no whole number that is missing, and lose the
            last digits of a large one.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is not Parquet; pyarrow's errors are ValueErrors.
    """
    types: dict[str, Any] = {"dtype_backend": "pyarrow"} if exact else {}
    table = pd.read_parquet(path, filesystem=pyarrow.fs.LocalFileSystem(), **types)
    # What was decoded on the way is kept by Arrow's allocator otherwise: more than the table itself.
    pyarrow.default_memory_pool().release_unused()
    return table
