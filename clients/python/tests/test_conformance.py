"""The conformance checks: this client keeps every rule, and a client that breaks them is found out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _run(program: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wheelhouse_client.conformance", "--parallel", "4", *options, "--", sys.executable, str(HERE / "programs" / program)],
        capture_output=True,
        text=True,
        timeout=170,
    )


def test_this_client_keeps_every_rule() -> None:
    done = _run("small_job.py")
    assert done.returncode == 0, done.stdout
    assert "BROKEN" not in done.stdout


def test_the_asyncio_client_keeps_every_rule() -> None:
    done = _run("small_async_job.py")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("hello comes first", "before it was attached"),
        ("pause: still", "the work went on after reached: still"),
        ("attached with paused", "although it was attached as paused"),
        ("refused: ended", "the work ran although it was refused"),
        ("broken connection", "no connection"),
    ],
)
def test_a_wrong_client_is_found_out(rule: str, found: str) -> None:
    done = _run("wrong_job.py", "--only", rule)
    assert done.returncode == 1, done.stdout
    assert "BROKEN" in done.stdout
    assert found in done.stdout


def test_the_schema_is_the_projects_own() -> None:
    own = (HERE.parents[2] / "schema" / "worker.schema.json").read_text()
    packaged = (HERE.parent / "src/wheelhouse_client/conformance/worker.schema.json").read_text()
    assert own == packaged, "copy schema/worker.schema.json into the package's conformance folder"
