"""What is loaded when, and what happens where a package is not installed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from statekit import StatekitError
from statekit.metrics.listening import needed
from tests.test_import import modules_after

EVERYTHING = "import statekit; [getattr(statekit, name) for name in statekit.__all__]"
METRICS = "import statekit.metrics.prometheus, statekit.metrics.opentelemetry"

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""

CALLS = {
    "prometheus": "from statekit.metrics.prometheus import register as call",
    "opentelemetry": "from statekit.metrics.opentelemetry import instrument as call",
}


@pytest.mark.parametrize("name", ["statekit.metrics", "prometheus_client", "opentelemetry"])
def test_the_package_does_not_load(name: str) -> None:
    assert name not in modules_after(EVERYTHING)


@pytest.mark.parametrize("name", ["prometheus_client", "opentelemetry", "statekit.guards", "sqlalchemy"])
def test_importing_the_metrics_does_not_load(name: str) -> None:
    assert name not in modules_after(METRICS)


def said(script: str) -> str:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize(("extra", "module"), [("prometheus", "prometheus_client"), ("opentelemetry", "opentelemetry")])
class TestWithoutThePackage:
    def test_the_error_says_what_to_install(self, extra: str, module: str) -> None:
        script = f"{HIDE.format(hidden=module)}{CALLS[extra]}\ncall()"
        assert f'which is not installed: pip install "statekit[{extra}]"' in said(script)

    def test_the_error_is_one_of_statekit_and_an_import_error(self, extra: str, module: str) -> None:
        script = (
            f"{HIDE.format(hidden=module)}{CALLS[extra]}\nfrom statekit import StatekitError\n"
            "try:\n    call()\nexcept StatekitError as error:\n    print(isinstance(error, ImportError), error.name)"
        )
        assert said(script) == f"True {module}\n"


def test_another_module_that_is_missing_is_not_blamed_on_the_package() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'not_installed'") as raised:
        with needed("prometheus_client", "prometheus"):
            importlib.import_module("not_installed")
    assert not isinstance(raised.value, StatekitError)
