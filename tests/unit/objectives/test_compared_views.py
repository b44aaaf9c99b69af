"""Methods that compare views: what each makes of a small network's outputs, told again view by view in numpy."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.config.rules import check_config
from bie_jax.losses.contrastive import Origin
from bie_jax.models.head import ProjectionHead, WithHead
from bie_jax.objectives import METHODS, build_model
from bie_jax.objectives.base import Teacher, unlabeled_batch
from bie_jax.objectives.compared_views import all_views, spread_between_images
from bie_jax.objectives.dino import teacher_temperature
from bie_jax.training.state import initial_variables
from configs import dino_idr0093, lejepa_idr0093, simclr_idr0093

pytestmark = pytest.mark.slow

MODULES = {"simclr": simclr_idr0093, "dino": dino_idr0093, "lejepa": lejepa_idr0093}
KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
SIZE, CHANNELS, IMAGES = 16, 2, 4


class _Backbone(nn.Module):
    """A dense layer over the first two moments of an image; it draws a multiple of the image, where it draws."""

    draws: bool

    @nn.compact
    def __call__(self, image, channel_mask=None, *, train):
        moments = jnp.concatenate([image.mean(axis=(1, 2)), jnp.square(image).mean(axis=(1, 2))], axis=-1)
        embedding = nn.Dense(6, name="project")(moments)
        drawn = image * self.param("factor", nn.initializers.constant(0.5), (1, 1, 1, 1)) if self.draws else None
        return drawn, {"embedding": embedding, "features": moments}


def _config(name, **changes):
    config = MODULES[name].get_config("tiny")
    config.data.crop_size = (SIZE, SIZE)
    config.objective.crops.num_local, config.objective.crops.local_size = 1, (SIZE, SIZE)
    for path, value in changes.items():
        config.update_from_flattened_dict({path.replace("__", "."): value})
    return check_config(config)


def _batch(config, weight=None):
    views = [RNG.normal(size=(IMAGES, SIZE, SIZE, CHANNELS))]
    views += [RNG.normal(size=(IMAGES, *view.crop_size, CHANNELS)) for view in all_views(config)]
    views = [jnp.asarray(view, jnp.float32) for view in views]
    batch = unlabeled_batch(views[0], jnp.ones((IMAGES, CHANNELS)) if weight is None else jnp.asarray(weight))
    return dataclasses.replace(batch, other_views=tuple(views[1:]))


def _network(config):
    return _networks(config.model.name == "dino", config.model.decoder != "none")


@functools.cache
def _networks(has_prototypes, draws):
    model = WithHead(_Backbone(draws), ProjectionHead(8, 2, 5, 16 if has_prototypes else 0))
    image = jnp.zeros((1, SIZE, SIZE, CHANNELS))
    variables = jax.jit(lambda key: initial_variables(model, image, key))(jax.random.key(0))
    return model, variables["params"], {name: variables[name] for name in variables if name != "params"}


@functools.partial(jax.jit, static_argnames=("model", "name", "settings", "train"))
def _objective(params, state, teacher, batch, step, *, model, name, settings, train):
    return METHODS[name].objective(model, settings, params, state, batch, step, KEY, train=train, teacher=teacher)


def _loss(config, batch, *, train=True, step=0, teacher=None, params=None):
    model, fresh, state = _network(config)
    teacher = Teacher(fresh, state) if teacher is None else teacher
    return _objective(
        fresh if params is None else params,
        state,
        teacher,
        batch,
        jnp.int32(step),
        model=model,
        name=config.model.name,
        settings=config.objective,
        train=train,
    )


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, variables, view, channel_mask):
    return model.apply(variables, view, channel_mask, train=False)


def _each_view(config, batch):
    """Projections [V, B, *] and embeddings [V, B, d], a view at a time."""
    model, params, state = _network(config)
    variables = {"params": params, **state}
    seen = [_apply(model, variables, view, batch.channel_mask)[1] for view in (batch.image, *batch.other_views)]
    return (np.stack([out[name] for out in seen]).astype(np.float64) for name in ("projection", "embedding"))


def _softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def test_dino_compares_every_teacher_view_with_every_other_view():
    config = _config("dino", objective__dino__koleo=0.1, objective__dino__teacher_temperature=0.07)
    batch = _batch(config)
    logits, embedding = _each_view(config, batch)
    targets, predictions = _softmax(logits[:2] / 0.07), np.log(_softmax(logits / 0.1))
    pairs = [-(targets[t] * predictions[s]).sum(-1).mean() for t in range(2) for s in range(3) if s != t]
    koleo = 0
    for view in embedding[:2]:
        rows = view / np.linalg.norm(view, axis=1, keepdims=True)
        nearest = [min(np.linalg.norm(a - b) for j, b in enumerate(rows) if j != i) for i, a in enumerate(rows)]
        koleo += -np.log(nearest).mean() / 2
    loss, aux = _loss(config, batch)
    np.testing.assert_allclose(aux.metrics["distillation"], np.mean(pairs), rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["koleo"], koleo, rtol=1e-3)
    np.testing.assert_allclose(loss, np.mean(pairs) + 0.1 * koleo, rtol=1e-4)
    assert aux.reconstruction is None
    entropy = -(targets * np.log(targets)).sum(-1).mean()
    np.testing.assert_allclose(aux.metrics["mean_target_entropy"], entropy, rtol=1e-3)


def test_dino_moves_its_center_in_training_alone():
    config = _config("dino", objective__dino__center_momentum=0.75)
    batch = _batch(config)
    logits, _ = _each_view(config, batch)
    center = _loss(config, batch)[1].model_state["center"]["head"]["logits"]
    np.testing.assert_allclose(center, 0.25 * logits[:2].mean(axis=(0, 1)), rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(_loss(config, batch, train=False)[1].model_state["center"]["head"]["logits"], 0)


def test_dino_learns_nothing_through_its_teacher():
    config = _config("dino")
    batch = _batch(config)
    _, params, state = _network(config)
    through_teacher = jax.grad(lambda p: _loss(config, batch, teacher=Teacher(p, state))[0])(params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(through_teacher))
    through_student = jax.grad(lambda p: _loss(config, batch, params=p, step=100)[0])(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(through_student["head"]))


def test_dino_holds_its_prototypes_still_at_first():
    config = _config("dino", objective__dino__frozen_prototype_steps=5)
    batch = _batch(config)
    _, params, _ = _network(config)

    def gradient(step):
        return jax.grad(lambda p: _loss(config, batch, step=step, params=p)[0])(params)["head"]

    assert not np.any(gradient(4)["prototypes"])
    assert np.any(gradient(4)["output"]["kernel"])
    assert np.any(gradient(5)["prototypes"])


def test_dino_warms_its_teacher():
    config = _config(
        "dino", objective__dino__teacher_temperature_steps=10, objective__dino__teacher_temperature_start=0.02
    )
    settings = config.objective.dino
    temperatures = [float(teacher_temperature(jnp.int32(step), settings)) for step in (0, 5, 10, 99)]
    np.testing.assert_allclose(temperatures, [0.02, 0.03, 0.04, 0.04], rtol=1e-6)
    assert METHODS["dino"].settled_step(config.objective) == 10


def test_sinkhorn_is_another_target():
    loss = {}
    for targets in ("center", "sinkhorn"):
        config = _config("dino", objective__dino__targets=targets)
        RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state
        loss[targets] = float(_loss(config, _batch(config))[0])
    assert loss["center"] != loss["sinkhorn"]


def test_simclr_finds_each_view_among_those_of_other_wells():
    config = _config("simclr")
    batch = _batch(config)
    well = np.asarray([0, 0, 1, 2])
    batch = dataclasses.replace(batch, origin=Origin(*map(jnp.asarray, (np.arange(4), well, 0 * well, 0 * well - 1))))
    projections, _ = _each_view(config, batch)
    rows = projections / np.linalg.norm(projections, axis=-1, keepdims=True)  # [V, B, *]
    terms = []
    for v, i in np.ndindex(3, IMAGES):
        similar = {(u, j): rows[v, i] @ rows[u, j] / 0.2 for u, j in np.ndindex(3, IMAGES)}
        positives = [(u, i) for u in range(3) if u != v]
        negatives = [(u, j) for u, j in np.ndindex(3, IMAGES) if well[j] != well[i]]
        log_sum = np.log(sum(np.exp(similar[pair]) for pair in (*positives, *negatives)))
        terms.append(np.mean([log_sum - similar[pair] for pair in positives]))
    np.testing.assert_allclose(_loss(config, batch)[0], np.mean(terms), rtol=1e-4)


def test_lejepa_weighs_spread_and_normality():
    config = _config("lejepa", objective__lejepa__sigreg=0.25)
    batch = _batch(config)
    projections, _ = _each_view(config, batch)
    spread = np.square(projections - projections.mean(axis=0)).mean()
    loss, aux = _loss(config, batch)
    np.testing.assert_allclose(aux.metrics["view_spread"], spread, rtol=1e-3)
    assert aux.metrics["sigreg"] > 0
    np.testing.assert_allclose(loss, 0.75 * spread + 0.25 * aux.metrics["sigreg"], rtol=1e-4)


@pytest.mark.parametrize("name", MODULES)
def test_what_pads_a_batch_changes_nothing(name):
    config = _config(name)
    weight = np.ones((IMAGES, CHANNELS), np.float32)
    weight[-1] = 0
    batch = _batch(config, weight)

    def value(garbage):
        views = [view.at[-1].set(garbage) for view in (batch.image, *batch.other_views)]
        changed = dataclasses.replace(batch, image=views[0], other_views=tuple(views[1:]))
        return float(_loss(config, changed)[0])

    assert value(1.0) == value(1e6)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(
    "network",
    [
        {"model__encoder": "resnet"},
        {"model__channels": "independent", "model__channel_readout": "concat"},
        {
            "model__encoder": "vit",
            "model__vit__size": "Ti",
            "model__vit__patch_size": 8,
            "model__channels": "tokens",
            "model__channel_dropout": 0.3,
        },
        {"model__decoder": "mirror", "model__spread": "broadcast", "objective__reconstruction": 0.5},
    ],
    ids=["resnet", "independent channels", "channel tokens", "with a decoder"],
)
def test_every_method_takes_every_network(name, network):
    local = {} if "model__encoder" not in network else {"objective__crops__local_size": (2 * SIZE, 2 * SIZE)}
    config = _config(name, **network, **local)
    batch = jax.eval_shape(lambda: _batch(config))
    model = build_model(config, CHANNELS)
    variables = jax.eval_shape(
        lambda: initial_variables(model, jnp.zeros((1, SIZE, SIZE, CHANNELS)), jax.random.key(0))
    )
    params = variables.pop("params")

    def gradients(params, state, batch):
        def loss(params):
            return METHODS[name].objective(
                model,
                config.objective,
                params,
                state,
                batch,
                jnp.int32(0),
                KEY,
                train=True,
                teacher=Teacher(params, state),
            )

        return jax.grad(loss, has_aux=True)(params)

    gradient, aux = jax.eval_shape(gradients, params, variables, batch)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    assert {leaf for leaf in aux.model_state} == set(variables)
    drawn = aux.reconstruction
    assert (drawn is not None) == ("model__decoder" in network)
    assert drawn is None or drawn.shape == (IMAGES, SIZE, SIZE, CHANNELS)
    assert ("recon" in aux.metrics) == (drawn is not None)


def test_a_decoder_is_trained_on_all_global_views():
    config = _config(
        "simclr",
        model__decoder="mirror",
        model__spread="broadcast",
        objective__reconstruction=0.5,
        objective__crops__num_local=0,
    )
    batch = _batch(config)
    model, params, state = _network(config)
    errors = [
        np.square(np.asarray(_apply(model, {"params": params, **state}, view, None)[0]) - view).mean()
        for view in (batch.image, *batch.other_views)
    ]
    loss, aux = _loss(config, batch)
    np.testing.assert_allclose(aux.metrics["recon"], np.mean(errors), rtol=1e-4)
    np.testing.assert_allclose(loss, aux.metrics["info_nce"] + 0.5 * aux.metrics["recon"], rtol=1e-5)


def test_spread_is_near_1_in_all_directions_and_0_of_equal_embeddings():
    rows = RNG.normal(size=(2000, 16)).astype(np.float32)
    counted = np.arange(2000) < 1999
    rows[-1] = np.nan
    np.testing.assert_allclose(spread_between_images(jnp.asarray(rows), jnp.asarray(counted)), 1, rtol=0.01)
    alike = jnp.ones((8, 16)) * 3
    np.testing.assert_allclose(spread_between_images(alike, jnp.ones(8, bool)), 0, atol=1e-6)


def test_collapse_is_told_by_the_numbers_that_are_logged():
    healthy = {"embedding_std": 0.5, "entropy_of_mean_target": 5.0, "mean_target_entropy": 2.0}
    assert all(METHODS[name].collapse(healthy) is None for name in MODULES)
    for name in MODULES:
        assert "embedding_std=0.001" in METHODS[name].collapse(healthy | {"embedding_std": 0.001})
    one_prototype = healthy | {"entropy_of_mean_target": 0.001, "mean_target_entropy": 0.001}
    all_alike = healthy | {"entropy_of_mean_target": 5.0, "mean_target_entropy": 4.999}
    for metrics in (one_prototype, all_alike):
        assert "tells" in METHODS["dino"].collapse(metrics)
