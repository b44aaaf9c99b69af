"""From features to scores: one file a kind of score."""
