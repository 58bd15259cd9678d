"""A program for tests: trains by SGD and draws samples as one of several processes, and writes what it found.

python -m tests.support.several_processes OUT NUM_DEVICES NUM_PROCESSES PROCESS_ID PORT; OUT/PROCESS_ID.npz then
holds losses, gradient norms, every addressable shard of parameters and EMA, the parameters of a state that is cut
over all devices, states read back from checkpoints that all processes wrote together, and all samples.
"""

import functools
import sys
from pathlib import Path

import jax

NUM_STEPS, BATCH_SIZE, NUM_SAMPLES = 5, 16, 20


def _losses(state, advance, batches):
    rows = []
    for batch in batches:
        state, metrics = advance(state, batch)
        rows.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return state, rows


def main(out, num_devices, num_processes, process_id, port):
    """Runs the program in this process."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", num_devices)
    if num_processes > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", num_processes, process_id)

    import jax.numpy as jnp
    import numpy as np
    import optax

    from cfgjax import checkpoints, guidance, losses, paths, training
    from cfgjax.models import MLP
    from cfgjax.training import fsdp
    from experiments.config.samplers import classifier_free, make_draw, times
    from experiments.run.batch_sampling import draw_all
    from experiments.runtime import distributed
    from experiments.tasks.examples import local_share

    network = MLP(2, width=16, depth=2, dropout=0.1)
    params = network.init(jax.random.key(0), jnp.zeros(2), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def loss(params, key, z):
        drop_key, noise_key, dropout_key = jax.random.split(key, 3)
        y = guidance.drop_condition(drop_key, jnp.int32(z[0] > 0), 0.3, 2)
        rngs = {"dropout": dropout_key}
        field = lambda x, t, y: network.apply(params, x, t, y, False, rngs=rngs)  # noqa: E731
        return losses.flow_matching(paths.linear(), field, noise_key, z, y)

    optimizer = optax.sgd(0.05, momentum=0.9)
    step = training.make_step(loss, optimizer, 0.9)
    state = training.init_state(params, optimizer, jax.random.key(1))
    batches = [
        training.shard(np.random.default_rng(index).normal(size=(BATCH_SIZE, 2))[local_share(BATCH_SIZE)], num_devices)
        for index in range(NUM_STEPS)
    ]
    cut = fsdp.init_state(lambda: training.init_state(params, optimizer, jax.random.key(1)), least=1)
    cut, cut_rows = _losses(cut, fsdp.fsdp(step, least=1), batches)
    state, rows = _losses(training.replicate(state), training.parallel(step), batches)
    with checkpoints.Writer(out / "checkpoints") as writer:
        writer.save(NUM_STEPS, state, {})
    with checkpoints.Writer(out / "cut") as writer:
        writer.save(NUM_STEPS, cut, {})
    cut = checkpoints.restore(out / "cut", cut).state
    restored = checkpoints.restore(out / "checkpoints", state)
    read_back = jax.tree.leaves((restored.state.params, restored.state.opt_state))

    ema = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf.addressable_data(0))), state.ema)
    path, field = paths.linear(), functools.partial(network.apply, ema)
    draw = make_draw(classifier_free(field, 2), path, (2,), "heun", times(path, 8))
    samples = draw_all(draw, 3, np.arange(NUM_SAMPLES) % 2, (0.0, 2.0))
    shards = [
        np.stack([np.asarray(shard.data) for shard in leaf.addressable_shards])
        for leaf in jax.tree.leaves((state.params, state.ema))
    ]
    agreed = distributed.AnyTrue()
    said = [agreed(process_id == num_processes - 1 and index == 1) for index in range(6)]
    np.savez(
        out / f"{process_id}.npz",
        rows=np.asarray(rows),
        samples=samples,
        said=said,
        cut_rows=np.asarray(cut_rows),
        most_parts=max(len({str(shard.index) for shard in leaf.global_shards}) for leaf in jax.tree.leaves(cut.params)),
        **{f"cut_{index}": distributed.whole(leaf) for index, leaf in enumerate(jax.tree.leaves(cut.params))},
        **{f"shards_{index}": leaf for index, leaf in enumerate(shards)},
        **{f"read_back_{index}": np.asarray(leaf) for index, leaf in enumerate(read_back)},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
