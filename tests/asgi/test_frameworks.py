"""What the HTTP side of frameworks does, on endwell's own server."""

# Without `from __future__ import annotations`: FastAPI looks at the types.

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from endwell import Server
from tests.http1 import asked, request_of
from tests.pair import nothing_left_behind, until

JSON = "Content-Type: application/json"


@asynccontextmanager
async def serving(app, transport, prefix="/"):
    server = Server()
    server.mount(prefix, app)
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        peer.server = server
        yield peer


def fastapi_application(told, folder, middleware=True):
    """An application that uses what FastAPI and Starlette offer for HTTP."""
    import fastapi
    from fastapi.responses import FileResponse, StreamingResponse
    from starlette.background import BackgroundTask
    from starlette.responses import PlainTextResponse
    from starlette.staticfiles import StaticFiles

    @asynccontextmanager
    async def lifespan(app):
        told.append("startup")
        yield {"pool": "shared"}
        told.append("shutdown")

    app = fastapi.FastAPI(lifespan=lifespan)

    async def stamped(request, call_next):
        response = await call_next(request)
        response.headers["X-Stamp"] = request.state.pool
        return response

    if middleware:
        app.middleware("http")(stamped)

    @app.get("/items/{number}")
    async def item(number: int, q: str = ""):
        return {"number": number, "q": q}

    @app.post("/items")
    async def create(item: dict):
        return item

    @app.get("/where")
    async def where(request: fastapi.Request):
        return {"url": str(request.url_for("where")), "host": request.client.host}

    @app.get("/stream")
    async def stream():
        async def chunks():
            for number in range(3):
                yield f"{number}\n"
                await asyncio.sleep(0)

        return StreamingResponse(chunks(), media_type="text/plain")

    @app.get("/endless")
    async def endless():
        async def chunks():
            try:
                while True:
                    yield b"x" * 1000
                    await asyncio.sleep(0.001)
            finally:
                told.append("closed")

        return StreamingResponse(chunks())

    @app.get("/background")
    async def background():
        return PlainTextResponse("now", background=BackgroundTask(told.append, "later"))

    @app.get("/file")
    async def file():
        return FileResponse(folder / "page.html")

    @app.get("/waits")
    async def waits(request: fastapi.Request):
        while not await request.is_disconnected():
            await asyncio.sleep(0.01)
        told.append("disconnected")

    @app.post("/upload")
    async def upload(request: fastapi.Request):
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return size

    @app.delete("/items/{number}", status_code=204)
    async def delete(number: int):
        pass

    app.mount("/static", StaticFiles(directory=folder))
    return app


async def test_a_fastapi_application(transport, tmp_path):
    (tmp_path / "page.html").write_text("<p>page")
    told = []
    async with serving(fastapi_application(told, tmp_path), transport, "/api") as peer:
        assert told == ["startup"]
        answer = await peer.ask(request_of(path="/api/items/5?q=a%20b"))
        assert (json.loads(answer.body), answer.headers["X-Stamp"]) == ({"number": 5, "q": "a b"}, "shared")
        assert (await peer.ask(request_of(path="/api/items/x"))).status == 422
        assert (await peer.ask(request_of("POST", "/api/items", b'{"a": 1}', JSON))).body == b'{"a":1}'
        assert (await peer.ask(request_of("POST", "/api/items", b"{", JSON))).status == 422
        assert (await peer.ask(request_of("DELETE", "/api/items/5"))).status == 204
        where = json.loads((await peer.ask(request_of(path="/api/where"))).body)
        scheme = "http" if transport.server is None else "https"
        assert where == {"url": f"{scheme}://localhost/api/where", "host": "127.0.0.1"}
        answer = await peer.ask(request_of(path="/api/stream"))
        assert (answer.body, answer.headers["Transfer-Encoding"]) == (b"0\n1\n2\n", "chunked")
        assert (await peer.ask(request_of(path="/api/background"))).body == b"now"
        await until(lambda: told[-1] == "later")
        for path in ("/api/file", "/api/static/page.html"):
            answer = await peer.ask(request_of(path=path))
            assert (answer.body, answer.headers["Content-Length"]) == (b"<p>page", "7")
        head = await peer.ask(request_of("HEAD", "/api/static/page.html"), "HEAD")
        assert head.headers["Content-Length"] == "7"
        assert (await peer.ask(request_of(path="/api/nowhere"))).status == 404
        assert (await peer.ask(request_of("PATCH", "/api/items/5", b""))).status == 405
        large = request_of("POST", "/api/upload", bytes(300_000))
        assert (await peer.ask(large)).body == b"300000"
        openapi = json.loads((await peer.ask(request_of(path="/api/openapi.json"))).body)
        assert openapi["servers"] == [{"url": "/api"}]
    assert told[-1] == "shutdown"


@pytest.mark.parametrize(("path", "event"), [("/endless", "closed"), ("/waits", "disconnected")])
async def test_a_fastapi_endpoint_learns_that_its_client_has_gone(path, event, transport, tmp_path, caplog):
    told = []
    # Behind a middleware of this kind, Starlette's is_disconnected() is never true, on any server.
    app = fastapi_application(told, tmp_path, middleware=path != "/waits")
    async with serving(app, transport) as peer:
        async with asked(peer.server, transport) as other:
            await other.send(request_of(path=path))
            if path == "/endless":
                await other.peer.read_head()
            await until(lambda: peer.server._dispatcher.tasks)
            other.peer.reset()
        await until(lambda: event in told)
        await until(lambda: not peer.server._dispatcher.tasks)
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_django_application(transport):
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path

    async def echo(request):
        return HttpResponse(f"{request.method} {request.path} {request.get_host()} ".encode() + request.body)

    def plain(request):
        return HttpResponse(f"{request.is_secure()} {request.META['REMOTE_ADDR']}")

    async def stream(request):
        async def chunks():
            yield b"a"
            yield b"b"

        return StreamingHttpResponse(chunks())

    class Urls:
        urlpatterns = (path("echo", echo), path("plain", plain), path("stream", stream))

    if not settings.configured:
        settings.configure()
    settings.ROOT_URLCONF, settings.ALLOWED_HOSTS, settings.DEBUG = Urls, ["localhost"], False
    django.setup()
    async with serving(get_asgi_application(), transport, "/site") as peer:
        answer = await peer.ask(request_of("POST", "/site/echo", b"hello"))
        assert answer.body == b"POST /site/echo localhost hello"
        secure = transport.server is not None
        assert (await peer.ask(request_of(path="/site/plain"))).body == f"{secure} 127.0.0.1".encode()
        assert (await peer.ask(request_of(path="/site/stream"))).body == b"ab"
        assert (await peer.ask(request_of(path="/site/none"))).status == 404
