"""Compiled programs kept on disk: a command that starts again, or resumes a run, does not compile again.

They lie in JAX_COMPILATION_CACHE_DIR, by default ~/.cache/cfgjax/compilations, a folder for each machine, since a CPU's
programs are made for its instructions. JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
"""

import os
import platform
from pathlib import Path


def keep() -> None:
    """Names the folder to JAX, unless the environment does; before jax is imported."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(caches / "cfgjax" / "compilations" / platform.node())
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
