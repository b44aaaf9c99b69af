"""From scores to a page: one file a section."""
