"""The review page: a small Starlette application over a review file."""

import json
import socket
from functools import lru_cache
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from delta_attnmask.errors import ArtifactError, RowError, SettingsError
from delta_attnmask.reporting.page import make_environment, render_page
from delta_attnmask.reviewing.guard import Access, Guard, set_cookie
from delta_attnmask.reviewing.pairs import Pair
from delta_attnmask.reviewing.protocol import PAIR_QUESTIONS, Side
from delta_attnmask.reviewing.samples import IMAGE_SIDE, THUMBNAIL_SIDE, SampleBook
from delta_attnmask.reviewing.store import Rater, ReviewStore
from delta_attnmask.reviewing.views import find_next, view_pair

_PACKAGE = "delta_attnmask.reviewing"
_MAX_BODY_BYTES = 4096
_CACHED_IMAGES = 256
_SIDES: dict[int, Side] = {1: "first", 2: "second"}
_POLICY = {"img-src": "'self' data:", "connect-src": "'self'"}


class ReviewServer:
    """Answers the page's requests; `app` is the ASGI application."""

    def __init__(self, store: ReviewStore, book: SampleBook, access: Access) -> None:
        self._store, self._book = store, book
        self._pairs = store.pairs()
        self._by_token = {pair.token: pair for pair in self._pairs}
        review_id = self._pairs[0].token[:8]  # cookies don't know ports, and two reviews may run on one machine
        self._rater_cookie = f"rater-{review_id}"
        self._encode = lru_cache(_CACHED_IMAGES)(book.encode_image)
        self.app = Starlette(
            routes=[
                Route("/", self._show_page),
                Route("/pair", self._show_pair),
                Route("/enter", self._enter, methods=["POST"]),
                Route("/leave", self._leave, methods=["POST"]),
                Route("/judge", self._judge, methods=["POST"]),
                Route("/undo", self._undo, methods=["POST"]),
                Route("/image/{token}/{side:int}/{sample:int}/{image:int}", self._show_image),
            ],
            middleware=[Middleware(Guard, access, f"token-{review_id}")],
            exception_handlers={SettingsError: _refuse, ArtifactError: _fail},
        )

    def _show_page(self, request: Request) -> Response:
        rater = self._rater_of(request)
        html = render_page(
            "review.html",
            title="Which sample is better?",
            package=_PACKAGE,
            styles=("review.css",),
            scripts=("review.js",),
            allow=_POLICY,
            rater=rater,
            questions=PAIR_QUESTIONS,
            n_pairs=len(self._pairs),
            content="" if rater is None else self._render(rater),
        )
        return HTMLResponse(html)

    def _show_pair(self, request: Request) -> Response:
        return HTMLResponse(self._render(self._require_rater(request)))

    async def _enter(self, request: Request) -> Response:
        values = await _read_json(request, "name")
        rater = await run_in_threadpool(self._store.enter, values["name"])
        response = Response(status_code=204)
        set_cookie(response, self._rater_cookie, str(rater.id))
        return response

    async def _leave(self, request: Request) -> Response:
        response = Response(status_code=204)
        response.delete_cookie(self._rater_cookie)
        return response

    async def _judge(self, request: Request) -> Response:
        values = await _read_json(request, "pair", "question", "answer", "nonce")
        pair = self._require_pair(values["pair"])
        rater = await run_in_threadpool(self._require_rater, request)
        await run_in_threadpool(self._store.judge, rater, pair, values["question"], values["answer"], values["nonce"])
        return HTMLResponse(await run_in_threadpool(self._render, rater))

    async def _undo(self, request: Request) -> Response:
        values = await _read_json(request, "nonce")
        rater = await run_in_threadpool(self._require_rater, request)
        await run_in_threadpool(self._store.undo, rater, values["nonce"])
        return HTMLResponse(await run_in_threadpool(self._render, rater))

    def _show_image(self, request: Request) -> Response:
        where = request.path_params
        pair, side = self._require_pair(where["token"]), _SIDES.get(where["side"])
        samples = self._book.samples(pair, side) if side else ()
        if where["sample"] >= len(samples) or where["image"] >= len(samples[where["sample"]].images):
            raise HTTPException(404, "no such image")
        max_side = THUMBNAIL_SIDE if pair.kind == "sheet" else IMAGE_SIDE
        try:
            data, kind = self._encode((samples[where["sample"]].images[where["image"]],), max_side)
        except RowError as error:
            raise HTTPException(404, "the image can't be shown") from error
        return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=86400"})

    def _render(self, rater: Rater) -> str:
        """The rater's next pair, or that there is none left."""
        answers = self._store.answers(rater)
        pair = find_next(self._pairs, answers)
        if pair is None:
            return _template("done.html", n_pairs=len(self._pairs))
        view = view_pair(pair, self._pairs, answers, self._book)
        following = find_next(self._pairs, answers, after=pair.position)
        ahead = [] if following is None else view_pair(following, self._pairs, answers, self._book).images
        return _template("pair.html", view=view, ahead=ahead, rater=rater)

    def _rater_of(self, request: Request) -> Rater | None:
        cookie = request.cookies.get(self._rater_cookie)
        return next((rater for rater in self._store.raters() if str(rater.id) == cookie), None)

    def _require_rater(self, request: Request) -> Rater:
        rater = self._rater_of(request)
        if rater is None:
            raise HTTPException(401, "nobody has given a name; load the page again")
        return rater

    def _require_pair(self, token: str) -> Pair:
        if token not in self._by_token:
            raise HTTPException(404, "no such pair; load the page again")
        return self._by_token[token]


def serve(server: ReviewServer, listening: socket.socket) -> None:
    """Answer requests on a socket until the process is told to stop."""
    config = uvicorn.Config(
        server.app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=3,
    )
    uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free. Raises SettingsError where it can't be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise SettingsError(
            f"host={host} port={port}: {error.strerror or error}; choose another with --port"
        ) from error


def make_address(host: str, port: int, token: str | None) -> str:
    """What to open; where every address of the machine is listened at, by the machine's name."""
    name = socket.gethostname() if host in ("", "0.0.0.0", "::") else host
    shown = f"[{name}]" if ":" in name else name
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def _template(name: str, **values: Any) -> str:
    html = make_environment(_PACKAGE).get_template(name).render(values)
    return html.encode("utf-8", "replace").decode()


async def _read_json(request: Request, *names: str) -> dict[str, str]:
    """The body's values by name, all of them strings; whatever else comes is refused."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(413, "too long")
    try:
        values = json.loads(body)
    except ValueError as error:
        raise HTTPException(400, "expected JSON") from error
    if not isinstance(values, dict) or not all(isinstance(values.get(name), str) for name in names):
        raise HTTPException(400, f"expected an object with the strings {', '.join(names)}")
    return {name: values[name] for name in names}


def _refuse(request: Request, error: Exception) -> Response:
    return Response(str(error), status_code=400, media_type="text/plain")


def _fail(request: Request, error: Exception) -> Response:
    return Response(str(error), status_code=503, media_type="text/plain")
