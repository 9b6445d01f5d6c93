"""What every test gets: a log without unexpected warnings, hypothesis without a database, no skipped tests in CI."""

import logging
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
settings.register_profile("dev", max_examples=25, deadline=None, database=None, suppress_health_check=QUIET)
settings.register_profile("ci", max_examples=100, deadline=None, database=None, suppress_health_check=QUIET)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

skipped: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped or expected to fail is a failure")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--no-skips") and skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("--no-skips"):
        for each in skipped:
            terminalreporter.write_line(f"SKIPPED, which counts as a failure: {each}")


@pytest.fixture(autouse=True)
def quiet_log(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An unexpected warning in the log fails the test; `@pytest.mark.expects_log("pattern")` allows one."""
    yield
    allowed = [mark.args[0] for mark in request.node.iter_markers("expects_log")]
    unexpected = [
        record.getMessage()
        for when in ("setup", "call")
        for record in caplog.get_records(when)
        if record.levelno >= logging.WARNING and not any(re.search(each, record.getMessage()) for each in allowed)
    ]
    if unexpected:
        pytest.fail(f"unexpected in the log: {unexpected}")


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that tells of syncs (disk.c)."""
    built = tmp_path_factory.mktemp("disk") / "disk.so"
    source = Path(__file__).parent / "crash" / "disk.c"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
    return built
