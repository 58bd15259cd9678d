"""A run's folder: config.json, metrics.jsonl, checkpoints/, metrics.json and pictures."""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from cfgjax import checkpoints
from cfgjax.checks import short_repr
from cfgjax.data import DataError, parse_json, read_bounded, require_inside
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.config.renamed import with_new_names
from experiments.config.schema import ADAPTER, MUTABLE, Experiment
from experiments.tasks import digests

T = TypeVar("T")
_MOST_BYTES = 2**22
"""Of config.json."""
_NAMES = "data.label_names"
_OF_THE_DATA = "data.shape", "data.num_classes", _NAMES
"""What a data set tells as well."""
_NOT_COMPARED = MUTABLE | {"data.absent_labels", *digests.NAMES}
"""What follows from the examples is compared by their digests."""
Accepted = Literal["data", "num_steps"]
"""What may differ from a run that is gone on with, once that is asked for."""
_LONGER = ", or --accept num_steps to go on to that step by its learning rates"


def checkpoints_of(run_dir: Path) -> Path:
    """The folder of a run's checkpoints."""
    return run_dir / "checkpoints"


def _misfit(errors: list[Any]) -> tuple[int, int]:
    """How little a kind of data or network is meant by settings that give these errors."""
    return sum(one["type"] in ("missing", "unexpected_keyword_argument") for one in errors), len(errors)


def _complaint(error: ValidationError) -> str:
    """The first mistake, of the kind of data or network that fits best, in one line of bounded length."""
    errors = error.errors()
    rivals = [one for one in errors if one["loc"][:1] == errors[0]["loc"][:1]]
    kinds = [[one for one in rivals if one["loc"][:2] == start] for start in {one["loc"][:2]: 0 for one in rivals}]
    first = min(kinds, key=_misfit)[0]
    where = ".".join(str(part)[:100] for part in first["loc"])
    return f"{where}: {first['msg'][:400]}, got {repr(first['input'])[:200]}" if where else first["msg"][:400]


def validate(options: T) -> T:
    """The dataclass of options itself, once every field is found in its range.

    Raises:
        UserError: a field out of range, named.
    """
    record: Any = options
    try:
        TypeAdapter(type(record)).validate_python(asdict(record))
    except ValidationError as error:
        raise UserError(_complaint(error)) from None
    return options


def read_config(run_dir: Path) -> Experiment:
    """The experiment a run folder was made by; its run_dir is where it was found, whatever is written there.

    Raises:
        UserError: no run there, or a config that does not read, or says what is not allowed.
    """
    file = run_dir / "config.json"
    if not file.exists():
        raise UserError(f"no run in {run_dir}: {file} does not exist; train one with python -m experiments.train")
    try:
        content = read_bounded(require_inside(file, run_dir), _MOST_BYTES)
        settings = with_new_names(parse_json(content))
        found = ADAPTER.validate_json(json.dumps(settings), strict=True)
    except ValidationError as error:
        raise UserError(f"{file} does not read: {_complaint(error)}") from None
    except (ValueError, DataError) as error:
        raise UserError(f"{file} does not read: {error}") from None
    return replace(found, run_dir=run_dir)


def flat(tree: Mapping[str, Any], prefix: str = "", most_levels: int = 4) -> dict[str, Any]:
    """The leaves of nested objects by dotted names; what is nested deeper is a leaf."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        is_inner = isinstance(value, dict) and value and most_levels > 1
        leaves |= flat(value, f"{prefix}{name}.", most_levels - 1) if is_inner else {f"{prefix}{name}": value}
    return leaves


def _compared(experiment: Experiment) -> dict[str, Any]:
    """The settings that must not differ between two starts of a run, by their dotted names."""
    kept = {name: value for name, value in asdict(experiment).items() if name not in MUTABLE}
    return {name: value for name, value in flat(kept).items() if name not in _NOT_COMPARED}


def settings_that_count(experiment: Experiment) -> dict[str, Any]:
    """The settings by which a run's parameters change, by their dotted names: what the data tell changes none."""
    return {name: value for name, value in _compared(experiment).items() if name != _NAMES}


def first_difference(name: str, before: Any, after: Any) -> tuple[str, Any, Any]:
    """Two values that differ, by name: of as many texts the first that do.

    >>> first_difference("label_names", ("cat", "dog"), ("cat", "owl"))
    ('label_names[1]', 'dog', 'owl')
    >>> first_difference("shape", (8, 8, 1), (8, 8, 3))
    ('shape', (8, 8, 1), (8, 8, 3))
    """
    are_texts = all(isinstance(each, tuple) and all(isinstance(one, str) for one in each) for each in (before, after))
    pairs = enumerate(zip(before, after, strict=True)) if are_texts and len(before) == len(after) else ()
    return next(((f"{name}[{index}]", *pair) for index, pair in pairs if pair[0] != pair[1]), (name, before, after))


def _difference(old: Experiment, new: Experiment) -> tuple[str, Any, Any] | None:
    """The first setting in which two runs differ that must not, with its values; facts of the data may be missing."""
    before, after = _compared(old), _compared(new)
    for name in sorted(before.keys() | after.keys()):
        is_missing = name in _OF_THE_DATA and None in (before.get(name), after.get(name))
        if before.get(name) != after.get(name) and not is_missing:
            return first_difference(name, before.get(name), after.get(name))
    return None


def _is_former(old: Experiment, new: Experiment) -> bool:
    """Whether the new experiment knows that up to some step it was as long as the old one."""
    lengths, its = new.former_num_steps, (old.former_num_steps, old.num_steps)
    return any((lengths[:index], total) == its for index, (_, total) in enumerate(lengths))


def _as_long_as(old: Experiment, new: Experiment) -> Experiment:
    """The old experiment, as long as the new one if that knows of its former length."""
    if not _is_former(old, new):
        return old
    return replace(old, num_steps=new.num_steps, former_num_steps=new.former_num_steps)


def _require_same(run_dir: Path, old: Experiment, new: Experiment) -> None:
    if old.preset != new.preset:
        raise UserError(f"run_dir {run_dir} holds a run of preset {old.preset!r}, not {new.preset!r}; pass --run-dir")
    found = _difference(old, new)
    if found is not None:
        name, before, after = found
        is_longer = name == "num_steps" and after > before
        raise UserError(
            f"run_dir {run_dir} holds a run with {name} = {short_repr(before)}, not {short_repr(after)}; "
            f"pass --run-dir for a new run{_LONGER if is_longer else ''}"
        )


def require_same_as_saved(run_dir: Path, experiment: Experiment, saved: Any) -> None:
    """Compares a run's settings with those that lie in its checkpoint.

    Raises:
        UserError: they differ, naming the setting: one of the two was changed by hand, or by a fault.
    """
    try:
        before = ADAPTER.validate_json(json.dumps(with_new_names(saved)), strict=True)
        found = _difference(experiment, _as_long_as(before, experiment))
    except ValidationError as error:
        raise UserError(f"the settings in the checkpoint of {run_dir} do not read: {_complaint(error)}") from None
    if found is not None:
        name, ours, its = found
        raise UserError(
            f"{run_dir / 'config.json'} says {name} = {short_repr(ours)}, its checkpoint {short_repr(its)}; "
            "put the file right"
        )


def _with_digests_of(old: Experiment, new: Experiment, accepted: Collection[Accepted]) -> Experiment:
    """The new experiment, with the fuller one of each digest.

    Raises:
        UserError: its data are others, and that is not accepted.
    """
    changed = digests.changed(old, new)
    if changed and "data" not in accepted:
        raise UserError(f"{changed}; pass --run-dir for a new run, or --accept data to go on with them")
    if changed:
        cli.warn(f"warning: {changed}; they are accepted")
        return new
    if None in digests.recorded(old).values():
        cli.warn(f"warning: {old.run_dir} does not record the data that it began on; from here on it records these")
    return digests.with_fuller(old, new)


def _with_names_of(old: Experiment, new: Experiment) -> Experiment:
    """The new experiment, with the old one's names of labels where it has none."""
    names: dict[str, Any] = {"label_names": getattr(old.data, "label_names", None)}
    has_names = getattr(new.data, "label_names", ()) is not None
    return new if has_names else replace(new, data=replace(new.data, **names))


def open_run(experiment: Experiment, accepted: Collection[Accepted] = ()) -> Path:
    """The run's folder, which must exist, with config.json in it.

    Raises:
        UserError: the folder holds a run of another preset, of other settings, or of other data that are not accepted.
    """
    run_dir = experiment.run_dir
    if (run_dir / "config.json").exists():
        old = read_config(run_dir)
        _require_same(run_dir, _as_long_as(old, experiment), experiment)
        experiment = _with_names_of(old, _with_digests_of(old, experiment, accepted))
    elif checkpoints.all_steps(checkpoints_of(run_dir)):
        raise UserError(f"run_dir {run_dir} holds checkpoints without the config.json of their run; pass --run-dir")
    write_atomically(run_dir / "config.json", ADAPTER.dump_json(experiment, indent=2).decode() + "\n")
    return run_dir


def make_folder(name: str, folder: Path) -> Path:
    """The folder, made if need be.

    Raises:
        UserError: it cannot be made or written, naming the argument.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{name} {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"{name} {folder} cannot be written")
    return folder


def write_atomically(file: Path, text: str) -> None:
    """Writes the file whole or not at all, even where the machine loses its power.

    Raises:
        OSError: it cannot be written; its ``filename`` is the file.
    """
    temporary = file.with_name(file.name + ".draft")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None


def write_metrics(run_dir: Path, metrics: Mapping[str, Any]) -> None:
    """Writes metrics.json."""
    write_atomically(run_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
