from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bie_jax.models.encoders.residual_stack import ResidualStackEncoder
from bie_jax.models.encoders.resnet import ResNetEncoder
from bie_jax.models.encoders.vit import ViTEncoder
from bie_jax.models.layers.stacks import STACKS
from bie_jax.models.layers.transformer import ViTSize
from bie_jax.training.optimizer import build_optimizer, build_schedule, layer_factors

pytestmark = pytest.mark.slow

STEPS_PER_EPOCH, EPOCHS = 3, 5
STEPS = STEPS_PER_EPOCH * (EPOCHS + 1)  # with an epoch of cooldown, at the minimum


def _config(**changes):
    keys = {
        "name": "lamb",
        "lr": 0.1,
        "weight_decay": 0.05,
        "weight_decay_growth": 1.0,
        "momentum": 0.9,
        "beta1": 0.9,
        "beta2": 0.999,
        "clip_norm": 1.0,
        "decay_biases_and_norms": True,
        "layer_decay": 1.0,
        "freeze": (),
        "warmup_epochs": 1,
        "warmup_init_lr": 1e-3,
        "min_lr": 0.01,
    }
    assert changes.keys() <= keys.keys()
    return SimpleNamespace(**keys | changes)


def _tree(rng, scale=1.0):
    """A stem, two scanned blocks, a last norm and a head; scalars, vectors, matrices and an all-zero parameter."""
    shapes = {
        "encoder": {
            "stem": {"kernel": (3, 4), "bias": (4,)},
            "pos_embed": (1, 5, 4),
            "blocks": {"mlp": {"kernel": (2, 4, 4), "bias": (2, 4)}, "layer_scale": (2, 4)},
            "norm": {"scale": (4,)},
        },
        "head": {"kernel": (4, 2), "bias": (2,), "temperature": ()},
    }
    tree = jax.tree.map(lambda shape: rng.normal(size=shape) * scale, shapes, is_leaf=lambda x: isinstance(x, tuple))
    tree["head"]["bias"][:] = 0.0
    return tree


def _flat(tree):
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in jax.tree.leaves_with_path(tree)}


def _run(config, params, gradients, dtype):
    """Our parameters after each step."""
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    tx, _ = build_optimizer(config, params, steps_per_epoch=STEPS_PER_EPOCH, epochs=EPOCHS)
    state = tx.init(params)

    @jax.jit
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    history = []
    for gradient in gradients:
        params, state = step(params, state, jax.tree.map(lambda x: jnp.asarray(x, dtype), gradient))
        history.append(_flat(jax.device_get(params)))
    return history


def _learning_rate(config, step):
    """Warmup in a line, then half a cosine, then the floor: closed form, float64."""
    warmup, end = config.warmup_epochs * STEPS_PER_EPOCH, EPOCHS * STEPS_PER_EPOCH
    if step < warmup:
        return config.warmup_init_lr + (config.lr - config.warmup_init_lr) * step / warmup
    phase = min(1.0, (step - warmup) / (end - warmup))
    return config.min_lr + (config.lr - config.min_lr) * (1 + np.cos(np.pi * phase)) / 2


def _lamb_by_loop(config, params, gradients):
    """timm's Lamb in numpy, float64; a module's layers are separate tensors there, so the blocks are taken apart."""
    params = {path: x.copy() for path, x in _flat(params).items()}
    m = {path: np.zeros_like(x) for path, x in params.items()}
    v = {path: np.zeros_like(x) for path, x in params.items()}
    history = []
    for t, gradient in enumerate(gradients):
        gradient = _flat(gradient)
        global_norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        clip = max(1.0, global_norm / config.clip_norm) if config.clip_norm else 1.0
        for path, p in params.items():
            g = gradient[path] / clip
            m[path] = config.beta1 * m[path] + (1 - config.beta1) * g
            v[path] = config.beta2 * v[path] + (1 - config.beta2) * g**2
            m_hat, v_hat = m[path] / (1 - config.beta1 ** (t + 1)), v[path] / (1 - config.beta2 ** (t + 1))
            update = np.asarray(m_hat / (np.sqrt(v_hat) + 1e-6))
            if config.decay_biases_and_norms or path.endswith("kernel"):
                update += config.weight_decay * p
                for layer in range(2) if "blocks" in path else [...]:
                    p_norm, u_norm = np.linalg.norm(p[layer]), np.linalg.norm(update[layer])
                    update[layer] *= p_norm / u_norm if p_norm > 0 and u_norm > 0 else 1.0
            params[path] = p - _learning_rate(config, t) * update
        history.append(dict(params))
    return history


def _assert_equal_histories(ours, expected, rtol):
    assert len(ours) == len(expected)
    for step, (a, b) in enumerate(zip(ours, expected, strict=True)):
        assert a.keys() == b.keys()
        for path in a:
            atol = rtol * np.abs(b[path]).max()
            np.testing.assert_allclose(a[path], b[path], rtol=0, atol=atol, err_msg=f"{path}, step {step}")


@pytest.mark.parametrize("decay_biases_and_norms", [True, False])
@pytest.mark.parametrize("clip_norm", [1.0, 0.0])
def test_lamb_is_timms_step_by_step(decay_biases_and_norms, clip_norm):
    rng = np.random.default_rng(0)
    params, gradients = _tree(rng), [_tree(rng, 0.5) for _ in range(STEPS)]
    gradients[2] = jax.tree.map(lambda g: g * 1e-3, gradients[2])  # not clipped
    config = _config(decay_biases_and_norms=decay_biases_and_norms, clip_norm=clip_norm)
    expected = _lamb_by_loop(config, params, gradients)
    with jax.enable_x64(True):
        _assert_equal_histories(_run(config, params, gradients, jnp.float64), expected, rtol=1e-6)
    _assert_equal_histories(_run(config, params, gradients, jnp.float32), expected, rtol=1e-5)


def test_lambs_trust_ratio_is_one_where_a_norm_is_zero():
    config = _config(weight_decay=0.0, warmup_epochs=0)
    params = {"zero": np.zeros(3), "still": np.ones(3)}
    gradient = {"zero": np.asarray([1.0, -1.0, 1.0]), "still": np.zeros(3)}
    (after,) = _run(config, params, [gradient], jnp.float32)
    np.testing.assert_allclose(after["zero"], [-0.1, 0.1, -0.1], rtol=1e-5)
    np.testing.assert_array_equal(after["still"], np.ones(3))


def _torch_history(torch, optimizer_of, config, params, gradients):
    tensors = {path: torch.nn.Parameter(torch.tensor(x)) for path, x in _flat(params).items()}
    decayed = [x for path, x in tensors.items() if config.decay_biases_and_norms or path.endswith("kernel")]
    others = [x for x in tensors.values() if not any(x is d for d in decayed)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = optimizer_of(groups)
    history = []
    for t, gradient in enumerate(gradients):
        for path, g in _flat(gradient).items():
            tensors[path].grad = torch.tensor(g)
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(tensors.values(), config.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(config, t)
        optimizer.step()
        history.append({path: x.detach().numpy().copy() for path, x in tensors.items()})
    return history


@pytest.mark.parametrize("decay_biases_and_norms", [True, False])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_adamw_and_sgd_are_pytorchs_step_by_step(torch, name, decay_biases_and_norms):
    rng = np.random.default_rng(1)
    params, gradients = _tree(rng), [_tree(rng, 0.5) for _ in range(STEPS)]
    config = _config(
        name=name, beta1=0.8, beta2=0.95, momentum=0.7, clip_norm=2.0, decay_biases_and_norms=decay_biases_and_norms
    )
    optimizer_of = {
        "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.0, betas=(0.8, 0.95)),
        "sgd": lambda groups: torch.optim.SGD(groups, lr=0.0, momentum=0.7, nesterov=True),
    }[name]
    expected = _torch_history(torch, optimizer_of, config, params, gradients)
    with jax.enable_x64(True):
        _assert_equal_histories(_run(config, params, gradients, jnp.float64), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["lamb", "adamw", "sgd"])
def test_layer_decay_multiplies_the_step_of_each_layer(name):
    rng = np.random.default_rng(2)
    params, gradient = _tree(rng), _tree(rng)
    with jax.enable_x64(True):
        (plain,) = _run(_config(name=name), params, [gradient], jnp.float64)
        (decayed,) = _run(_config(name=name, layer_decay=0.6), params, [gradient], jnp.float64)
    before = _flat(params)
    for path, start in before.items():
        expected = np.ones_like(start)
        if path.startswith(("encoder/stem", "encoder/pos_embed")):
            expected = np.full_like(start, 0.6**3)  # L + 1 = 3 layers under the head
        elif path.startswith("encoder/blocks"):
            expected = np.stack([np.full_like(start[0], 0.36), np.full_like(start[1], 0.6)])
        moved = plain[path] != start
        assert moved.any() or path == "head/bias"
        np.testing.assert_allclose((decayed[path] - start), expected * (plain[path] - start), rtol=1e-9)


def test_layer_decay_without_blocks_is_refused():
    params = {"encoder": {"stage": {"kernel": np.ones((2, 2))}}, "head": {"bias": np.ones(2)}}
    with pytest.raises(ValueError, match=r"layer_decay=0.5 needs .*encoder/stage1/.*are encoder, encoder/stage, head"):
        layer_factors(params, 0.5, encoder="encoder")


def test_layer_decay_counts_the_blocks_of_a_resnet_over_its_stages():
    """ResNet-18: two blocks in each of four stages; the stem and its norm lie below all, the head above."""
    params = {"network": {"encoder": _shapes(ResNetEncoder(18, 8)), "project": {"kernel": np.ones((2, 2))}}}
    factors = {"/".join(path): factor for path, factor in layer_factors(params, 0.5, encoder="encoder").items()}
    for path, factor in factors.items():
        parts = path.split("/")[2:]
        if path.startswith("network/encoder/stage"):
            block = 2 * (int(parts[0][-1]) - 1) + (parts[1] == "layers")
            np.testing.assert_array_equal(factor, np.full_like(factor, 0.5 ** (8 - block)))
            assert factor.shape == ((1,) + (1,) * (factor.ndim - 1) if parts[1] == "layers" else ()), path
        else:
            assert factor == (1.0 if "project" in path else 0.5**9), path
    assert len({float(factor.ravel()[0]) for factor in factors.values()}) == 10


def _shapes(model, size=32):
    image = jax.ShapeDtypeStruct((1, size, size, 2), jnp.float32)
    return jax.eval_shape(lambda key, image: model.init(key, image, train=False), jax.random.key(0), image)["params"]


def _vit(depth):
    size = ViTSize(width=8, depth=depth, heads=2, mlp_width=16)
    return ViTEncoder(size, patch_size=16, positions="learnt", layer_scale=True, channel_tokens=True)


@pytest.mark.parametrize("network", [(), ("network",)])  # of all channels, and of each alone
def test_the_parts_of_our_transformer_are_known(network):
    params = {"encoder": _shapes(_vit(3)), "decoder": _shapes(_vit(2))}
    factors = layer_factors({name: params for name in network} or params, 0.5, encoder="encoder")
    of_part = {}
    for path, factor in factors.items():
        assert path[: len(network)] == network
        of_part.setdefault(path[len(network) :][:2], set()).add(tuple(factor.ravel().tolist()))
    before = ("patch_embed", "class_token", "class_pos_embed", "pos_embed", "channel_embed")
    expected = {("encoder", part): {(0.5**4,)} for part in before}
    expected |= {("encoder", "blocks"): {(0.5**3, 0.5**2, 0.5)}, ("encoder", "norm"): {(1.0,)}}
    expected |= {("decoder", part): {(1.0,)} for part in (*before, "blocks", "norm")}
    assert of_part == expected
    names = {"kernel", "bias", "scale", "attention_scale", "mlp_scale", "embedding", "class_token", "class_pos_embed"}
    assert {path[-1] for path in factors} == names  # of which only kernels are weights


@pytest.mark.parametrize(
    ("shallow", "deep"),
    [
        (_vit(2), _vit(3)),
        (ResidualStackEncoder(4, 3, num_residual_layers=2, num_halvings=1), ResidualStackEncoder(4, 3, 3, 1)),
        (ResNetEncoder(18), ResNetEncoder(34)),
    ],
)
def test_scanned_layers_are_told_from_others_by_their_names(shallow, deep):
    """LAMB's trust ratio is of one layer: what grows with the depth is a stack, and nothing else is."""
    shallow, deep = _flat(_shapes(shallow)), _flat(_shapes(deep))
    assert shallow.keys() == deep.keys()
    for path in shallow:
        assert (shallow[path].shape != deep[path].shape) == (not STACKS.isdisjoint(path.split("/"))), path


def test_what_is_frozen_stays_and_has_no_state():
    rng = np.random.default_rng(3)
    params, gradients = _tree(rng), [_tree(rng) for _ in range(2)]
    config = _config(freeze=("encoder/stem", "head"), layer_decay=0.5, decay_biases_and_norms=False)
    after = _run(config, params, gradients, jnp.float32)[-1]
    for path, start in _flat(params).items():
        is_frozen = path.startswith(("encoder/stem", "head"))
        assert np.array_equal(after[path], start.astype(np.float32)) == is_frozen, path
    tx, _ = build_optimizer(config, params, steps_per_epoch=STEPS_PER_EPOCH, epochs=EPOCHS)
    sizes = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(tx.init, params)) if leaf.ndim]
    trained = [x.size for path, x in _flat(params).items() if not path.startswith(("encoder/stem", "head"))]
    assert sum(sizes) == 2 * sum(trained)  # the two moments


def test_frozen_gradients_do_not_count_in_the_clip():
    rng = np.random.default_rng(4)
    params, gradient = _tree(rng), _tree(rng, 1e-3)
    loud = gradient | {"head": jax.tree.map(lambda g: g + 1e3, gradient["head"])}
    config = _config(name="sgd", freeze=("head",))
    quiet_step, loud_step = (_run(config, params, [g], jnp.float32)[-1] for g in (gradient, loud))
    np.testing.assert_array_equal(quiet_step["encoder/stem/kernel"], loud_step["encoder/stem/kernel"])


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (("encoder", "hed"), "freeze='hed' names no parameters; possible are encoder, encoder/blocks, .* head$"),
        (("enc",), "freeze='enc' names no parameters"),
        (("encoder", "head"), "leaves nothing to train"),
    ],
)
def test_freezing_nothing_or_all_is_refused(freeze, message):
    params = _tree(np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        build_optimizer(_config(freeze=freeze), params, steps_per_epoch=1, epochs=2)


def test_schedule_at_its_corners():
    config = _config(lr=1e-3, min_lr=1e-4, warmup_init_lr=1e-6, warmup_epochs=5)
    schedule = build_schedule(config, steps_per_epoch=10, epochs=100)
    np.testing.assert_allclose(schedule(0), 1e-6, rtol=1e-5)
    np.testing.assert_allclose(schedule(25), (1e-6 + 1e-3) / 2, rtol=1e-5)
    np.testing.assert_allclose(schedule(50), 1e-3, rtol=1e-5)
    half_way = 50 + 950 / 2
    np.testing.assert_allclose(schedule(half_way), (1e-3 + 1e-4) / 2, rtol=1e-5)
    for cooldown_step in (1000, 1050, 1100):
        np.testing.assert_allclose(schedule(cooldown_step), 1e-4, rtol=1e-5)


def _timm_cosine(epoch, lr, min_lr, warmup_init_lr, warmup_epochs, epochs):
    """timm's CosineLRScheduler(t_initial=epochs - warmup_epochs, warmup_prefix=True, cycle_limit=1) at an epoch."""
    if epoch < warmup_epochs:
        return warmup_init_lr + epoch * (lr - warmup_init_lr) / warmup_epochs
    t, t_initial = epoch - warmup_epochs, epochs - warmup_epochs
    if t // t_initial >= 1:
        return min_lr
    return min_lr + 0.5 * (lr - min_lr) * (1 + np.cos(np.pi * t / t_initial))


@pytest.mark.parametrize("warmup_epochs", [0, 5])
def test_schedule_is_timms_at_the_beginning_of_each_epoch(warmup_epochs):
    numbers = {"lr": 1e-3, "min_lr": 1e-4, "warmup_init_lr": 1e-6, "warmup_epochs": warmup_epochs}
    schedule = build_schedule(_config(**numbers), steps_per_epoch=7, epochs=100)
    ours = jax.vmap(schedule)(7 * np.arange(110))
    expected = [_timm_cosine(epoch, **numbers, epochs=100) for epoch in range(110)]
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["lamb", "adamw", "sgd"])
@pytest.mark.parametrize("lr", [1e-3, 3e-4])
def test_the_learning_rate_that_acts_is_the_one_asked_for(name, lr):
    """The predecessor overwrote the user's value with a default."""
    config = _config(name=name, lr=lr, min_lr=0.0, warmup_epochs=0, weight_decay=0.0)
    param = jnp.full((4,), 0.5)  # norm 1
    tx, schedule = build_optimizer(config, {"x": param}, steps_per_epoch=10, epochs=10)
    update, _ = tx.update({"x": jnp.full((4,), 0.1)}, tx.init({"x": param}), {"x": param})
    # Adam's first step has size 1 in every entry: norm 2; LAMB scales it to the parameter's norm, 1; SGD's is the
    # gradient (norm 0.2) and 0.9 of it again, Nesterov's look ahead.
    expected = {"adamw": 2 * lr, "lamb": lr, "sgd": 0.2 * 1.9 * lr}[name]
    np.testing.assert_allclose(jnp.linalg.norm(update["x"]), expected, rtol=1e-3)
    np.testing.assert_allclose(schedule(0), lr, rtol=1e-6)


def test_the_weight_decay_grows_as_half_a_cosine():
    """Plain descent without a gradient: what a step takes of a parameter is rate times decay."""
    config = _config(name="sgd", momentum=0.0, clip_norm=0.0, weight_decay=0.02, weight_decay_growth=10.0)
    params = {"kernel": jnp.ones((2, 2))}
    tx, schedule = build_optimizer(config, params, steps_per_epoch=STEPS_PER_EPOCH, epochs=EPOCHS)
    state, zeros = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    for step in range(STEPS):
        updates, state = tx.update(zeros, state, params)
        share = min(step / (STEPS_PER_EPOCH * EPOCHS), 1)
        decay = 0.2 - 0.18 * 0.5 * (1 + np.cos(np.pi * share))
        np.testing.assert_allclose(updates["kernel"], -schedule(step) * decay, rtol=1e-4)
