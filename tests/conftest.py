"""Fixtures and options shared by all tests."""

import os
import sys
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: results on several threads differ in the last bit

import golden

SHARED = Path(__file__).parents[2] / "shared"
GOLDEN = SHARED / "golden" / "dev"


def pytest_addoption(parser):
    parser.addoption("--golden", type=Path, default=GOLDEN, help="folder of golden parity vectors")
    parser.addoption("--mutations", type=int, default=300, help="damaged files that the reader of ONNX files is tried on")


def pytest_configure(config):
    """Refuse a folder of golden vectors that was asked for and is not there."""
    folder = config.getoption("--golden")
    if folder != GOLDEN and not folder.is_dir():
        raise pytest.UsageError(f"--golden {folder}: no such folder")


def pytest_generate_tests(metafunc):
    """Run a test that takes ``case`` once for every stored case of its module's ``GROUP``."""
    if "case_name" in metafunc.fixturenames:
        folder = metafunc.config.getoption("--golden")
        group = metafunc.module.GROUP
        names = golden.names(folder, group) if folder.is_dir() else ["absent"]
        metafunc.parametrize("case_name", names, scope="module")


@pytest.fixture(scope="session")
def shared():
    """The folder of real data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("../shared is absent")
    return SHARED


@pytest.fixture(scope="session")
def golden_folder(request):
    """The folder of golden vectors."""
    folder = request.config.getoption("--golden")
    if not folder.is_dir():
        pytest.skip(f"no golden vectors in {folder}")
    return folder


@pytest.fixture(scope="module")
def case(request, golden_folder, case_name):
    """One golden model case of the module's ``GROUP``."""
    return golden.read(golden_folder, request.module.GROUP, case_name)


@pytest.fixture
def narbench(monkeypatch, capsys):
    """Run the command line; returns (status, stdout, stderr)."""
    from harness.cli import main

    monkeypatch.setenv("COLUMNS", "240")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["narbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code, *capsys.readouterr())

    return run
