"""Sample a finished (or running) run again and measure it: the curves of fidelity and coverage against w.

Reads the run's last checkpoint; writes samples.png, curves.png, curves.csv and metrics.json into --out, by default
RUN/evaluation. Distances are over the features of a classifier trained here on the real training set, or your own; one
that is not there yet is kept only where --data-dir is given: no folder that a config alone names is written to.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.cli import main as cli
from experiments.cli.functions import load_function
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.samplers import JUMP, ODE, SDE, SOLVERS, SolverName
from experiments.config.schema import Sampling
from experiments.evaluation.feature_classifier import Features
from experiments.evaluation.frechet import FrechetMeasure
from experiments.evaluation.inception import INCEPTION, Convention, frechet_measure
from experiments.evaluation.options import EvaluationOptions
from experiments.evaluation.run_report import report
from experiments.run import folder as run_folder
from experiments.run.autoencoder import decoder_of
from experiments.run.compared import require_same_data, require_same_start
from experiments.run.decoder import Decoder
from experiments.run.require_trained import require_rows, require_scales, require_solver
from experiments.run.restore import Run, classifier_for, restore_run
from experiments.runtime import distributed, peers
from experiments.runtime.distributed import Launch
from experiments.tasks.latent_pictures import warn_of_other_weights
from experiments.tasks.task import Task

OWN = "the run's own"


@dataclass(frozen=True)
class SampleOptions:
    """Which samples are drawn."""

    scales: Annotated[tuple[float, ...] | None, optional("FLOAT [FLOAT ...]", OWN)] = None
    """Guidance scales w: 0 null, 1 labelled, above 1 guided."""
    solver: Annotated[tuple[SolverName, ...], optional("NAME [NAME ...]", f"{ODE} {SDE}; {JUMP} of a flow map")] = ()
    """Solvers to sample with, as experiments.sample: the stochastic ones by the SDE with sigma_t^2 = 2 beta_t."""
    reuse: Annotated[int | None, optional("INT", "every evaluation is made")] = None
    """Evaluate the null field at the start of each so many-th step alone, as experiments.sample."""
    num_steps: Annotated[int | None, optional("INT", OWN)] = None
    """Solver steps from noise to data."""
    num_per_class: Annotated[int | None, optional("INT", OWN)] = None
    """Samples of each label, for each scale and solver."""
    seed: Annotated[int | None, optional("INT", OWN)] = None
    """Seed of the samples."""
    chunk: Annotated[int | None, optional("INT", "as many as the device's memory is quick with")] = None
    """Samples computed together."""


@dataclass(frozen=True)
class MeasureOptions:
    """What is measured beyond fidelity and coverage, and by what."""

    classifier: Annotated[Path | None, optional("FOLDER", "classifier-free alone")] = None
    """Folder of a run of a noisy classifier: guide the null field by it, too, and compare."""
    classifier_scales: Annotated[tuple[float, ...] | None, optional("FLOAT [FLOAT ...]", "those of --scales")] = None
    """Guidance scales of the classifier."""
    likelihood: int = 0
    """Held-out images whose bits per dimension are measured, labelled and null: 0, or at least 2."""
    autoencoder: Annotated[Path | None, optional("PATH", "latents alone")] = None
    """Of a run of latents: the autoencoder that makes pictures of them, weights in diffusers' layout or a run."""
    features: Annotated[str | None, optional("MODULE:FUNCTION", "the feature classifier's")] = None
    """The space of distances: a function of your own, images [n, H, W, C] in [-1, 1] -> [n, d]; inception is FID's."""
    weights: Annotated[Path | None, optional("FILE", "none")] = None
    """Of FID's Inception, or what your function makes one of pictures of: further Frechet distances, such as FID."""
    reference: Annotated[Path | None, optional("FILE", "the run's training pictures")] = None
    """What these compare with: .npz of pictures, arr_0, or of statistics, mu and sigma, as ADM's evaluator reads."""
    convention: Annotated[Convention | None, optional("NAME", "both")] = None
    """How FID resizes: tensorflow, as ADM's evaluator and torch-fidelity do, or pytorch_fid."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    ema_width: Annotated[float | None, optional("FLOAT", "the run's own average")] = None
    """Relative width of the moving average of the parameters, made of the run's snapshots."""
    data_dir: Annotated[Path | None, optional("FOLDER", OWN)] = None
    """Folder of prepared data sets; a feature classifier that is trained now is kept there only if it is named."""
    tokenizer: Annotated[str | None, optional("MODULE:FUNCTION", "none")] = None
    """What reads texts, of a run that was trained with one: text -> integers [n] or numbers [n, d]."""
    out: Annotated[Path | None, optional("FOLDER", "RUN/evaluation")] = None
    """Folder for the results."""
    samples: Annotated[SampleOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=SampleOptions)
    measures: Annotated[MeasureOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=MeasureOptions)
    launch: Annotated[Launch, tyro.conf.OmitArgPrefixes] = field(default_factory=Launch)


def _require_weights(measures: MeasureOptions) -> None:
    """Raises UserError for options of Frechet distances that do not belong together."""
    if measures.features == INCEPTION and measures.weights is None:
        raise UserError("features inception needs --weights FILE; docs/published_weights.md says how to get it")
    if measures.weights is not None and measures.features is None:
        raise UserError("weights need --features inception, or a function of your own")
    if measures.reference is not None and measures.weights is None:
        raise UserError("reference needs --features and --weights")
    if measures.convention is not None and measures.features != INCEPTION:
        raise UserError("convention needs --features inception")


def _require_guidance(options: Options, run: Run[Task]) -> None:
    """Raises UserError for a solver, or a guidance, that is not for what the run learned."""
    for solver in options.samples.solver:
        require_solver(run, solver)
    if run.task.objective.is_guided and options.measures.classifier is not None:
        raise UserError(f"classifier must be left out: guidance is inside the network of {options.run_dir}")
    _require_reuse(options, run)


def _require_reuse(options: Options, run: Run[Task]) -> None:
    """Raises UserError for a reuse that is none, or of what has no null field."""
    reuse = options.samples.reuse
    if reuse is None:
        return
    if reuse < 1:
        raise UserError(f"reuse must be at least 1, got {reuse}")
    if run.task.objective.is_guided or not run.task.objective.is_field:
        raise UserError(f"reuse needs a labelled and a null field: {options.run_dir} has no such two")
    if not {*options.samples.solver} <= SOLVERS.keys():
        raise UserError(f"reuse must be left out for the solvers {', '.join(options.samples.solver)}")


def _require_usable(options: Options, run: Run[Task]) -> None:
    measures = options.measures
    _require_guidance(options, run)
    _require_weights(measures)
    if measures.likelihood < 0 or measures.likelihood == 1:
        raise UserError(f"likelihood must be 0, or at least 2 images, got {measures.likelihood}")
    if measures.classifier is None and measures.classifier_scales is not None:
        raise UserError("classifier_scales need a --classifier")
    has_features = measures.features is not None and measures.autoencoder is None
    if not run.task.measures_images and (measures.likelihood or measures.classifier or has_features):
        hint = "; of latents features need --autoencoder" if run.task.scaling else ""
        wanted = "likelihood, classifier and features need a run on labelled pictures"
        raise UserError(f"{wanted}, not {options.run_dir}{hint}")
    if options.samples.scales is not None and run.task.objective.is_field:
        require_scales(run, options.samples.scales)
    if measures.classifier:
        require_rows(run, (run.task.num_classes,), "classifier")
    if measures.likelihood:
        require_rows(run, (*run.task.labels, run.task.num_classes), "likelihood")


def _decoder_of(file: Path | None, run: Run[Task]) -> Decoder | None:
    if file is None:
        return None
    decoder = decoder_of(file, run.task.shape, run.task.scaling)
    warn_of_other_weights(run.experiment, decoder)
    return decoder


def _spaces_of(measures: MeasureOptions, shape: tuple[int, ...]) -> tuple[Features | None, FrechetMeasure | None]:
    """The space of all distances between pictures of a shape, and with weights that of further Frechet distances."""
    name = None if measures.features == INCEPTION else measures.features
    own = None if name is None else load_function("features", name)
    if measures.weights is None:
        return own, None
    if shape[-1] not in (1, 3):
        raise UserError(f"features with --weights need pictures of 1 or 3 channels, the run's are {shape}")
    return None, frechet_measure(own or INCEPTION, measures.weights, measures.reference, measures.convention)


def _evaluation_options(options: Options, run: Run[Task]) -> EvaluationOptions:
    _require_usable(options, run)
    measures = options.measures
    if measures.classifier_scales is not None:
        _with_sampling(run, scales=measures.classifier_scales)
    decoder = _decoder_of(measures.autoencoder, run)
    features, frechet = _spaces_of(measures, run.task.shape if decoder is None else decoder.shape)
    return EvaluationOptions(
        solvers=options.samples.solver,
        reuse=options.samples.reuse,
        log_classifier=None
        if measures.classifier is None
        else classifier_for(run, restore_run(measures.classifier, options.data_dir)),
        classifier_scales=measures.classifier_scales,
        num_likelihoods=measures.likelihood,
        decoder=decoder,
        features=features,
        frechet=frechet,
        is_kept=options.data_dir is not None,
    )


def _with_sampling(run: Run[Task], **chosen: Any) -> Run[Task]:
    """The run with some settings of its sampling replaced, once they are found in range."""
    sampling = dataclasses.replace(run.experiment.sampling, **chosen)
    return run._replace(experiment=run_folder.validate(dataclasses.replace(run.experiment, sampling=sampling)))


def evaluate(options: Options) -> None:
    """Measures the run and writes the report."""
    distributed.start(options.launch)
    require_same_start(options)
    wanted = {each.name: getattr(options.samples, each.name) for each in dataclasses.fields(Sampling)}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    peers.doing("restoring the run")
    run = restore_run(options.run_dir, options.data_dir, options.ema_width, "measures", options.tokenizer)
    require_same_data(run.experiment, run.task)
    run = _with_sampling(run, **chosen)
    asked = _evaluation_options(options, run)
    out = options.out or options.run_dir / "evaluation"
    distributed.on_process_0(lambda: run_folder.make_folder("out", out))
    peers.doing("writing the report")
    with distributed.own_folder(out) as folder:
        report(run, folder, asked)


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(evaluate, Options, "experiments.evaluate", __doc__, args)


if __name__ == "__main__":
    main()
