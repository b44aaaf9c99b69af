"""What the loop is made of: steps, state, optimizer, shardings, checkpoints."""
