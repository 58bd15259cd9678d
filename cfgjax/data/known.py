"""The data sets that tensorflow-datasets knows by name."""

from __future__ import annotations

from typing import Any, cast

from cfgjax.data.untrusted import DataError


def registered(name: str) -> Any:
    """The class of a data set that tfds knows.

    Raises:
        DataError: it knows none of this name, or none of this configuration.
    """
    import tensorflow_datasets as tfds

    family, _, config = name.partition("/")
    try:
        found = cast(Any, tfds.builder_cls(family))
    except (tfds.core.registered.DatasetNotFoundError, ValueError):
        raise DataError(
            f"tensorflow-datasets knows no data set {name!r}; for a folder of pictures of your own give --source, "
            "and latents are a folder of that name in data_dir"
        ) from None
    configs = [settings.name for settings in found.BUILDER_CONFIGS]
    if (config or configs) and config not in configs:
        known = ", ".join(f"{family}/{one}" for one in configs) or family
        raise DataError(f"data set {name!r} has no such configuration; known: {known}")
    return found


def urls_of(name: str) -> str:
    """Where a data set's files come from, for a message; nothing where tensorflow-datasets does not know it."""
    try:
        urls = sorted(registered(name).url_infos)
    except DataError:
        return ""
    shown = " ".join(urls[:4]) + (" ..." if len(urls) > 4 else "")
    return f" (it is made of {shown})" if urls else ""
