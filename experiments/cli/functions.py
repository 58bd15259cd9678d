"""Functions of the user's own, named on the command line as MODULE:FUNCTION.

A name that a file tells is never imported: whoever reads a run of another's would run that one's code.
"""

import importlib
from collections.abc import Callable
from typing import Any

from experiments.cli.main import UserError


def load_function(option: str, name: str) -> Callable[..., Any]:
    """The function that an option of the command line names.

    Raises:
        UserError: there is none.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{option} must be MODULE:FUNCTION that imports, got {name!r}: {error}") from None
    if not callable(found):
        raise UserError(f"{option} must be a function, got {name!r}, a {type(found).__name__}")
    return found
