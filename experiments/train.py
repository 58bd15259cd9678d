"""Train a preset, sample it by ODE and by SDE, and measure it.

The run folder receives config.json, metrics.jsonl (a line every log_every steps), checkpoints/, samples.png and
metrics.json; python -m experiments.report makes one page of them. A folder that already holds this run is resumed from
its newest whole checkpoint, to the same end.
Exit codes: 0 done, 1 a bug, 2 a mistake or a full disk, 3 losses not finite, 75 asked to stop by SIGTERM, SIGINT or
SIGUSR1 and saved, 76 one of several processes failed (after 75 and 76 start it again to go on).

python -m experiments.presets tells what each preset needs and reaches; python -m experiments.train digits --help all
that can be set. For example: python -m experiments.train digits --num-steps 1000 --run-dir runs/short
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cfgjax.models import pretrained
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.history import Which
from experiments.config.schema import Experiment
from experiments.evaluation.options import EvaluationOptions
from experiments.evaluation.run_report import report
from experiments.presets.registry import PRESETS, summary
from experiments.run import continuation, launches, teacher
from experiments.run import folder as run_folder
from experiments.run.autoencoder import decoder_of
from experiments.run.compared import require_same_start
from experiments.run.decoder import Decoder
from experiments.run.fit import owned_folder, prepare, resume_and_train
from experiments.run.loop import Trainer
from experiments.run.trackers import Tracking
from experiments.runtime import distributed, peers
from experiments.runtime.distributed import Launch
from experiments.runtime.heartbeats import GRACE
from experiments.runtime.signals import StopRequests
from experiments.tasks import texts
from experiments.tasks.latent_pictures import warn_of_other_weights


@dataclass(frozen=True)
class Options:
    """A run, and how it is started."""

    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    launch: Annotated[Launch, tyro.conf.OmitArgPrefixes] = field(default_factory=Launch)
    tracking: Annotated[Tracking, tyro.conf.OmitArgPrefixes] = field(default_factory=Tracking)
    accept: Annotated[tuple[run_folder.Accepted, ...], optional("[{data,num_steps} ...]", "nothing")] = ()
    """Go on with the run in the folder although its data, or its number of steps, are not those it began with."""
    source: Annotated[Path | None, optional("RUN_OR_FILE", "parameters drawn by the seed", "from")] = None
    """A run, or a safetensors file of published weights, with whose parameters a new run begins, at step 0 with a new
    optimizer: of the same network, path, objective and shape; where labels or conditions differ, what embeds them is
    drawn by the seed."""
    from_parameters: Which = "ema"
    """Which parameters of that run: their moving average, or themselves."""
    from_kind: Annotated[str | None, optional(f"{{{','.join(pretrained.KINDS)}}}", "it is a run")] = None
    """Whose weights the file holds, as for experiments.convert_weights."""
    teacher: Annotated[Path | None, optional("RUN", "the preset's, or none")] = None
    """Of a preset with guidance inside, such as digits_flow_map: the run whose guided field it learns, on the same data
    and path; a run of the same network begins with its parameters. exact is the exact field of a mixture."""
    autoencoder: Annotated[Path | None, optional("PATH", "latents as they are")] = None
    """Of a run of latents: the autoencoder that makes pictures of them, weights in diffusers' layout or a run."""
    debug_nans: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """End at the first loss or gradient that is not finite, and name the first operation that gave NaN or infinity."""


def _decoder_of(file: Path | None, trainer: Trainer) -> Decoder | None:
    """The decoder of what the run draws; says what to add where an earlier start had one."""
    task, run_dir = trainer.task, trainer.experiment.run_dir
    if file is not None:
        decoder = decoder_of(file, task.shape, task.scaling)
        warn_of_other_weights(trainer.experiment, decoder)
        return decoder
    if task.scaling is not None and launches.last_autoencoder(run_dir) is not None:
        cli.info(f"samples will be kept as latents; {launches.autoencoder_hint(run_dir)}")
    return None


def _named(options: Options) -> tuple[Experiment, texts.Tokenizer | None]:
    """The experiment with what it begins with and its teacher, and what reads its texts, as the command line has them.

    Raises:
        UserError: options that do not belong together, or name what is not there.
    """
    experiment, source = options.experiment, options.source
    if source is None and options.from_kind is not None:
        raise UserError("from_kind is for a file of weights: name it with --from")
    if source is None and options.from_parameters != "ema":
        raise UserError("from_parameters is for the parameters of a run: name it with --from")
    if source is not None:
        experiment = continuation.with_source(experiment, source, options.from_parameters, options.from_kind)
    if options.teacher is not None:
        experiment = teacher.named(experiment, options.teacher)
    return experiment, texts.named(experiment)


def train(options: Options) -> None:
    """Trains, or resumes, the experiment and writes its report."""
    run_dir = options.experiment.run_dir
    with StopRequests() as requests:
        with requests.deferred():  # once they have joined, what ends one process ends all
            distributed.start(options.launch, lambda: requests.end_overdue(GRACE))
        require_same_start(options)
        experiment, tokenizer = distributed.agree(lambda: _named(options))
        trainer = prepare(experiment, options.debug_nans, options.tracking, options.accept, tokenizer)
        trainer = trainer._replace(decoder=_decoder_of(options.autoencoder, trainer))
        with owned_folder(run_dir) as lease, distributed.own_folder(run_dir) as folder:
            run = resume_and_train(trainer, lease, requests, cli.line(), options.accept)
            peers.doing("writing the report")
            report(run, folder, EvaluationOptions(decoder=trainer.decoder))


def main(args: list[str] | None = None) -> None:
    """The command line."""
    presets = {name: (summary(name), Options(preset)) for name, (_, preset) in PRESETS.items()}
    cli.main(train, Options, "experiments.train", __doc__, args, presets)


if __name__ == "__main__":
    main()
