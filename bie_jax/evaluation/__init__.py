"""From a trained workdir to embeddings, scores and a report."""
