"""Averages: (A1) to (A5) against direct sums, and averages of any width against those kept all along."""

import weakref
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfgjax import training
from cfgjax.training import posthoc_ema
from cfgjax.types import EMAProfile

NUM_STEPS = 4096
TRACKS = (0.05, 0.1)
LIMIT = 12**-0.5

widths = st.floats(1e-6, LIMIT - 1e-6)


def _cells(width, num_steps):
    """(A3): how much the parameters after each of the steps weigh, [num_steps], in float64."""
    edges = (np.arange(num_steps + 1) / num_steps) ** (posthoc_ema.exponent_of(width) + 1)
    return np.diff(edges)


def _kept_at(steps, tracks=TRACKS):
    return [EMAProfile(step, width) for step in steps for width in tracks]


def _averaged(parameters, width, num_steps):
    """The moving averages (T3) after each step of a sequence ``parameters: step -> [*D]``, [num_steps, *D]."""
    decay = posthoc_ema.power_function_decay(width)

    def advance(average, step):
        average = optax.incremental_update(parameters(step), average, 1 - decay(step))
        return average, average

    start = jnp.full_like(parameters(0), 1e6)  # what was before the first step must not count
    return jax.jit(partial(jax.lax.scan, advance))(start, jnp.arange(num_steps))[1]


@settings(deadline=None)
@given(widths)
def test_an_exponent_has_the_width_that_was_asked(width):
    """(A2): the standard deviation of (A1) over t."""
    exponent = posthoc_ema.exponent_of(width)
    assert exponent >= 0
    found = np.sqrt((exponent + 1) / (exponent + 3)) / (exponent + 2)
    np.testing.assert_allclose(found, width, rtol=1e-12)


@settings(deadline=None)
@given(st.floats() | st.integers())
def test_a_width_outside_is_refused_by_name(width):
    if 0 < width < LIMIT:
        return
    for refuse in (posthoc_ema.exponent_of, posthoc_ema.power_function_decay):
        with pytest.raises(ValueError, match=r"relative_std must be above 0 and under 0\.28868, got"):
            refuse(width)


@pytest.mark.parametrize("width", [0.0, -0.1, LIMIT, 0.3, np.nan, np.inf])
def test_the_ends_of_the_widths_are_refused(width):
    with pytest.raises(ValueError, match="relative_std must be above 0"):
        posthoc_ema.exponent_of(width)


@pytest.mark.parametrize("width", [1e-4, 0.05, 0.1, 0.28])
def test_the_first_decay_is_zero_and_later_ones_rise(width):
    decays = np.asarray([posthoc_ema.power_function_decay(width)(jnp.int32(step)) for step in range(50)])
    assert decays[0] == 0
    assert np.all(np.diff(decays) >= 0)
    assert np.all(decays < 1)


def test_a_decay_is_exact_to_rounding_after_many_steps():
    """(1 - 1/t)^(g+1) in float32 loses no more than its own rounding, at a million steps."""
    found = posthoc_ema.power_function_decay(0.1)(jnp.int32(999_999))
    expected = (1 - 1e-6) ** (posthoc_ema.exponent_of(0.1) + 1)
    assert abs(float(found) - expected) < 6e-8


def test_a_negative_step_is_refused():
    with pytest.raises(ValueError, match="step must be"):
        posthoc_ema.power_function_decay(0.1)(-1)


@pytest.mark.parametrize("width", [0.02, 0.1, 0.25])
def test_an_average_weighs_the_past_by_the_integrals_of_its_profile(width):
    """(A3): the average of unit vectors is the row of weights; it has the width that was asked."""
    num_steps = 1000
    found = np.asarray(_averaged(lambda step: jax.nn.one_hot(step, num_steps), width, num_steps))
    for steps_done in (1, 2, 10, num_steps):
        expected = np.zeros(num_steps)
        expected[:steps_done] = _cells(width, steps_done)
        np.testing.assert_allclose(found[steps_done - 1], expected, rtol=1e-3, atol=1e-6)
    law = found[-1].astype(np.float64)
    middles = np.arange(num_steps) + 0.5
    mean = np.sum(law * middles)
    assert np.sum(law) == pytest.approx(1, abs=1e-4)
    assert np.sqrt(np.sum(law * (middles - mean) ** 2)) / num_steps == pytest.approx(width, rel=1e-3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 0.28)), min_size=2, max_size=2), widths)
def test_the_error_of_a_profile_is_its_distance(kept, width):
    """(A4): the closed form against a sum over cells of r = t u^3, finer where short profiles end at 1 alone."""
    if kept[0] == kept[1] or width < 0.01:
        return
    kept = sorted(EMAProfile(*each) for each in kept)
    wanted = EMAProfile(kept[-1].step, width)
    edges = np.unique(np.concatenate([np.linspace(0, profile.step, 20_001) for profile in kept]))
    middles, lengths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)

    def density(profile):
        exponent = posthoc_ema.exponent_of(profile.relative_std)
        inside = (exponent + 1) * (middles / profile.step) ** exponent / profile.step
        return np.where(middles < profile.step, inside, 0)

    error = 0.75 * density(kept[0]) - 0.5 * density(kept[1]) - density(wanted)
    expected = np.sqrt(np.sum(lengths * error**2) / np.sum(lengths * density(wanted) ** 2))
    found = posthoc_ema.profile_error(kept, wanted, np.array([0.75, -0.5]))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("number", range(8))
def test_an_average_that_was_kept_has_weight_one(number):
    kept = _kept_at((100, 200, 300, 400))
    np.testing.assert_allclose(posthoc_ema.weights(kept, kept[number]), np.eye(8)[number], atol=1e-10)
    assert posthoc_ema.profile_error(kept, kept[number], np.eye(8)[number]) < 1e-7


@settings(deadline=None)
@given(widths, st.floats(0.3, 1), st.integers(1, 40))
def test_weights_sum_to_one(width, part, number):
    """(A5): what never moved is given back, whatever the width and step."""
    found = posthoc_ema.weights(_kept_at(np.arange(1, number + 1) * 100), EMAProfile(100 * number * part, width))
    assert found.dtype == np.float64
    assert np.sum(found) == pytest.approx(1, abs=1e-9)


@settings(deadline=None)
@given(st.floats(0.03, 0.25), st.integers(0, 2**32 - 1))
def test_no_other_weights_come_nearer(width, seed):
    """(A5): a change that keeps the sum makes the distance larger, either way."""
    kept, wanted = _kept_at((100, 200, 300, 400)), EMAProfile(400, width)
    found = posthoc_ema.weights(kept, wanted)
    change = np.random.default_rng(seed).normal(size=8)
    change -= np.mean(change)
    least = posthoc_ema.profile_error(kept, wanted, found)
    for sign in (0.1, -0.1):
        assert posthoc_ema.profile_error(kept, wanted, found + sign * change) > least


def test_weights_do_not_depend_on_the_unit_of_steps():
    found, scaled = (
        posthoc_ema.weights(_kept_at(unit * np.array([1, 2, 3])), EMAProfile(3 * unit, 0.15)) for unit in (1, 1e6)
    )
    np.testing.assert_allclose(found, scaled, rtol=1e-9)


def test_weights_follow_the_order_of_the_snapshots():
    """All of one width, then all of the other: the same weights, in that order."""
    by_step = posthoc_ema.weights(_kept_at((100, 200, 300)), EMAProfile(300, 0.15))
    by_width = posthoc_ema.weights([EMAProfile(s, w) for w in TRACKS for s in (100, 200, 300)], EMAProfile(300, 0.15))
    np.testing.assert_allclose(by_width, by_step.reshape(3, 2).T.ravel(), rtol=1e-9)


def test_snapshots_that_all_but_coincide_do_no_harm():
    """Two snapshots one step in 10^8 apart, and two widths as near: no weight is large, and the sum is as near."""
    near = [*_kept_at((1e8 / 2, 1e8 - 1, 1e8)), EMAProfile(1e8, 0.05 + 1e-9)]
    wanted = EMAProfile(1e8, 0.07)
    found, plain = posthoc_ema.weights(near, wanted), posthoc_ema.weights(_kept_at((1e8 / 2, 1e8)), wanted)
    assert np.max(np.abs(found)) < 2
    error = posthoc_ema.profile_error(_kept_at((1e8 / 2, 1e8)), wanted, plain)
    assert posthoc_ema.profile_error(near, wanted, found) < error + 1e-6


def test_very_short_and_very_wide_averages_have_finite_weights():
    for width in (1e-6, LIMIT - 1e-12):
        kept = _kept_at((100, 200), (width, 0.1))
        np.testing.assert_allclose(posthoc_ema.weights(kept, EMAProfile(200, width)), np.eye(4)[2], atol=1e-9)


KEPT = _kept_at((100, 200))


@pytest.mark.parametrize(
    ("kept", "wanted", "message"),
    [
        ([], EMAProfile(100, 0.1), "snapshots must be two or more, got 0"),
        (KEPT[:1], KEPT[0], "snapshots must be two or more, got 1"),
        (
            [*KEPT, KEPT[0]],
            EMAProfile(200, 0.1),
            r"snapshots must differ, got step 100 with relative_std 0\.05 2 times",
        ),
        ([KEPT[2], *KEPT[:2]], EMAProfile(200, 0.1), "steps of one relative_std must increase, got 100 after 200"),
        ([EMAProfile(0, 0.1), *KEPT], EMAProfile(200, 0.1), "step must be positive and finite, got 0"),
        (KEPT, EMAProfile(np.inf, 0.1), "step must be positive and finite, got inf"),
        (KEPT, EMAProfile(np.nan, 0.1), "step must be positive and finite, got nan"),
        (KEPT, EMAProfile(201, 0.1), "wanted must have a step up to the last snapshot's, 200, got 201"),
        (KEPT, EMAProfile(200, 0.3), "relative_std must be above 0 and under 0.28868, got 0.3"),
        (
            [*KEPT, EMAProfile(300, -1.0)],
            EMAProfile(200, 0.1),
            "relative_std must be above 0 and under 0.28868, got -1",
        ),
    ],
)
def test_what_weights_cannot_be_is_refused(kept, wanted, message):
    with pytest.raises(ValueError, match=message):
        posthoc_ema.weights(kept, wanted)
    with pytest.raises(ValueError, match=message):
        posthoc_ema.profile_error(kept, wanted, np.zeros(len(kept)))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats() | st.integers(-5, 5), st.floats(-0.1, 0.4)), max_size=4), st.floats(), widths)
def test_weights_are_finite_or_refused(kept, step, width):
    """No snapshots, whatever they are, give NaN or another error than one that speaks of them."""
    try:
        found = posthoc_ema.weights([EMAProfile(*each) for each in kept], EMAProfile(step, width))
    except ValueError as error:
        assert str(error).startswith(("snapshots", "steps of", "wanted", "width must"))
    else:
        assert np.all(np.isfinite(found))


def test_profile_error_wants_one_coefficient_for_each_snapshot():
    with pytest.raises(ValueError, match=r"coefficients must be one for each snapshot, \(4,\), got \(3,\)"):
        posthoc_ema.profile_error(KEPT, KEPT[0], np.ones(3))


def test_a_reconstruction_is_the_weighted_sum():
    """In float64 inside: 10^8 + 1 - 10^8 is 1; in float32 outside, whatever the trees hold."""
    trees = [{"a": [jnp.full(2, 1e8)], "b": jnp.bfloat16(1)}, {"a": [jnp.ones(2)], "b": jnp.bfloat16(2)}]
    found = posthoc_ema.reconstruct([trees[0], trees[1], trees[0]], np.array([1.0, 1.0, -1.0]))
    np.testing.assert_array_equal(found["a"][0], [1, 1])
    assert float(found["b"]) == 2
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}


def test_a_reconstruction_leaves_its_snapshots_as_they_were():
    trees = [{"a": np.arange(3.0)}, {"a": np.ones(3)}]
    posthoc_ema.reconstruct(trees, [2.0, 3.0])
    np.testing.assert_array_equal(trees[0]["a"], [0, 1, 2])
    np.testing.assert_array_equal(trees[1]["a"], [1, 1, 1])


def test_one_snapshot_is_in_memory_at_a_time():
    """When the next tree is read, no one holds the last one any more."""
    made = []

    def read(number):
        alive = [array for array in made if array() is not None]
        assert not alive, f"{len(alive)} alive at tree {number}"
        array = np.full(3, float(number))
        made.append(weakref.ref(array))
        return {"a": array}

    found = posthoc_ema.reconstruct(map(read, range(5)), np.ones(5))
    np.testing.assert_array_equal(found["a"], [10, 10, 10])
    assert len(made) == 5


@pytest.mark.parametrize(
    ("trees", "coefficients", "message"),
    [
        ([{"a": np.ones(2)}], [1, 2], "snapshots must be as many as coefficients, got fewer than 2"),
        ([{"a": np.ones(2)}] * 3, [1, 2], "snapshots must be as many as coefficients, got more than 2"),
        ([{"a": np.ones(2)}, {"b": np.ones(2)}], [1, 2], r"at \['a'\] \(2,\), got no such leaf"),
        ([{}, {"b": np.ones(2)}], [1, 2], r"at \['b'\] no such leaf, got \(2,\)"),
        ([{"a": np.ones(2)}, {"a": np.ones(1)}], [1, 2], r"at \['a'\] \(2,\), got \(1,\)"),
        ([{"a": np.ones(2)}], [], r"coefficients must be a row of numbers, got the shape \(0,\)"),
        ([{"a": np.ones(2)}], 1.0, r"coefficients must be a row of numbers, got the shape \(\)"),
        ([{"a": np.ones(2)}], [np.nan], "coefficients must be finite"),
    ],
)
def test_what_cannot_be_summed_is_refused(trees, coefficients, message):
    with pytest.raises(ValueError, match=message):
        posthoc_ema.reconstruct(iter(trees), coefficients)


@pytest.fixture(scope="module")
def walk():
    """A random walk of 64 parameters, and its averages of many widths at 64 steps: {width: [64, 64]}."""
    noise = jax.random.normal(jax.random.key(0), (NUM_STEPS, 64)) / NUM_STEPS**0.5
    parameters = jnp.cumsum(noise, axis=0)
    every = NUM_STEPS // 64
    kept = (*TRACKS, 0.02, 0.07, 0.12, 0.15, 0.2)
    return {
        width: np.asarray(_averaged(lambda step: parameters[step], width, NUM_STEPS))[every - 1 :: every]
        for width in kept
    }


def _norm(values):
    return np.linalg.norm(values.astype(np.float64))


def _errors(walk, width, num_kept):
    """The relative errors of the reconstruction and of the nearest snapshot."""
    rows = np.arange(64 // num_kept - 1, 64, 64 // num_kept)
    profiles = _kept_at((rows + 1) * (NUM_STEPS // 64))
    trees = [walk[track][row] for row in rows for track in TRACKS]
    found = posthoc_ema.reconstruct(iter(trees), posthoc_ema.weights(profiles, EMAProfile(NUM_STEPS, width)))
    direct = walk[width][-1]
    nearest = min(_norm(tree - direct) for tree in trees)
    return _norm(np.asarray(found) - direct) / _norm(direct), nearest / _norm(direct)


@pytest.mark.parametrize(
    ("width", "bounds"),
    [
        (0.02, (0.1, 0.04, 0.01, 0.002)),
        (0.07, (0.01, 0.002, 4e-4, 4e-5)),
        (0.12, (0.01, 0.002, 4e-4, 4e-5)),
        (0.15, (0.02, 0.004, 8e-4, 8e-5)),
        (0.2, (0.05, 0.015, 0.004, 8e-4)),
    ],
)
def test_a_reconstruction_is_the_average_kept_all_along(walk, width, bounds):
    """With 4, 8, 16, 32 snapshots of each width the error falls, far under that of the nearest snapshot.

    Measured, at 0.02, 0.07, 0.12, 0.15, 0.2: 5.8e-2, 4.3e-3, 3.6e-3, 8.0e-3, 2.1e-2 with 4 snapshots, 6.6e-3, 1.2e-4,
    7.6e-5, 1.7e-4, 1.5e-3 with 16; the nearest of those 16 is off by 8.5e-2, 4.4e-2, 3.6e-2, 7.6e-2, 0.15.
    """
    found = [_errors(walk, width, num_kept) for num_kept in (4, 8, 16, 32)]
    errors, nearest = zip(*found, strict=True)
    assert np.all(np.array(errors) < bounds)
    assert np.all(np.diff(errors) < 0)
    assert errors[2] < 0.1 * nearest[2]


def test_an_average_of_the_middle_of_the_run_is_found_too(walk):
    """At a step at which one was kept, from snapshots before and after it."""
    rows = np.arange(3, 64, 4)
    profiles, trees = _kept_at((rows + 1) * 64), [walk[track][row] for row in rows for track in TRACKS]
    wanted = EMAProfile((rows[9] + 1) * 64, 0.15)
    found = np.asarray(posthoc_ema.reconstruct(trees, posthoc_ema.weights(profiles, wanted)))
    direct = walk[0.15][rows[9]]
    assert _norm(found - direct) < 2e-3 * _norm(direct)


OPTIMIZER = optax.sgd(0.1)


def _loss(params, key, example):
    """The example and a noise of its own key draw the parameters about."""
    return jnp.sum((params["a"] - example - jax.random.normal(key, (3,))) ** 2)


def _start(num_averages):
    return training.init_state({"a": jnp.zeros(3)}, OPTIMIZER, jax.random.key(2), num_averages)


def _batches():
    return jax.random.normal(jax.random.key(3), (12, 16, 3))


@pytest.mark.parametrize("num_devices", [None, 1, 2, 8])
def test_the_step_moves_every_average_by_its_own_decay(num_devices):
    """(T3): power profiles, summed by hand in float64, and a constant decay; on every device's own copy."""
    step = training.make_step(
        _loss, OPTIMIZER, 0.9, average_decays=(*map(posthoc_ema.power_function_decay, TRACKS), 0.9)
    )
    devices = jax.devices()[:num_devices]
    run = jax.jit(step) if num_devices is None else training.parallel(step, devices)
    state, seen = _start(3), []
    for batch in _batches():
        state, _ = run(state, batch if num_devices is None else training.shard(batch, num_devices))
        seen.append(np.asarray(state.params["a"], np.float64))
    for width, average in zip(TRACKS, state.averages, strict=False):
        expected = _cells(width, 12) @ np.stack(seen)
        assert average["a"].dtype == jnp.float32
        for piece in average["a"].addressable_shards:
            np.testing.assert_allclose(piece.data, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(state.averages[2]["a"], state.ema["a"])


def test_the_first_step_makes_the_average_the_parameters():
    step = training.make_step(_loss, OPTIMIZER, 0.9, average_decays=[posthoc_ema.power_function_decay(0.1)])
    state, _ = jax.jit(step)(_start(1), _batches()[0])
    np.testing.assert_array_equal(state.averages[0]["a"], state.params["a"])
    assert float(jnp.linalg.norm(state.averages[0]["a"])) > 0.01


def test_averages_change_nothing_else():
    """Parameters, EMA, optimizer and metrics have the same bits with and without; without, the state is as it was."""
    decays = tuple(map(posthoc_ema.power_function_decay, TRACKS))
    plain, more = _start(0), _start(2)
    assert plain.averages == ()
    for batch in _batches()[:3]:
        plain, metrics = jax.jit(training.make_step(_loss, OPTIMIZER, 0.9))(plain, batch)
        more, found = jax.jit(training.make_step(_loss, OPTIMIZER, 0.9, average_decays=decays))(more, batch)
        jax.tree.map(np.testing.assert_array_equal, found, metrics)
    assert plain.averages == ()
    jax.tree.map(np.testing.assert_array_equal, more[1:4], plain[1:4])


def test_averages_go_through_several_steps_in_one_call():
    step = training.make_step(_loss, OPTIMIZER, 0.9, average_decays=(posthoc_ema.power_function_decay(0.1),))
    alone = _start(1)
    for batch in _batches():
        alone, _ = jax.jit(step)(alone, batch)
    together, _ = jax.jit(training.multi_step(step))(_start(1), _batches())
    np.testing.assert_allclose(together.averages[0]["a"], alone.averages[0]["a"], rtol=1e-5)


def test_averages_are_float32_for_parameters_of_less():
    state = training.init_state({"a": jnp.ones(3, jnp.bfloat16)}, OPTIMIZER, jax.random.key(0), num_averages=2)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.averages)} == {jnp.dtype(jnp.float32)}
    jax.tree.map(np.testing.assert_array_equal, state.averages[0], state.averages[1])


@pytest.mark.parametrize(("num_averages", "num_decays"), [(0, 1), (2, 0), (2, 1), (1, 2)])
def test_decays_that_are_not_one_for_each_average_are_refused(num_averages, num_decays):
    """When the step is traced, before anything runs."""
    step = training.make_step(_loss, OPTIMIZER, 0.9, average_decays=(0.9,) * num_decays)
    message = f"average_decays must be one for each of the state's averages, got {num_decays} for {num_averages}"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(step, _start(num_averages), _batches()[0])


def test_a_negative_number_of_averages_is_refused():
    with pytest.raises(ValueError, match="num_averages must be at least 0, got -1"):
        _start(-1)
