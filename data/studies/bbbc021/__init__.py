"""Single cells of BBBC021 with plate, well, compound and mechanism. README.md says where they are from."""
