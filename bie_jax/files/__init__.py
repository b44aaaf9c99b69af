"""How files are written and read: whole or not at all, verified, locked against a second process."""
