"""Sets that are known by name, a folder each."""
