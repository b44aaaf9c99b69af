"""From a built set to host batches."""
