"""What a run is told: the schema of every key, the rules between keys, and the files they are read from."""
