"""Draw samples of a run: as one picture, one for each, the numbers, or an animation of how they came about.

For example: python -m experiments.sample runs/digits --labels 3 3 7 --scale 2.5 --num-samples 64 --out threes.png
or: python -m experiments.sample runs/described_digits --prompt "a bold three leaning right" --negative thin --scale 3

The suffix of --out says which: .png one picture of all; a path that ends in a slash, or an empty folder: a .png for
each; .npz arrays x and y, of pictures arr_0, too; with --trajectory .gif, .apng or .npz. The run's folder is all that
is read. Each file says how it was made: python -m experiments.provenance threes.png
"""

from functools import partial
from pathlib import Path

import numpy as np

from cfgjax import data
from cfgjax.types import Tree
from experiments.cli import main as cli
from experiments.config.samplers import JUMPS, denoised, make_draw, num_evaluations, one_sided, states
from experiments.run.autoencoder import decoder_of
from experiments.run.batch_sampling import draw_all
from experiments.run.restore import restore_field
from experiments.sample import output
from experiments.sample.guided import jumps_of, rule_of, steps_of
from experiments.sample.options import NUMBER_BYTES, Options, SampleOptions, require_in_range
from experiments.tasks import texts
from experiments.tasks.conditions import Conditions, asked_for, count_of, in_turn, take, unasked
from experiments.tasks.latent_pictures import warn_of_other_weights
from experiments.tasks.latents import decoded_facts


def _conditions(which: SampleOptions, known: Conditions) -> Tree:
    """The condition of each sample; by default those of the run's report in turn."""
    asked = asked_for(known, {"labels": which.labels, "prompt": which.prompt, "properties": which.properties})
    chosen = unasked(known) if asked is None else asked
    num_samples = which.num_samples or count_of(chosen)
    data.check_memory("num_samples", NUMBER_BYTES * num_samples)
    return in_turn(chosen, num_samples)


def sample(options: Options) -> None:
    """Draws the samples and writes them."""
    require_in_range(options)
    output.require_writable(options.output)
    tokenizer_of = partial(texts.loaded, name=options.run.tokenizer)
    run = restore_field(options.run_dir, options.run.data_dir, options.run.ema_width, tokenizer_of)
    conditions = _conditions(options.sample, run.task.conditions)
    count = count_of(conditions)
    rule = rule_of(options.guidance, run, conditions, options.run.data_dir)

    solver, ts = steps_of(options.solver, options.guidance, run)
    jumps = jumps_of(options.guidance, run) if solver in JUMPS else None
    path, shape, scale = run.path, run.task.shape, options.guidance.scale
    num_frames = len(ts) if options.output.trajectory else 1
    weights, task = options.run.autoencoder, run.task
    decoder = None if weights is None else decoder_of(weights, task.shape, task.scaling)
    if decoder is not None:
        warn_of_other_weights(run.experiment, decoder)
    shown = run.task if decoder is None else decoded_facts(run.task, decoder)
    output.require_room(options.output, shown, count, num_frames)
    watches = {"state": states, "denoised": denoised(path)}
    watch = watches[options.output.show] if options.output.trajectory else None
    draw = make_draw(one_sided(rule(lambda field: field), scale), path, shape, solver, ts, watch, jumps)

    nfe = num_evaluations(rule, run.field, path, shape, solver, ts, scale, take(conditions, np.array(0)))
    cost = "" if nfe is None else f" ({nfe} evaluation{'s' if nfe > 1 else ''} each)"
    (samples,) = draw_all(draw, options.sample.seed, conditions, (scale,), options.sample.chunk, f"sampling{cost}")
    samples = samples if decoder is None else decoder.decode_all(samples)
    output.write(options.output, run._replace(task=shown), samples, conditions, num_frames)
    frames = f", {num_frames} frames" if options.output.trajectory else ""
    print(f"wrote {len(samples)} samples at w = {scale:g}{cost}{frames} to {Path(options.output.out)}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(sample, Options, "experiments.sample", __doc__, args)


if __name__ == "__main__":
    main()
