"""Another user of the host, who knows where a cluster listens; prints what that user can
do with it.
"""

from __future__ import annotations

import http.client
import json
import os
import sys

NOBODY = 65534
PAGES = (
    "/",
    "/sitemap.json",
    "/status",
    "/info/main/workers.html",
    "/json/counts.json",
)


def call(address: str) -> str:
    """Run code through a scheduler; how that ended."""
    from distributed import Client

    try:
        with Client(address, timeout=3, set_as_default=False) as client:
            client.run_on_scheduler(os.getuid)
    except Exception as error:
        return type(error).__name__
    return "it ran"


def pages(port: int) -> dict[str, int]:
    """The HTTP status of each page."""
    status = {}
    for path in PAGES:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path)
        status[path] = connection.getresponse().status
        connection.close()
    return status


def main(addresses: list[str], port: int) -> None:
    import distributed  # noqa: F401 - its files may be closed to others

    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    calls = {address: call(address) for address in addresses}
    print(json.dumps({"calls": calls, "pages": pages(port)}))


if __name__ == "__main__":
    main(sys.argv[2:], int(sys.argv[1]))
