"""The addresses of the service: POST /plan, the schemas, its health, and the page. What is refused here never reaches a process that solves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from planner.limits import MIB
from planner.report.formats import plan_schema
from planner.service.answer import Reply, Terms
from planner.service.pool import Busy, Pool, Rates
from planner.service.question import scenario_schema
from planner.version import planner_version

MOST_BYTES = MIB  # of a question
BODY_S = 10.0  # in which a question must have arrived
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
PORT = re.compile(r":\d+$")
STATUSES = {
    200: "a plan, as plan --format json prints it (/schema); its status and gap say how sure it is",
    409: "no plan meets all demands: why, and what would make one",
    413: "more bytes than a question may have",
    415: "not application/json",
    422: "a question that cannot be used, in one line",
    429: "too many questions from this address in a minute",
    503: "too many questions wait; Retry-After says when to ask again",
    504: "no plan was found in the time there is",
}
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Settings:
    """How much is answered at once: processes, questions that wait for one, and questions a minute from one address.

    names: of this machine, by which it may be asked; any where there are none. Another name of a machine that listens to itself alone is
    how a page from elsewhere reaches in.
    """

    terms: Terms
    workers: int = 2
    most_waiting: int = 100
    per_minute: int = 600
    names: tuple[str, ...] = LOOPBACK


def service(settings: Settings, page: str) -> FastAPI:
    """The service; its processes begin and end with it. ``page``: the HTML of its first address."""
    pools: list[Pool] = []
    rates = Rates(settings.per_minute)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        pools.append(Pool(settings.terms, settings.workers, settings.most_waiting))
        yield
        pools.pop().end()

    async def named_rightly(request: Request) -> None:
        if settings.names and PORT.sub("", request.headers.get("host", "")) not in settings.names:
            raise HTTPException(421, f"answers only to {', '.join(settings.names)} (plan serve --host)")

    app = FastAPI(
        title="inference-planner",
        version=planner_version(),
        docs_url=None,  # which would load scripts from elsewhere
        redoc_url=None,
        lifespan=running,
        dependencies=[Depends(named_rightly)],
    )

    @app.exception_handler(HTTPException)
    async def in_one_line(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.post("/plan", responses={status: {"description": text} for status, text in STATUSES.items()}, response_class=Response)
    async def plan(request: Request) -> Response:
        """The cheapest plan of a scenario."""
        if wait := rates.wait_s(request.client.host if request.client else ""):
            raise HTTPException(429, f"at most {settings.per_minute:,} questions a minute", {"Retry-After": str(wait)})
        body = await _body(request)
        try:
            return _response(await pools[0].answer(body, request.is_disconnected))
        except Busy as busy:
            raise HTTPException(503, f"{settings.most_waiting:,} questions wait already", {"Retry-After": str(busy.retry_s)}) from None

    @app.get("/schema")
    async def schema() -> Response:
        """The JSON Schema of a plan."""
        return Response(plan_schema(), media_type="application/schema+json")

    @app.get("/schema/scenario")
    async def asked() -> JSONResponse:
        """The JSON Schema of a scenario that may be sent."""
        return JSONResponse(scenario_schema(), media_type="application/schema+json")

    @app.get("/health")
    async def health() -> dict[str, str | int]:
        """Whether it answers, and how many wait."""
        return {"status": "ok", "version": planner_version(), "workers": settings.workers, "waiting": pools[0].waiting}

    @app.get("/", response_class=HTMLResponse)
    async def first() -> HTMLResponse:
        """The page that asks."""
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"})

    return app


def _response(reply: Reply) -> Response:
    return Response(reply.text, reply.status, media_type="application/json")


async def _body(request: Request) -> bytes:
    """The question's bytes. Raises HTTPException for one of another kind, too large or too slow."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send the scenario as application/json")  # which no page elsewhere may send unasked
    too_large = HTTPException(413, f"more than {MOST_BYTES // MIB} MiB, the most that a question may have")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > MOST_BYTES:
        raise too_large
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for some in request.stream():
                found += some
                if len(found) > MOST_BYTES:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the question did not arrive within {BODY_S:g} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the question broke off") from None
    return bytes(found)
