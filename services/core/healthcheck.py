"""`python -m services.core.healthcheck URL`: exits with 0 when the page answers 200. Containers without curl use it as their health check.

Only the standard library is imported: it runs every few seconds beside each service.
"""

from __future__ import annotations

import http.client
import sys
from typing import Final
from urllib.parse import urlsplit

_TIMEOUT_S: Final = 4.0
_MOST_BYTES: Final = 2_000


def main(argv: list[str]) -> int:
    """Ask for the page that the one argument names, print what it says, and return 0 for 200, else 1; 2 when it is no address."""
    url = urlsplit(argv[0]) if len(argv) == 1 else None
    if url is None or url.scheme != "http" or url.hostname is None:
        print("usage: python -m services.core.healthcheck http://HOST:PORT/PATH", file=sys.stderr)  # noqa: T201 - a command's own words
        return 2
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", url.path or "/")
        answer = connection.getresponse()
        said = answer.read(_MOST_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        print(f"{argv[0]} does not answer: {error}")  # noqa: T201 - the container engine keeps it
        return 1
    finally:
        connection.close()
    print(answer.status, said)  # noqa: T201 - likewise
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
