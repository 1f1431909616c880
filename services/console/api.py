"""The console's API: what the page reads, the events that it follows, and the one thing that it writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from schemas import LATENCY_STAGES, AuditRecord, Outcome, is_intact
from services.console.access import COOKIE, Access, AccessMiddleware
from services.console.events import Event, EventLog, Frame
from services.console.explanations import explain
from services.console.models import (
    Command,
    DecisionDetail,
    DecisionRow,
    Halt,
    Login,
    Problem,
    PromptView,
    Published,
    Score,
    Stage,
    State,
    SymbolRow,
    SymbolView,
)
from services.console.recent import HeldDecision
from services.console.views import Views
from services.core.bus import BusError
from services.core.errors import ServiceError

STATIC: Final = Path(__file__).with_name("static")
_ROWS: Final = 200
_MAX_ROWS: Final = 2_000
_SESSION_S: Final = 12 * 3_600
_FRAME_S: Final = 0.15
"""Events are sent at most this often, many at a time: a page draws them together."""
_HEARTBEAT_S: Final = 5.0
_LEAST_LETTERS: Final = 4
"""Of an id: fewer name many decisions."""

router = APIRouter(prefix="/api", responses={401: {"model": Problem}, 403: {"model": Problem}})


def make_app(views: Views, access: Access) -> FastAPI:
    """Return the ASGI application."""
    # The library's own documentation pages load scripts from elsewhere.
    app = FastAPI(title="Aquiline console", version=version("aquiline"), docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.state.views, app.state.access = views, access
    app.add_middleware(AccessMiddleware, access=access)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for path in ("/", "/score", "/symbol", "/symbol/{symbol}", "/decision", "/decision/{wanted}"):
        app.add_api_route(path, _page, include_in_schema=False)
    app.add_api_route("/livez", _livez, include_in_schema=False)
    return app


async def _page() -> FileResponse:
    return FileResponse(STATIC / "index.html")


async def _livez() -> dict[str, bool]:
    return {"alive": True}


def _views(request: Request) -> Views:
    views: Views = request.app.state.views
    return views


def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


def _may_change(request: Request) -> bool:
    return _access(request).has_session(request.headers)


@router.get("/state")
async def state(request: Request) -> State:
    """Return the present and the newest decisions; `last_event_id` is where the events go on from it."""
    views = _views(request)
    now = views.now()
    halt = now.halt.model_copy(update={"may_change": _may_change(request)})
    return State(
        run_mode=views.run_mode,
        compared_mode=views.compared_mode,
        version=version("aquiline"),
        last_event_id=views.events.id_of(views.events.last),
        now=now.model_copy(update={"halt": halt}),
        decisions=list(islice(views.recent.decisions(), _ROWS)),
        unreadable=list(views.recent.unreadable),
    )


@router.get("/halt")
async def halt(request: Request) -> Halt:
    """Return the halt state."""
    return _views(request).halt().model_copy(update={"may_change": _may_change(request)})


@router.get("/decisions")
async def decisions(
    request: Request,
    symbol: Annotated[str | None, Query(max_length=100)] = None,
    outcome: Outcome | None = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_ROWS)] = _ROWS,
) -> list[DecisionRow]:
    """Return decisions, the newest first."""
    return list(islice(_views(request).recent.decisions(symbol=symbol, outcome=outcome), limit))


@router.get("/search")
async def search(request: Request, q: Annotated[str, Query(min_length=_LEAST_LETTERS, max_length=100)]) -> list[DecisionRow]:
    """Return the decisions in memory whose trigger_id or signal_id begins with `q`."""
    return [one.row for one in islice(_views(request).recent.find(q), 20)]


@router.get("/decisions/{wanted}", responses={404: {"model": Problem}})
async def decision(request: Request, wanted: str) -> DecisionDetail:
    """Return everything about the decision whose trigger_id or signal_id begins with `wanted`."""
    views = _views(request)
    held = await _one(views, wanted)
    audit = AuditRecord.decode(held.value)
    recent = views.recent
    cancel = recent.cancel(audit.signal_id)
    return DecisionDetail(
        row=held.row,
        audit=audit,
        intact=is_intact(held.value),
        where=held.where,
        explanation=explain(audit, cancel),
        stages=[Stage(name=one, ms=audit.latency_ms[one]) for one in LATENCY_STAGES if one in audit.latency_ms],
        signal=recent.signal(audit.signal_id),
        cancel=cancel,
        result=recent.result(audit.signal_id),
        command=f"aquiline replay --show {audit.trigger_id}",
    )


@router.get("/decisions/{wanted}/prompt", responses={404: {"model": Problem}, 502: {"model": Problem}, 504: {"model": Problem}})
async def prompt(request: Request, wanted: str) -> PromptView:
    """Return the decision's prompt, rebuilt from the log, and whether its hash is the one in the audit."""
    views = _views(request)
    held = await _one(views, wanted)
    try:
        return await views.prompts.view(AuditRecord.decode(held.value), held.where)
    except ServiceError as error:
        raise HTTPException(404, str(error)) from error
    except BusError as error:
        raise HTTPException(502, str(error)) from error
    except TimeoutError as error:
        raise HTTPException(504, "the log could not be read within a minute; use the command instead") from error


@router.get("/symbols")
async def symbols(request: Request) -> list[SymbolRow]:
    """Return every symbol in memory, by name."""
    return _views(request).symbols()


@router.get("/symbols/{symbol}", responses={404: {"model": Problem}})
async def symbol(request: Request, symbol: str, interval: Annotated[str | None, Query(max_length=8)] = None) -> SymbolView:
    """Return a symbol's bars, signals and vision features, of its fastest interval unless another is given."""
    view = _views(request).symbol(symbol, interval)
    if view is None:
        raise HTTPException(404, f"no record of {symbol[:100]!r} is in memory")
    return view


@router.get(
    "/symbols/{symbol}/chart.png", response_class=Response, responses={200: {"content": {"image/png": {}}}, 404: {"model": Problem}}
)
def chart(request: Request, symbol: str, interval: Annotated[str, Query(max_length=8)]) -> Response:
    """Return the image of the newest vision features, drawn again from the bars."""
    image = _views(request).chart(symbol, interval)
    if image is None:
        raise HTTPException(404, "the bars of this image are not in memory")
    return Response(image.png, media_type="image/png")


@router.get("/score")
async def score(request: Request) -> Score:
    """Return the score: what the scorer's outcomes say, beside chance and beside the other run mode."""
    return await _views(request).score()


@router.post("/session", status_code=204)
async def login(request: Request, given: Login) -> Response:
    """Begin a session: the token's holder may read from other machines, and halt and resume."""
    access = _access(request)
    if not access.token_set:
        raise HTTPException(403, "no token is set; set console.token with AQUILINE_CONSOLE__TOKEN or a secret file")
    if not access.is_token(given.token):
        raise HTTPException(401, "this is not the console's token")
    answer = Response(status_code=204)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, access.cookie(), max_age=_SESSION_S, httponly=True, samesite="strict", secure=secure, path="/")
    return answer


@router.delete("/session", status_code=204)
async def logout() -> Response:
    """End the session of this browser."""
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


@router.post("/control", responses={502: {"model": Problem}})
async def control(request: Request, command: Command) -> Published:
    """Halt or resume one symbol or every symbol, as `aquiline halt` and `aquiline resume` do."""
    try:
        return await _views(request).publish(command)
    except BusError as error:
        raise HTTPException(502, str(error)) from error


@router.get("/events", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def events(
    request: Request,
    symbol: Annotated[str, Query(max_length=100)] = "",
    after: Annotated[str | None, Query(max_length=40)] = None,
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
) -> StreamingResponse:
    """Follow the events from the id in `Last-Event-ID` (or `after`) on, else from now; bars are sent for `symbol` alone.

    Each message `frame` is a list of [kind, value]; `now` comes every second; `resync` says that events were missed, so that the state
    has to be read again.
    """
    views = _views(request)
    log = views.events
    wanted = last_event_id or after
    position = log.position_of(wanted)
    stream = _stream(views, log, position if position is not None else log.last, symbol, resync=wanted is not None and position is None)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _stream(views: Views, log: EventLog, position: int, symbol: str, *, resync: bool) -> AsyncIterator[bytes]:
    """Yield frames until the log is closed. A client that reads slowly waits in `yield`, and keeps nothing but its position."""
    yield b"retry: 1000\n\n"
    if resync:
        yield _message("resync", b"{}", log.id_of(position))
    now_sent = 0
    while not log.closed:
        await log.wait(position, _HEARTBEAT_S)
        frame = log.after(position, symbol)
        position = frame.position
        if frame.resync:
            yield _message("resync", b"{}", log.id_of(position))
        elif frame.events:
            yield _message("frame", _joined(frame), log.id_of(position))
        if views.ticks != now_sent:
            now_sent = views.ticks
            yield _message("now", views.now_json, log.id_of(position))
        elif not frame.events:
            yield b": still here\n\n"
        await asyncio.sleep(_FRAME_S)


def _joined(frame: Frame) -> bytes:
    return b"[" + b",".join(_pair(one) for one in frame.events) + b"]"


def _pair(event: Event) -> bytes:
    return b'["' + event.kind.encode() + b'",' + event.data + b"]"


def _message(kind: str, data: bytes, event_id: str) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event_id.encode(), kind.encode(), data)


async def _one(views: Views, wanted: str) -> HeldDecision:
    found = views.recent.find(wanted) if len(wanted) >= _LEAST_LETTERS else []
    if len(found) != 1:
        count = "No decision" if not found else f"{len(found)} decisions"
        raise HTTPException(
            404, f"{count} in memory with an id that begins with {wanted[:40]!r}. An older one: aquiline replay --show {wanted[:40]}"
        )
    return found[0]
