"""Reading Parquet tables."""

from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.fs


def read_parquet(path: Path) -> pd.DataFrame:
    """The table in a file on this machine.

    pandas alone would open the file in Python and lend it to pyarrow's threads; one that still holds it when the
    interpreter ends takes the process down with it ("terminate called without an active exception", one run in ten).
    With a file system of pyarrow's there is nothing of Python's to hold.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is not Parquet; pyarrow's errors are ValueErrors.
    """
    table = pd.read_parquet(path, filesystem=pyarrow.fs.LocalFileSystem())
    # What was decoded on the way is kept by Arrow's allocator otherwise: more than the table itself.
    pyarrow.default_memory_pool().release_unused()
    return table
