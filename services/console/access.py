"""Who may do what: host names, the session cookie, the origin of writes, and the headers that keep a page from loading anything else.

Everything is refused here, before a route runs: a request for another host (a rebound DNS name), a read without a session where the
console is reachable from other machines, and a write without a session or from another site's page.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.settings import ConsoleSettings, SettingsError, is_loopback

COOKIE: Final = "aquiline_console"
SESSION_PATH: Final = "/api/session"
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_OPEN: Final = frozenset({"/livez", SESSION_PATH})
"""Paths that need no session."""
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Access:
    """The rules, from the settings; sessions are those of this process."""

    def __init__(self, settings: ConsoleSettings) -> None:
        """Without a token nobody can halt or resume; raise SettingsError where other machines could then read."""
        if settings.token is None and not is_loopback(settings.host):
            # Not a rule of the settings: services that share them do not listen there.
            raise SettingsError(
                f"console.host ({settings.host}) is reachable from other machines and console.token is not set; set the token with "
                "AQUILINE_CONSOLE__TOKEN or the secret file aquiline_console__token, or listen on 127.0.0.1"
            )
        self._token = None if settings.token is None else settings.token.get_secret_value()
        self._key = secrets.token_bytes(32)
        self._hosts = _LOOPBACK | {settings.host.strip("[]").lower()} | {one.lower() for one in settings.allowed_hosts}
        self.open_to_read = is_loopback(settings.host)

    @property
    def token_set(self) -> bool:
        """Return whether there is a token at all."""
        return self._token is not None

    def is_token(self, given: str) -> bool:
        """Return whether `given` is the token, in a time that does not depend on it."""
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    def cookie(self) -> str:
        """Return the value of a session's cookie: it says that its holder had the token, until this process ends."""
        return hmac.new(self._key, (self._token or "").encode(), hashlib.sha256).hexdigest()

    def has_session(self, headers: Headers) -> bool:
        """Return whether a request carries the session's cookie, or the token as a bearer."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.is_token(bearer.strip())
        try:
            given = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return self.token_set and given is not None and hmac.compare_digest(given.value.encode(), self.cookie().encode())

    def refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        """Return the status and the reason for which a request is refused, None when it may pass."""
        host = _host_name(headers.get("host", ""))
        if host not in self._hosts:
            return 421, f"the host {host[:100]!r} is not this console's; add it to console.allowed_hosts"
        writes = method not in {"GET", "HEAD"}
        bearer = headers.get("authorization", "").lower().startswith("bearer ")
        if writes and not bearer and urlsplit(headers.get("origin", "")).netloc.lower() != headers.get("host", "").lower():
            return 403, "the request does not come from the console's own page: its Origin is another or none"
        if path in _OPEN or (not path.startswith("/api/") and not writes):
            return None
        if writes and not self.token_set:
            return 403, "no token is set, so nothing can be changed here; set console.token, or use `aquiline halt`"
        if (writes or not self.open_to_read) and not self.has_session(headers):
            return 401, "this needs the console's token"
        return None


class AccessMiddleware:
    """Applies the rules and the headers to every request."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        """Guard `app`."""
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request, and pass the others on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._access.refusal(scope["method"], scope["path"], Headers(scope=scope))
        if refused is None:
            await self._app(scope, receive, with_headers)
            return
        status, reason = refused
        headers = [(b"content-type", b"application/json")]
        await with_headers({"type": "http.response.start", "status": status, "headers": headers})
        await with_headers({"type": "http.response.body", "body": orjson.dumps({"detail": reason})})


def _host_name(host: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
