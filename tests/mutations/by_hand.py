"""Breaks that were chosen by hand: (file, text as it stands, text as it would be wrong)."""

_CONTRASTIVE = "bie_jax/losses/contrastive.py"
_SHAPE = "bie_jax/losses/shape.py"
_VECTOR = "bie_jax/models/quantizers/vector.py"

BY_HAND: tuple[tuple[str, str, str], ...] = (
    # Losses
    (_CONTRASTIVE, "negative = pairs & (well[:, None] != well[None, :])", "negative = pairs"),
    (_CONTRASTIVE, "there & ~earlier.any(axis=1)", "there"),
    (_CONTRASTIVE, "compared = positive | negative", "compared = negative"),
    (_CONTRASTIVE, "2 * scatter / jnp.maximum(count - 1, 1)", "2 * scatter / jnp.maximum(count, 1)"),
    (_CONTRASTIVE, "& differs(origin.plate)", ""),
    ("bie_jax/losses/divergence.py", "jnp.expm1(logvar) - logvar", "jnp.expm1(logvar) + logvar"),
    (
        "bie_jax/losses/divergence.py",
        "jnp.maximum(kl_per_dim, free_nats).sum()",
        "jnp.maximum(kl_per_dim.sum(), free_nats)",
    ),
    ("bie_jax/losses/fourier.py", "jnp.abs(jnp.fft.fft2(patches))", "jnp.fft.fft2(patches).real"),
    ("bie_jax/losses/reconstruction.py", "(channel_weight * by_channel).sum(axis=1)", "by_channel.sum(axis=1)"),
    (_SHAPE, "jnp.where(diagonal, jnp.inf, d)", "d"),
    (_SHAPE, "num_points / max(num_points - 1, 1)", "1.0"),
    (_SHAPE, "jnp.roll(spectrum[:, ::-1], 1, axis=1)", "spectrum[:, ::-1]"),
    (_SHAPE, "jnp.where(flip, -shift, shift), flip", "shift, flip"),
    # Quantizers
    (_VECTOR, "jnp.where(found.dead, found.even_share, counts)", "counts"),
    (_VECTOR, "g * cluster_size + (1 - g)", "(1 - g) * cluster_size + g"),
    (_VECTOR, "follows = due & (total", "follows = True | due & (total"),
    # Optimizer and steps
    ("bie_jax/training/optimizer.py", "range(1 if stacked else 0, step.ndim)", "range(step.ndim)"),
    ("bie_jax/training/optimizer.py", "decay ** (depth - np.arange(depth))", "decay ** np.arange(depth)"),
    (
        "bie_jax/training/optimizer.py",
        "warmup_steps=config.warmup_epochs * steps_per_epoch",
        "warmup_steps=config.warmup_epochs",
    ),
    ("bie_jax/training/step.py", "fold_in(jax.random.key(config.train.seed), state.step)", "key(config.train.seed)"),
    ("bie_jax/training/step.py", "mean + value / num, gradients, new", "mean + value, gradients, new"),
    ("bie_jax/training/step.py", "d * mean + (1 - d) * new", "(1 - d) * mean + d * new"),
    ("bie_jax/training/step.py", 'kwargs | {"use_running_average": True}', "kwargs"),
    ("bie_jax/training/calendar.py", "stalled = step > 0 and", "stalled = False and"),
    ("bie_jax/training/finite.py", "not np.isfinite(float(loss))", "False"),
    ("bie_jax/training/sharding.py", "if spec is not None:", "if spec:"),
    # Views and input
    ("bie_jax/views/images.py", "minval=1 - amount", "minval=1"),
    ("bie_jax/views/intensities.py", "gain * table.present[plate][:, None, None, :]", "gain"),
    ("bie_jax/views/outlines.py", "jnp.where(jax.random.bernoulli(flip_key, 0.5, (batch, 1)), -place, place)", "place"),
    ("bie_jax/input/splits.py", 'f"{seed}:{name}"', 'f"{name}"'),
    ("bie_jax/objectives/vae.py", "(step + 1) / max(config.kl_warmup_steps, 1)", "1.0"),
    ("bie_jax/objectives/mae.py", "(removed > 0) & (batch.weight > 0)[:, :, None]", "removed > 0"),
    # Shapes
    ("bie_jax/shapes/distance_matrix.py", "xp.where(flip, -steps, steps)", "steps"),
)
