"""What a run leaves for people: the log, pictures, traces. Called by the loop, knowing nothing of it."""
