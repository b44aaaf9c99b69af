"""Loss terms: pure functions of arrays, nothing of ours imported."""
