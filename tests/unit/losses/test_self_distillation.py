import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bie_jax.losses.self_distillation import (
    centered_targets,
    collapse_numbers,
    distillation,
    koleo,
    next_center,
    sinkhorn_targets,
)

RNG = np.random.default_rng(0)
THERE = np.asarray([1, 0, 1, 1, 1], bool)
ALL, NONE = np.ones(5, bool), np.zeros(5, bool)
TEACHER = RNG.normal(size=(2, 5, 7))  # T, B, K
STUDENT = RNG.normal(size=(4, 5, 7))  # S, B, K
CENTER = RNG.normal(size=7)
EMBEDDING = RNG.normal(size=(5, 4))
WARM, COLD = 0.3, 0.1  # temperatures of student and teacher

loss = jax.jit(distillation)
loss_and_gradient = jax.jit(jax.value_and_grad(distillation, argnums=1))
spread = jax.jit(koleo)
spread_and_gradient = jax.jit(jax.value_and_grad(koleo))
centered = jax.jit(centered_targets)
follow = jax.jit(next_center)
numbers_of = jax.jit(collapse_numbers)
sinkhorn = jax.jit(sinkhorn_targets, static_argnames="iterations")


def _softmax(x):
    return np.exp(x) / np.exp(x).sum()


def _targets_by_loops(logits=TEACHER):
    return np.asarray([[_softmax((row - CENTER) / COLD) for row in view] for view in logits])


def _distillation_by_loops(targets, logits, there):
    pairs = [(t, s) for t in range(len(targets)) for s in range(len(logits)) if s != t]
    costs = [
        -sum(targets[t, i, k] * np.log(_softmax(logits[s, i] / WARM)[k]) for k in range(targets.shape[2]))
        for t, s in pairs
        for i in np.flatnonzero(there)
    ]
    return np.mean(costs)


def _sinkhorn_by_loops(logits, there, iterations):
    """Exponentials scaled in float64, one column and one row at a time."""
    q = np.exp(logits[:, there].reshape(-1, logits.shape[2]) / COLD)
    for _ in range(iterations):
        for k in range(q.shape[1]):
            q[:, k] /= q[:, k].sum()
        for row in q:
            row /= row.sum()
    return q.reshape(len(logits), there.sum(), -1)


def _koleo_by_loops(embedding, there, eps=1e-8):
    rows = [row / np.linalg.norm(row) for row in embedding[there]]
    nearest = [min(np.linalg.norm(a - b) for j, b in enumerate(rows) if j != i) for i, a in enumerate(rows)]
    return -np.mean([np.log(distance + eps) for distance in nearest])


def _entropy(p):
    return -sum(value * np.log(value) for value in p)


def test_centered_targets_against_a_loop():
    ours = centered(TEACHER.astype(np.float32), CENTER, COLD)
    np.testing.assert_allclose(ours, _targets_by_loops(), rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(ours.sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("views", [(2, 4), (2, 2), (1, 3)])
def test_distillation_against_a_loop(views):
    teachers, students = views
    targets, logits = _targets_by_loops()[:teachers], STUDENT[:students]
    for there in (THERE, ALL):
        expected = _distillation_by_loops(targets, logits, there)
        np.testing.assert_allclose(loss(targets, logits, there, WARM), expected, rtol=1e-5)


def test_dino_is_that_of_pytorch(torch):
    """Views stacked along the batch and taken apart again, as the published code has them: 2 x 5 and 4 x 5 rows."""
    teacher, student = (torch.tensor(views.reshape(-1, 7), dtype=torch.float32) for views in (TEACHER, STUDENT))
    said = torch.softmax((teacher - torch.tensor(CENTER, dtype=torch.float32)) / COLD, dim=1).split(5)
    heard = torch.log_softmax(student / WARM, dim=1).split(5)
    crosses = [-(p * log_q).sum(dim=1).mean() for t, p in enumerate(said) for s, log_q in enumerate(heard) if s != t]
    ours = loss(centered(TEACHER, CENTER, COLD), STUDENT, ALL, WARM)
    np.testing.assert_allclose(ours, torch.stack(crosses).mean().item(), rtol=1e-5)
    center = 0.9 * torch.tensor(CENTER, dtype=torch.float32) + 0.1 * teacher.mean(dim=0)
    np.testing.assert_allclose(follow(CENTER, TEACHER, ALL, 0.9), center.numpy(), rtol=1e-5)


def test_a_crop_is_never_compared_with_itself():
    """Each student view is sure of another prototype than the target of its own crop, and right about the other one."""
    targets = np.zeros((2, 5, 7), np.float32)
    targets[0, :, 1] = targets[1, :, 2] = 1
    logits = 1000 * targets[::-1]
    np.testing.assert_allclose(loss(targets, logits, ALL, WARM), 0, atol=1e-5)
    assert loss(targets, targets * 1000, ALL, WARM) > 3000
    # Nor does the target of a crop reach the gradient of the same crop.
    others = targets.copy()
    others[0] = 1 / 7
    gradient, other_gradient = (loss_and_gradient(p, STUDENT, ALL, WARM)[1] for p in (targets, others))
    np.testing.assert_array_equal(gradient[0], other_gradient[0])
    assert (gradient[1] != other_gradient[1]).any()


def test_the_least_that_a_student_can_pay_is_the_entropy_of_the_targets():
    logits = np.broadcast_to(TEACHER[:1], (4, 5, 7))  # all views alike
    targets = centered(logits[:2], np.zeros(7), WARM)
    assert np.isclose(loss(targets, logits, THERE, WARM), numbers_of(targets, THERE).mean_entropy, rtol=1e-5)
    assert loss(targets, STUDENT, THERE, WARM) > loss(targets, logits, THERE, WARM)


def test_sinkhorn_against_a_loop():
    for there in (THERE, ALL):
        once, by_default = sinkhorn(TEACHER, COLD, there, iterations=1), sinkhorn(TEACHER, COLD, there)
        for ours, iterations in ((once, 1), (by_default, 3)):
            expected = _sinkhorn_by_loops(TEACHER, there, iterations)
            np.testing.assert_allclose(np.asarray(ours)[:, there], expected, rtol=1e-4, atol=1e-12)


def test_sinkhorn_uses_all_prototypes_equally():
    """All images prefer prototype 0; after many iterations each of 7 has a seventh of the 8 rows that are there."""
    logits = TEACHER + 2 * np.eye(7)[0]
    targets = np.asarray(sinkhorn(logits, 0.5, THERE, iterations=50))[:, THERE]
    np.testing.assert_allclose(targets.sum(axis=(0, 1)), 8 / 7, rtol=1e-4)
    np.testing.assert_allclose(targets.sum(axis=-1), 1, rtol=1e-5)
    assert _sinkhorn_by_loops(logits, THERE, 1).sum(axis=(0, 1)).std() > 1e-3  # it takes iterations
    assert np.bincount(np.argmax(logits, axis=-1).ravel(), minlength=7)[0] > 5


def test_sinkhorn_of_logits_hundreds_of_temperatures_apart():
    """Exponentials of the same logits are infinite in float32, and 0 in the column that nobody likes."""
    logits = 30 * TEACHER - 80 * np.eye(7)[3]
    assert np.ptp(logits / COLD) > 1000
    targets = np.asarray(sinkhorn(logits, COLD, ALL))
    exact = (logits.astype(np.float32) / COLD).reshape(10, 7).astype(np.longdouble)
    for _ in range(3):
        exact -= np.logaddexp.reduce(exact, axis=0)
        exact -= np.logaddexp.reduce(exact, axis=1)[:, None]
    np.testing.assert_allclose(targets.reshape(10, 7), np.exp(exact), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(targets.sum(axis=-1), 1, rtol=1e-5)


def test_koleo_against_a_loop():
    for there in (THERE, ALL):
        np.testing.assert_allclose(spread(EMBEDDING, there), _koleo_by_loops(EMBEDDING, there), rtol=1e-5)
    np.testing.assert_allclose(spread(EMBEDDING, ALL, 0.5), _koleo_by_loops(EMBEDDING, ALL, 0.5), rtol=1e-5)


def test_koleo_is_that_of_pytorch(torch):
    rows = torch.nn.functional.normalize(torch.tensor(EMBEDDING, requires_grad=True), dim=1)
    distances = torch.cdist(rows, rows).masked_fill(torch.eye(5, dtype=torch.bool), torch.inf)
    np.testing.assert_allclose(spread(EMBEDDING, ALL), -(distances.amin(dim=1) + 1e-8).log().mean().item(), rtol=1e-5)


def test_gradients_are_those_of_the_definition_in_float64():
    targets = _targets_by_loops()
    _, by_logits = loss_and_gradient(targets, STUDENT, THERE, WARM)
    _, by_embedding = spread_and_gradient(EMBEDDING, THERE)
    cases = [
        (STUDENT, by_logits, lambda x: _distillation_by_loops(targets, x, THERE)),
        (EMBEDDING, by_embedding, lambda x: _koleo_by_loops(x, THERE)),
    ]
    for x, gradient, loop in cases:
        for i in RNG.permutation(list(np.ndindex(x.shape)))[:12]:
            change = np.zeros_like(x)
            change[tuple(i)] = 1e-6
            expected = (loop(x + change) - loop(x - change)) / 2e-6
            np.testing.assert_allclose(gradient[tuple(i)], expected, rtol=1e-3, atol=1e-6)


def test_no_gradient_goes_into_targets():
    functions = [
        lambda x: distillation(x, STUDENT, THERE, WARM),
        lambda x: (centered_targets(x, CENTER, COLD) ** 2).sum(),
        lambda x: (sinkhorn_targets(x, COLD, THERE) ** 2).sum(),
        lambda x: sum(collapse_numbers(x, THERE)),
    ]
    targets = _targets_by_loops().astype(np.float32)
    for gradient in jax.jit(lambda x: [jax.grad(function)(x) for function in functions])(targets):
        np.testing.assert_array_equal(gradient, 0)


def test_the_center_follows_the_mean():
    mean = np.mean([TEACHER[t, i] for t in range(2) for i in np.flatnonzero(THERE)], axis=0)
    np.testing.assert_allclose(follow(CENTER, TEACHER, THERE, 0.9), 0.9 * CENTER + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(follow(CENTER, TEACHER, THERE, 0.0), mean, rtol=1e-5)
    np.testing.assert_array_equal(follow(CENTER, TEACHER, NONE, 0.9), CENTER.astype(np.float32))


def test_entropies_tell_the_two_collapses():
    targets = _targets_by_loops()
    there = [targets[t, i] for t in range(2) for i in np.flatnonzero(THERE)]
    numbers = numbers_of(targets, THERE)
    np.testing.assert_allclose(numbers.entropy_of_mean, _entropy(np.mean(there, axis=0)), rtol=1e-5)
    np.testing.assert_allclose(numbers.mean_entropy, np.mean([_entropy(p) for p in there]), rtol=1e-5)

    one_prototype = numbers_of(np.broadcast_to(np.eye(7)[2], (2, 5, 7)), ALL)
    np.testing.assert_allclose(one_prototype, (0, 0), atol=1e-6)
    all_alike = numbers_of(np.full((2, 5, 7), 1 / 7), ALL)
    np.testing.assert_allclose(all_alike, (np.log(7), np.log(7)), rtol=1e-6)
    one_each = numbers_of(np.broadcast_to(np.eye(7)[:5], (2, 5, 7)), ALL)
    np.testing.assert_allclose(one_each, (np.log(5), 0), rtol=1e-6, atol=1e-6)


def test_equal_rows_have_a_finite_gradient():
    rows = np.stack([EMBEDDING[0], 2 * EMBEDDING[0], EMBEDDING[1], np.zeros(4), np.zeros(4)]).astype(np.float32)
    for embedding in (rows, np.zeros((5, 4), np.float32), np.ones((5, 4), np.float32)):
        value, gradient = spread_and_gradient(embedding, ALL)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    np.testing.assert_allclose(value, -np.log(1e-8), rtol=1e-6)


def test_koleo_pushes_neighbors_apart():
    near = np.asarray([[1, 0], [1, 0.01], [-1, 0]], np.float32)
    _, gradient = spread_and_gradient(near, np.ones(3, bool))
    assert gradient[0, 1] > 0 > gradient[1, 1]  # downhill the first turns to below the axis, the second on above it


@pytest.mark.parametrize("missing", [np.nan, np.inf, 100.0])
def test_what_is_not_there_changes_nothing(missing):
    def other(views):
        return np.where(THERE[:, None], views, missing).astype(np.float32)

    teacher, student, embedding = (array.astype(np.float32) for array in (TEACHER, STUDENT, EMBEDDING))
    # Targets of what is not there come from the same logits, and are NaN with them.
    targets, other_targets = (centered(x, CENTER, COLD) for x in (teacher, other(teacher)))
    cases = [
        (
            loss_and_gradient(targets, student, THERE, WARM),
            loss_and_gradient(other_targets, other(student), THERE, WARM),
        ),
        (spread_and_gradient(embedding, THERE), spread_and_gradient(other(embedding), THERE)),
    ]
    for (value, gradient), (other_value, other_gradient) in cases:
        assert value == other_value
        np.testing.assert_array_equal(gradient, other_gradient)
        np.testing.assert_array_equal(np.asarray(gradient)[..., ~THERE, :], 0)
        assert np.asarray(gradient)[..., THERE, :].all()
    np.testing.assert_array_equal(sinkhorn(teacher, COLD, THERE), sinkhorn(other(teacher), COLD, THERE))
    assert np.isfinite(sinkhorn(other(teacher), COLD, THERE)).all()
    np.testing.assert_array_equal(follow(CENTER, teacher, THERE, 0.9), follow(CENTER, other(teacher), THERE, 0.9))
    np.testing.assert_array_equal(numbers_of(targets, THERE), numbers_of(other_targets, THERE))


def test_nothing_to_compare_costs_nothing_and_has_no_gradient():
    one = np.arange(5) == 2
    nothing = [
        loss_and_gradient(_targets_by_loops(), STUDENT, NONE, WARM),
        spread_and_gradient(EMBEDDING, NONE),
        spread_and_gradient(EMBEDDING, one),
    ]
    for value, gradient in nothing:
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)
    np.testing.assert_array_equal(numbers_of(TEACHER, NONE), 0)
    assert np.isfinite(sinkhorn(TEACHER, COLD, NONE)).all()


def test_the_order_of_images_does_not_matter():
    order = RNG.permutation(5)
    targets = _targets_by_loops()
    expected = loss(targets, STUDENT, THERE, WARM)
    np.testing.assert_allclose(loss(targets[:, order], STUDENT[:, order], THERE[order], WARM), expected, rtol=1e-6)
    np.testing.assert_allclose(spread(EMBEDDING[order], THERE[order]), spread(EMBEDDING, THERE), rtol=1e-6)
    np.testing.assert_allclose(
        sinkhorn(TEACHER[:, order], COLD, THERE[order]), sinkhorn(TEACHER, COLD, THERE)[:, order], rtol=1e-4
    )


def test_half_precision_is_summed_in_float32():
    logits = jnp.asarray(STUDENT, jnp.bfloat16)
    exact = logits.astype(jnp.float32)
    half, embedding = logits[:2], jnp.asarray(EMBEDDING, jnp.bfloat16)
    pairs = [
        (centered(half, CENTER, COLD), centered(exact[:2], CENTER, COLD)),
        (sinkhorn(half, COLD, THERE), sinkhorn(exact[:2], COLD, THERE)),
        (loss(TEACHER, logits, THERE, WARM), loss(TEACHER, exact, THERE, WARM)),
        (follow(CENTER, half, THERE, 0.9), follow(CENTER, exact[:2], THERE, 0.9)),
        (spread(embedding, THERE), spread(embedding.astype(jnp.float32), THERE)),
    ]
    for ours, expected in pairs:
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.eight_devices
def test_the_batch_is_that_of_all_devices():
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4], axis_types=(AxisType.Auto,))
    views, images = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in ((None, "data"), ("data",)))
    teacher, student = (jax.device_put(x[:, :4].astype(np.float32), views) for x in (TEACHER, STUDENT))
    there, embedding = jax.device_put((THERE[:4], EMBEDDING[:4].astype(np.float32)), images)
    targets = sinkhorn(teacher, COLD, there)
    np.testing.assert_allclose(
        np.asarray(targets)[:, THERE[:4]], _sinkhorn_by_loops(TEACHER[:, :4], THERE[:4], 3), rtol=1e-4, atol=1e-12
    )
    expected = _distillation_by_loops(np.asarray(targets), STUDENT[:, :4], THERE[:4])
    np.testing.assert_allclose(loss(targets, student, there, WARM), expected, rtol=1e-5)
    np.testing.assert_allclose(spread(embedding, there), _koleo_by_loops(EMBEDDING[:4], THERE[:4]), rtol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a crop is never compared with itself"):
        distillation(TEACHER[:1], STUDENT[:1], ALL, WARM)
    with pytest.raises(ValueError, match="with T <= S"):
        distillation(STUDENT, TEACHER, ALL, WARM)
    with pytest.raises(ValueError, match="with T <= S"):
        distillation(TEACHER, STUDENT[:, :, :3], ALL, WARM)
    with pytest.raises(ValueError, match=r"logits are \(4, 4, 7\), there is \(5,\)"):
        distillation(TEACHER, STUDENT[:, :4], ALL, WARM)
    with pytest.raises(ValueError, match=r"center is \(6,\)"):
        centered_targets(TEACHER, CENTER[:6], COLD)
    with pytest.raises(ValueError, match=r"center is \(6,\)"):
        next_center(CENTER[:6], TEACHER, ALL, 0.9)
    with pytest.raises(ValueError, match="iterations is 0"):
        sinkhorn_targets(TEACHER, COLD, ALL, iterations=0)
    with pytest.raises(ValueError, match=r"logits are \(5, 7\)"):
        sinkhorn_targets(TEACHER[0], COLD, ALL)
    with pytest.raises(ValueError, match=r"there is \(4,\)"):
        koleo(EMBEDDING, ALL[:4])
    with pytest.raises(ValueError, match=r"targets are \(5, 7\)"):
        collapse_numbers(TEACHER[0], ALL)
