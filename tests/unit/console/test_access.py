"""Who may read and who may change: hosts, sessions, origins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from starlette.datastructures import Headers

from services.console.access import COOKIE, Access
from services.core.settings import ConsoleSettings, SettingsError

TOKEN = "a-token-of-the-tests"
HERE = {"host": "127.0.0.1:9480"}
OWN_PAGE = {**HERE, "origin": "http://127.0.0.1:9480"}


def _access(host: str = "127.0.0.1", token: str | None = TOKEN, allowed: tuple[str, ...] = ()) -> Access:
    return Access(ConsoleSettings(host=host, token=SecretStr(token) if token else None, allowed_hosts=list(allowed)))


def _status(access: Access, method: str, path: str, headers: dict[str, str]) -> int | None:
    refused = access.refusal(method, path, Headers(headers))
    return None if refused is None else refused[0]


def _with_session(access: Access, headers: dict[str, str]) -> dict[str, str]:
    return {**headers, "cookie": f"{COOKIE}={access.cookie()}"}


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.4", "::", "console.example.com"])  # noqa: S104 - refused is what is tested
def test_another_address_than_loopback_takes_a_token(host: str) -> None:
    with pytest.raises(SettingsError, match="AQUILINE_CONSOLE__TOKEN"):
        _access(host, token=None)
    assert not _access(host).open_to_read


def test_a_short_token_is_refused() -> None:
    with pytest.raises(ValidationError):
        ConsoleSettings(token=SecretStr("short"))


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example:9480", "[::1", "127.0.0.2"])
def test_a_request_for_another_host_is_refused(host: str) -> None:
    assert _status(_access(), "GET", "/api/state", {"host": host}) == 421
    assert _status(_access(), "GET", "/", {"host": host}) == 421


@pytest.mark.parametrize("host", ["127.0.0.1:9480", "localhost:80", "[::1]:9480", "LOCALHOST"])
def test_loopback_by_any_of_its_names_may_read_without_a_session(host: str) -> None:
    assert _status(_access(token=None), "GET", "/api/state", {"host": host}) is None


def test_a_console_that_others_reach_shows_nothing_without_a_session_but_the_page_that_asks_for_the_token() -> None:
    access = _access(host="0.0.0.0", allowed=("desk.example",))  # noqa: S104 - likewise
    for path in ("/api/state", "/api/events", "/api/openapi.json", "/api/decisions/abcd/prompt"):
        assert _status(access, "GET", path, {"host": "desk.example"}) == 401
        assert _status(access, "GET", path, _with_session(access, {"host": "desk.example"})) is None
    assert _status(access, "GET", "/", {"host": "desk.example"}) is None


def test_a_write_needs_a_session_and_the_consoles_own_page() -> None:
    access = _access()
    assert _status(access, "POST", "/api/control", OWN_PAGE) == 401
    assert _status(access, "POST", "/api/control", _with_session(access, OWN_PAGE)) is None
    for origin in ("http://evil.example", "null", "", "http://127.0.0.1:9481", "http://127.0.0.1:9480.evil.example"):
        assert _status(access, "POST", "/api/control", _with_session(access, {**HERE, "origin": origin})) == 403
    assert _status(access, "POST", "/api/control", _with_session(access, HERE)) == 403
    assert _status(access, "POST", "/api/session", {**HERE, "origin": "http://evil.example"}) == 403


def test_the_token_as_a_bearer_needs_no_page() -> None:
    access = _access()
    assert _status(access, "POST", "/api/control", {**HERE, "authorization": f"Bearer {TOKEN}"}) is None
    assert _status(access, "POST", "/api/control", {**HERE, "authorization": "Bearer another"}) == 401
    # A wrong bearer is not made good by a cookie that some page sent along.
    assert _status(access, "POST", "/api/control", _with_session(access, {**HERE, "authorization": "Bearer another"})) == 401


def test_without_a_token_nothing_can_be_changed() -> None:
    access = _access(token=None)
    assert _status(access, "POST", "/api/control", _with_session(access, OWN_PAGE)) == 403
    assert not access.is_token("")
    assert not access.has_session(Headers({"cookie": f"{COOKIE}={access.cookie()}"}))


@given(st.text(st.characters(codec="latin-1"), max_size=200))
def test_no_cookie_but_the_sessions_opens_anything(cookie: str) -> None:
    access = _access()
    assert not access.has_session(Headers(raw=[(b"cookie", cookie.encode("latin-1"))]))


def test_the_session_of_another_process_is_none() -> None:
    assert not _access().has_session(Headers({"cookie": f"{COOKIE}={_access().cookie()}"}))
