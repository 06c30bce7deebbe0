"""A server of the worker protocol that does what a check tells it, and notes what the client does."""

from __future__ import annotations

import asyncio
import json
import time
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from . import schema as schemas

ENDPOINT = "/api/v1/worker/ws"
TOKEN = "conformance-token"
Message = dict[str, Any]


class Violation(Exception):
    """The client has broken a rule; the text says which, and how."""


class Link:
    """One connection of the client, after its hello."""

    def __init__(self, server: ProtocolServer, socket: ServerConnection) -> None:
        self.server = server
        self.socket = socket
        self.hello: Message = {}
        self.messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self.seen: list[Message] = []
        self.closed = asyncio.Event()
        self.answers_saves = True
        self.silent = False
        self.last_n: dict[int, int] = {}

    async def send(self, kind: str, **fields: Any) -> None:
        # Clients must ignore fields that they do not know.
        await self.socket.send(json.dumps({"type": kind, **fields, "from_the_future": True}))

    async def next(self, kind: str, timeout: float = 10.0, **fields: Any) -> Message:
        """The next message of this kind (progress and saves are passed over). Raises Violation for another."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                message = await asyncio.wait_for(self.messages.get(), max(0.0, deadline - time.monotonic()))
            except asyncio.TimeoutError:
                raise Violation(f"no {kind} {fields or ''} came within {timeout:g} s") from None
            if message is None:
                raise Violation(f"the connection ended where {kind} was due")
            if message["type"] in ("progress", "failed_item", "save", "expect") and message["type"] != kind:
                continue
            if message["type"] != kind:
                raise Violation(f"{json.dumps(message)} came where {kind} was due")
            for name, value in fields.items():
                if message.get(name) != value:
                    raise Violation(f"{kind}.{name} is {message.get(name)!r} where {value!r} was due")
            return message

    async def drop(self) -> None:
        """Breaks the connection without a close frame."""
        self.socket.transport.abort()
        await asyncio.wait_for(self.closed.wait(), 5)

    async def close(self, code: int, reason: str = "") -> None:
        await self.socket.close(code, reason)

    @property
    def close_code(self) -> int | None:
        """The code with which the client closed, or None."""
        received = self.socket.protocol.close_rcvd
        return None if received is None else int(received.code)


class ProtocolServer:
    """Listens on a free port. ``links`` has each connection that said hello; ``faults`` each broken rule."""

    def __init__(self, reattach_seconds: float) -> None:
        self.reattach_seconds = reattach_seconds
        self.links: asyncio.Queue[Link] = asyncio.Queue()
        self.faults: list[str] = []
        self.refs: set[int] = set()
        self.open = True
        self.attempts = 0
        self._schema = schemas.load()
        self._server: Server | None = None

    async def __aenter__(self) -> ProtocolServer:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._admit,
            select_subprotocol=lambda _, offered: (
                Subprotocol("wheelhouse-worker.1") if "wheelhouse-worker.1" in offered else None
            ),
            ping_interval=None,
            max_size=256 * 1024,
            close_timeout=1,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        return f"http://{host}:{port}"

    def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        self.attempts += 1
        if not self.open:
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, '{"error":"unavailable","message":"not now"}')
        offered = ", ".join(request.headers.get_all("Sec-WebSocket-Protocol"))
        protocols = [name.strip() for name in offered.split(",")]
        if request.path.split("?")[0] != ENDPOINT:
            self.faults.append(f"connected to {request.path}, not to {ENDPOINT}")
            return socket.respond(HTTPStatus.NOT_FOUND, "")
        if "wheelhouse-worker.1" not in protocols:
            self.faults.append("did not offer the subprotocol wheelhouse-worker.1")
        given = [name[len("bearer.") :] for name in protocols if name.startswith("bearer.")]
        header = request.headers.get("Authorization", "")
        if TOKEN not in given and header != f"Bearer {TOKEN}":
            self.faults.append("sent no token, neither as a subprotocol bearer.TOKEN nor as Authorization")
            return socket.respond(HTTPStatus.UNAUTHORIZED, '{"error":"unauthorized","message":"no worker token"}')
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        link = Link(self, socket)
        try:
            link.hello = self._read(link, await asyncio.wait_for(socket.recv(), 10))
            if link.hello.get("type") != "hello":
                self.faults.append(f"the first message is {link.hello.get('type')!r}, not hello")
            await link.send(
                "welcome",
                v=1,
                session=link.hello.get("session", "none"),
                reattach_seconds=self.reattach_seconds,
                max_frame=256 * 1024,
            )
            await self.links.put(link)
            while True:
                message = self._read(link, await socket.recv())
                link.seen.append(message)
                if message.get("type") == "save" and link.answers_saves and not link.silent:
                    await link.send("saved", ref=message["ref"], n=message["n"])
                await link.messages.put(message)
        except (ConnectionClosed, asyncio.TimeoutError):
            pass
        finally:
            link.closed.set()
            await link.messages.put(None)

    def _read(self, link: Link, frame: str | bytes) -> Message:
        if isinstance(frame, bytes):
            self.faults.append("sent a binary frame")
            frame = frame.decode("utf-8", "replace")
        try:
            message = json.loads(frame)
        except ValueError:
            self.faults.append(f"sent what is not JSON: {frame[:100]!r}")
            return {"type": "unreadable"}
        fault = schemas.client_fault(self._schema, message)
        if fault is not None:
            self.faults.append(f"{fault} (docs/worker-protocol.md)")
            return message if isinstance(message, dict) and "type" in message else {"type": "unreadable"}
        if message["type"] == "save":
            n, last = message["n"], link.last_n.get(message["ref"], 0)
            if n < last:
                self.faults.append(f"save.n went back from {last} to {n}")
            link.last_n[message["ref"]] = n
        result: Message = message
        return result
