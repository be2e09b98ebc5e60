"""When an exchange ends at the latest, whatever its other end does."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import requests.adapters
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from airflow_provider_bulkexports.api.stop import STEP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_bulkexports.api.stop import Stop

__all__ = ["Deadline", "WatchedAdapter"]


class Deadline:
    """
    The end of one exchange, enforced by shutting its connection down.

    Closing it would wait for the very read that hangs (urllib3/urllib3#2868); and urllib3's own
    ``HTTPResponse.shutdown`` (urllib3/urllib3#3527) comes too late for headers that trickle.

    :param seconds: until then, from now.
    :param stop: makes it come at once.
    """

    def __init__(self, seconds: float, stop: Stop) -> None:
        self.passed = False
        self.connecting = False
        self.obstacle = ""
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._stop = stop
        self._end = time.monotonic() + seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="bulkexports-deadline", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._socket is not None:
            self._socket.close()

    def renew(self, seconds: float) -> None:
        """Let it come so many seconds from now instead."""
        self._end = time.monotonic() + seconds

    def watch(self, connection: socket.socket) -> None:
        """Cut this connection when the time has come."""
        # A descriptor of our own: TLS takes the socket's away, and http.client gives a connection
        # up before the body is read where the server will close it.
        handle = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = handle
        self.check()

    def check(self) -> None:
        """Go no further once the time has come."""
        if self.passed:
            raise TimeoutError

    def _wait(self) -> None:
        while not self._done.wait(max(0.0, min(STEP, self._end - time.monotonic()))):
            if self._stop.is_set or time.monotonic() >= self._end:
                self._strike()
                return

    def _strike(self) -> None:
        with self._lock:
            self.passed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


class WatchedAdapter(requests.adapters.HTTPAdapter):
    """Tells the connections of all its pools which exchange they serve."""

    deadline: Deadline

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        """Return requests' own pool, whose connections are watched."""
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        assert isinstance(pool, HTTPConnectionPool)  # noqa: S101 - requests' stubs say less
        kind = pool.ConnectionCls
        if not issubclass(kind, _WatchedConnection):
            # Of whatever kind it is: plain, TLS, or through a SOCKS proxy.
            bases = (_WatchedConnection, kind)
            pool.ConnectionCls = type(kind.__name__, bases, {"adapter": self})
        return pool


class _WatchedConnection(HTTPConnection):
    """A connection that notes how far it is, and what stands in its way."""

    adapter: WatchedAdapter

    def connect(self) -> None:
        deadline = self.adapter.deadline
        deadline.connecting = True
        try:
            super().connect()
            deadline.check()
        except Exception as error:
            deadline.obstacle = _obstacle(error, self.timeout)
            if self.proxy is not None:
                deadline.obstacle += f", by way of the proxy {self.proxy.host}:{self.proxy.port}"
            raise
        deadline.connecting = False

    def _new_conn(self) -> socket.socket:
        deadline, options = self.adapter.deadline, self.socket_options
        # urllib3 gives each address of a host the whole time to connect, and its options before.
        self.socket_options = _Options(options or (), deadline)
        try:
            connection = super()._new_conn()
        finally:
            self.socket_options = options
        deadline.watch(connection)
        return connection

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self.adapter.deadline.watch(self.sock)
        super().request(*args, **kwargs)


class _Options(list[tuple[int, int, int | bytes]]):
    """Socket options that are given out only while there is time."""

    def __init__(self, options: Any, deadline: Deadline) -> None:
        super().__init__(options)
        self._deadline = deadline

    def __iter__(self) -> Iterator[tuple[int, int, int | bytes]]:
        self._deadline.check()
        return super().__iter__()


def _obstacle(error: BaseException, connect: object) -> str:
    """Say why there is no connection, in words without an address or a header."""
    cause = error.__cause__ or error
    if isinstance(cause, TimeoutError):
        return f"timed out after {connect:g} s" if isinstance(connect, float) else "timed out"
    if isinstance(cause, socket.gaierror):
        unknown = cause.errno in {socket.EAI_NONAME, socket.EAI_NODATA}
        return "no such host" if unknown else str(cause.strerror).lower()
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        reason = getattr(cause, "reason", None) or "no agreement"
        return f"TLS: {reason.replace('_', ' ').lower()}"
    if isinstance(cause, OSError):
        # Without a number it is what a proxy told, as "Tunnel connection failed: 407 ...".
        return os.strerror(cause.errno).lower() if cause.errno else str(cause)
    return type(cause).__name__
