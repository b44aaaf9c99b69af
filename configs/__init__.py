"""One file per run: `get_config()` returns every value that the run depends on."""
