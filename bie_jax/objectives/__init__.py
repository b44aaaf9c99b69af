"""What each method minimizes: one file a method."""
