"""Solve inverse problems of held-out pictures: fill in, enlarge or sharpen them, by a run's field and a measurement.

Of each picture pixels, means of squares of them, or a blur are measured, with noise; what it may have been is drawn by
the guided field and a method of cfgjax.steering. Is it near to the truth, as the measurement says, of the right class?
Writes inverse.png and results.json into --out.
For example: python -m experiments.solve_inverse runs/digits --task inpaint --scale 1 2 3
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.config.samplers import one_sided, times
from experiments.evaluation.feature_classifier import FeatureClassifier, feature_classifier_of
from experiments.evaluation.measurable import finite
from experiments.run import folder as run_folder
from experiments.run import launches, provenance
from experiments.run.batch_sampling import draw_all
from experiments.run.drafts import whole_file
from experiments.run.require_trained import require_scales
from experiments.run.restore import Run, restore_run
from experiments.solve_inverse.figure import figure
from experiments.solve_inverse.measures import agreement, measures
from experiments.solve_inverse.methods import Steer, cost_of, make_draw, require_fitting, rule_of, steer_of
from experiments.solve_inverse.options import Options, require_in_range, scales_of
from experiments.solve_inverse.problems import Problems, operator_of, problems_of
from experiments.tasks import images
from experiments.tasks.registry import image_data_of
from experiments.tasks.task import Task

_COLUMNS = {
    "scale": "g", "psnr": ".2f", "psnr_of_mean": ".2f", "consistency": ".2f", "residual": ".3f", "deviation": ".3f",
    "recognised": ".1%", "evaluations": "d", "products": "d",
}  # fmt: skip


def _restored(options: Options) -> Run[Task]:
    """The run, of pictures and with a field that knows the scales."""
    image_data_of(run_folder.read_config(options.run_dir))
    run = restore_run(options.run_dir, options.data_dir, options.ema_width, "measures")
    if not run.task.objective.is_field:
        raise UserError(f"run_dir {options.run_dir} holds {run.task.objective.without_samples}")
    require_scales(run, scales_of(options.method))
    return run


def _classifier_of(run: Run[Task], is_kept: bool) -> FeatureClassifier | None:
    experiment, settings = run.experiment, image_data_of(run.experiment)
    train, test = images.load_train(experiment, settings), images.load_test(experiment, settings)
    return feature_classifier_of(settings, experiment.data_dir, train, test, is_kept)


def draw(run: Run[Task], problems: Problems, steer: Steer, options: Options) -> np.ndarray:
    """Samples [scales, n, S, H, W, C], S of each of n pictures, by one program for all scales."""
    method, scales, count = options.method, scales_of(options.method), options.problem.num_samples
    rule = rule_of(run)(lambda field: field)
    rule = one_sided(rule, scales[0]) if len(scales) == 1 else rule
    one = make_draw(rule, steer, problems, times(run.path, method.num_steps))
    asked = np.repeat(problems.label, count), np.repeat(problems.value, count, axis=0)
    samples = draw_all(one, method.seed, asked, scales, method.chunk, f"sampling by {method.rule}")
    return samples.reshape(len(scales), len(problems.label), count, *problems.truth.shape[1:])


def _line(row: dict[str, Any] | None) -> str:
    """A row under the names of its columns; without a row these."""
    if row is None:
        return "".join(f"{name:>13}" for name in _COLUMNS)
    return "".join(f"{row[name]:>13{form}}" if name in row else f"{'-':>13}" for name, form in _COLUMNS.items())


def _write(run: Run[Task], out: Path, results: dict[str, Any], problems: Problems, samples: np.ndarray) -> None:
    """Writes results.json and inverse.png."""
    settings, name = results["settings"], image_data_of(run.experiment).name
    title = f"{settings['task']} of {name}, noise {settings['noise_std']:g}: {settings['rule']}"
    picture = figure(problems, samples, [row["scale"] for row in results["rows"]], run.task.label_texts, title)
    with whole_file(out / "inverse.png") as temporary:
        picture.savefig(temporary, format="png", dpi=100, metadata=dict(provenance.of_run(run)))
    run_folder.write_atomically(out / "results.json", json.dumps(results, indent=2) + "\n")


def solve(options: Options) -> None:
    """Draws of every posterior, measures, and writes."""
    require_in_range(options)
    require_fitting(options.method.rule, options.method.strength, options.problem.noise_std, options.method.solver)
    run, problem, method = _restored(options), options.problem, options.method
    operator = operator_of(problem.task, run.task.shape)
    steer = steer_of(method.rule, run.path, method.solver, method.strength)
    out = run_folder.make_folder("out", options.out or options.run_dir / "inverse")
    test = images.load_test(run.experiment, image_data_of(run.experiment))
    problems = problems_of(operator, test, problem.num_images, problem.noise_std, method.seed)
    classifier = _classifier_of(run, options.data_dir is not None)

    start = time.perf_counter()
    samples, scales = draw(run, problems, steer, options), scales_of(method)
    seconds = time.perf_counter() - start
    ts = times(run.path, method.num_steps)
    costs = [cost_of(run, steer, problems, ts, scale) for scale in scales]
    rows = [
        {"scale": scale} | measures(problems, its, classifier) | cost._asdict()
        for scale, its, cost in zip(scales, samples, costs, strict=True)
    ]
    truth = agreement(problems, problems.truth[:, None], classifier)
    results: dict[str, Any] = {
        "settings": asdict(problem) | asdict(method) | {"run": str(options.run_dir), "step": run.step},
        "rows": rows, "truth": truth, "seconds": round(seconds, 2),
        **launches.devices(), "versions": launches.versions(), "command": cli.line(),
    }  # fmt: skip
    results, _ = finite(results)
    print(_line(None))
    for row in results["rows"]:
        cli.print_result(_line(row))
    _write(run, out, results, problems, samples)
    print(f"wrote inverse.png, results.json in {out}; {seconds:.1f} s of sampling")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(solve, Options, "experiments.solve_inverse", __doc__, args)


if __name__ == "__main__":
    main()
