import functools
import json

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Model,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTForImageClassification,
    ViTMAEForPreTraining,
)

from bie_jax.models.autoencoder import IndependentChannels
from bie_jax.models.encoders.resnet import ResNetEncoder
from bie_jax.models.encoders.vit import ViTEncoder
from bie_jax.models.layers.transformer import Block, ViTSize
from bie_jax.models.mae import MAE
from bie_jax.models.pretrained.channels import adapt_channels
from bie_jax.models.pretrained.huggingface import load_huggingface
from bie_jax.models.pretrained.positions import resize_positions
from bie_jax.objectives.base import unlabeled_batch
from bie_jax.objectives.mae import mae as mae_objective

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch", reason="PyTorch is installed on Python 3.11 alone")
from configs import mae_idr0093
from tests.unit.models.tiny_models import OF_SMALL, RESNETS, WIDTHS, dinov2, randomized, resnet, vit, vit_mae

torch = pytest.importorskip("torch", reason="PyTorch is installed on Python 3.11 alone (requirements-dev.txt)")

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SMALL = ViTSize(32, 3, 4, 64)


def _narrow(depth):
    return ResNetEncoder(depth, WIDTHS[0], cpu_kernels=False)  # which compiles in half the time


def _image(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def _torch(image):
    return torch.from_numpy(image.transpose(0, 3, 1, 2).copy())


def _shapes(module, image):
    """The tree of an encoder or a whole network, unfilled; an encoder is put under "encoder"."""
    return _shapes_of(module, image.shape)


@functools.cache
def _shapes_of(module, shape):
    key, image = {"params": KEY, "noise": KEY}, jax.ShapeDtypeStruct(shape, np.float32)
    shapes = jax.eval_shape(lambda image: module.init(key, image, train=False), image)
    whole = isinstance(module, MAE | IndependentChannels)
    trees = (shapes["params"], shapes.get("batch_stats", {}))
    return trees if whole else tuple({"encoder": tree} if tree else {} for tree in trees)


def _loaded(path, encoder, image):
    variables = load_huggingface(path, *_shapes(encoder, image))
    return {name: tree["encoder"] for name, tree in variables.items()}


def _agree(ours, theirs):
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("model", "encoder", "shape", "settings"),
    [
        pytest.param(
            lambda: vit(
                hidden_size=24, num_hidden_layers=12, num_attention_heads=6, intermediate_size=96, patch_size=16
            ),
            ViTEncoder(ViTSize(24, 12, 6, 96), 16, "learnt", norm_epsilon=1e-12),
            (2, 32, 32, 3),
            {},
            id="ViT of 12 blocks",
        ),
        pytest.param(
            vit,
            ViTEncoder(SMALL, 8, "learnt", norm_epsilon=1e-12),
            (2, 24, 48, 3),
            {"interpolate_pos_encoding": True},
            id="ViT of another size",
        ),
        pytest.param(
            lambda: vit(image_size=[24, 48]),
            ViTEncoder(SMALL, 8, "learnt", norm_epsilon=1e-12),
            (2, 24, 48, 3),
            {},
            id="ViT not square",
        ),
        pytest.param(
            dinov2, ViTEncoder(SMALL, 14, "learnt", layer_scale=True), (2, 28, 84, 3), {}, id="DINOv2 of another size"
        ),
    ],
)
def test_hidden_states_of_every_block_agree(model, encoder, shape, settings, tmp_path):
    model = randomized(model())
    model.save_pretrained(tmp_path)
    image = _image(*shape)
    variables = _loaded(tmp_path, encoder, image)
    with torch.no_grad():
        theirs = model(_torch(image), output_hidden_states=True, **settings)

    @jax.jit
    def run(variables, image):
        return encoder.apply(
            variables,
            image,
            train=False,
            capture_intermediates=lambda module, _: isinstance(module, Block),
            mutable=["intermediates"],
        )

    ours, seen = run(variables, image)
    states = seen["intermediates"]["blocks"]["__call__"][0][0]  # [L, B, 1 + N, D]
    assert len(states) == len(theirs.hidden_states) - 1 == encoder.size.depth
    for state, expected in zip(states, theirs.hidden_states[1:], strict=True):
        _agree(state, expected)
    _agree(ours.reshape(len(image), -1, encoder.size.width), theirs.last_hidden_state[:, 1:])


@pytest.mark.parametrize("depth", RESNETS)
def test_every_resnet_agrees(depth, tmp_path):
    """On one image of 3 x 2 positions in its last map, where the borders are in all of them."""
    model = randomized(resnet(depth))
    model.save_pretrained(tmp_path)
    image = _image(1, 96, 64, 3)
    encoder = _narrow(depth)
    variables = _loaded(tmp_path, encoder, image)
    with torch.no_grad():
        theirs = model(_torch(image)).last_hidden_state
    ours = jax.jit(lambda variables, image: encoder.apply(variables, image, train=False))(variables, image)
    _agree(ours, theirs.permute(0, 2, 3, 1))


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_masked_autoencoders_agree(norm_pix_loss, tmp_path):
    """The same noise: the same mask and prediction. The same patches removed: the same loss."""
    model = randomized(vit_mae(norm_pix_loss=norm_pix_loss, mask_ratio=0.6))
    model.save_pretrained(tmp_path)
    image, noise = _image(2, 32, 32, 3), RNG.uniform(size=(2, 16)).astype(np.float32)
    encoder = ViTEncoder(SMALL, 8, "sincos", norm_epsilon=1e-12)
    mae = MAE(encoder, 3, 32, 0.6, norm_pix_loss, "mean", 16, 2, 2)
    variables = load_huggingface(tmp_path, *_shapes(mae, image))
    with torch.no_grad():
        theirs = model(_torch(image), noise=torch.from_numpy(noise))
    run = jax.jit(lambda variables, image, noise: mae.apply(variables, image, train=True, noise=noise))
    _, out = run(variables, image, noise)
    np.testing.assert_array_equal(out["token_mask"], theirs.mask.numpy().astype(bool))
    _agree(out["prediction"], theirs.logits)
    # The objective draws its noise from a key, and theirs is made to remove the same patches.
    draw = jax.jit(lambda variables, image: mae.apply(variables, image, train=True, rngs={"noise": KEY})[1])
    removed = np.asarray(draw(variables, image)["token_mask"])
    with torch.no_grad():
        theirs = model(_torch(image), noise=torch.from_numpy(removed.astype(np.float32)))
    settings = mae_idr0093.get_config().objective
    batch = unlabeled_batch(image, np.ones((2, 3), np.float32))
    objective = jax.jit(lambda params: mae_objective(mae, settings, params, {}, batch, 0, KEY, train=True)[0])
    _agree(objective(variables["params"]), theirs.loss)


def test_a_masked_autoencoder_takes_fixed_positions_of_any_size(tmp_path):
    randomized(vit_mae()).save_pretrained(tmp_path)
    image = _image(1, 16, 64, 3)
    variables = _loaded(tmp_path, ViTEncoder(SMALL, 8, "sincos"), image)
    assert "pos_embed" not in variables["params"]
    learned = _loaded(tmp_path, ViTEncoder(SMALL, 8, "learnt"), image)["params"]
    assert learned["pos_embed"]["embedding"].shape == (2, 8, 32)


@pytest.mark.parametrize("channels", [1, 5])
def test_a_grey_image_gives_what_it_gave(channels, tmp_path):
    """Whatever the number of channels it is repeated over."""
    grey = _image(1, 32, 32, 1)
    model = randomized(vit(num_hidden_layers=1))
    model.save_pretrained(tmp_path / "vit")
    encoder = ViTEncoder(ViTSize(32, 1, 4, 64), 8, "learnt", norm_epsilon=1e-12)
    image = np.repeat(grey, channels, axis=-1)
    variables = _loaded(tmp_path / "vit", encoder, image)
    with torch.no_grad():
        theirs = model(_torch(np.repeat(grey, 3, axis=-1))).last_hidden_state[:, 1:]
    ours = jax.jit(lambda variables, image: encoder.apply(variables, image, train=False))(variables, image)
    _agree(ours.reshape(1, 16, 32), theirs)
    published = randomized(resnet(18))
    published.save_pretrained(tmp_path / "resnet")
    stem = _loaded(tmp_path / "resnet", _narrow(18), image)["params"]["stem"]["kernel"]
    kernel = published.embedder.embedder.convolution.weight.detach().numpy()
    for c in range(channels):
        np.testing.assert_allclose(stem[:, :, c, 7] * channels, kernel[7].sum(axis=0), rtol=1e-5, atol=1e-6)


def test_channels_by_loops():
    kernel = RNG.normal(size=(2, 2, 3, 4))
    np.testing.assert_array_equal(adapt_channels(kernel, 3), kernel)
    adapted = adapt_channels(kernel, 5)
    assert adapted.shape == (2, 2, 5, 4)
    for c in range(5):
        mean = (kernel[:, :, 0] + kernel[:, :, 1] + kernel[:, :, 2]) / 3
        np.testing.assert_allclose(adapted[:, :, c], mean * 3 / 5, rtol=1e-12)


def test_channel_tokens_share_one_projection(tmp_path):
    model = randomized(vit_mae())
    model.save_pretrained(tmp_path)
    image = _image(1, 32, 32, 4)
    mae = MAE(ViTEncoder(SMALL, 8, "sincos", channel_tokens=True), 4, 20, 0.5, False, "mean", 16, 2, 2)
    params, _ = _shapes(mae, image)
    sevens = jax.tree.map(lambda leaf: np.full(leaf.shape, 7, leaf.dtype), params)
    loaded = load_huggingface(tmp_path, sevens, {})["params"]
    projection = model.vit.embeddings.patch_embeddings.projection.weight.detach().numpy()
    kernel = loaded["encoder"]["patch_embed"]["kernel"]
    np.testing.assert_allclose(kernel[..., 0, :], projection.sum(axis=1).transpose(1, 2, 0), rtol=1e-5, atol=1e-6)
    predicted = model.decoder.decoder_pred.weight.detach().numpy().reshape(8, 8, 3, 16)
    np.testing.assert_allclose(
        loaded["decoder"]["pred"]["kernel"], predicted.mean(axis=2).reshape(64, 16).T, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        loaded["decoder"]["blocks"]["mlp_out"]["kernel"][1],
        model.decoder.decoder_layers[1].mlp.fc2.weight.detach().numpy().T,
    )
    # What the file has nothing for stays: channels, and the way to another latent_dim and from it.
    kept = {path for path, leaf in traverse_util.flatten_dict(loaded).items() if (leaf == 7).all()}
    assert kept == {
        ("encoder", "channel_embed", "embedding"),
        ("decoder", "channel_embed", "embedding"),
        ("decoder", "embed", "kernel"),
        ("decoder", "embed", "bias"),
        ("latent", "kernel"),
        ("latent", "bias"),
    }
    # Of a network that is not there yet, as its shape.
    of_shapes = traverse_util.flatten_dict(load_huggingface(tmp_path, params, {})["params"])
    assert {path for path, leaf in of_shapes.items() if isinstance(leaf, jax.ShapeDtypeStruct)} == kept


def test_independent_channels_and_a_network_around_the_encoder(tmp_path):
    model = randomized(vit())
    model.save_pretrained(tmp_path)
    encoder = _shapes(ViTEncoder(SMALL, 8, "learnt"), _image(1, 32, 32, 1))[0]["encoder"]
    head = {"kernel": np.ones((2, 2))}
    loaded = load_huggingface(tmp_path, {"network": {"encoder": encoder, "bottleneck": head}}, {})
    assert loaded.keys() == {"params"}
    assert loaded["params"]["network"]["bottleneck"]["kernel"] is head["kernel"]
    np.testing.assert_array_equal(
        loaded["params"]["network"]["encoder"]["class_token"], model.embeddings.cls_token.detach().numpy()[0, 0]
    )


def _renamed_as_published(tensors):
    """As the files on the hub have them."""
    return {name.replace("decoder.decoder_encoder.layer.", "decoder.decoder_layers."): v for name, v in tensors.items()}


@pytest.mark.parametrize("make", [vit, vit_mae, dinov2, lambda: vit(ViTForImageClassification, num_labels=4)])
def test_names_of_every_version_mean_the_same(make, tmp_path):
    """Of `save_pretrained`, of the published files, and of the modules as `state_dict` has them."""
    model = randomized(make())
    model.save_pretrained(tmp_path)
    size, patch = (SMALL, 14) if isinstance(model, Dinov2Model) else (SMALL, 8)
    encoder = ViTEncoder(size, patch, "learnt", layer_scale=isinstance(model, Dinov2Model))
    image = _image(1, 28, 28, 3) if patch == 14 else _image(1, 32, 32, 3)
    mae = MAE(encoder, 3, 32, 0.5, False, "mean", 16, 2, 2)
    params = _shapes(mae, image)[0]
    if not isinstance(model, ViTMAEForPreTraining):
        params = {"encoder": params["encoder"]}
    saved = load_huggingface(tmp_path, params, {})
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file(_renamed_as_published(tensors), file)
    published = load_huggingface(file, params, {})
    save_file({name: tensor.numpy() for name, tensor in model.state_dict().items()}, file)
    modules = load_huggingface(file, params, {})
    for other in (published, modules):
        jax.tree.map(np.testing.assert_array_equal, saved, other)


def test_half_precision_is_widened(tmp_path):
    model = randomized(vit()).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    params = _loaded(tmp_path, ViTEncoder(SMALL, 8, "learnt"), _image(1, 32, 32, 3))["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(params["norm"]["scale"], model.layernorm.weight.detach().float().numpy())


@pytest.mark.parametrize(("old", "new"), [((4, 4), (4, 4)), ((4, 4), (7, 3)), ((5, 3), (2, 9)), ((1, 6), (4, 6))])
def test_positions_are_resized_as_torch_does(old, new):
    positions = RNG.normal(size=(*old, 3))
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(positions).permute(2, 0, 1)[None], size=new, mode="bicubic", align_corners=False
    )
    np.testing.assert_allclose(resize_positions(positions, new), theirs[0].permute(1, 2, 0).numpy(), atol=1e-6)


VIT = ViTEncoder(SMALL, 8, "learnt")


def _of_blocks(*depths):
    return ResNetModel(ResNetConfig(depths=depths, embedding_size=8, hidden_sizes=[16, 16, 16, 16]))


@pytest.mark.parametrize(
    ("make", "encoder", "message"),
    [
        (vit, ViTEncoder(ViTSize(32, 2, 4, 64), 8, "learnt"), "model.vit.size=ViTSize.*depth=2.* need .*depth=3"),
        (vit, ViTEncoder(ViTSize(32, 3, 2, 64), 8, "learnt"), "model.vit.size=.*heads=2.*need .*heads=4"),
        (
            lambda: vit(hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_hidden_layers=12),
            ViTEncoder(SMALL, 8, "learnt"),
            "model.vit.size=.* need 'S'",
        ),
        (vit, ViTEncoder(SMALL, 16, "learnt"), "model.vit.patch_size=16, and these weights need 8"),
        (vit, ViTEncoder(SMALL, 8, "sincos"), "model.vit.positions='sincos', and these weights need 'learnt'"),
        (dinov2, ViTEncoder(SMALL, 14, "learnt"), "model.vit.layer_scale=False, and these weights need True"),
        (vit, ViTEncoder(SMALL, 8, "learnt", layer_scale=True), "layer_scale=True, and these weights need False"),
        (lambda: vit(hidden_act="relu"), VIT, "hidden_act='relu'; the ViTs here have 'gelu'"),
        (lambda: dinov2(use_swiglu_ffn=True), VIT, "block 0 is not a block of a ViT"),
        (lambda: resnet(18), VIT, "model.encoder='vit', and these weights need 'resnet'"),
        (vit, _narrow(18), "model.encoder='resnet', and these weights need 'vit'"),
        (lambda: resnet(34), _narrow(18), "model.resnet.depth=18, and these weights need 34"),
        (lambda: resnet(18), _narrow(50), "model.resnet.depth=50, and these weights need 18"),
        (lambda: resnet(18, hidden_act="gelu"), _narrow(18), "hidden_act='gelu'"),
        (lambda: resnet(50, downsample_in_bottleneck=True), _narrow(50), "downsample_in_bottleneck=True"),
        (lambda: _of_blocks(1, 1, 1, 1), _narrow(50), r"\(1, 1, 1, 1\) blocks of 3 con"),
    ],
)
def test_another_architecture_is_refused(make, encoder, message, tmp_path):
    make().save_pretrained(tmp_path)
    size = 28 if getattr(encoder, "patch_size", 8) == 14 else 32
    with pytest.raises(ValueError, match=message):
        _loaded(tmp_path, encoder, _image(1, size, size, 3))


def test_another_decoder_is_refused(tmp_path):
    vit_mae().save_pretrained(tmp_path)
    for changes, message in (
        ((24, 2, 2), "decoder_width=24, and these weights need 16"),
        ((16, 3, 2), "decoder_depth=3, and these weights need 2"),
        ((16, 2, 4), "decoder_heads=4, and these weights need 2"),
    ):
        mae = MAE(ViTEncoder(SMALL, 8, "sincos"), 3, 32, 0.5, False, "mean", *changes)
        with pytest.raises(ValueError, match=message):
            load_huggingface(tmp_path, *_shapes(mae, _image(1, 32, 32, 3)))


def _clip():
    return CLIPVisionModel(CLIPVisionConfig(**OF_SMALL, image_size=32, patch_size=8))


def _swin():
    return SwinModel(SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=2, image_size=32))


def _bert():
    return BertModel(BertConfig(**OF_SMALL, vocab_size=10, max_position_embeddings=10))


@pytest.mark.parametrize("encoder", [VIT, _narrow(18)])
@pytest.mark.parametrize("make", [_clip, _swin, _bert, None])
def test_weights_of_another_kind_are_refused_with_those_that_are_possible(make, encoder, tmp_path):
    if make:
        make().save_pretrained(tmp_path)
    else:  # a ResNet as torchvision and timm name its tensors
        names = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight")
        save_file({name: np.zeros(2, np.float32) for name in names}, tmp_path / "model.safetensors")
    message = "and [0-9]+ more: these weights are of none of the networks here, ResNet, ViT, ViTMAE and DINOv2, as"
    with pytest.raises(ValueError, match=message) as refused:
        _loaded(tmp_path, encoder, _image(1, 32, 32, 3))
    assert make or str(refused.value).startswith("bn1.weight, conv1.weight, layer1.0.bn1.weight and 1 more")


def test_tensors_that_do_not_fit_are_named(tmp_path):
    vit().save_pretrained(tmp_path)
    file, image = tmp_path / "model.safetensors", _image(1, 32, 32, 3)
    whole = load_file(file)

    def refused(tensors, message):
        save_file(tensors, file)
        with pytest.raises(ValueError, match=message):
            _loaded(tmp_path, VIT, image)

    def without(part):
        return {name: tensor for name, tensor in whole.items() if part not in name}

    refused({**whole, "register_tokens": np.zeros((4, 32), np.float32)}, "unexpected register_tokens")
    refused(without("norm.bias"), "missing layernorm.bias; unexpected none")
    refused(without("1.intermediate.dense.bias"), "block 1 is not a block of a ViT; .*: mlp_in/bias$")
    refused(without(".layer.1."), "block 1 is not a block of a ViT")
    refused(without("encoder.layer."), "no blocks of a ViT among these tensors; there are embeddings.cls_token, ")
    refused({**whole, "embeddings.cls_token": np.zeros((1, 1, 31), np.float32)}, r"class_token is \(32,\) .*\(31,\)")
    others = {f"{number}.{part}": np.zeros(2, np.float32) for number in range(9) for part in "ab"}
    refused({**whole, **others}, "unexpected 0.a, 0.b, 1.a and 15 more")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "image_size": 40}))
    refused(whole, "16 positions are not a grid of 5 x 5 patches")
    (tmp_path / "config.json").unlink()
    refused(whole, "config.json beside the weights is missing or empty")


def test_entries_that_the_configuration_of_a_vit_lacks_are_named(tmp_path):
    vit_mae().save_pretrained(tmp_path)
    file, image = tmp_path / "config.json", _image(1, 32, 32, 3)
    whole = json.loads(file.read_text())
    params, _ = _shapes(MAE(VIT, 3, 32, 0.5, False, "mean", 16, 2, 2), image)

    def refused(text, message):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_huggingface(tmp_path, params, {})

    for keys in (
        ("hidden_act",),
        ("num_attention_heads",),
        ("image_size",),
        ("patch_size",),
        ("decoder_num_attention_heads",),
        ("hidden_act", "num_attention_heads", "image_size"),
    ):
        without = {key: value for key, value in whole.items() if key not in keys}
        refused(json.dumps(without), f"config.json beside the weights has no {', '.join(keys)}, which")
    refused(json.dumps(whole)[:-1], "config.json is not JSON: ")
    file.write_text(json.dumps(whole))
    load_huggingface(tmp_path, params, {})


def test_only_safetensors_are_read(tmp_path):
    torch.save({"embeddings.cls_token": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    params, stats = _shapes(VIT, _image(1, 32, 32, 3))
    with pytest.raises(ValueError, match=r"pytorch_model.bin cannot be read: only .safetensors files are"):
        load_huggingface(tmp_path / "pytorch_model.bin", params, stats)
    message = r"there is no .*model.safetensors; pytorch_model.bin cannot be read, because it may run code. save_pretr"
    with pytest.raises(FileNotFoundError, match=message):
        load_huggingface(tmp_path, params, stats)
    with pytest.raises(FileNotFoundError, match=r"there is no .*absent/model.safetensors. save_pretrained"):
        load_huggingface(tmp_path / "absent" / "model.safetensors", params, stats)
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors is not a safetensors file"):
        load_huggingface(tmp_path, params, stats)


def test_a_resnet_with_a_head_and_without_config(tmp_path):
    model = randomized(resnet(18, ResNetForImageClassification, num_labels=3))
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    image = _image(1, 32, 32, 3)
    variables = _loaded(tmp_path / "model.safetensors", _narrow(18), image)
    norm = model.resnet.encoder.stages[2].layers[1].layer[0].normalization
    stats = variables["batch_stats"]["stage3"]["layers"]["norm1"]
    np.testing.assert_array_equal(stats["var"][0], norm.running_var.numpy())


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.bool_])
def test_quantized_weights_are_refused(dtype, tmp_path):
    """They would be taken for floats, a hundred times too large."""
    save_file({"embedder.embedder.convolution.weight": np.zeros((2, 2), dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"embedder.embedder.convolution.weight is of \w+; only weights in floats"):
        load_huggingface(tmp_path / "model.safetensors", {}, {})
