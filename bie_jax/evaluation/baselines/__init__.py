"""What a trained encoder has to beat."""
