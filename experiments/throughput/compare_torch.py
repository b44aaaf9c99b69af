"""A training step of ResNet-18 and of ViT-S: ours beside PyTorch's, same architecture, batch, threads, optimizer, run.

    python experiments/throughput/compare_torch.py
    python experiments/throughput/compare_torch.py --cases resnet18 --batch 16 --size 64 --rounds 9

A step is forward in training mode, cross-entropy over 1,000 classes, backward and AdamW on float32 images of 3
channels. PyTorch runs the networks of `transformers`, in both memory layouts (ResNet) and both attentions (ViT),
eagerly and, with --compile, compiled. Each round times one step of everybody in turn; times are medians of the rounds.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import linen as nn
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

from bie_jax.models.encoders.resnet import ResNetEncoder
from bie_jax.models.encoders.vit import SIZES, ViTEncoder

CLASSES = 1000
REST = 0.3  # seconds before each timed step; threads of a library go on waiting, awake, after their last work
Step = Callable[[], float]  # one training step; its loss


class Classifier(nn.Module):
    """An encoder of ours, the mean of its places, and a linear head."""

    encoder: nn.Module

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, CLASSES]."""
        z = self.encoder(image, train=True)
        return nn.Dense(CLASSES)(z.mean(tuple(range(1, z.ndim - 1))))


class TorchClassifier(torch.nn.Module):
    """The same around a network of transformers."""

    def __init__(self, network: torch.nn.Module, width: int, places: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.places = network, places
        self.head = torch.nn.Linear(width, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> [B, CLASSES]."""
        return self.head(self.network(image).last_hidden_state.mean(self.places))


def ours(encoder: nn.Module, images: np.ndarray, labels: np.ndarray) -> Step:
    model, tx = Classifier(encoder), optax.adamw(1e-3)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    state = {"params": variables["params"], "rest": {k: v for k, v in variables.items() if k != "params"}}
    state["opt"] = tx.init(state["params"])
    image, label = jnp.asarray(images), jnp.asarray(labels)

    def step(state: dict, image: jax.Array, label: jax.Array) -> tuple[dict, jax.Array]:
        def loss(params: dict) -> tuple[jax.Array, dict]:
            logits, rest = model.apply({"params": params, **state["rest"]}, image, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), rest

        (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(state["params"])
        updates, opt = tx.update(gradient, state["opt"], state["params"])
        return {"params": optax.apply_updates(state["params"], updates), "rest": rest, "opt": opt}, value

    compiled = jax.jit(step, donate_argnums=0)
    held = [state]

    def run() -> float:
        held[0], value = compiled(held[0], image, label)
        jax.block_until_ready(held[0])
        return float(value)

    return run


def theirs(
    model: TorchClassifier, images: np.ndarray, labels: np.ndarray, *, channels_last: bool, compile: bool
) -> Step:
    image, label = torch.tensor(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
    if channels_last:
        model, image = model.to(memory_format=torch.channels_last), image.contiguous(memory_format=torch.channels_last)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4, fused=True)
    forward = torch.compile(model) if compile else model

    def run() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(image), label)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def resnet18(images: np.ndarray, labels: np.ndarray, compile: bool) -> dict[str, Step]:
    config = ResNetConfig(num_channels=3, depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic")

    def build(channels_last: bool) -> Step:
        model = TorchClassifier(ResNetModel(config), 512, (2, 3))
        return theirs(model, images, labels, channels_last=channels_last, compile=compile)

    return {
        "torch, channels first": build(False),
        "torch, channels last": build(True),
        "ours": ours(ResNetEncoder(18), images, labels),
    }


def vit_s16(images: np.ndarray, labels: np.ndarray, compile: bool) -> dict[str, Step]:
    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
    steps = {}
    for attention in ("eager", "sdpa"):
        config = ViTConfig(**sizes, image_size=images.shape[1], attn_implementation=attention)
        model = TorchClassifier(ViTModel(config, add_pooling_layer=False), 384, (1,))
        steps[f"torch, {attention} attention"] = theirs(model, images, labels, channels_last=False, compile=compile)
    steps["ours"] = ours(ViTEncoder(SIZES["S"], 16, "sincos"), images, labels)
    return steps


CASES = {"resnet18": resnet18, "vit_s16": vit_s16}


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="torch.compile, which needs a C++ compiler")
    asked = parser.parse_args()
    print(
        f"{asked.size} px, batch {asked.batch}, {torch.get_num_threads()} threads, jax {jax.__version__}, torch "
        f"{torch.__version__}\n\n| network | who | first step, s | step, s | images/s | images/s, of torch's best |\n"
        "|---|---|---|---|---|---|"
    )
    rng = np.random.default_rng(0)
    images = rng.normal(size=(asked.batch, asked.size, asked.size, 3)).astype(np.float32)
    labels = rng.integers(0, CLASSES, asked.batch)
    for case in asked.cases:
        steps = CASES[case](images, labels, asked.compile)
        first, seconds = {}, {who: [] for who in steps}
        for who, step in steps.items():
            start = time.perf_counter()
            step()
            first[who] = time.perf_counter() - start
        for _ in range(asked.rounds):
            for who, step in steps.items():
                time.sleep(REST)
                start = time.perf_counter()
                assert np.isfinite(step())
                seconds[who].append(time.perf_counter() - start)
        median = {who: float(np.median(values)) for who, values in seconds.items()}
        best = min(value for who, value in median.items() if who != "ours")
        for who, value in median.items():
            print(
                f"| {case} | {who} | {first[who]:.1f} | {value:.3f} | {asked.batch / value:.1f} | {best / value:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
