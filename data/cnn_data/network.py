"""Whether a server can be reached, found out in seconds."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 4.0  # seconds for all hosts together; libraries that download retry for minutes


def unreachable(urls: Iterable[str], patience: float = PATIENCE) -> str | None:
    """The first host among `urls` that does not answer within `patience` seconds, or None.

    Where a proxy is set for the URL's scheme, it is the proxy that must answer.
    """
    hosts = {_host(url) for url in urls}
    answers: dict[tuple[str, int], bool] = {}

    def call(host: tuple[str, int]) -> None:
        try:
            socket.create_connection(host, timeout=patience).close()
            answers[host] = True
        except OSError:
            answers[host] = False

    # a look-up cannot be interrupted: threads that hang are left behind
    callers = [threading.Thread(target=call, args=(host,), daemon=True) for host in hosts]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(patience / len(callers))
    return next((host[0] for host in sorted(hosts) if not answers.get(host)), None)


def _host(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme=parts.scheme)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
