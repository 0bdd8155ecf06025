"""Who may talk to the review page: itself only, by a name of this machine, and with the token if there is one."""

import ipaddress
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_COOKIE_AGE_S = 30 * 24 * 3600
_HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",  # adds to the policy in the page, which can't say this
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """What is let in.

    token: needed in the address once, then in a cookie; None if nobody else can reach the page.
    hosts: names under which the page may be asked for, without ports. any_address: numeric addresses too, which no
        foreign site can make its own name point to.
    """

    token: str | None = None
    hosts: frozenset[str] = _LOOPBACK_NAMES
    any_address: bool = False

    @classmethod
    def to(cls, host: str, *, with_token: bool = False, names: Iterable[str] = ()) -> "Access":
        """What to let in at an address to bind; beyond this machine a token is always needed."""
        own = _LOOPBACK_NAMES | {name.lower() for name in names}
        if is_loopback(host):
            return cls(secrets.token_urlsafe(24) if with_token else None, own)
        return cls(secrets.token_urlsafe(24), own | {host.lower(), socket.gethostname().lower()}, any_address=True)

    def admits_host(self, header: str) -> bool:
        """Whether a Host header names this machine; a foreign name that points here is refused (DNS rebinding)."""
        try:
            name = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            return False
        return name in self.hosts or (self.any_address and _is_address(name))

    def admits_token(self, given: str) -> bool:
        return self.token is None or secrets.compare_digest(given.encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


class Guard:
    """ASGI middleware: refuses what `Access` doesn't let in, and adds the headers that keep a page to itself."""

    def __init__(self, app: ASGIApp, access: Access, cookie: str) -> None:
        self._app, self._access, self._cookie = app, access, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":  # a web socket is never opened
            app: ASGIApp = self._answer(Request(scope)) or self._app
            await app(scope, receive, _with_headers(send))

    def _answer(self, request: Request) -> Response | None:
        """The refusal, or the way from the address with the token to the page; None to go on."""
        if not self._access.admits_host(request.headers.get("host", "")):
            return _refuse(421, "This page isn't known by that name. Whoever serves it can allow it: --allow-host NAME")
        if self._access.token is not None and request.method == "GET" and "token" in request.query_params:
            return self._take_token(request)
        if not self._access.admits_token(request.cookies.get(self._cookie, "")):
            return _refuse(403, "This page needs the address with the token that was printed where it is served.")
        if request.method not in ("GET", "HEAD") and not _is_own_post(request):
            return _refuse(403, "Only this page itself may send judgements.")
        return None

    def _take_token(self, request: Request) -> Response:
        given = request.query_params["token"]
        if not self._access.admits_token(given):
            return _refuse(403, "That token is not right. It changes whenever the page is served anew.")
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        response = RedirectResponse("/" + ("?" + urlencode(rest) if rest else ""), status_code=303)
        set_cookie(response, self._cookie, given)
        return response


def set_cookie(response: Response, name: str, value: str) -> None:
    """Lax, not strict: a link in a mail must open the page; only own pages can send anything, see `_is_own_post`."""
    response.set_cookie(name, value, max_age=_COOKIE_AGE_S, httponly=True, samesite="lax", path="/")


def _is_own_post(request: Request) -> bool:
    """JSON, which no form of a foreign site can send, from a page of the very address that is asked."""
    is_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    origin = urlsplit(request.headers.get("origin", ""))
    is_own = origin.scheme in ("http", "https") and origin.netloc.lower() == request.headers.get("host", "").lower()
    return is_json and is_own


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refuse(status: int, text: str) -> Response:
    return PlainTextResponse(text + "\n", status_code=status)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
