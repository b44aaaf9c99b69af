"""From examples to a built set on disk."""
