"""The installed versions of packages, for what a run, a row or a page is said to come from."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def of_packages(names: Iterable[str]) -> dict[str, str]:
    """Those of them that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def with_python(names: Iterable[str]) -> dict[str, str]:
    """Python's version, and those of the packages that are installed."""
    return {"python": platform.python_version()} | of_packages(names)
