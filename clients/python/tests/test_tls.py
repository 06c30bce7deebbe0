"""A worker whose listener speaks TLS, with a certificate of an authority that only this test knows."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bed.processes import Process, eventually, free_port
from bed.wheelhouse import Wheelhouse, program

import wheelhouse_client
from wheelhouse_client.settings import Settings

SMALL_JOB = Path(__file__).parent / "programs" / "small_job.py"
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and with server.pem and server.key for 127.0.0.1. Python 3.13 and newer want all of RFC 5280."""
    folder = tmp_path_factory.mktemp("authority")
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    openssl(folder, "req", "-x509", "-days", "2", "-subj", "/CN=a test", *usage, "-out", "ca.pem", "-keyout", "ca.key", *KEY)
    openssl(folder, "req", "-subj", "/CN=worker", "-out", "server.csr", "-keyout", "server.key", *KEY)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
    openssl(folder, "x509", "-req", "-in", "server.csr", *signing, "-out", "server.pem")
    return folder


@pytest.fixture(scope="module")
def url(wheelhouse: Wheelhouse, authority: Path) -> Iterator[str]:
    """The address of a worker with TLS, ready."""
    port = free_port()
    settings = {
        **wheelhouse.settings,
        "WHEELHOUSE__WORKER__LISTEN": f"127.0.0.1:{port}",
        "WHEELHOUSE__SERVER__TLS_CERT_FILE": str(authority / "server.pem"),
        "WHEELHOUSE__SERVER__TLS_KEY_FILE": str(authority / "server.key"),
    }
    worker = Process([program(), "worker"], settings, wheelhouse.folder)
    trust = ssl.create_default_context(cafile=str(authority / "ca.pem"))

    def ready() -> bool:
        assert worker.child.poll() is None, worker.output()
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{port}/readyz", timeout=5, context=trust) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    eventually("the worker with TLS", ready)
    yield f"https://127.0.0.1:{port}"
    worker.stop(signal.SIGKILL)


def small_job(wheelhouse: Wheelhouse, url: str, folder: Path, **more: str) -> tuple[str, dict[str, str]]:
    job = f"tls-{uuid.uuid4().hex[:10]}"
    environment = {
        **wheelhouse.environment,
        "WHEELHOUSE_URL": url,
        "WHEELHOUSE_TENANT": "acme",
        "WHEELHOUSE_JOB": job,
        "WHEELHOUSE_STEPS": "5",
        "WHEELHOUSE_FILE": str(folder / job),
        **more,
    }
    return job, environment


@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_a_job_runs_over_tls_where_the_authority_is_named(
    wheelhouse: Wheelhouse, authority: Path, url: str, tmp_path: Path, start: Callable[..., Process], scheme: str
) -> None:
    address = url.replace("https", scheme)
    job, environment = small_job(wheelhouse, address, tmp_path, WHEELHOUSE_CA_FILE=str(authority / "ca.pem"))
    process = start([sys.executable, str(SMALL_JOB)], environment)
    wheelhouse.wait_status(job, "completed")
    assert process.child.wait(30) == 0, process.output()
    assert (tmp_path / job).read_text().split() == ["0", "1", "2", "3", "4"]


def test_nobody_is_believed_whom_no_named_authority_has_signed(
    wheelhouse: Wheelhouse, authority: Path, url: str, tmp_path: Path, start: Callable[..., Process]
) -> None:
    openssl(tmp_path, "req", "-x509", "-days", "2", "-subj", "/CN=other", "-out", "other.pem", "-keyout", "k.pem", *KEY)
    for more in ({}, {"WHEELHOUSE_CA_FILE": str(tmp_path / "other.pem")}):
        job, environment = small_job(wheelhouse, url, tmp_path, **more)
        process = start([sys.executable, str(SMALL_JOB)], environment)
        process.wait_for("CERTIFICATE_VERIFY_FAILED")
        assert not (tmp_path / job).exists() and not wheelhouse.row(job), process.output()


def test_a_file_of_no_use_is_named_at_once(
    authority: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    for file in (tmp_path / "missing.pem", empty):
        monkeypatch.setenv("WHEELHOUSE_CA_FILE", str(file))
        with pytest.raises(wheelhouse_client.ConfigurationError, match="WHEELHOUSE_CA_FILE"):
            Settings.from_environment(url, "token")
    monkeypatch.setenv("WHEELHOUSE_CA_FILE", str(authority / "ca.pem"))
    assert Settings.from_environment(url, "token").ca_file == str(authority / "ca.pem")
