"""Published weights: one file a family."""

from bie_jax.models.pretrained.huggingface import load_huggingface

__all__ = ["load_huggingface"]
