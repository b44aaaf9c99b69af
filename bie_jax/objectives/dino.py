"""DINO (Caron et al. 2021, arXiv 2104.14294): a network learns to say of a crop what its own average says of another.

With what Oquab et al. 2023 (DINOv2, arXiv 2304.07193) add for images: Sinkhorn's targets and the KoLeo term.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.config.schema import Config, DINOConfig, ObjectiveConfig
from bie_jax.losses.self_distillation import (
    centered_targets,
    collapse_numbers,
    distillation,
    koleo,
    next_center,
    sinkhorn_targets,
)
from bie_jax.models import build_with_prototypes
from bie_jax.objectives.base import Aux, Batch, Method, Teacher
from bie_jax.objectives.compared_views import all_views, collapse_of_embeddings, see, there, with_reconstruction
from bie_jax.objectives.contrast import contrasted_treatment

_LEAST_TOLD = 0.01  # nats; one that is learned tells several


def dino(
    model: nn.Module,
    config: ObjectiveConfig,
    params: Any,
    model_state: Any,
    batch: Batch,
    step: jax.Array,
    key: jax.Array,
    *,
    train: bool,
    teacher: Teacher | None = None,
) -> tuple[jax.Array, Aux]:
    """L = mean over global views t and all other views s of H(teacher(t), student(s)) + koleo KoLeo(embedding).

    The teacher sees global views alone, and normalizes by the statistics of its own batch, as the student does. KoLeo
    is of the embeddings of each global view by itself. Arguments as `ae`.
    """
    assert teacher is not None  # `Method.has_teacher`
    settings = config.dino
    params = _with_frozen_prototypes(params, step, settings)
    seen = see(model, config, params, model_state, batch, key, train)
    num_global = config.crops.num_global
    for_teacher = dataclasses.replace(batch, other_views=batch.other_views[: num_global - 1])
    taught = see(model, config, teacher.params, teacher.model_state, for_teacher, jax.random.fold_in(key, 2), train)

    counted = there(batch)
    temperature = teacher_temperature(step, settings)
    center = model_state["center"]["head"]["logits"]
    if settings.targets == "center":
        targets = centered_targets(taught.projection, center, temperature)
    else:
        targets = sinkhorn_targets(taught.projection, temperature, counted)
    loss = distillation(targets, seen.projection, counted, settings.student_temperature)
    entropies = collapse_numbers(targets, counted)
    terms = {
        "distillation": loss,
        "entropy_of_mean_target": entropies.entropy_of_mean,
        "mean_target_entropy": entropies.mean_entropy,
    }
    if settings.koleo:
        terms["koleo"] = jnp.stack([koleo(view, counted) for view in seen.embedding[:num_global]]).mean()
        loss = loss + settings.koleo * terms["koleo"]
    if train:
        center = next_center(center, taught.projection, counted, settings.center_momentum)
        model_state = seen.model_state | {"center": {"head": {"logits": center}}}
        seen = dataclasses.replace(seen, model_state=model_state)
    return with_reconstruction(loss, terms, config, batch, seen)


def teacher_temperature(step: jax.Array, settings: DINOConfig) -> float | jax.Array:
    """Constant, or from its start to its end in equal steps."""
    if not settings.teacher_temperature_steps:
        return settings.teacher_temperature
    share = jnp.minimum(1.0, step / settings.teacher_temperature_steps)
    start, end = settings.teacher_temperature_start, settings.teacher_temperature
    return start + share * (end - start)


def _with_frozen_prototypes(params: Any, step: jax.Array, settings: DINOConfig) -> Any:
    """Parameters through whose prototypes no gradient goes in the first steps."""
    if not settings.frozen_prototype_steps:
        return params
    prototypes = params["head"]["prototypes"]
    learning = step >= settings.frozen_prototype_steps
    prototypes = jnp.where(learning, prototypes, jax.lax.stop_gradient(prototypes))
    return params | {"head": params["head"] | {"prototypes": prototypes}}


def across_images(config: Config) -> tuple[str, ...]:
    """Targets, their center and KoLeo's neighbors."""
    koleo = ("the KoLeo term takes its neighbors",) if config.objective.dino.koleo else ()
    if config.objective.dino.targets == "center":
        return ("the center takes its mean", *koleo)
    return ("Sinkhorn's targets take their shares", *koleo)


def collapse(metrics: dict[str, float]) -> str | None:
    """Embeddings or targets that are all alike: in section 5.3 of the paper to one prototype, or to all of them alike.

    Args:
        metrics: those of a validation.
    """
    told = metrics["entropy_of_mean_target"] - metrics["mean_target_entropy"]
    if told < _LEAST_TOLD:
        return (
            f"a target tells {told:.2g} nats about its image (entropy_of_mean_target="
            f"{metrics['entropy_of_mean_target']:.4g}, mean_target_entropy={metrics['mean_target_entropy']:.4g})"
        )
    return collapse_of_embeddings(metrics)


def end_of_schedules(config: ObjectiveConfig) -> int:
    """The step from which on the teacher's temperature is what it stays."""
    return config.dino.teacher_temperature_steps


DINO = Method(
    build_with_prototypes,
    dino,
    other_views=all_views,
    treatment=contrasted_treatment,
    settled_step=end_of_schedules,
    across_images=across_images,
    has_teacher=True,
    collapse=collapse,
    needs_decoder=False,
    newest_is_best=True,
)
