"""Compiled programs kept on disk: a command that starts again, or resumes a run, does not compile again.

They lie in JAX_COMPILATION_CACHE_DIR, by default ~/.cache/cfgjax/compilations, a folder for each machine, since a CPU's
programs are made for its instructions. JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
"""

import os
import platform
from pathlib import Path
from typing import Any

_COMPILED, _KEPT = "/jax/core/compile/backend_compile_duration", "/jax/compilation_cache/cache_hits"
"""Events of jax.monitoring."""


def enable() -> None:
    """Names the folder to JAX, unless the environment does; before jax is imported.

    Small programs are kept, too: a command has some hundreds, and reading one takes less than compiling it.
    """
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(caches / "cfgjax" / "compilations" / platform.node())


class Seen:
    """How many programs were compiled since it was made, in how long, and how many were read from the folder."""

    def __init__(self) -> None:
        import jax.monitoring  # after keep(), which must come before

        self.count, self.kept, self.seconds = 0, 0, 0.0
        self._monitoring = jax.monitoring
        jax.monitoring.register_event_listener(self._event)
        jax.monitoring.register_event_duration_secs_listener(self._duration)

    def _event(self, event: str, **_: Any) -> None:
        self.kept += event == _KEPT

    def _duration(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILED:
            self.count, self.seconds = self.count + 1, self.seconds + duration_secs

    def stop(self) -> None:
        """Counts no more."""
        self._monitoring.unregister_event_listener(self._event)
        self._monitoring.unregister_event_duration_listener(self._duration)

    def __str__(self) -> str:
        import jax

        devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        compiled = (
            f"{self.count} programs compiled in {self.seconds:.1f} s, {self.kept} of them read from the kept ones"
        )
        return f"{devices}; jax {jax.__version__}; {compiled}"
