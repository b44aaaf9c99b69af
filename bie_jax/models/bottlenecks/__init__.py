"""From feature maps to exactly `latent_dim` numbers per image, and back to a map for the decoder.

All have one call: features [B, h, w, F] and `valid` [B] bool (examples that count; None: all) to the decoder's input
[B, h, w, *] and `out`, which has `embedding` [B, latent_dim]. With a quantizer `out` also has `codes`, `commitment`
[B], `perplexity` and `code_counts` (see `VectorQuantizer`). One code for a whole image would allow only K different
reconstructions: quantize the grid, or the pooled vector in several groups.

Those that have one vector per image also have `decode`: that vector [B, latent_dim] to the decoder's input.
"""
