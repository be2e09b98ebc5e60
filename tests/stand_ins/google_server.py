"""A Google Cloud Storage server in a process of its own."""

from __future__ import annotations

import sys

from gcp_storage_emulator.server import create_server


def main() -> None:
    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    print(server._api._httpd.server_port, flush=True)
    sys.stdin.read()  # until whoever started this is gone
    server.stop()


if __name__ == "__main__":
    main()
