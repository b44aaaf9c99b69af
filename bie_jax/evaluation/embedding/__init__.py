"""From a trained run to one row of features per image."""
