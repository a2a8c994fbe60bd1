"""gunicorn's threaded worker, with an end to every wait for a client.

gunicorn's own one reads headers and body from a blocking socket: clients that begin a request and fall silent, as many
as there are threads, would stop the service for ever. Buffering requests is the work of the proxy in front; this
bounds what happens without one. It also answers in HTML what it refuses itself; here that is problem+json.
"""

from __future__ import annotations

import errno
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final

from gunicorn import util
from gunicorn.http.errors import NoMoreData
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from zenskar.bulkhead import places_open
from zenskar.conf import web_settings
from zenskar.refusals import refusal

FIRST_BYTE_SECONDS: Final = 0.1
"""How long a thread waits for the first byte of a new connection; then the poller does, which costs no thread."""
LINGER_SECONDS: Final = 1.0


class ClientTooSlow(NoMoreData, TimeoutError):  # type: ignore[misc]
    """The client sent nothing for too long, or its request was not complete in time.

    ``NoMoreData`` is what the worker closes a connection for without a word in the log, ``TimeoutError`` what the
    application and the draining of unread bodies know.
    """

    def __str__(self) -> str:
        return "the client was too slow"


class DeadlineUnreader(SocketUnreader):  # type: ignore[misc]
    """Reads a socket, no longer than allowed at once and in all.

    Attributes:
        deadline: when the request that is being read has to be complete, on the monotonic clock.
        gave_up: whether the client was too slow; the connection is not used again.
    """

    def __init__(self, sock: socket.socket, silence: float) -> None:
        super().__init__(sock)
        self.silence = silence
        self.deadline = 0.0
        self.gave_up = False

    def chunk(self, size_hint: int | None = None) -> bytes:
        try:
            return self._chunk(size_hint)
        except TimeoutError:
            self.gave_up = True
            raise ClientTooSlow from None

    def _chunk(self, size_hint: int | None) -> bytes:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        before = self.sock.gettimeout()
        self.sock.settimeout(min(left, self.silence, left if before is None else before))
        try:
            data: bytes = super().chunk(size_hint)
        finally:
            self.sock.settimeout(before)
        return data


class DeadlineConnection(TConn):  # type: ignore[misc]
    """A client's connection; ``worker`` says how long its waits last."""

    def __init__(self, worker: DeadlineThreadWorker, client: socket.socket, address: Any, server: Any) -> None:
        super().__init__(worker.cfg, client, address, server)
        self.worker = worker

    def init(self) -> None:
        """Called in a thread before each request is read."""
        if not self.initialized:
            super().init()
            self.parser.unreader = DeadlineUnreader(self.sock, self.worker.silence)
        self.parser.unreader.deadline = time.monotonic() + self.worker.request_limit
        # What is left for writing: a client that does not read its answer is no different.
        self.sock.settimeout(self.worker.request_limit)

    def wait_for_data(self, timeout: float) -> bool:
        return bool(super().wait_for_data(min(timeout, FIRST_BYTE_SECONDS)))

    def close(self, graceful: bool = False) -> None:
        """Close at once: the worker's main loop calls this, and may wait for no client. ``finish`` was before it."""
        util.close(self.sock)

    def finish(self) -> None:
        """Let the client take the answer before the socket is closed; called in a thread.

        It is waited for once: not after it was too slow before.
        """
        if self.initialized and not self.parser.unreader.gave_up:
            util.close_graceful(self.sock, timeout=LINGER_SECONDS)


class DeadlineThreadWorker(ThreadWorker):  # type: ignore[misc]
    """The worker class.

    Attributes:
        silence: seconds that a client may send nothing while its request is not complete.
        request_limit: seconds until a request has to be complete, headers and body; and that one write may take.
    """

    silence: ClassVar[float] = 10.0
    request_limit: ClassVar[float] = 30.0

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """More threads than requests are worked on: some wait for their turn, some are for probes."""
        config = web_settings()
        places_open(count=self.cfg.threads, queue=config.queue, seconds=config.queue_seconds)
        return ThreadPoolExecutor(max_workers=self.cfg.threads + config.queue + config.spare_threads)

    def accept(self, listener: socket.socket) -> None:
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                return
            raise
        self.nr_conns += 1
        self.enqueue_req(DeadlineConnection(self, client, address, listener.getsockname()))

    def handle(self, conn: DeadlineConnection) -> Any:
        again = super().handle(conn)
        if again is False:
            conn.finish()
        return again

    def handle_request(self, req: Any, conn: DeadlineConnection) -> bool:
        try:
            return bool(super().handle_request(req, conn))
        except TimeoutError:
            self.log.info("The client did not take its answer in time.")
            return False

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer a request that could not be read, or that the application had no answer to."""
        try:
            util.write(client, refusal(exc))
        except OSError:
            self.log.debug("The client did not wait for its refusal.")
