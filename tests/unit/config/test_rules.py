"""Every rule between keys: what it refuses, and that several faults are said at once."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from bie_jax.config import rules
from bie_jax.config.rules import RULES_OF_ALL, RULES_OF_GROUPS, check_config
from bie_jax.config.schema import ConfigError
from bie_jax.objectives import METHODS
from configs import dino_idr0093, mae_idr0093, shape_vae_mnist, vqvae_idr0093

IMAGES, MASKED, OUTLINES = vqvae_idr0093.get_config(), mae_idr0093.get_config("tiny"), shape_vae_mnist.get_config()
TAUGHT = dino_idr0093.get_config("tiny")

# rule -> a configuration, what is changed of it, and the start of the line.
BROKEN = {
    "_outlines_are_square_and_of_one_set": (OUTLINES, {"data.crop_size": (64, 32)}, "data: crop_size=(64, 32), "),
    "_every_set_has_a_weight": (IMAGES, {"data.mix_with": ("other",)}, "data: mix_weights=(1.0,) for 2 sets"),
    "_no_set_is_named_twice": (
        IMAGES,
        {"data.mix_with": ("idr0093",), "data.mix_weights": (1.0, 1.0)},
        "data: mix_with=('idr0093',) with name='idr0093': a set is named twice",
    ),
    "_fold_is_one_of_them": (IMAGES, {"data.num_folds": 3, "data.fold": 3}, "data: fold=3 of num_folds=3: "),
    "_shares_of_the_area_are_a_range": (
        IMAGES,
        {"data.augment.area": (0.0, 0.4)},
        "data: augment.area=(0.0, 0.4): expected (0, 0), windows at the image's own scale, or 0 < low <= high",
    ),
    "_only_windows_of_any_scale_are_stretched": (
        IMAGES,
        {"data.augment.aspect": 1.5},
        "data: augment.aspect=1.5 with augment.area=(0.0, 0.0): windows at the image's own scale are not stretched",
    ),
    "_turns_are_of_one_kind": (
        IMAGES,
        {"data.augment.rotate": True},
        "data: augment.rotate90=True with augment.rotate=True: any angle is one of its right angles too",
    ),
    "_heads_divide_the_width": (IMAGES, {"model.vit.decoder_heads": 7}, "model.vit: decoder_width=512 is not a mul"),
    "_only_plain_codebooks_have_groups": (
        IMAGES,
        {"model.quantizer.name": "residual", "model.quantizer.num_groups": 2},
        "model.quantizer: num_groups=2 with name='residual': 1 is possible",
    ),
    "_levels_make_the_codes_of_fsq": (
        IMAGES,
        {"model.quantizer.name": "fsq", "model.quantizer.levels": (4, 4)},
        "model.quantizer: num_codes=16 and code_dim=16 with name='fsq', levels=(4, 4): they are 16, ",
    ),
    "_codes_of_fsq_start_where_they_stay": (
        IMAGES,
        {"model.quantizer.name": "fsq", "model.quantizer.kmeans_iterations": 5},
        "model.quantizer: kmeans_iterations=5 with name='fsq': its codes are fixed; 0 is possible",
    ),
    "_method_is_known": (
        IMAGES,
        {"model.name": "gan"},
        "model.name='gan': expected 'ae', 'vae', 'vqvae', 'mae', 'simclr', 'dino', 'lejepa' or 'taught', ",
    ),
    "_mae_has_patches_to_leave_out": (MASKED, {"model.encoder": "resnet"}, "model: encoder='resnet' with name='mae'"),
    "_mae_sees_channels_together": (MASKED, {"model.channels": "independent"}, "model: channels='independent' with"),
    "_only_vit_has_tokens": (IMAGES, {"model.channels": "tokens"}, "model: channels='tokens' with encoder='residual_"),
    "_only_separate_channels_are_concatenated": (
        IMAGES,
        {"model.channel_readout": "concat"},
        "model: channel_readout='concat' with name='vqvae', channels='joint': ",
    ),
    "_only_tokens_are_dropped": (IMAGES, {"model.channel_dropout": 0.5}, "model: channel_dropout=0.5 with channels="),
    "_only_published_encoders_are_pretrained": (
        IMAGES,
        {"model.pretrained": "weights"},
        "model: pretrained with encoder='residual_stack': only 'resnet' and 'vit' are published",
    ),
    "_some_methods_need_a_decoder": (
        IMAGES,
        {"model.decoder": "none"},
        "model: decoder='none' with name='vqvae': it learns from what it draws; 'mirror' is possible, and 'none' with ",
    ),
    "_ring_has_no_mirror": (OUTLINES, {"model.decoder": "mirror"}, "model: decoder='mirror' with encoder='ring': "),
    "_matrices_are_decoded_by_autoencoders": (
        OUTLINES,
        {"model.channels": "independent"},
        "model: decoder='points' with name='vae', channels='independent': it makes one matrix",
    ),
    "_matrices_are_decoded_from_a_vector": (
        OUTLINES,
        {"model.name": "vqvae", "model.bottleneck": "grid"},
        "model: decoder='points' with bottleneck='grid': it needs one latent vector; 'pooled' is possible",
    ),
    "_codes_can_differ": (IMAGES, {"model.quantizer.num_codes": 1}, "model: quantizer.num_codes=1: one code says no"),
    "_latent_counts_the_codes_of_a_grid": (
        IMAGES,
        {"model.quantizer.num_codes": 8},
        "model: latent_dim=16 with 8 codes in all codebooks (quantizer.num_codes=8): bottleneck='grid' embeds",
    ),
    "_latent_is_the_groups_of_a_pooled_vector": (
        IMAGES,
        {"model.bottleneck": "pooled", "model.quantizer.code_dim": 3},
        "model: latent_dim=16 with quantizer.num_groups=1 of quantizer.code_dim=3 numbers: ",
    ),
    "_peak_is_highest": (IMAGES, {"optimizer.min_lr": 1.0}, "optimizer: min_lr=1.0 above lr=0.001, the peak: "),
    "_microbatches_are_equal": (IMAGES, {"train.accumulate_steps": 3}, "train: batch_size=64 is not a multiple of ac"),
    "_cells_are_counted_once": (
        IMAGES,
        {"eval.cell_count_channel": "DNA", "eval.cell_count_column": "n_cells"},
        "eval: cell_count_channel='DNA' and cell_count_column='n_cells': one of them is ''",
    ),
    "_steps_differ": (
        IMAGES,
        {"eval.profile.steps": ("select", "select")},
        "eval.profile.steps=('select', 'select'): each at most once",
    ),
    "_steps_have_their_controls": (
        IMAGES,
        {"eval.profile.treatment": ("a",), "eval.profile.steps": ("normalize", "tvn"), "eval.probe_control": ""},
        "eval.probe_control='' with 'tvn', 'normalize' in eval.profile.steps: they are fitted to negative controls",
    ),
    "_one_axis_takes_what_is_left": (IMAGES, {"train.mesh.fsdp": -1}, "train.mesh: data=-1 and fsdp=-1: only one axis"),
    "_warmup_ends_before_the_last_epoch": (IMAGES, {"train.epochs": 5}, ": optimizer.warmup_epochs=5 leaves nothing"),
    "_sizes_are_multiples_of_the_stride": (
        IMAGES,
        {"eval.image_size": (30, 32), "model.spread": "broadcast"},
        ": eval.image_size=(30, 32): its sides must be multiples of 4, the stride of model.encoder='residual_stack'",
    ),
    "_masking_leaves_a_patch": (
        MASKED,
        {"data.crop_size": (16, 8), "data.augment.rotate90": False},
        ": model.mae.mask_ratio=0.75 leaves none of the 2 patches that data.crop_size=(16, 8) has with ",
    ),
    "_no_side_alone_is_whole": (IMAGES, {"eval.image_size": (0, 64)}, ": eval.image_size=(0, 64): (0, 0) means the"),
    "_network_of_one_size_embeds_that_size": (
        IMAGES,
        {"model.name": "ae", "eval.image_size": (64, 64)},
        ": eval.image_size=(64, 64): with model.spread='dense' or learned positions a network has one size",
    ),
    "_only_squares_are_turned": (
        IMAGES,
        {"data.crop_size": (224, 128)},
        ": data.crop_size=(224, 128) with data.augment.rotate90=True: only squares can be turned",
    ),
    "_images_are_no_matrices": (OUTLINES, {"data.kind": "images"}, ": model.encoder='ring', model.decoder='points' "),
    "_images_have_no_terms_of_matrices": (
        IMAGES,
        {"objective.matrix.triangle": 1.0},
        ": objective.matrix with data.kind='images': its terms are of distance matrices",
    ),
    "_terms_of_matrices_are_of_what_is_drawn": (
        TAUGHT,
        {"objective.matrix.symmetry": 1.0},
        ": objective.matrix with model.decoder='none': its terms are of a predicted distance matrix",
    ),
    "_outlines_are_seen_whole": (OUTLINES, {"eval.image_size": (32, 32)}, ": eval.image_size=(32, 32) with data.kin"),
    "_outlines_are_learned_by_autoencoders": (
        MASKED,
        {"data.kind": "shapes"},
        ": model.name='mae' with data.kind='shapes': all other methods are possible",
    ),
    "_outlines_have_one_channel": (
        IMAGES,
        {"data.kind": "shapes", "model.name": "vae", "model.channels": "independent"},
        ": model.channels='independent' with data.kind='shapes': a matrix is one channel; 'joint' is possible",
    ),
    "_published_encoders_see_images": (
        OUTLINES,
        {"eval.published": "dinov2-small"},
        ": eval.published='dinov2-small' with data.kind='shapes': published encoders are of images; '' is possible",
    ),
    "_outlines_are_drawn_from_a_vector": (
        IMAGES,
        {"data.kind": "shapes"},
        ": model.bottleneck='grid' with data.kind='shapes': an outline is drawn from one vector; 'pooled' is possible",
    ),
    "_points_suit_the_network": (
        OUTLINES,
        {"data.crop_size": (20, 20), "model.decoder": "matrix"},
        ": data.crop_size=(20, 20) with model.decoder='matrix': the number of points must be a multiple of ",
    ),
    "_what_the_ring_keeps_is_not_random": (
        OUTLINES,
        {"model.ring.keeps": "direction"},
        ": model.ring.keeps='direction' with data.outline.reindex='start_and_direction': what it keeps would be random",
    ),
    "_terms_are_of_the_method": (
        IMAGES,
        {"objective.kl_warmup_steps": 10},
        ": objective.kl_warmup_steps=10 with model.name='vqvae': only 'vae' reads it; 0 is possible",
    ),
    "_decoder_is_trained": (
        TAUGHT,
        {"objective.reconstruction": 1.0},
        ": model.decoder='none' with objective.reconstruction=1.0: 0 is possible",
    ),
    "_second_views_are_of_something": (
        IMAGES,
        {"data.positives": "site"},
        ": data.positives='site' with model.name='vqvae': nothing looks at a second view",
    ),
    "_local_views_suit_the_network": (
        TAUGHT,
        {"objective.crops.num_local": 2, "objective.crops.local_size": (24, 24)},
        ": objective.crops.local_size=(24, 24): its sides must be multiples of 16, the stride of model.encoder=",
    ),
    "_teacher_is_an_average": (
        IMAGES,
        {"model.name": "taught"},
        ": train.ema_decay=0.0 with model.name='taught': its teacher is a moving average of the network; ",
    ),
    "_only_averages_grow_old": (
        IMAGES,
        {"train.ema_decay_grows": True},
        ": train.ema_decay_grows=True with train.ema_decay=0.0: there is no average",
    ),
    "_collapse_can_be_told": (
        IMAGES,
        {"train.stop_at_collapse": True},
        ": train.stop_at_collapse=True with model.name='vqvae': only 'simclr', 'dino', 'lejepa' look",
    ),
    "_newest_is_not_stopped_early": (
        TAUGHT,
        {"train.early_stopping_patience_epochs": 3},
        ": train.early_stopping_patience_epochs=3 with model.name='dino': its validation loss does not say",
    ),
    "_weights_come_from_one_place": (
        IMAGES,
        {"model.encoder": "resnet", "model.pretrained": "weights", "train.init_from": "runs/other"},
        ": model.pretrained='weights' with train.init_from='runs/other': weights come from one of them",
    ),
    "_compared_channels_have_embeddings": (
        IMAGES,
        {"objective.contrastive.weight": 1.0},
        ": objective.contrastive.form='channels' with model.channels='joint': it compares the embeddings of channels",
    ),
    "_components_are_counted_once": (
        IMAGES,
        {"model.quantizer.num_codes": 32, "eval.components": 4},
        ": eval.components=4 with model.latent_dim=16 of 32 codes: both say how many components stand for the",
    ),
    "_ring_is_not_computed_again": (OUTLINES, {"train.remat": True}, ": train.remat=True with model.encoder='ring'"),
    "_only_vit_and_resnet_have_blocks": (
        IMAGES,
        {"optimizer.layer_decay": 0.5},
        ": optimizer.layer_decay=0.5 with model.encoder='residual_stack': only 'vit' and 'resnet' have blocks",
    ),
    "_only_transformers_share_products": (
        IMAGES,
        {"train.mesh.tensor": 2},
        ": train.mesh.tensor=2 with model.encoder='residual_stack': only the products of 'vit' are shared",
    ),
}


def _changed(config, changes):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(changes)
    return changed


def _lines(config, changes):
    try:
        check_config(_changed(config, changes))
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_every_rule_is_broken_below():
    listed = [*(rule for group in RULES_OF_GROUPS.values() for rule in group), *RULES_OF_ALL]
    assert [rule.__name__ for rule in listed] == list(BROKEN)


@pytest.fixture(autouse=True)
def taught(monkeypatch):
    """A method with a teacher, of which there is none yet."""
    monkeypatch.setitem(METHODS, "taught", dataclasses.replace(METHODS["ae"], has_teacher=True))


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_a_rule_is_said_by_it_alone(name, monkeypatch):
    config, changes, start = BROKEN[name]
    check_config(config)
    start = f"config{start}" if start.startswith(":") else f"config.{start}"
    assert len([line for line in _lines(config, changes) if line.startswith(start)]) == 1
    for group, of_group in RULES_OF_GROUPS.items():
        monkeypatch.setitem(RULES_OF_GROUPS, group, tuple(rule for rule in of_group if rule.__name__ != name))
    monkeypatch.setattr(rules, "RULES_OF_ALL", tuple(rule for rule in RULES_OF_ALL if rule.__name__ != name))
    assert not [line for line in _lines(config, changes) if line.startswith(start)]


def test_several_faults_are_said_at_once_each_in_its_line():
    lines = _lines(
        IMAGES,
        {
            "train.batch_size": 0,  # a range, so that no rule of this group is asked, and none of all groups
            "data.fold": 1,
            "model.channel_dropout": 0.5,
            "model.channel_readout": "concat",
            "optimizer.min_lr": 1.0,
        },
    )
    assert [line.split(" ")[0] for line in lines] == [
        "config.train.batch_size=0:",
        "config.data:",
        "config.model:",
        "config.model:",
        "config.optimizer:",
    ]


def test_a_method_that_is_added_is_allowed(monkeypatch):
    known = "'ae', 'vae', 'vqvae', 'mae', 'simclr', 'dino', 'lejepa' or 'taught'"
    assert _lines(IMAGES, {"model.name": "gan"}) == [
        f"config.model.name='gan': expected {known}, e.g. --config.model.name=ae"
    ]
    monkeypatch.setitem(METHODS, "gan", METHODS["ae"])
    assert _lines(IMAGES, {"model.name": "gan"}) == []


def test_no_rule_is_asked_of_what_is_no_group():
    with pytest.raises(ConfigError) as error:
        check_config(ConfigDict(IMAGES.to_dict() | {"model": 3}))
    assert str(error.value).startswith("config.model=3: expected a group of keys")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("area", "allowed"), [((0.4, 1.0), True), ((0.5, 0.5), True), ((0.6, 0.5), False)])
def test_shares_of_the_area_may_be_equal_and_in_no_other_order(area, allowed):
    lines = _lines(IMAGES, {"data.augment.area": area, "data.augment.aspect": 1.3})
    assert lines == [] if allowed else [line.split(":")[0] for line in lines] == ["config.data"]


def test_any_angle_needs_no_square_and_no_right_angles():
    changes = {"data.augment.rotate90": False, "data.augment.rotate": True, "data.crop_size": (224, 128)}
    assert _lines(IMAGES, changes) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.decoder": "mirror"}, "nothing would train the decoder"),
        ({"objective.crops.num_local": 1, "objective.crops.local_area": (0.5, 0.1)}, "expected (0, 0), windows at"),
        ({"objective.crops.num_local": 1, "objective.crops.local_size": (16, 32)}, "only squares can be turned"),
        (
            {"objective.crops.num_local": 1, "model.encoder": "vit", "model.vit.positions": "learnt"},
            "only data.crop_size=(32, 32) is possible",
        ),
        ({"model.pretrained": "weights", "model.resnet.width": 8}, "ResNets of 18 to 152 layers are published"),
    ],
)
def test_what_else_methods_that_compare_views_refuse(changes, said):
    (line,) = _lines(TAUGHT, changes)
    assert said in line


def test_outlines_have_no_local_views():
    changes = {"model.name": "simclr", "model.decoder": "none", "objective.reconstruction": 0.0}
    changes |= {"objective.matrix.reindexed": False, "objective.contrastive.weight": 0.0}
    assert _lines(OUTLINES, changes) == []
    changes |= {"objective.crops.num_local": 1, "objective.crops.local_size": (64, 64)}
    (line,) = _lines(OUTLINES, changes)
    assert "an outline is seen whole; 0 is possible" in line
