"""From vectors to codes."""
