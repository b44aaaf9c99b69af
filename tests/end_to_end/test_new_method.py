"""A method that the house has never seen: no decoder, two sizes of crops, a teacher; one record and one line."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bie_jax
from bie_jax.evaluation.embedding import write_embeddings
from bie_jax.evaluation.evaluate import evaluate
from bie_jax.objectives import METHODS
from bie_jax.objectives.base import Aux, Method
from bie_jax.train import train_and_evaluate
from configs import ae_idr0093

SMALL = (16, 16)


class _Encoder(nn.Module):
    """Two convolutions, pooled, projected: nothing makes images of embeddings."""

    latent_dim: int

    @nn.compact
    def __call__(self, image, channel_mask=None, *, train):
        return self.encode(image, channel_mask, train=train)

    @nn.compact
    def encode(self, image, channel_mask=None, *, train):
        x = nn.relu(nn.Conv(8, (3, 3), strides=2, name="first")(image))
        features = nn.relu(nn.Conv(8, (3, 3), strides=2, name="second")(x)).mean((1, 2))
        embedding = nn.Dense(self.latent_dim, name="head")(features)
        return embedding, {"embedding": embedding, "features": features}


def _matches_the_teacher(model, config, params, model_state, batch, step, key, *, train, teacher):
    """The small view's embedding is drawn to what the teacher says of the large one."""
    (small,) = batch.other_views
    assert small.shape[1:3] == SMALL
    assert batch.image.shape[1:3] == (32, 32)
    student, _ = model.apply({"params": params}, small, train=train, method="encode")
    wanted, _ = model.apply({"params": teacher.params}, batch.image, train=False, method="encode")
    loss = jnp.square(student - jax.lax.stop_gradient(wanted)).mean()
    return loss, Aux({"loss": loss}, {}, model_state, None)


TOY = Method(
    lambda config, num_channels, **_: _Encoder(config.latent_dim),
    _matches_the_teacher,
    other_views=lambda config: (config.data.model_copy(update={"crop_size": SMALL}),),
    has_teacher=True,
    has_decoder=False,
)


@pytest.fixture
def toy_config(datasets, monkeypatch):
    monkeypatch.setitem(METHODS, "toy", TOY)
    config = ae_idr0093.get_config("tiny")
    config.data.data_dir, config.model.name, config.model.encoder = datasets, "toy", "residual_stack"
    config.data.crop_size = (32, 32)
    config.train.ema_decay, config.train.log_every_steps = 0.9, 1
    config.optimizer.warmup_epochs = config.optimizer.cooldown_epochs = 0
    config.eval.trees, config.eval.umap, config.eval.bootstrap = 3, False, 10
    config.eval.classical_baseline = False
    return config


def test_it_trains_resumes_to_the_bit_embeds_and_is_scored(toy_config, tmp_path):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    toy_config.train.epochs, toy_config.train.checkpoint_every_steps = 2, 3
    train_and_evaluate(toy_config, straight)

    calls = []
    original = bie_jax.training.checkpoint.Checkpoints.save

    def stop_after_two(self, *arguments):
        original(self, *arguments)
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bie_jax.training.checkpoint.Checkpoints, "save", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(toy_config, resumed)
    train_and_evaluate(toy_config, resumed)

    without_timings = [
        [
            {key: value for key, value in json.loads(line).items() if not key.startswith("perf/")}
            for line in (workdir / "metrics.jsonl").read_text().splitlines()
        ]
        for workdir in (straight, resumed)
    ]
    assert without_timings[0] == without_timings[1]
    assert without_timings[0][-1]["val/loss"] < without_timings[0][0]["train/loss"] * 10
    assert not list(straight.glob("reconstructions/*"))

    features = [write_embeddings(workdir).filter(like="toy_").to_numpy() for workdir in (straight, resumed)]
    np.testing.assert_array_equal(*features)
    assert features[0].std(axis=0).max() > 0
    assert not (straight / "reconstructions.npz").exists()
    scores = evaluate(straight)
    assert "trained_encoder" in {row["feature_set"] for row in scores["rows"]}
    assert "This method has no decoder" in (straight / "report" / "index.html").read_text()


def test_a_teacher_needs_an_average(toy_config, tmp_path):
    toy_config.train.ema_decay = 0.0
    with pytest.raises(ValueError, match=r"train.ema_decay=0.0 with model.name='toy': its teacher is a moving average"):
        train_and_evaluate(toy_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
