"""Sets of other channels and sizes in one run."""

import dataclasses
import itertools
from collections import Counter
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import bie_jax
from bie_jax.config.schema import ConfigError
from bie_jax.input.batches import train_batches
from bie_jax.input.image_set import open_image_set
from bie_jax.input.mixture import Mixture
from bie_jax.train import train_and_evaluate
from bie_jax.views.images import center_crop

pytestmark = pytest.mark.slow


@pytest.fixture
def mixture(two_sets):
    return Mixture((open_image_set("simulated", two_sets), open_image_set("other", two_sets)))


@pytest.fixture
def mixed_config(tiny_config, two_sets):
    tiny_config.data.data_dir = two_sets
    tiny_config.data.mix_with = ("other",)
    tiny_config.data.mix_weights = (3.0, 1.0)
    tiny_config.model.cpu_kernels = False  # which compiles in half the time
    tiny_config.model.residual_stack.num_residual_layers = 1
    tiny_config.model.quantizer.kmeans_iterations = 0
    tiny_config.data.augment.update(flip=False, rotate90=False)
    return tiny_config


def test_channels_are_joined_and_rows_numbered_through(mixture):
    first, other = mixture.sets
    assert mixture.channel_names == (*first.channel_names, "actin")
    assert len(mixture) == len(first) + len(other)
    assert mixture.window == (32, 32)
    assert mixture.dtype == np.uint16
    row = len(first) + 3
    assert mixture.metadata.iloc[row]["source"] == "other 3"
    assert mixture.metadata.index.tolist() == list(range(len(mixture)))
    assert mixture.metadata["set"].tolist() == ["simulated"] * len(first) + ["other"] * len(other)
    images = mixture.images(np.asarray([row, 2]), None)
    assert images.dtype == np.uint16
    middle = other[3][2:34, 4:36]
    np.testing.assert_array_equal(images[0][..., [5, 0]], middle)  # actin is new, DNA is the first set's first
    np.testing.assert_array_equal(images[0][..., 1:5], 0)
    np.testing.assert_array_equal(images[1][..., :5], first[2])
    np.testing.assert_array_equal(images[1][..., 5], 0)


def test_origins_go_by_the_names_of_wells_plates_and_treatments_in_all_sets():
    columns = ["plate", "well", "site", "source", "gene"]
    first = [
        ("P1", "B02", 1, "a", "x"),
        ("P1", "B02", 2, "b", "y"),
        ("P1", "B03", 1, "c", ""),
        ("P2", "B02", 1, "d", "x"),
    ]
    # The same plate again, cut into crops; and two crops of a field and another field of no known well.
    second = [("P1", "B02", 1, "a", "x"), ("P3", "", 1, "e", "x"), ("P3", "", 1, "e", "x"), ("P3", "", 2, "f", "z")]
    sets = (
        SimpleNamespace(name="one", metadata=pd.DataFrame(first, columns=columns)),
        SimpleNamespace(name="two", metadata=pd.DataFrame(second, columns=columns)),
        SimpleNamespace(name="three", metadata=pd.DataFrame([("P4", "B02", 1, "g")], columns=columns[:4])),
    )
    image, well, plate, treatment = Mixture(sets).origins("gene").T
    assert image.tolist() == list(range(9))
    assert well.tolist() == [0, 0, 1, 2, 0, 3, 3, 4, 5]
    assert plate.tolist() == [0, 0, 0, 1, 0, 2, 2, 2, 3]
    names = ["x", "y", None, "x", "x", "x", "x", "z", None]
    same = [[a == b and a is not None for b in names] for a in names]
    np.testing.assert_array_equal((treatment[:, None] == treatment) & (treatment >= 0), same)
    # Where equal genes are each other's second views, their wells are one; where no gene is known, wells stay.
    joined = Mixture(sets).origins(None, "gene")[:, 1]
    for number, name in enumerate(names):
        alike = [other == name for other in names] if name else [other == number for other in range(9)]
        np.testing.assert_array_equal(joined == joined[number], alike)
    assert set(Mixture(sets).origins(None)[:, 3]) == {-1}


def test_windows_reach_every_corner_of_a_larger_image(mixture):
    row = np.asarray([len(mixture.sets[0])])
    image = mixture.sets[1][0]
    for place, (top, left) in (((0, 0), (0, 0)), ((0.999, 0.999), (4, 8)), ((0.5, 0), (2, 0))):
        found = mixture.images(row, np.asarray([place]))[0][..., [5, 0]]
        np.testing.assert_array_equal(found, image[top : top + 32, left : left + 32])


@pytest.fixture
def depths(three_depths):
    return Mixture(tuple(open_image_set(name, three_depths) for name in ("simulated", "bytes", "floats")))


def test_values_of_every_depth_come_as_they_are(depths):
    """8 and 16 bits and floats: nothing is scaled, cut or rounded on the way, whatever lies beside it in a batch."""
    assert [image_set.dtype for image_set in depths.sets] == ["uint16", "uint8", "float32"]
    assert (depths.dtype, depths.window, len(depths.channel_names)) == (np.float32, (32, 32), 7)
    rows = np.asarray([depths.first_rows[2] + 5, 1, depths.first_rows[1] + 3, depths.first_rows[1] - 1])
    images = depths.images(rows, None)
    corners = {0: (0, 0), 1: (4, 1), 2: (0, 9)}
    for image, (member, row) in zip(images, [(2, 5), (0, 1), (1, 3), (0, -1)], strict=True):
        chosen = depths.sets[member]
        top, left = corners[member]
        expected = chosen[row % len(chosen)][top : top + 32, left : left + 32]
        columns = [depths.channel_names.index(name) for name in chosen.channel_names]
        np.testing.assert_array_equal(image[..., columns], expected)
        np.testing.assert_array_equal(np.delete(image, columns, axis=-1), 0)
    assert images[0].min() < -1e5  # a float that no whole number holds
    assert images[0][..., -1].max() > 65535


def test_batches_of_three_depths_go_on_where_they_were(depths):
    rows = [np.arange(start, end) for start, end in itertools.pairwise(depths.first_rows)]

    def batches(start):
        return train_batches(depths, rows, [1.0, 2.0, 1.0], 8, seed=5, start_step=start, read_threads=2)

    straight = list(itertools.islice(batches(0), 12))
    member = np.searchsorted(depths.first_rows, np.concatenate([batch["row"] for batch in straight]), side="right") - 1
    assert np.bincount(member).tolist() == [24, 48, 24]
    for a, b in zip(straight[7:], itertools.islice(batches(7), 5), strict=True):
        assert a["image"].dtype == np.float32
        np.testing.assert_array_equal(a["row"], b["row"])
        np.testing.assert_array_equal(a["image"].view(np.uint32), b["image"].view(np.uint32))


@pytest.mark.parametrize("normalization", ["zscore", "percentile_clip"])
def test_every_depth_is_normalized_by_its_own_numbers(depths, three_depths, normalization, tiny_config):
    """A byte and a float of a million come out alike, and channels that a set lacks as zeros."""
    from bie_jax.views import images as augment
    from bie_jax.views import intensities

    tiny_config.data.update({"normalization": normalization, "normalization_scope": "set"})
    sets = [image_set.intensities for image_set in depths.sets]
    table = intensities.intensity_table(sets, depths.channel_names, normalization, "set")
    numbers = intensities.table_rows(sets)
    for member, (name, plate) in enumerate((("simulated", ""), ("bytes", "Q0"), ("floats", "Q1"))):
        row = numbers[name, plate] if plate else next(row for (n, _), row in numbers.items() if n == name)
        image = depths.images(depths.first_rows[member] + np.arange(4), None)
        seen = np.asarray(augment.eval_view(image, np.full(4, row), table, (32, 32), tiny_config.data))
        chosen = depths.sets[member]
        overall = chosen.statistics["overall"]
        if normalization == "zscore":
            low, width = np.asarray(overall["mean"]), np.asarray(overall["std"])
        else:
            low = np.asarray(overall["percentiles"]["0.1"])
            width = np.asarray(overall["percentiles"]["99.9"]) - low
        columns = [depths.channel_names.index(channel) for channel in chosen.channel_names]
        expected = (image[..., columns].astype(np.float64) - low) / width
        expected = expected if normalization == "zscore" else np.clip(expected, 0, 1)
        np.testing.assert_allclose(seen[..., columns], expected, atol=2e-5)
        np.testing.assert_array_equal(np.delete(seen, columns, axis=-1), 0)


@dataclasses.dataclass(frozen=True)
class _Noise:
    """As much of a set as a mixture asks for: images of another value in every pixel."""

    name: str
    image_shape: tuple[int, int, int]
    channel_names: tuple[str, ...] = ("DNA",)
    dtype = np.dtype(np.uint16)

    def __len__(self):
        return 4

    def __getitem__(self, row):
        return np.random.default_rng(row).permutation(np.prod(self.image_shape)).reshape(self.image_shape)


def test_the_middle_of_an_odd_margin_is_that_of_the_crops():
    sets = _Noise("wide", (6, 9, 1)), _Noise("high", (9, 6, 1))
    mixture = Mixture(sets)
    assert mixture.window == (6, 6)
    wide, high = mixture.images(np.asarray([1, 4]), None)
    np.testing.assert_array_equal(wide, center_crop(sets[0][1][None], (6, 6))[0])
    np.testing.assert_array_equal(high, center_crop(sets[1][0][None], (6, 6))[0])
    assert Mixture((_Noise("a", (5, 9, 1)), _Noise("b", (6, 7, 1)))).window == (5, 7)


def test_the_window_of_an_image_is_drawn_anew_each_time_and_by_the_seed():
    mixture = Mixture((_Noise("a", (3, 3, 1)), _Noise("b", (40, 40, 1))))

    def windows(seed):
        rows = [np.arange(4), np.arange(4, 8)]
        batches = train_batches(mixture, rows, [1.0, 1.0], 8, seed=seed, start_step=0, read_threads=1)
        drawn = [next(batches) for _ in range(6)]
        images, rows = (np.concatenate([batch[name] for batch in drawn]) for name in ("image", "row"))
        return {row: [image.tobytes() for image in images[rows == row]] for row in range(4, 8)}

    first, second = windows(0), windows(1)
    for row in range(4, 8):
        assert len(first[row]) == 6
        assert len(set(first[row])) > 4  # of 1444 windows
        assert not set(first[row]) & set(second[row])


def test_one_set_comes_as_it_is(mixture):
    alone = Mixture(mixture.sets[:1])
    np.testing.assert_array_equal(alone.images(np.asarray([4, 1]), None), mixture.sets[0].images([4, 1]))


def _batches(mixture, start_step, threads=2):
    rows = [np.arange(start, end) for start, end in itertools.pairwise(mixture.first_rows)]
    return train_batches(mixture, rows, [3.0, 1.0], 8, seed=0, start_step=start_step, read_threads=threads)


def test_sets_are_drawn_by_their_weights(mixture):
    rows = np.concatenate([next(batches)["row"] for batches in [_batches(mixture, 0)] for _ in range(50)])
    share = Counter((rows >= mixture.first_rows[1]).tolist())
    assert share == {False: 300, True: 100}
    # Every image as often as any other of its set, but for one.
    for chosen in (rows[rows < mixture.first_rows[1]], rows[rows >= mixture.first_rows[1]]):
        counts = Counter(chosen.tolist()).values()
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("threads", [1, 3])
def test_going_on_is_the_same_rows_and_windows(mixture, threads):
    straight = list(itertools.islice(_batches(mixture, 0), 9))
    resumed = list(itertools.islice(_batches(mixture, 5, threads), 4))
    for a, b in zip(straight[5:], resumed, strict=True):
        np.testing.assert_array_equal(a["row"], b["row"])
        np.testing.assert_array_equal(a["image"], b["image"])
    windows = {batch["image"][i].tobytes() for batch in straight for i in np.flatnonzero(batch["row"] == 40)}
    images = sum((batch["row"] == 40).sum() for batch in straight)
    assert len(windows) == images  # another window each time


def test_a_mixed_run_trains_and_embeds_either_set(mixed_config, mixture, tmp_path, capsys):
    mixed_config.train.epochs = 1
    mixed_config.optimizer.update(warmup_epochs=0, cooldown_epochs=0)
    train_and_evaluate(mixed_config, tmp_path / "run")
    said = capsys.readouterr().out
    assert "simulated: train 58 images, 29 wells, 2 plates; validation 14 images, 7 wells, 2 plates" in said
    assert "other: train 21 images" in said
    embedder = bie_jax.load(tmp_path / "run")
    assert embedder.channel_names == mixture.channel_names
    first, other = mixture.sets
    mine = embedder.embed(first.images([0, 1]), channels=first.channel_names)
    assert mine.shape == (2, 16)
    theirs = embedder.embed(other.images([0, 1]), channels=["actin", "DNA"])
    assert theirs.shape == (2, 16)
    turned = embedder.embed(other.images([0, 1])[..., ::-1], channels=["DNA", "actin"])
    np.testing.assert_array_equal(theirs, turned)
    with pytest.raises(ValueError, match=r"the model takes DNA, .*membrane or actin, DNA"):
        embedder.embed(other.images([0, 1])[..., :1], channels=["DNA"])


def test_what_a_set_lacks_changes_nothing(mixed_config, mixture):
    """Counts in a channel that is masked move neither loss nor gradient."""
    from bie_jax.config.rules import check_config
    from bie_jax.objectives import build_model
    from bie_jax.objectives.base import unlabeled_batch
    from bie_jax.objectives.vqvae import vqvae
    from bie_jax.views import images as augment
    from bie_jax.views import intensities

    config = check_config(mixed_config)
    sets = [image_set.intensities for image_set in mixture.sets]
    table = intensities.intensity_table(sets, mixture.channel_names, "zscore", "plate")
    plate = np.full(2, intensities.table_rows(sets)["other", "Q0"], np.int32)
    image = mixture.images(mixture.first_rows[1] + np.arange(2), None)
    model = build_model(config, 6)
    blank = np.zeros((2, 32, 32, 6), np.float32)
    variables = dict(jax.jit(lambda key: model.init(key, blank, train=False))(jax.random.key(0)))
    params = variables.pop("params")

    @jax.jit
    @jax.value_and_grad
    def loss(params, counts):
        seen = augment.eval_view(counts, plate, table, (32, 32), config.data)
        batch = unlabeled_batch(seen, table.present[plate])
        return vqvae(model, config.objective, params, variables, batch, jnp.int32(0), jax.random.key(0), train=True)[0]

    disturbed = image.copy()
    disturbed[..., 1:5] = 12345
    (_, gradient), other = (outputs := loss(params, image)), loss(params, disturbed)
    jax.tree.map(np.testing.assert_array_equal, outputs, other)
    # The last layer's weights towards the masked channels get no gradient, those towards the others do.
    towards = [leaf for leaf in jax.tree.leaves(gradient["decoder"]) if leaf.ndim == 1 and leaf.shape[-1] == 6]
    assert towards
    for leaf in map(np.asarray, towards):
        np.testing.assert_array_equal(leaf[1:5], 0)
        assert (leaf[[0, 5]] != 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mix_weights": (1.0,)}, r"mix_weights=\(1.0,\) for 2 sets"),
        ({"mix_with": ("simulated",)}, "a set is named twice"),
        ({"normalization_scope": "image"}, "normalization_scope='image' with sets of different sizes"),
        ({"crop_size": (36, 36)}, r"crop_size=\(36, 36\) is larger than the images of 'simulated \+ other', 32 x 32"),
        ({"mix_with": ("nothing",)}, "the set 'nothing' is not built"),
    ],
)
def test_what_cannot_be_mixed(mixed_config, tmp_path, changes, message):
    mixed_config.data.update(changes)
    with pytest.raises((ConfigError, FileNotFoundError), match=message):
        train_and_evaluate(mixed_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_training_step_does_not_count_what_a_set_lacks(mixed_config, mixture):
    from bie_jax.config.rules import check_config
    from bie_jax.objectives import build_model
    from bie_jax.objectives.base import unlabeled_batch
    from bie_jax.objectives.vqvae import vqvae
    from bie_jax.training import sharding
    from bie_jax.training.optimizer import build_optimizer
    from bie_jax.training.state import create_train_state
    from bie_jax.training.step import build_train_step
    from bie_jax.views import images as augment
    from bie_jax.views import intensities

    config = check_config(mixed_config)
    table = intensities.intensity_table(
        [image_set.intensities for image_set in mixture.sets], mixture.channel_names, "zscore", "plate"
    )
    rows = np.asarray([0, 1, 2, 3, *(mixture.first_rows[1] + np.arange(4))])
    image, plate = mixture.images(rows, None), np.asarray([1] * 4 + [4] * 4, np.int32)
    model = build_model(config, 6)
    tx, _ = build_optimizer(config.optimizer, {}, steps_per_epoch=4, epochs=4)
    layout = sharding.data_layout()

    state = jax.jit(lambda key: create_train_state(config, model, tx, 6, key))(jax.random.key(0))
    view_key, _ = jax.random.split(jax.random.fold_in(jax.random.key(config.train.seed), 0))

    @jax.jit
    def value(weight):
        view = augment.train_view(view_key, image, plate, table, config.data)
        batch = unlabeled_batch(view, weight)
        key = jax.random.key(0)
        args = (model, config.objective, state.params, state.model_state, batch, state.step, key)
        return vqvae(*args, train=True)[0]

    counted, all_counted = value(table.present[plate]), value(jnp.ones((8, 6)))
    step = build_train_step(config, model, table, layout, state, 100)
    _, loss = step(
        state,
        sharding.put_batch(
            {"image": image, "plate": plate, "origin": np.repeat(plate[:, None], 4, axis=1)}, layout.batch
        ),
    )
    np.testing.assert_allclose(loss, counted, rtol=1e-4)
    assert abs(float(all_counted) / float(counted) - 1) > 0.05


def test_two_processes_share_the_images_of_one(mixture):
    """The same windows of the same images, whoever reads them."""
    rows = [np.arange(first, end) for first, end in itertools.pairwise(mixture.first_rows)]

    def first_batch(**share):
        return next(train_batches(mixture, rows, [1.0, 1.0], 16, seed=3, start_step=0, read_threads=1, **share))

    whole = first_batch()
    for half in (np.arange(8), np.arange(8, 16)):
        share = first_batch(share=half)
        np.testing.assert_array_equal(share["row"], whole["row"][half])
        np.testing.assert_array_equal(share["image"], whole["image"][half])
