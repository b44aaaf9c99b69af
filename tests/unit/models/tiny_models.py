"""Models of `transformers` as published weights come in, small and random."""

from transformers import (
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)

OF_SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
OF_DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
}
WIDTHS = (8, 16, 32, 64)  # of the ResNets here, instead of 64 to 512: what is compared knows no width
RESNETS = {
    18: ("basic", [2, 2, 2, 2], 1),
    34: ("basic", [3, 4, 6, 3], 1),
    50: ("bottleneck", [3, 4, 6, 3], 4),
    101: ("bottleneck", [3, 4, 23, 3], 4),
    152: ("bottleneck", [3, 8, 36, 3], 4),
}


def randomized(model):
    """Every tensor random: the initial ones leave biases, scales and class tokens untested."""
    import torch  # on Python 3.11 alone

    generator = torch.Generator().manual_seed(0)
    fixed = ("position_embeddings", "decoder_pos_embed") if isinstance(model, ViTMAEForPreTraining) else ()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_var", "normalization.weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dtype == torch.float32 and not name.endswith(fixed):
                fan_in = max(tensor[0].numel(), 10) if tensor.ndim > 1 else 10
                tensor.normal_(0, fan_in**-0.5, generator=generator)
    return model.eval()


def resnet(depth, kind=ResNetModel, **changes):
    layer_type, depths, expansion = RESNETS[depth]
    sizes = [expansion * width for width in WIDTHS]
    config = {"layer_type": layer_type, "depths": depths, "embedding_size": WIDTHS[0], "hidden_sizes": sizes}
    return kind(ResNetConfig(**config, **changes))


def vit(kind=ViTModel, **changes):
    return kind(ViTConfig(**{**OF_SMALL, "image_size": 32, "patch_size": 8, **changes}))


def vit_mae(**changes):
    config = {**OF_SMALL, **OF_DECODER, "image_size": 32, "patch_size": 8, **changes}
    model = ViTMAEForPreTraining(ViTMAEConfig(**config))
    # A model without published weights is left with positions of 0; these are its own functions that compute them.
    embeddings = model.vit.embeddings
    embeddings.patch_embeddings.projection._is_hf_initialized = False
    embeddings.initialize_weights()
    model.decoder.initialize_weights(embeddings.patch_embeddings.num_patches)
    return model


def dinov2(**changes):
    config = {**OF_SMALL, "mlp_ratio": 2, "image_size": 56, "patch_size": 14, **changes}
    del config["intermediate_size"]
    return Dinov2Model(Dinov2Config(**config))
