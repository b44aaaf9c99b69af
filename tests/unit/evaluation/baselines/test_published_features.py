"""Published encoders as a baseline, held against `transformers` on torch and Pillow's resampling."""

import json
import shutil

import jax
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from transformers import BitImageProcessor, ConvNextImageProcessor, ViTImageProcessor

import bie_jax.evaluation.baselines.published as published
from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.evaluation.baselines.published import encode_channels, published_features
from bie_jax.evaluation.baselines.published_weights import open_published
from bie_jax.evaluation.embedding.read import EmbeddedSet
from bie_jax.models.pretrained.preprocessor import Preprocessor
from tests.unit.models.tiny_models import dinov2, randomized, resnet, vit

pytestmark = pytest.mark.slow

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PROCESSORS = {
    "dinov2": lambda: BitImageProcessor(
        size={"shortest_edge": 48}, crop_size={"height": 42, "width": 42}, image_mean=MEAN, image_std=STD
    ),
    "vit": lambda: ViTImageProcessor(size={"height": 40, "width": 40}),
    "resnet": lambda: ConvNextImageProcessor(size={"shortest_edge": 64}, image_mean=MEAN, image_std=STD),
}
MODELS = {"dinov2": dinov2, "vit": vit, "resnet": lambda: resnet(18)}
SIDES = {"dinov2": 42, "vit": 40, "resnet": 64}


def _save(kind, folder):
    model = randomized(MODELS[kind]())
    model.save_pretrained(folder)
    PROCESSORS[kind]().save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folders(torch, tmp_path_factory):
    """A folder and the model in it, of each kind."""
    top = tmp_path_factory.mktemp("published")
    return {kind: (top / kind, _save(kind, top / kind)) for kind in MODELS}


def _in_unit_range(image_set, row, channel, scope):
    """By a loop's own reading of the statistics; uint16 counts -> [H, W] in 0..1."""
    counts = image_set[row][..., channel].astype(np.float64)
    if scope == "image":
        low, high = np.percentile(counts, [0.1, 99.9])
    else:
        plate = image_set.metadata["plate"][row]
        s = image_set.statistics["overall"] if scope == "set" else image_set.statistics["plates"][plate]
        low, high = (s["percentiles"][q][channel] for q in ("0.1", "99.9"))
    return np.clip((counts - low) / (high - low), 0, 1)


def _resized(gray, size):
    """Pillow's own bicubic resampling, in floats; `size` is (height, width)."""
    return np.asarray(Image.fromarray(gray.astype(np.float32), "F").resize(size[::-1], Image.Resampling.BICUBIC))


def _expected(torch, kind, model, grays):
    processor = PROCESSORS[kind]()
    mean, std = np.asarray(processor.image_mean), np.asarray(processor.image_std)
    rows = []
    for gray in grays:
        small = np.clip(_resized(gray, (SIDES[kind],) * 2), 0, 1)
        image = ((small[None] - mean[:, None, None]) / std[:, None, None]).astype(np.float32)  # [3, h, w]
        more = {} if kind == "resnet" else {"interpolate_pos_encoding": True}
        more = {} if kind == "dinov2" else more  # which always does
        with torch.no_grad():
            out = model(torch.from_numpy(image)[None], **more)
        rows.append(out.pooler_output[0, :, 0, 0] if kind == "resnet" else out.last_hidden_state[0, 0])
    return torch.stack(rows).numpy()


@pytest.mark.parametrize(("kind", "scope"), [("dinov2", "plate"), ("vit", "set"), ("resnet", "image")])
def test_features_of_every_channel_are_those_of_transformers(kind, scope, torch, folders, tiny_set, tiny_config):
    folder, model = folders[kind]
    tiny_config.eval.published, tiny_config.data.normalization_scope = str(folder), scope
    config = check_config(tiny_config)
    encoder = open_published(config, 5)
    # Of batches that do not divide the set; its first plate and its last.
    found = encode_channels(encoder, tiny_set, config.data, 31)
    assert found.shape == (len(tiny_set), 5, {"resnet": 64}.get(kind, 32))
    for row in (0, 30, len(tiny_set) - 1):
        grays = [_in_unit_range(tiny_set, row, channel, scope) for channel in range(5)]
        theirs = _expected(torch, kind, model, grays)
        np.testing.assert_allclose(found[row], theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("image_size", "size", "part"),
    [
        ((40, 61), (24, 24), (slice(0, 40), slice(10, 50))),
        ((61, 40), (24, 12), (slice(0, 61), slice(5, 35))),
        ((9, 9), (24, 24), (slice(0, 9), slice(0, 9))),
        ((50, 50), (50, 50), (slice(0, 50), slice(0, 50))),
    ],
)
def test_the_largest_middle_part_is_resized_as_pillow_does(image_size, size, part):
    gray = np.random.default_rng(0).random(image_size).astype(np.float32)
    shown = jax.jit(Preprocessor(size, (0.5, 0.25), (0.5, 2.0)))(gray[None])
    expected = np.clip(_resized(gray[part], size), 0, 1)
    np.testing.assert_allclose(shown[0, ..., 0], (expected - 0.5) / 0.5, atol=2e-5)
    np.testing.assert_allclose(shown[0, ..., 1], (expected - 0.25) / 2, atol=1e-5)


def _embedded(image_set, appended):
    none = np.empty((len(image_set), 0), np.float32)
    return EmbeddedSet(image_set, pd.DataFrame(), none, appended, "vqvae", {})


def test_channels_stand_side_by_side_or_are_averaged(torch, folders, tiny_set, tiny_config, tmp_path, monkeypatch):
    """Computed once: the second reads what the first left, and other weights are no longer that."""
    folder = tmp_path / "small"
    shutil.copytree(folders["vit"][0], folder)
    appended = np.arange(len(tiny_set), dtype=np.float32)[:, None]
    run = tmp_path / "run"
    run.mkdir()

    def features(**changes):
        tiny_config.eval.update({"published": str(folder), **changes})
        config = check_config(tiny_config)
        (found,) = published_features(run, _embedded(tiny_set, appended), open_published(config, 5), config)
        return found

    beside = features()
    of_channels = encode_channels(
        open_published(check_config(tiny_config), 5), tiny_set, check_config(tiny_config).data, 8
    )
    np.testing.assert_allclose(beside.features[:, :-1].reshape(-1, 5, 32), of_channels, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(beside.features[:, -1], appended[:, 0])
    assert beside.key == "published_encoder"
    assert beside.title == "Published encoder, frozen (small)"
    assert "A vit of 3 blocks with the weights of small" in beside.description
    assert (
        "(of its plate) as 0..1 in the intensities that it was trained on; channels side by side." in beside.description
    )
    assert (beside.components, beside.dim) == (None, 161)

    computed = []
    monkeypatch.setattr(published, "encode_channels", lambda *given: computed.append(1) or encode_channels(*given))
    averaged = features(published_channels="average", published_components=20)
    assert not computed
    np.testing.assert_allclose(averaged.features[:, :-1], of_channels.mean(axis=1), rtol=1e-4, atol=1e-4)
    assert "channels averaged, 20 principal components of them, fitted in each training fold." in averaged.description
    assert averaged.dim == 21

    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"layernorm.bias": tensors["layernorm.bias"] + 1}, folder / "model.safetensors")
    np.testing.assert_allclose(features().features, averaged.features + np.r_[np.ones(32), 0], rtol=1e-4, atol=1e-4)
    assert computed


def test_none_is_named(tiny_config, tiny_set, tmp_path):
    config = check_config(tiny_config)
    assert open_published(config, 5) is None
    assert published_features(tmp_path, _embedded(tiny_set, np.empty((72, 0))), None, config) == []
    assert list(tmp_path.iterdir()) == []


def _without(name):
    return lambda folder: (folder / name).unlink()


def _says(name, **changes):
    def change(folder):
        said = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(said | changes))

    return change


PROCESSOR = "preprocessor_config.json"


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("vit", shutil.rmtree, "there is no folder .*: save_pretrained of"),
        ("vit", _without("config.json"), "there is no .*config.json: save_pretrained of"),
        ("resnet", _without("config.json"), "there is no .*config.json: save_pretrained of"),
        ("vit", _without("model.safetensors"), "there is no .*model.safetensors. save_pretrained"),
        ("vit", _without(PROCESSOR), "there is no .*preprocessor_config.json: only it tells the size"),
        ("vit", lambda folder: (folder / PROCESSOR).write_text("{"), "preprocessor_config.json is not JSON"),
        ("vit", lambda folder: (folder / PROCESSOR).write_text("[]"), "preprocessor_config.json holds list, not named"),
        ("vit", lambda folder: (folder / "config.json").write_text("[]"), "config.json holds list, not named"),
        ("vit", _says(PROCESSOR, do_rescale=False), "do_rescale=False, rescale_factor=0.0039.*: only networks of im"),
        ("vit", _says(PROCESSOR, rescale_factor=0.5), "rescale_factor=0.5: only networks"),
        ("vit", _says(PROCESSOR, image_mean=[0.5]), r"image_mean=\[0.5\]: expected 3 numbers, one for each channel"),
        ("vit", _says(PROCESSOR, image_std=[1, 1, 0]), r"image_std=\[1, 1, 0\]: expected numbers above 0"),
        ("vit", _says(PROCESSOR, size={"longest_edge": 9}), "size={'longest_edge': 9}: expected a number of pixels"),
        ("dinov2", _says(PROCESSOR, crop_size={"height": 42, "width": True}), "crop_size=.*: expected a number of pi"),
        ("vit", _says(PROCESSOR, size=42), "input of 42 x 42 pixels is no multiple of its stride, 8 pixels"),
        ("resnet", _says(PROCESSOR, size=48), "input of 48 x 48 pixels is no multiple of its stride, 32 pixels"),
        ("vit", _says("config.json", hidden_act="relu"), "hidden_act='relu'; the ViTs here have 'gelu'"),
        ("resnet", _says("config.json", hidden_act="gelu"), "hidden_act='gelu'; the ResNets here are"),
    ],
)
def test_what_cannot_be_read_is_refused(kind, change, message, torch, folders, tiny_config, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(folders[kind][0], folder)
    change(folder)
    tiny_config.eval.published = str(folder)
    with pytest.raises(ConfigError, match=f"config.eval.published='.*other': .*{message}"):
        open_published(check_config(tiny_config), 5)


def test_weights_that_are_no_numbers_are_refused(torch, folders, tiny_config, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(folders["vit"][0], folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"layernorm.bias": tensors["layernorm.bias"] * np.nan}, folder / "model.safetensors")
    tiny_config.eval.published = str(folder)
    with pytest.raises(ConfigError, match=r"published='.*': params/norm/bias holds NaN"):
        open_published(check_config(tiny_config), 5)


def test_more_components_than_numbers_are_refused(torch, folders, tiny_config):
    tiny_config.eval.update({"published": str(folders["vit"][0]), "published_components": 160})
    open_published(check_config(tiny_config), 5)
    tiny_config.eval.published_channels = "average"
    with pytest.raises(ConfigError, match=r"published_components=160 is more than the 32 numbers that config.eval.pub"):
        open_published(check_config(tiny_config), 5)
