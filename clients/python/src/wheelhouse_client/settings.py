"""Where Wheelhouse is, and the token that lets this process in."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from .errors import ConfigurationError

ENDPOINT = "/api/v1/worker/ws"


@dataclass(frozen=True)
class Settings:
    """The address of ``worker.listen`` (http or https), a worker token, and this process's name for people.

    ``token_file`` is read at each connection, so that a token can be changed while the process runs. ``ca_file`` holds the
    authorities (PEM) that may have signed the worker's certificate; without it those count that this machine knows, or
    that SSL_CERT_FILE names. It is read at each connection too.
    """

    url: str
    token: str
    name: str
    token_file: str | None = None
    ca_file: str | None = None

    @classmethod
    def from_environment(
        cls, url: str | None = None, token: str | None = None, name: str | None = None
    ) -> Settings:
        """Reads WHEELHOUSE_URL, WHEELHOUSE_TOKEN (or WHEELHOUSE_TOKEN_FILE), WHEELHOUSE_WORKER and WHEELHOUSE_CA_FILE
        where not given.

        Raises ConfigurationError where the address, the token or the authorities are missing or of no use.
        """
        url = url or os.environ.get("WHEELHOUSE_URL", "")
        token_file = os.environ.get("WHEELHOUSE_TOKEN_FILE") or None
        token = token or os.environ.get("WHEELHOUSE_TOKEN", "")
        if not url:
            raise ConfigurationError(
                "WHEELHOUSE_URL is not set: give it the address of the setting worker.listen, "
                "for example http://127.0.0.1:8100"
            )
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
            raise ConfigurationError(f"WHEELHOUSE_URL is {url!r}: it must look like http://HOST:PORT or https://HOST")
        if not token and not token_file:
            raise ConfigurationError(
                "WHEELHOUSE_TOKEN is not set: `wheelhouse token --worker NAME --tenants TENANT --ttl 90d` prints one"
            )
        name = name or os.environ.get("WHEELHOUSE_WORKER") or f"python@{socket.gethostname()}"
        settings = cls(url.rstrip("/"), token, name[:255], token_file, os.environ.get("WHEELHOUSE_CA_FILE") or None)
        if parts.scheme in ("https", "wss"):
            try:
                settings.tls_context()
            except OSError as error:  # An ssl.SSLError is one as well.
                raise ConfigurationError(
                    f"WHEELHOUSE_CA_FILE is {settings.ca_file!r}, and no PEM file of certificates can be read there: "
                    f"{error}"
                ) from error
        return settings

    def websocket_url(self) -> str:
        """The address of the endpoint, as ws:// or wss://."""
        parts = urlsplit(self.url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{ENDPOINT}"

    def tls_context(self) -> ssl.SSLContext:
        """What the next connection over TLS believes. Raises OSError where ``ca_file`` is of no use."""
        return ssl.create_default_context(cafile=self.ca_file)

    def current_token(self) -> str:
        """The token for the next connection. Raises OSError where its file cannot be read."""
        if self.token_file:
            with open(self.token_file, encoding="utf-8") as file:
                return file.read().strip()
        return self.token
