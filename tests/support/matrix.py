"""Run the tests on every combination of Python and SQLAlchemy below whose Python is on this machine.

``make test-matrix`` starts it; arguments are passed on to pytest. It needs nothing but the standard library.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".venv-matrix"

OLDEST = ["SQLAlchemy==2.0.36", "alembic==1.14.0", "transitions==0.9.0"]
LINE_20 = ["SQLAlchemy~=2.0.36"]
LINE_21 = ["SQLAlchemy~=2.1.0"]

ROWS = [
    # Python, name, what is installed with it; 3.11 with SQLAlchemy 2.1 is there for machines whose `make test` is newer
    ("3.11", "oldest", OLDEST),
    ("3.11", "2.1", LINE_21),
    ("3.12", "2.0", LINE_20),
    ("3.12", "2.1", LINE_21),
    ("3.13", "2.0", LINE_20),
    ("3.13", "2.1", LINE_21),
]


def interpreter(version: str) -> str | None:
    """Return a Python of this minor version: from PATH, this very one, or one that pyenv has."""
    candidates = [shutil.which(f"python{version}"), sys.executable]
    pyenv = shutil.which("pyenv")
    if pyenv:
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False).stdout.strip()
        candidates += [str(p) for p in sorted(Path(root, "versions").glob(f"{version}.*/bin/python"), reverse=True)]
    for candidate in filter(None, candidates):
        # A shim of pyenv is on PATH for a version that is not active, and fails when it is run.
        asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
        if found.returncode == 0 and found.stdout.strip() == version:
            return candidate
    return None


def prepare(python: str, version: str, name: str, packages: list[str]) -> Path:
    """Return the Python of the row's virtual environment, made when pyproject.toml or this file is newer."""
    home = HOME / f"python{version}-sqlalchemy-{name}"
    inside = home / "bin" / "python"
    stamp = home / ".ready"
    newest = max(path.stat().st_mtime for path in (ROOT / "pyproject.toml", Path(__file__)))
    if stamp.exists() and stamp.stat().st_mtime > newest:
        return inside
    print(f"==> set-up: {home.relative_to(ROOT)}", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", str(home)], check=True)
    pip = [str(inside), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
    subprocess.run([*pip, "--editable", ".", "--group", "test", *packages], check=True, cwd=ROOT)
    stamp.touch()
    return inside


def main(arguments: list[str]) -> int:
    """Run all rows, also after one that failed; return 1 if any did."""
    outcomes = []
    for version, name, packages in ROWS:
        row = f"Python {version}, SQLAlchemy {name}"
        python = interpreter(version)
        if python is None:
            print(f"==> {row}: skipped, there is no Python {version} here", flush=True)
            outcomes.append((row, "skipped"))
            continue
        start = time.monotonic()
        try:
            inside = prepare(python, version, name, packages)
            print(f"==> {row}: pytest", flush=True)
            code = subprocess.run([str(inside), "-m", "pytest", "--require-backends", *arguments], cwd=ROOT).returncode
        except subprocess.CalledProcessError as error:
            print(f"==> {row}: {error}", flush=True)
            code = 1
        outcomes.append((row, f"{'FAILED' if code else 'passed'} ({time.monotonic() - start:.0f} s)"))
    print("==> test-matrix")
    for row, outcome in outcomes:
        print(f"    {row}: {outcome}")
    return int(any(outcome.startswith("FAILED") for _, outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
