"""The noisy classifier in a run's folder."""

from pathlib import Path

from cfgjax.types import LogClassifier
from experiments.cli.main import UserError
from experiments.run.model import path_of_field
from experiments.run.restore import Run, restore_run, warn_of_other_data
from experiments.runtime import distributed
from experiments.tasks.label_names import ranges
from experiments.tasks.task import Reads


def _data_name(run: Run) -> str:
    return getattr(run.experiment.data, "name", "")


def load_classifier(run_dir: Path, guided: Run, data_dir: Path | None, reads: Reads = "all") -> LogClassifier:
    """The noisy classifier in a run folder, restored as by ``restore_run``.

    Raises:
        UserError: a run of something else, or of other data or another path than the guided run's.
    """
    run = restore_run(run_dir, data_dir, reads=reads)
    if run.task.objective.is_field:
        raise UserError(f"classifier {run_dir} holds a run of objective {run.experiment.objective!r}, not a classifier")
    pairs = {
        "data": (_data_name(run), _data_name(guided)),
        "path": (path_of_field(run.experiment), path_of_field(guided.experiment)),
        "shape": (run.task.shape, guided.task.shape),
        "num_classes": (run.task.num_classes, guided.task.num_classes),
    }
    for name, (its, wanted) in pairs.items():
        if its != wanted:
            raise UserError(f"classifier {run_dir} has {name} {its}, the run {wanted}")
    warn_of_other_data("classifier", run, guided)
    if run.task.absent_labels:
        unseen = ranges(run.task.absent_labels)
        distributed.warn(f"warning: classifier {run_dir} never saw the labels {unseen}, and leads away from them")
    return run.log_classifier
