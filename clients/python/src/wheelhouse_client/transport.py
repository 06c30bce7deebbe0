"""One WebSocket to a Wheelhouse worker, driven by the thread that owns it.

The frames are made by the ``websockets`` package without its I/O. The socket is our own, so that one thread can wait for
it and for this process's other threads together, and so that the same code works with gevent's patched sockets.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import ssl
import time
from collections.abc import Iterator

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidState, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from .settings import Settings

SUBPROTOCOL = "wheelhouse-worker.1"
CONNECT_TIMEOUT = 10.0
# A frame from the server is never larger than this; its own answers are small but for resume points.
MAX_INCOMING = 4 * 1024 * 1024

# Says nothing: its thread must never wait for a lock of logging that a held main thread may have.
_silent = logging.getLogger("wheelhouse_client.frames")
_silent.disabled = True


class ConnectFailed(Exception):
    """There is no connection. ``status`` is the HTTP status of a refusal, ``retry_after`` its header in seconds."""

    def __init__(self, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Closed(Exception):
    """The connection is gone. ``code`` is the close code, or None where it just broke."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"closed with {code}: {reason}" if code else reason)
        self.code = code
        self.reason = reason


class Wakeup:
    """Lets other threads, and signal handlers, wake the thread that waits for the socket."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._write_fd = self._write.fileno()

    def fileno(self) -> int:
        return self._read.fileno()

    def set(self) -> None:
        """Wakes the waiting thread. Never blocks; safe in a signal handler."""
        try:
            os.write(self._write_fd, b"!")
        except OSError:
            pass  # Full: it is awake already. Closed: nobody waits any more.

    def clear(self) -> None:
        try:
            while self._read.recv(4096):
                pass
        except OSError:
            pass

    def close(self) -> None:
        self._write_fd = -1  # The number may become that of another file.
        self._read.close()
        self._write.close()


class Transport:
    """A connected WebSocket. Only the thread that made it may use it."""

    def __init__(self, sock: socket.socket, protocol: ClientProtocol) -> None:
        self._socket = sock
        self._protocol = protocol
        self._out = bytearray()
        self._parts: list[bytes] = []

    @classmethod
    def connect(cls, settings: Settings) -> Transport:
        """Connects and shakes hands. Raises ConnectFailed."""
        try:
            uri = parse_uri(settings.websocket_url())
            token = settings.current_token()
            sock = socket.create_connection((uri.host, uri.port), timeout=CONNECT_TIMEOUT)
        except Exception as error:
            raise ConnectFailed(f"no connection to {settings.url}: {error}") from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if uri.secure:
                sock = settings.tls_context().wrap_socket(sock, server_hostname=uri.host)
            protocol = ClientProtocol(
                uri,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                max_size=MAX_INCOMING,
                logger=_silent,
            )
            request = protocol.connect()
            # The token travels in the other of the two documented places: as a subprotocol it would have to be one of
            # those that an answer may choose.
            request.headers["Authorization"] = f"Bearer {token}"
            protocol.send_request(request)
            for data in protocol.data_to_send():
                sock.sendall(data)
            _finish_handshake(sock, protocol)
            sock.setblocking(False)
            return cls(sock, protocol)
        except ConnectFailed:
            sock.close()
            raise
        except Exception as error:
            sock.close()
            raise ConnectFailed(f"no WebSocket at {settings.websocket_url()}: {error}") from error

    def send(self, text: str) -> None:
        """Queues a frame; ``wait`` writes it."""
        try:
            self._protocol.send_text(text.encode("utf-8", "replace"))
        except InvalidState as error:  # The server has said goodbye; its frame says why.
            raise self._closed() from error
        self._take_outgoing()

    def ping(self, payload: bytes) -> None:
        try:
            self._protocol.send_ping(payload)
        except InvalidState as error:
            raise self._closed() from error
        self._take_outgoing()

    @property
    def backlog(self) -> int:
        """Bytes that the server has not taken yet."""
        return len(self._out)

    def wait(self, wakeup: Wakeup, timeout: float) -> Iterator[str | bytes]:
        """Waits for the socket, the wakeup or the time, and returns the texts (str) and pongs (bytes) that have come.

        Raises Closed when the connection is gone.
        """
        self._write()
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0))
            selector.register(wakeup, selectors.EVENT_READ)
            pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0
            selector.select(0 if pending else max(0.0, timeout))
        wakeup.clear()
        gone = self._read()
        self._take_outgoing()
        self._write()
        received: list[str | bytes] = list(self._events())
        if received:
            return iter(received)
        if gone or self._protocol.state is not State.OPEN:
            raise self._closed()
        return iter(())

    def close(self, code: int = 1000) -> None:
        """Says goodbye, waits a moment for the answer, and closes the socket."""
        try:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(code)
                self._take_outgoing()
                self._socket.settimeout(1.0)
                self._socket.sendall(bytes(self._out))
                deadline = time.monotonic() + 1.0
                while not self._is(State.CLOSED) and time.monotonic() < deadline:
                    data = self._socket.recv(65536)
                    if not data:
                        break
                    self._protocol.receive_data(data)
        except Exception:
            pass  # It is going anyway.
        self.abandon()

    def abandon(self) -> None:
        """Closes this process's end without a word (also after a fork, where the other end is the parent's)."""
        try:
            if isinstance(self._socket, ssl.SSLSocket):
                os.close(self._socket.detach())
            else:
                self._socket.close()
        except OSError:
            pass

    def _is(self, state: State) -> bool:
        return self._protocol.state is state

    def _take_outgoing(self) -> None:
        for data in self._protocol.data_to_send():
            self._out += data

    def _write(self) -> None:
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                raise Closed(None, f"the connection broke: {error}") from error
            del self._out[:sent]

    def _read(self) -> bool:
        """Takes in what is there. True at the end of the stream."""
        while True:
            try:
                data = self._socket.recv(65536)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError:
                data = b""
            if not data:
                if self._protocol.state is not State.CLOSED:
                    self._protocol.receive_eof()
                return True
            self._protocol.receive_data(data)

    def _events(self) -> Iterator[str | bytes]:
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.PONG:
                yield bytes(event.data)
            elif event.opcode in (Opcode.TEXT, Opcode.CONT):
                self._parts.append(bytes(event.data))
                if event.fin:
                    text = b"".join(self._parts).decode("utf-8", "replace")
                    self._parts.clear()
                    yield text

    def _closed(self) -> Closed:
        received = self._protocol.close_rcvd
        if received is not None:
            return Closed(int(received.code), received.reason)
        return Closed(None, "the connection broke")


def _finish_handshake(sock: socket.socket, protocol: ClientProtocol) -> None:
    deadline = time.monotonic() + CONNECT_TIMEOUT
    while protocol.state is State.CONNECTING:
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        data = sock.recv(65536)
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        error = protocol.handshake_exc
        if error is not None:
            raise _refusal(error) from error
        if not data and protocol.handshake_exc is None:
            raise ConnectFailed("the server closed the connection during the handshake")


def _refusal(error: Exception) -> ConnectFailed:
    if not isinstance(error, InvalidStatus):
        return ConnectFailed(f"the handshake failed: {error}")
    response = error.response
    headers: Headers = response.headers
    retry_after = headers.get("Retry-After")
    body = (response.body or b"").decode("utf-8", "replace")[:300]
    return ConnectFailed(
        f"HTTP {response.status_code}: {body}",
        response.status_code,
        float(retry_after) if retry_after and retry_after.isdigit() else None,
    )
