"""One file per sweep: `get_sweep()` returns which keys vary, how, and what decides."""
