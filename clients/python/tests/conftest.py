"""What the tests have in common: one Wheelhouse for the whole run, and workers of the task queues for each test."""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from bed.processes import Process, Ticks  # noqa: E402
from bed.queues import CeleryBed  # noqa: E402
from bed.wheelhouse import Redis, Wheelhouse  # noqa: E402

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.process.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory, redis: Redis) -> Iterator[Wheelhouse]:
    bed = Wheelhouse(tmp_path_factory.mktemp("wheelhouse"), redis)
    yield bed
    bed.stop()


@pytest.fixture
def ticks(tmp_path: Path) -> Callable[[], Ticks]:
    """Makes a file for ticks."""
    return lambda: Ticks(tmp_path / f"ticks-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a process that ends with the test."""
    started: list[Process] = []

    def run(command: list[str], environment: dict[str, str] | None = None) -> Process:
        process = Process(command, environment or {}, PROGRAMS)
        started.append(process)
        return process

    yield run
    for process in started:
        process.stop(signal.SIGKILL)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, wheelhouse: Wheelhouse) -> Iterator[None]:
    """This very process as a foreign worker."""
    import wheelhouse_client

    for name, value in wheelhouse.environment.items():
        monkeypatch.setenv(name, value)
    wheelhouse_client.close()
    yield
    wheelhouse_client.close()


@pytest.fixture
def celery(wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process]) -> Iterator[CeleryBed]:
    """A Celery app with a queue of its own. Its publisher is this process."""
    import wheelhouse_client

    wheelhouse_client.close()
    bed = CeleryBed(wheelhouse, redis, start)
    yield bed
    wheelhouse_client.close()
