"""What a set cannot do for a configuration, seen before anything is written."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.config.set_rules import check_negatives, check_run
from bie_jax.input.mixture import Mixture
from configs import shape_vae_mnist


@pytest.mark.parametrize(
    ("form", "wells", "labels", "message"),
    [
        ("views", ["B02"] * 4, ["a", "b"] * 2, "form='views' tells wells apart .*are of one; .*weight=0 is possible"),
        ("replicates", list("abcd"), ["x", "x", "", "x"], "form='replicates' tells treatments apart, and 'label'"),
    ],
)
def test_a_contrast_without_any_negative_is_refused(form, wells, labels, message, tiny_config):
    """The term would be 0, and nothing would say so."""
    tiny_config.objective.contrastive.update({"weight": 0.1, "form": form})
    table = pd.DataFrame({"plate": list("ppqq"), "well": wells, "site": 1, "label": labels, "source": list("wxyz")})
    table = table.assign(plate="p") if form == "views" else table
    settings = check_config(tiny_config).objective.contrastive
    with pytest.raises(ConfigError, match=message):
        check_negatives(settings, SimpleNamespace(metadata=table, name="mine"), np.arange(4))
    told_apart = table.assign(well=["", "", "B02", "B03"], label=list("xxxy"))
    check_negatives(settings, SimpleNamespace(metadata=told_apart, name="mine"), np.arange(4))


def test_a_treatment_that_no_contrast_reads_need_not_be_a_column(tiny_config, tiny_set):
    tiny_config.model.channels = "independent"
    tiny_config.objective.contrastive.update({"weight": 0.1, "form": "channels", "treatment": "gene"})
    check_run(check_config(tiny_config), Mixture((tiny_set,)))


def _sets(kind, *shapes):
    sets = [SimpleNamespace(kind=kind, name=f"set_{shape[0]}", image_shape=shape) for shape in shapes]
    channels = tuple(f"stain_{number}" for number in range(shapes[0][2]))
    return SimpleNamespace(sets=sets, name="mine", window=shapes[0][:2], channel_names=channels)


@pytest.mark.parametrize(
    ("changes", "sets", "message"),
    [
        ({"data.kind": "images"}, _sets("shapes", (32, 32, 5)), "kind='images', but 'mine' is a set of shapes"),
        (
            {"model.name": "vae", "model.channels": "independent", "model.channel_readout": "concat"},
            _sets("images", (32, 32, 5)),
            "latent_dim=16 with channel_readout='concat' is not a multiple of the 5 channels of 'mine'",
        ),
        (
            {"data.augment.channel_dropout": 0.2},
            _sets("images", (32, 32, 1)),
            "channel_dropout=0.2 leaves out channels, but never all, and 'mine' has one, 'stain_0'; 0 is possible",
        ),
    ],
)
def test_what_images_cannot_do_is_refused(changes, sets, message, tiny_config):
    tiny_config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message):
        check_run(check_config(tiny_config), sets)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (_sets("shapes", (64, 64, 1), (32, 32, 1)), r"different numbers of points \(set_64 64, set_32 32\)"),
        (_sets("shapes", (100, 100, 1)), r"crop_size=\(64, 64\): the outlines of 'mine' have 100 points"),
    ],
)
def test_what_outlines_cannot_do_is_refused(sets, message):
    with pytest.raises(ConfigError, match=message):
        check_run(check_config(shape_vae_mnist.get_config()), sets)
