"""Words: what has one name in this repository is not called by an older one, in code, prose or names of files."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SUFFIXES = {".py", ".md", ".cfg", ".toml", ".html", ".cff"}
ON_PURPOSE = {
    "experiments/config/renamed.py",  # opens run folders that hold them
    "tests/experiments/test_older_runs.py",
    "tests/repo/test_words.py",
    "CHANGELOG.md",
    "cfgjax/mixtures/labelled.py",  # keeps one for code outside
}

INSTEAD = {
    r"by_piece": "piecewise",
    r"remembering": "with_field_state",
    r"rematerialised": "remat",
    r"warming_decay": "ema_warmup",
    r"power_decay": "power_function_decay",
    r"fully_sharded": "fsdp",
    r"cut over (?:the |its |all )?devices": "sharded over devices",
    r"zero_star": "cfg_zero_star",
    r"zero_before": "zero_init",
    r"dynamically_clipped": "dynamic_threshold",
    r"one_plus": "from_zero_based_scale",
    r"between_labels": "interpolate_conditions",
    r"with_points": "insert_times",
    r"with_last_step": "with_final_step",
    r"is_of_family": "is_mnist_like",
    r"set_aside": "quarantine",
    r"copy_fraction": "memorization_rate",
    r"kernel_distance": "kernel_mmd",
    r"sine_positions": "sincos_positions",
    r"like_state": "output_like_x",
    r"require_place": "require_pathlike",
    r"require_text": "require_str",
    r"read_to_the_end": "tolerate_broken_pipe",
    r"plan_of": "plan_batching",
    r"on_first": "on_process_0",
    r"all_say": "all_true",
    r"any_says": "any_true",
    r"contestants?": "implementation",
    r"competitors": "implementations",
    r"exhibits?": "GalleryRow",
    r"soak": "endurance",
    r"perceptrons?": "MLP",
    r"one coin": "an independent Bernoulli draw",
    r"whole numbers?": "integer",
    r"to the bit": "bitwise",
    r"numbers? of python": "Python scalar",
    r"at the door": "argument checks",
    r"strangers?": "untrusted",
    r"num_labels": "num_classes",
    r"num_chunks": "num_microbatches",
    r"most_not_finite": "max_consecutive_nonfinite",
    r"time_ends": "time_range",
}
OLD = {re.compile(rf"(?<![a-z0-9]){old}(?![a-z0-9])", re.IGNORECASE): new for old, new in INSTEAD.items()}
IN_FULL = ("zero_star", "cfg_zero_star")
"""A new name that ends in the old one."""


def _old_words(text):
    """(old, new) for each old word of a text."""
    text = text.replace(IN_FULL[1], "")
    return [(found[0], new) for old, new in OLD.items() for found in old.finditer(text)]


def _files():
    """The repository's own text files; findings speak of other libraries, notebooks' outputs are built."""
    roots = [ROOT / name for name in ("cfgjax", "docs", "experiments", "tests")]
    found = [*ROOT.glob("*.*"), *(file for root in roots for file in root.rglob("*"))]
    texts = [file for file in found if file.suffix in SUFFIXES and file.is_file()]
    return [file for file in texts if file.relative_to(ROOT).as_posix() not in ON_PURPOSE]


def test_nothing_has_an_older_name():
    files, wrong = _files(), []
    assert len(files) > 300
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        for number, line in enumerate([name, *file.read_text(encoding="utf-8").splitlines()]):
            wrong += [f"{name}:{number}: {old}, now {new}" for old, new in _old_words(line)]
    assert not wrong, "\n".join(wrong)


def test_an_older_name_is_found():
    assert _old_words("def by_piece(f):") == [("by_piece", "piecewise")]
    assert _old_words("`_set_aside` and NUM_LABELS") == [("set_aside", "quarantine"), ("NUM_LABELS", "num_classes")]
    assert _old_words("A state cut over all devices") == [("cut over all devices", "sharded over devices")]
    assert _old_words("cfg_zero_star, with_points2, plan_batching, to the same bits") == []
