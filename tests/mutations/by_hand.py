"""Breaks that were chosen by hand: (file, text as it stands, text as it would be wrong)."""

_CONTRASTIVE = "bie_jax/losses/contrastive.py"
_SHAPE = "bie_jax/losses/shape.py"
_DINO = "bie_jax/objectives/dino.py"
_POSITIVES = "bie_jax/input/positives.py"
_VIEWS = "bie_jax/objectives/compared_views.py"
_VECTOR = "bie_jax/models/quantizers/vector.py"
_CROPS = "bie_jax/views/crops.py"
_INTENSITIES = "bie_jax/views/intensity_changes.py"

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
    (_INTENSITIES, "minval=1 - amount", "minval=1"),
    (_INTENSITIES, "minval=-amount, maxval=amount)\n\n\ndef random_gamma", "maxval=amount)\n\n\ndef random_gamma"),
    (_INTENSITIES, "changed * (high - low)", "changed * high"),
    (_INTENSITIES, "share**power", "share * power"),
    (_INTENSITIES, 'mode="symmetric"', 'mode="reflect"'),
    (_INTENSITIES, "kernel / kernel.sum(axis=1, keepdims=True)", "kernel / kernel[:, radius, None]"),
    (_INTENSITIES, "math.ceil(3 * amount)", "math.ceil(amount)"),
    (_INTENSITIES, "(image.shape[0], 1, 1, 1), maxval=amount", "(1, 1, 1, 1), maxval=amount"),
    ("bie_jax/views/channel_dropout.py", "jnp.minimum(rate, highest)", "rate"),
    ("bie_jax/views/channel_dropout.py", "jnp.where(there, drawn, -1.0)", "drawn"),
    (_CROPS, "cos * down - sin * right", "cos * down + sin * right"),
    (_CROPS, "beside * at(row, column + 1)", "beside * at(row, column)"),
    (_CROPS, "length - jnp.abs(length - (place + 0.5) % (2 * length)) - 0.5", "jnp.clip(place, 0, length - 1)"),
    (_CROPS, "cos * window[:, 0] + sin * window[:, 1]", "window[:, 0]"),
    (_CROPS, "(first + 0.5) / samples[0]", "first / samples[0]"),
    (_CROPS, "jnp.clip(jnp.log(width), -end, end)", "jnp.full_like(width, -end)"),
    (_CROPS, "math.log(most) / 2", "math.log(most)"),
    (_CROPS, "math.ceil(length - 1e-6)", "math.floor(length)"),
    (_CROPS, "minval=low, maxval=high", "maxval=high"),
    ("bie_jax/views/images.py", "image = image * (gain != 0)", "pass"),
    ("bie_jax/views/images.py", "range(2**16, 2**16 + 6)", "range(1, 7)"),
    (
        "bie_jax/views/images.py",
        "crop_key, flip_key, rotate_key, brightness_key = jax.random.split(key, 4)",
        "crop_key, flip_key, rotate_key, brightness_key = jax.random.split(jax.random.fold_in(key, 9), 4)",
    ),
    ("bie_jax/views/intensities.py", "gain * table.present[plate][:, None, None, :]", "gain"),
    ("bie_jax/views/outlines.py", "jnp.where(jax.random.bernoulli(flip_key, 0.5, (batch, 1)), -place, place)", "place"),
    ("bie_jax/input/splits.py", 'f"{seed}:{name}"', 'f"{name}"'),
    ("bie_jax/objectives/vae.py", "(step + 1) / max(config.kl_warmup_steps, 1)", "1.0"),
    ("bie_jax/objectives/mae.py", "(removed > 0) & (batch.weight > 0)[:, :, None]", "removed > 0"),
    # Methods that compare views
    (_VIEWS, "crops.num_global - 1", "crops.num_global"),
    (_VIEWS, "jnp.sqrt(rows.shape[1] * ", "jnp.sqrt("),
    (_VIEWS, "loss + config.reconstruction * terms", "loss + terms"),
    (_VIEWS, "jnp.stack(views, axis=1)", "jnp.stack(views, axis=0)"),
    (_VIEWS, "jnp.where(there[:, None], rows - rows.sum", "jnp.where(there[:, None], rows + rows.sum"),
    (_DINO, "loss + settings.koleo * terms", "loss - settings.koleo * terms"),
    (_DINO, "jnp.where(learning, prototypes, jax.lax.stop_gradient(prototypes))", "prototypes"),
    (_DINO, "start + share * (end - start)", "start - share * (end - start)"),
    (_DINO, '"mean_target_entropy": entropies.mean_entropy', '"mean_target_entropy": entropies.entropy_of_mean'),
    (_DINO, '["entropy_of_mean_target"] - metrics', '["entropy_of_mean_target"] + metrics'),
    (_DINO, "distillation(targets, seen.projection", "distillation(targets, seen.projection[:2]"),
    ("bie_jax/objectives/simclr.py", "jnp.moveaxis(seen.projection, 0, 1)", "jnp.moveaxis(seen.projection[:2], 0, 1)"),
    ("bie_jax/objectives/lejepa.py", "(1 - settings.sigreg) * spread", "spread"),
    ("bie_jax/models/layers/noted.py", "jnp.square(rows - mean[:, None])", "jnp.square(rows)"),
    ("bie_jax/models/layers/noted.py", "jnp.where(counted, rows, -jnp.inf)", "rows"),
    ("bie_jax/models/readouts.py", "len(blocks) * part // _PARTS - 1", "len(blocks) * part // _PARTS - part"),
    ("bie_jax/models/head.py", "_unit(x, -1), _unit(prototypes, 0)", "x, prototypes"),
    ("bie_jax/models/head.py", "range(self.depth - 1)", "range(self.depth)"),
    (_POSITIVES, "self._plate[members] != self._plate[row]", "self._plate[members] == self._plate[row]"),
    (_POSITIVES, "members[members != row]", "members"),
    (_POSITIVES, 'sets + "\\x1f" + groups', "groups"),
    ("bie_jax/input/mixture.py", "wells.max() + 1 + pd.factorize", "pd.factorize"),
    ("bie_jax/training/step.py", "1 - (1 - config.ema_decay) * 0.5", "1 - config.ema_decay * 0.5"),
    ("bie_jax/training/optimizer.py", "last + (first - last) * 0.5", "first + (last - first) * 0.5"),
    ("bie_jax/training/collapse.py", "step <= config.optimizer", "step < config.optimizer"),
    ("bie_jax/models/encoders/resnet.py", "self.width * 2**index", "self.width"),
    ("bie_jax/models/decoders/resnet.py", 'index > 0 or self.stem == "large"', "True"),
    # Shapes
    ("bie_jax/shapes/distance_matrix.py", "xp.where(flip, -steps, steps)", "steps"),
)
