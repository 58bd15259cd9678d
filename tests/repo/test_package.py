"""What is built of the sources for others: every module, and the mark that says they have types."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_what_a_wheel_holds(tmp_path):
    """setuptools' own step that gathers a wheel's files."""
    pytest.importorskip("setuptools")
    code = f"import setuptools; setuptools.setup(script_args=['--quiet', 'build_py', '--build-lib', {str(tmp_path)!r}])"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    held = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cfgjax").rglob("*.py")}
    assert held == sources | {"cfgjax/py.typed"}
