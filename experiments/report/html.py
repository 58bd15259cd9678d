"""Tables of a page: whatever JSON the files of a run hold becomes rows of short texts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.report.read_run import is_number

MOST_ROWS, MOST_COLUMNS, MOST_LETTERS, MOST_LEAVES = 200, 24, 300, 9
SHARES = frozenset(
    {"recognised", "precision", "recall", "coverage", "copies", "accuracy", "recogniser_test_accuracy", "words"}
)
"""Numbers that are shown in percent."""
TITLES = {
    "samples": "Samples by guidance scale",
    "at_equal_recognition": "Guidances at equal recognition",
    "by_time": "By time (0 noise, 1 data)",
    "relative_error_by_time": "Relative error of the field by time (0 noise, 1 data)",
    "guided_label_0": "Guided samples of label 0",
    "residuals": "Residuals by time (0 noise, 1 data)",
    "words_met": "Right classes, words met, of all and of each property, and copies",
    "property_errors": "Root mean square errors of the properties asked, in standard deviations",
}
HEADS = {"scale": "w", "frechet": "Fréchet", "t": "t"}


class Table(NamedTuple):
    """A table with a caption; the first cell of each row is its head."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def _is_plain(value: Any) -> bool:
    """Whether it fits a cell: no object, and no more than a small matrix."""
    if isinstance(value, list):
        rows = [row if isinstance(row, list) else [row] for row in value]
        leaves = [one for row in rows for one in row]
        return len(leaves) <= MOST_LEAVES and not any(isinstance(one, dict | list) for one in leaves)
    return not isinstance(value, dict)


def text_of(value: Any, name: str = "") -> str:
    """A value as a short text.

    >>> text_of(0.123456), text_of(0.5, "coverage"), text_of([[1, 2], [3, 4]]), text_of(None)
    ('0.1235', '50.0 %', '1, 2; 3, 4', '–')
    """
    if value is None or value in ([], ()):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if is_number(value) and name in SHARES and abs(value) <= 1:
        return f"{100 * value:.1f} %"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple) and not any(isinstance(one, dict | list | tuple) for one in value):
        text = ", ".join(text_of(one) for one in value)
    elif isinstance(value, list) and _is_plain(value):
        text = "; ".join(text_of(row) for row in value)
    else:
        text = value if isinstance(value, str) else _as_json(value)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, default=str)
    except RecursionError:
        return "…"


def words_of(name: str) -> str:
    """A name as words."""
    return HEADS.get(name, name.replace("_", " "))


def _of_objects(title: str, rows: Sequence[Any]) -> Table | None:
    """What fits cells of a list of objects."""
    found = [row for row in rows if isinstance(row, dict)]
    names = list(dict.fromkeys(name for row in found for name, value in row.items() if _is_plain(value)))
    names = names[:MOST_COLUMNS]
    if not names:
        return None
    cells = [[text_of(row.get(name), name) for name in names] for row in found]
    return Table(title, [words_of(name) for name in names], cells[:MOST_ROWS])


def _of_columns(title: str, columns: Mapping[str, Any]) -> Table | None:
    """Lists of numbers of one length, side by side."""
    lists = {name: values for name, values in columns.items() if isinstance(values, list)}
    if not lists or len(lists) < len(columns) or len({len(values) for values in lists.values()}) != 1:
        return None
    names = list(lists)[:MOST_COLUMNS]
    cells = [[text_of(value) for value in row] for row in zip(*(lists[name] for name in names), strict=True)]
    return Table(title, [words_of(name) for name in names], cells[:MOST_ROWS])


def by_class(rows: Sequence[Any]) -> list[Table]:
    """The accuracy of each requested class: for each rule a row for each label, a column for each scale."""
    found = [row for row in rows if isinstance(row, dict) and isinstance(row.get("by_label"), list)]
    rules: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        rules.setdefault(", ".join(text_of(row.get(name)) for name in ("guidance", "solver")), []).append(row)
    return [_class_accuracy(rule, own[:MOST_COLUMNS]) for rule, own in list(rules.items())[:MOST_COLUMNS]]


def _class_accuracy(rule: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    cells: dict[str, list[str]] = {}
    for row in rows:
        for one in (one for one in row["by_label"] if isinstance(one, dict)):
            label = f"{text_of(one.get('label'))} {text_of(one.get('name', ''))}".rstrip()
            cells.setdefault(label, []).append(text_of(one.get("recognised"), "recognised"))
    columns = ["label", *(f"w = {text_of(row.get('scale'))}" for row in rows)]
    whole = [[label, *values] for label, values in cells.items() if len(values) == len(rows)]
    return Table(f"Class accuracy by requested label: {rule}", columns, whole[:MOST_ROWS])


def of_metrics(metrics: Mapping[str, Any]) -> tuple[dict[str, str], list[Table]]:
    """The single numbers of metrics.json by name, and its tables."""
    single: dict[str, str] = {}
    tables: list[Table | None] = []
    for name, value in metrics.items():
        title = TITLES.get(name, words_of(name))
        if isinstance(value, list) and any(isinstance(one, dict) for one in value):
            tables.append(_of_objects(title, value))
        elif isinstance(value, dict) and (table := _of_columns(title, value)) is not None:
            tables.append(table)
        elif isinstance(value, dict):
            single |= {f"{words_of(name)}, {words_of(key)}": text_of(its, key) for key, its in value.items()}
        elif value not in ([], {}):
            single[words_of(name)] = text_of(value, name)
    samples = metrics.get("samples")
    tables += by_class(samples) if isinstance(samples, list) else []
    return dict(list(single.items())[:MOST_ROWS]), [table for table in tables if table is not None]
