from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bie_jax.models.quantizers import kmeans as starts
from bie_jax.models.quantizers import lookup
from bie_jax.models.quantizers.vector import VectorQuantizer

pytestmark = pytest.mark.slow

LEARNT = ("codebook", "cluster_size", "embedding_sum", "distortion")
# Compiled once for many tests, on vectors [16, 6]. Smoothing is far more than usual, to be seen.
GROUPED = VectorQuantizer(4, 3, num_groups=2, ema_decay=0.8, restart_threshold=0.0, epsilon=0.1)
STARTED = GROUPED.copy(kmeans_iterations=3)
PARTED = STARTED.copy(num_microbatches=4)
PAIRS = VectorQuantizer(2, 2, ema_decay=0.9)
ALL = np.ones(16, bool)


@partial(jax.jit, static_argnums=0)
def _train(quantizer, state, z, valid=None):
    """(out, state) after one training call."""
    (_, out), state = quantizer.apply(state, z, valid, train=True, mutable=["codebook"])
    return out, state


@partial(jax.jit, static_argnums=0)
def _look(quantizer, state, z, valid=None):
    """(z_q, out) without training."""
    return quantizer.apply(state, z, valid, train=False)


def _with_codes(codes, counts=None):
    """State of given codes, [K, D] or [G, K, D]."""
    codes = np.asarray(codes, np.float32)
    codes = codes if codes.ndim == 3 else codes[None]
    groups, num_codes, _ = codes.shape
    counts = np.ones(codes.shape[:2]) if counts is None else np.reshape(counts, (groups, num_codes))
    state = {
        "codebook": codes,
        "cluster_size": counts,
        "embedding_sum": codes * counts[..., None],
        "distortion": np.ones(groups),
        "pending": {"counts": np.zeros(codes.shape[:2]), "sums": np.zeros(codes.shape), "error": np.zeros(groups)},
    }
    state = jax.tree.map(lambda leaf: leaf.astype(np.float32), state)
    return {"codebook": state | {"calls": np.zeros((), np.int32), "started": np.zeros((), bool)}}


def _fresh(quantizer):
    """Random codes, as a quantizer has them before it has learned anything."""
    return _with_codes(
        np.random.default_rng(0).normal(size=(quantizer.num_groups, quantizer.num_codes, quantizer.code_dim))
    )


def _random(seed=0, size=(16, 6)):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, 4, 3)), rng.normal(size=size).astype(np.float32), rng


def _assert_same_learned(a, b, **tolerance):
    for name in LEARNT:
        np.testing.assert_allclose(a["codebook"][name], b["codebook"][name], err_msg=name, **tolerance)


def test_grid_of_vectors_is_quantized_on_its_last_axis_group_by_group():
    codes, z, _ = _random(size=(2, 3, 5, 6))
    state = _with_codes(codes)
    state["codebook"]["distortion"] = np.asarray([0.5, 2.0], np.float32)
    z_q, out = _look(GROUPED, state, z)
    assert out["codes"].shape == (2, 3, 5, 2)
    assert out["codes"].dtype == jnp.int32
    counts = np.zeros((2, 4))
    for at in np.ndindex(2, 3, 5):
        cost = 0
        for g in range(2):
            part = slice(3 * g, 3 * g + 3)
            distances = np.asarray([sum((z[at][part] - e) ** 2) for e in codes[g]])
            chosen = distances.argmin()
            assert out["codes"][at][g] == chosen
            np.testing.assert_array_equal(z_q[at][part], codes[g][chosen].astype(np.float32))
            share = np.exp(-distances / (4 * state["codebook"]["distortion"][g]))
            np.testing.assert_allclose(out["shares"][at][g], share / share.sum(), rtol=1e-4)
            counts[g, chosen] += 1
            cost += 0.25 * distances.min()
        np.testing.assert_allclose(out["commitment"][at], cost, rtol=1e-4)
    np.testing.assert_array_equal(out["code_counts"], counts)
    share = counts / counts.sum(axis=1, keepdims=True)
    entropy = -(share * np.log(share.clip(1e-9))).sum(axis=1)
    np.testing.assert_allclose(out["perplexity"], np.exp(entropy).mean(), rtol=1e-5)


def test_the_program_does_not_grow_with_the_groups():
    sizes = {}
    for groups in (2, 512):
        quantizer = VectorQuantizer(4, 1, groups, kmeans_iterations=2)
        z = jnp.zeros((3, groups))
        state = jax.eval_shape(partial(quantizer.init, train=False), jax.random.key(0), z)
        train = jax.jit(partial(quantizer.apply, train=True, mutable=["codebook"]))
        sizes[groups] = len(train.lower(state, z).as_text())
    assert sizes[512] < 1.1 * sizes[2]


def test_commitment_is_the_squared_norm_whatever_the_batch_size():
    state = _with_codes([[0.0, 0.0], [10.0, 10.0]])
    for batch in (1, 8, 64):
        z = np.repeat(np.asarray([[1.0, 2.0]]), batch, axis=0)  # ||z - e||^2 = 5
        np.testing.assert_allclose(_look(PAIRS, state, z)[1]["commitment"], np.full(batch, 0.25 * 5), rtol=1e-6)


def test_vectors_that_are_codes_cost_nothing():
    codes = np.asarray([[1.0, 2.0], [3.0, 5.0]])
    _, out = _look(PAIRS, _with_codes(codes), np.repeat(codes, 4, axis=0))
    np.testing.assert_array_equal(out["commitment"], 0)
    np.testing.assert_array_equal(out["codes"][:, 0], [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(out["perplexity"], 2, rtol=1e-6)


def test_perplexity_is_one_on_collapse():
    _, out = _look(PAIRS, _with_codes(np.eye(2) * 9), np.tile([[9.0, 1.0]], (8, 1)))
    np.testing.assert_allclose(out["perplexity"], 1, rtol=1e-6)


def test_gradient_goes_straight_through_and_commits_and_never_to_the_codebook():
    """Against finite differences in float64 with what sg holds, the codes that were chosen, as constants."""
    codes = np.asarray([[0.0, 0.0], [5.0, 5.0]])
    z = np.asarray([[0.5, -0.25], [4.0, 6.0]])
    weight = np.asarray([[1.0, 2.0], [3.0, 4.0]], np.float32)
    variables = _with_codes(codes)

    @jax.jit
    @partial(jax.jacrev, argnums=(0, 1))
    def gradients(z, codebook):
        state = {"codebook": variables["codebook"] | {"codebook": codebook}}
        z_q, out = PAIRS.apply(state, z, train=False)
        return jnp.stack([(weight * z_q).sum(), out["commitment"].mean(), out["shares"][..., 0].sum()])

    to_z, to_codes = gradients(z.astype(np.float32), variables["codebook"]["codebook"])
    np.testing.assert_allclose(to_z[0], _finite_differences(lambda x: (weight * (x + (codes - z))).sum(), z), rtol=1e-5)
    expected = _finite_differences(lambda x: 0.25 * np.square(x - codes).sum(axis=-1).mean(), z)
    np.testing.assert_allclose(to_z[1], expected, rtol=1e-5)
    assert np.abs(to_z[2]).max() > 0
    np.testing.assert_array_equal(to_codes, 0)


def _finite_differences(function, x, step=1e-6):
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        change = np.zeros_like(x)
        change[i] = step
        gradient[i] = (function(x + change) - function(x - change)) / (2 * step)
    return gradient


def _ema_by_loop(codes, counts, sums, distortion, z, decay, epsilon):
    """The update of SPEC 5.1 written out one vector at a time, float64."""
    k_total = len(codes)
    n, total, error = np.zeros(k_total), np.zeros_like(codes), 0
    for v in z:
        distances = ((v - codes) ** 2).sum(-1)
        k = distances.argmin()
        n[k] += 1
        total[k] += v
        error += distances[k] / len(z)
    counts = decay * counts + (1 - decay) * n
    sums = decay * sums + (1 - decay) * total
    size = counts.sum()
    codes = np.stack([sums[k] / ((counts[k] + epsilon) / (size + k_total * epsilon) * size) for k in range(k_total)])
    return codes, counts, sums, decay * distortion + (1 - decay) * error


def _assert_learned(state, groups, **tolerance):
    """Against (codes, counts, sums, distortion) of each group."""
    for g, expected in enumerate(groups):
        for name, value in zip(LEARNT, expected, strict=True):
            np.testing.assert_allclose(state["codebook"][name][g], value, err_msg=name, **tolerance)


def test_every_group_follows_the_equations_and_smoothing_is_never_stored():
    codes, _, rng = _random(3)
    state = _with_codes(codes)
    expected = [(codes[g], np.ones(4), codes[g].copy(), 1.0) for g in range(2)]
    for _ in range(5):
        z = rng.normal(size=(16, 6))
        _, state = _train(GROUPED, state, z, ALL)
        expected = [_ema_by_loop(*expected[g], z[:, 3 * g : 3 * g + 3], 0.8, 0.1) for g in range(2)]
        _assert_learned(state, expected, rtol=1e-4, atol=1e-5)


def test_identical_batches_pull_the_code_to_their_mean():
    z = np.asarray([[1.0, 1.0], [3.0, 3.0]])
    quantizer, state = VectorQuantizer(1, 2, ema_decay=0.9), _with_codes([[0.0, 0.0]])
    for _ in range(200):
        _, state = _train(quantizer, state, z)
    np.testing.assert_allclose(state["codebook"]["codebook"][0, 0], [2.0, 2.0], rtol=1e-3)


def test_nothing_changes_without_train():
    codes, z, _ = _random()
    before = _with_codes(codes)
    look = jax.jit(lambda s: STARTED.apply(s, z, train=False, mutable=["codebook"])[1])
    jax.tree.map(np.testing.assert_array_equal, before, dict(look(before)))


def test_initializing_does_not_learn():
    state = jax.jit(partial(STARTED.init, train=True))(jax.random.key(0), _random()[1])["codebook"]
    jax.tree.map(
        lambda ours, fresh: np.testing.assert_equal(ours.shape, fresh.shape), state, _fresh(STARTED)["codebook"]
    )
    np.testing.assert_array_equal(state["codebook"], state["embedding_sum"])
    assert state["calls"] == 0
    assert not state["started"]


def test_dead_codes_of_a_group_restart_at_valid_vectors_of_the_batch_with_their_averages():
    codes = np.asarray([[[0.0], [100.0], [200.0]], [[0.0], [1.0], [2.0]]])
    z = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    z[:60] = 1000.0
    quantizer = VectorQuantizer(3, 1, num_groups=2, ema_decay=0.99, restart_threshold=0.05)
    state = _with_codes(codes, [[64.0, 0.5, 0.5], [20, 20, 20]])
    _, after = _train(quantizer, state, z, np.arange(64) >= 60)
    moved, kept = np.asarray(after["codebook"]["codebook"])[..., 0]
    assert all(np.abs(z[60:, 0] - code).min() < 1e-3 for code in moved[1:])
    np.testing.assert_allclose(kept, [0, 1, 2], atol=0.2)
    counts = np.asarray(after["codebook"]["cluster_size"][0])
    even_share = (0.99 * 65 + 0.01 * 4) / 3
    np.testing.assert_allclose(counts[1:], [even_share] * 2, rtol=1e-5)
    np.testing.assert_allclose(after["codebook"]["embedding_sum"][0, 1:, 0], counts[1:] * moved[1:], rtol=1e-4)


@pytest.mark.parametrize(("num_codes", "dim"), [(512, 64), (16, 16), (32, 64)])
def test_codes_stay_in_use_where_the_predecessor_keeps_one(num_codes, dim):
    """With counts that start at 0, these three cases end with exactly one code in use after 100 steps.

    Normal noise has no clusters: in 64 dimensions a mean of many vectors is nearer to a new vector than any single
    vector is, so some of 512 codes stay unused for good reason, and the bound is a half.
    """
    quantizer = VectorQuantizer(num_codes, dim)
    variables = _fresh(quantizer)
    rng = np.random.default_rng(0)
    used = np.zeros(num_codes, bool)
    for step in range(200):
        out, variables = _train(quantizer, variables, rng.normal(size=(2048, dim)).astype(np.float32))
        if step >= 100:
            used |= np.asarray(out["code_counts"][0]) > 0
    assert used.mean() > 0.5


def _clusters(rng, centers):
    """[2048, D], vectors near the centers and far from the borders between them."""
    noise = rng.normal(size=(2048, centers.shape[1])) * 0.1
    return (centers[rng.integers(len(centers), size=2048)] + noise).astype(np.float32)


def test_a_codebook_finds_separate_clusters():
    rng = np.random.default_rng(1)
    centers = rng.normal(size=(16, 16)) * 10
    quantizer = VectorQuantizer(16, 16)
    state = _fresh(quantizer)
    for _ in range(300):
        out, state = _train(quantizer, state, _clusters(rng, centers))
    assert (np.asarray(out["code_counts"]) > 0).sum() >= 15


def test_a_start_from_kmeans_uses_all_codes_from_the_first_call():
    rng = np.random.default_rng(1)
    centers = rng.normal(size=(32, 8)) * 10
    quantizer = VectorQuantizer(32, 8, kmeans_iterations=10)
    state = _fresh(quantizer)
    for _ in range(5):
        out, state = _train(quantizer, state, _clusters(rng, centers))
        assert (np.asarray(out["code_counts"]) > 0).sum() >= 30
        assert out["perplexity"] > 25
    distance = np.linalg.norm(centers[:, None] - np.asarray(state["codebook"]["codebook"]), axis=-1)
    assert (distance.min(axis=1) < 1).sum() >= 30


def test_kmeans_sets_the_averages_once_and_the_equations_take_over():
    _, first, rng = _random(2)
    kmeans = jax.jit(starts.kmeans, static_argnums=(2, 3))
    found = kmeans(first.reshape(16, 2, 3), jnp.ones(16), 4, 3, jax.random.key(0))
    out, state = _train(STARTED, _fresh(STARTED), first, ALL)
    np.testing.assert_array_equal(out["code_counts"], found[1])  # the first call is quantized with them already
    assert state["codebook"]["started"]
    expected = []
    for g, (codes, counts, distortion) in enumerate(zip(*(np.asarray(x, float) for x in found), strict=True)):
        part = first[:, 3 * g : 3 * g + 3].astype(float)
        expected.append(_ema_by_loop(codes, counts, codes * counts[:, None], distortion, part, 0.8, 0.1))
    _assert_learned(state, expected, rtol=1e-4, atol=1e-4)
    second = rng.normal(size=(16, 6)) * 3
    _, state = _train(STARTED, state, second, ALL)
    expected = [_ema_by_loop(*expected[g], second[:, 3 * g : 3 * g + 3], 0.8, 0.1) for g in range(2)]
    _assert_learned(state, expected, rtol=1e-4, atol=1e-4)


def test_steps_after_the_start_do_not_pay_for_kmeans():
    train = partial(STARTED.apply, train=True, mutable=["codebook"])
    program = jax.make_jaxpr(train)(_with_codes(_random()[0]), jnp.ones((16, 6)))
    names = [equation.primitive.name for equation in program.eqns]
    assert "cond" in names
    assert "while" not in names  # the loops are inside of it


def test_microbatches_learn_what_the_joined_batch_teaches():
    codes, _, rng = _random()
    expected = state = _with_codes(codes)
    state["codebook"]["started"] = ~state["codebook"]["started"]
    for _ in range(3):
        z, valid = rng.normal(size=(16, 6)).astype(np.float32), rng.uniform(size=16) < 0.7
        before = expected
        out, expected = _train(GROUPED, expected, z, valid)
        for rows in np.split(np.arange(16), 4):
            _assert_same_learned(state, before, rtol=1e-5, atol=1e-6)  # nothing moves before the last
            part, state = _train(PARTED, state, z[rows], valid[rows])
            np.testing.assert_array_equal(part["codes"], out["codes"][rows])
        _assert_same_learned(state, expected, rtol=1e-5, atol=1e-6)


def test_microbatches_restart_the_codes_that_the_joined_batch_would():
    z = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    quantizer = PAIRS.copy(num_microbatches=2)
    _, state = _train(quantizer, _with_codes([[0.0, 0.0], [100.0, 100.0]], [8.0, 0.227]), z[:4])
    np.testing.assert_array_equal(state["codebook"]["codebook"][0, 1], 100)
    _, state = _train(quantizer, state, z[4:])
    assert np.abs(z - np.asarray(state["codebook"]["codebook"][0, 1])).sum(axis=-1).min() < 1e-3
    # 0.9 x 0.227 = 0.204 is dead among both microbatches (0.05 of an even share is 0.205), not among one (0.195).
    even_share = (0.9 * 8.227 + 0.1 * 8) / 2
    np.testing.assert_allclose(state["codebook"]["cluster_size"], [[0.9 * 8 + 0.1 * 8, even_share]], rtol=1e-6)


def test_a_start_from_kmeans_counts_a_whole_update_and_leaves_no_code_empty():
    """N_k is in vectors per update; of these the start sees one microbatch, here of two different vectors only."""
    z = np.repeat(_random()[1][:2], 2, axis=0)
    out, state = _train(PARTED, _fresh(PARTED), z, ALL[:4])
    assert (np.asarray(out["code_counts"]) == 0).any()
    expected = np.maximum(4 * out["code_counts"], 1)
    np.testing.assert_array_equal(state["codebook"]["cluster_size"], expected)
    sums = expected[..., None] * state["codebook"]["codebook"]
    np.testing.assert_allclose(state["codebook"]["embedding_sum"], sums, rtol=1e-6)
    for g, codes in enumerate(np.asarray(state["codebook"]["codebook"])):
        distances = np.square(codes[:, None] - z[None, :, 3 * g : 3 * g + 3]).sum(-1)
        np.testing.assert_allclose(distances.min(axis=1), 0, atol=1e-6)


def test_the_order_of_a_batch_does_not_matter():
    codes, z, rng = _random()
    order = rng.permutation(16)
    out, state = _train(GROUPED, _with_codes(codes), z, ALL)
    other_out, other = _train(GROUPED, _with_codes(codes), z[order], ALL)
    np.testing.assert_array_equal(other_out["codes"], out["codes"][order])
    _assert_same_learned(state, other, rtol=1e-5, atol=1e-6)


def test_examples_that_are_not_valid_count_nowhere():
    codes, z, rng = _random()
    valid = rng.uniform(size=16) < 0.6
    bad = np.where(valid[:, None], z, np.asarray([[np.inf, np.nan] * 3])).astype(np.float32)
    out, state = _train(GROUPED, _with_codes(codes), bad, valid)
    expected = [
        _ema_by_loop(codes[g], np.ones(4), codes[g], 1.0, z[valid, 3 * g : 3 * g + 3].astype(float), 0.8, 0.1)
        for g in range(2)
    ]
    _assert_learned(state, expected, rtol=1e-4, atol=1e-5)
    _, everything = _train(GROUPED, _with_codes(codes), z, ALL)
    np.testing.assert_array_equal(out["code_counts"].sum(axis=1), valid.sum())
    counted = np.stack([np.bincount(out["codes"][valid, g], minlength=4) for g in range(2)])
    np.testing.assert_array_equal(out["code_counts"], counted)
    np.testing.assert_allclose(out["perplexity"], lookup.perplexity(jnp.asarray(counted, jnp.float32)), rtol=1e-6)
    np.testing.assert_array_equal(out["commitment"][~valid], 0)
    assert (np.asarray(state["codebook"]["codebook"]) != np.asarray(everything["codebook"]["codebook"])).any()

    @jax.jit
    @jax.grad
    def gradient_of(z):
        z_q, out = GROUPED.apply(_with_codes(codes), z, valid, train=False)
        return z_q.sum() + out["commitment"].sum() + out["shares"][..., 0].sum()

    gradient = np.asarray(gradient_of(bad))
    np.testing.assert_array_equal(gradient[~valid], 0)
    assert (gradient[valid] != 0).all()


@pytest.mark.parametrize("quantizer", [GROUPED, STARTED], ids=["random", "kmeans"])
def test_a_batch_without_valid_examples_teaches_nothing(quantizer):
    codes, z, _ = _random()
    before = _with_codes(codes)
    _, after = _train(quantizer, before, z, ~ALL)
    _assert_same_learned(before, after, rtol=0)
    assert not after["codebook"]["started"]
    out, after = _train(quantizer, after, z, ALL)  # and the next one does
    assert (after["codebook"]["codebook"] != before["codebook"]["codebook"]).any()
    assert np.isfinite(out["shares"]).all()


@pytest.mark.eight_devices
def test_one_device_and_eight_hold_one_codebook():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    _, _, rng = _random()
    alone = together = _fresh(STARTED)
    together = jax.device_put(together, everywhere)
    for _ in range(3):
        z, valid = rng.normal(size=(16, 6)).astype(np.float32) * 3, rng.uniform(size=16) < 0.8
        _, alone = _train(STARTED, alone, z, valid)
        _, together = _train(STARTED, together, *jax.device_put((z, valid), split))
        _assert_same_learned(alone, together, rtol=1e-4, atol=1e-5)


def test_bfloat16_comes_out_as_it_went_in_and_counts_exactly():
    z = np.full((3000, 2), 100, jnp.bfloat16)
    state = _with_codes([[101.0, 101.0], [100.0, 100.0]])  # in bfloat16 their distances to z would be the same
    z_q, out = _look(PAIRS, state, z)
    assert z_q.dtype == jnp.bfloat16
    assert out["code_counts"][0, 1] == 3000  # bfloat16 cannot count beyond 256
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(partial(_train, PAIRS), state, z)[1])}
    assert dtypes == {jnp.dtype(name) for name in ("float32", "int32", "bool")}


def test_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"3 numbers per vector.*take 4"):
        VectorQuantizer(2, 4).init(jax.random.key(0), jnp.zeros((1, 3)), train=False)
