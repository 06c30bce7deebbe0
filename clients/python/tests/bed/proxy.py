"""A link that can be cut: a TCP proxy that stops carrying anything, without closing."""

from __future__ import annotations

import asyncio
import threading


class Proxy:
    """Carries connections to a port of this machine. ``cut`` stops all of them, and new ones hear nothing either."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: asyncio.Event
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._open.clear)

    def drop(self) -> None:
        """Breaks the connections that are open; new ones are carried."""

        def close() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(close)

    def mend(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)

    def stop(self) -> None:
        def end() -> None:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.call_later(0.1, self._loop.stop)

        self._loop.call_soon_threadsafe(end)
        self._thread.join(5)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)

        async def begin() -> asyncio.Server:
            self._open = asyncio.Event()
            self._open.set()
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            return server

        self._server = self._loop.run_until_complete(begin())
        started.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            inner, outer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, outer}
        try:
            await asyncio.gather(self._carry(reader, outer), self._carry(inner, writer))
        finally:
            self._writers -= {writer, outer}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
