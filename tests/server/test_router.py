"""Which handler matches a path."""

import itertools
from functools import partial
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.errors import BadRequest, MethodNotAllowed, NotFound, UpgradeRequired
from endwell.server.router import Router
from tests.linear import takes_linear_time


async def handler(ws, **params):
    """A handler that accepts any path parameters."""


async def page(one, two, request):
    """A page with arguments of the application."""


def router(*patterns, kind="websocket"):
    table = Router()
    for pattern in patterns:
        table.add(kind, pattern, handler)
    return table


def found(table, path, kind="websocket"):
    """The pattern that matches ``path`` and its parameters; None without a match."""
    try:
        route, params = table.match(path, kind)
    except NotFound:
        return None
    return route.pattern, params


# --- what a pattern accepts --------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "params"),
    [
        ("/", "/", {}),
        ("/chat", "/chat", {}),
        ("/chat", "/ch%61t", {}),
        ("/café", "/caf%C3%A9", {}),
        ("/a b", "/a%20b", {}),
        ("/chat/", "/chat/", {}),
        ("//", "//", {}),
        ("/chat/{room}", "/chat/lobby", {"room": "lobby"}),
        ("/chat/{room}", "/chat/a%20b", {"room": "a b"}),
        ("/chat/{room}", "/chat/a+b", {"room": "a+b"}),
        ("/chat/{room}", "/chat/%zz%", {"room": "%zz%"}),
        ("/{a}/x/{b}", "/1/x/2", {"a": "1", "b": "2"}),
        ("/{room}/", "/x/", {"room": "x"}),
        ("/files/{path:path}", "/files/a/b.txt", {"path": "a/b.txt"}),
        ("/files/{path:path}", "/files/a%20b/", {"path": "a b/"}),
        ("/files/{path:path}", "/files/", {"path": ""}),
        ("/files/{path:path}", "/files//a", {"path": "/a"}),
        ("/{path:path}", "/", {"path": ""}),
        ("/{user}/{path:path}", "/ann/a/b", {"user": "ann", "path": "a/b"}),
    ],
)
def test_a_pattern_accepts_a_path(pattern, path, params):
    assert found(router(pattern), path) == (pattern, params)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/chat", "/"),
        ("/chat", "/Chat"),
        ("/chat", "/chat/"),
        ("/chat/", "/chat"),
        ("/chat", "/chat/x"),
        ("/chat", "//chat"),
        ("/", "//"),
        ("/", ""),
        ("/", "*"),
        ("/chat", "x/chat"),
        ("/chat/{room}", "/chat/"),
        ("/chat/{room}", "/chat"),
        ("/chat/{room}", "/chat/a/b"),
        ("/chat/{room}", "/chat/a/"),
        ("/files/{path:path}", "/files"),
        ("/{user}/{path:path}", "//a"),
        ("/a/b", "/a%2Fb"),
    ],
)
def test_a_pattern_does_not_accept_a_path(pattern, path):
    assert found(router(pattern), path) is None


def test_an_encoded_slash_stays_inside_its_segment():
    assert found(router("/chat/{room}"), "/chat/a%2Fb%2f..") == ("/chat/{room}", {"room": "a/b/.."})


def test_percent_escapes_are_decoded_once():
    assert found(router("/{x}"), "/%252F") == ("/{x}", {"x": "%2F"})


@pytest.mark.parametrize("path", ["/%ff", "/chat/%C3", "/%ED%A0%80"])
def test_escapes_that_are_not_utf_8_are_a_bad_request(path):
    with pytest.raises(BadRequest, match="not UTF-8"):
        router("/{path:path}").match(path, "websocket")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_round_trips_through_a_parameter(text):
    assert found(router("/chat/{room}"), "/chat/" + quote(text, safe="")) == ("/chat/{room}", {"room": text})


# --- which pattern wins ------------------------------------------------------

RIVALS = ["/a/b", "/a/{x}", "/a/{rest:path}", "/{x}/b", "/{x}/{y}", "/{rest:path}"]


def test_the_more_specific_pattern_wins_in_any_order_of_registration():
    for order in itertools.permutations(RIVALS):
        table = router(*order)
        assert found(table, "/a/b") == ("/a/b", {})
        assert found(table, "/a/c") == ("/a/{x}", {"x": "c"})
        assert found(table, "/a/c/d") == ("/a/{rest:path}", {"rest": "c/d"})
        assert found(table, "/a/") == ("/a/{rest:path}", {"rest": ""})
        assert found(table, "/c/b") == ("/{x}/b", {"x": "c"})
        assert found(table, "/c/d") == ("/{x}/{y}", {"x": "c", "y": "d"})
        assert found(table, "/c/d/e") == ("/{rest:path}", {"rest": "c/d/e"})


def test_a_dead_end_behind_a_literal_does_not_hide_a_parameter():
    assert found(router("/a/{x}/c", "/{y}/b/d"), "/a/b/d") == ("/{y}/b/d", {"y": "a"})


# --- two kinds of route ------------------------------------------------------


def test_one_path_may_have_a_page_and_a_websocket():
    table = Router()
    table.add("http", "/chat", handler)
    table.add("websocket", "/chat", handler, cancel_on_end=True)
    page, _ = table.match("/chat", "http")
    socket, _ = table.match("/chat", "websocket")
    assert (page.kind, socket.kind) == ("http", "websocket")
    assert (page.cancel_on_end, socket.cancel_on_end) == (False, True)


def test_a_websocket_is_not_found_where_there_is_only_a_page():
    with pytest.raises(NotFound):
        router("/page", kind="http").match("/page", "websocket")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_plain_request_to_a_websocket_route_must_upgrade(method):
    with pytest.raises(UpgradeRequired):
        router("/chat/{room}").match("/chat/lobby", "http", method)


def test_a_page_for_any_path_does_not_hide_a_websocket():
    table = router("/chat")
    table.add("http", "/{path:path}", handler)
    assert found(table, "/chat") == ("/chat", {})
    assert found(table, "/chat", "http") == ("/{path:path}", {"path": "chat"})


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("method", ["POST", "OPTIONS", "get", ""])
def test_another_method_is_not_allowed_on_any_path_that_exists(kind, method):
    table = router("/x", kind=kind)
    with pytest.raises(MethodNotAllowed):
        table.match("/x", "http", method)
    with pytest.raises(NotFound):
        table.match("/y", "http", method)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_page_answers_get_and_head(method):
    route, params = router("/{x}", kind="http").match("/1", "http", method)
    assert (route.handler, params) == (handler, {"x": "1"})


# --- mistakes of the application ---------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "does not start with '/'"),
        ("chat", "does not start with '/'"),
        ("{path:path}", "does not start with '/'"),
        ("/chat?x=1", "without percent-encoding"),
        ("/chat#top", "without percent-encoding"),
        ("/a%20b", "without percent-encoding"),
        ("/{rest:path}/x", "has segments after"),
        ("/{rest:path}/", "has segments after"),
        ("/{x}/{x}", "has two parameters of the same name"),
        ("/{x}/{x:path}", "has two parameters of the same name"),
        ("/{}", "'{}' must be a literal"),
        ("/{1}", "must be a literal"),
        ("/{a b}", "must be a literal"),
        ("/{x:int}", "must be a literal"),
        ("/{x:}", "must be a literal"),
        ("/{:path}", "must be a literal"),
        ("/{x", "must be a literal"),
        ("/x}", "must be a literal"),
        ("/{", "must be a literal"),
        ("/}{", "must be a literal"),
        ("/a{x}", "must be a literal"),
        ("/{x}a", "must be a literal"),
        ("/{x}{y}", "must be a literal"),
    ],
)
def test_a_malformed_pattern_is_refused_when_it_is_added(pattern, problem):
    with pytest.raises(ValueError, match=problem):
        router(pattern)


@pytest.mark.parametrize(
    ("first", "second"),
    [("/x", "/x"), ("/{x}", "/{y}"), ("/a/{x:path}", "/a/{y:path}"), ("/{x}/b", "/{y}/b")],
)
def test_two_routes_for_the_same_paths_are_refused(first, second):
    with pytest.raises(ValueError, match="matches the same paths as"):
        router(first, second)


@pytest.mark.parametrize("parameters", ["ws", "", "ws, other", "ws, room, extra", "room", "ws, *room"])
def test_a_handler_that_does_not_take_the_path_parameters_is_refused(parameters):
    deaf = eval(f"lambda {parameters}: None")
    with pytest.raises(ValueError, match=r"route '/chat/\{room\}' calls <lambda>\(websocket, room\), but "):
        Router().add("websocket", "/chat/{room}", deaf)


def test_a_parameter_may_not_take_the_name_of_the_handlers_first_argument():
    with pytest.raises(ValueError, match="multiple values for argument 'ws'"):
        Router().add("websocket", "/chat/{ws}", handler)


def test_a_bound_method_or_a_handler_with_defaults_is_accepted():
    class Chat:
        def join(self, ws, room, limit=5):
            """A method."""

        async def __call__(self, ws, *, room):
            """An object that is a handler."""

    table = Router()
    table.add("websocket", "/a/{room}", Chat().join)
    table.add("websocket", "/b/{room}", Chat())
    assert found(table, "/b/x") == ("/b/{room}", {"room": "x"})


def test_a_handler_that_is_not_callable_is_refused():
    with pytest.raises(TypeError, match="not a callable"):
        Router().add("websocket", "/", "handler")


# --- hostile paths -----------------------------------------------------------


@pytest.mark.parametrize(
    "part", ["/", "/a", "%2F", "%"], ids=["slashes", "segments", "escapes", "broken escapes"]
)
def test_a_long_path_takes_linear_time(part):
    table = router("/{a}/{b}", "/a/a/{x}/a/{y}", "/a/{x:path}", "/{a}/{b}/{x:path}", "/x/y/z")
    assert takes_linear_time(lambda path: found(table, path), lambda size: "/" + part * size, 50_000)


def test_the_name_of_a_partial_is_that_of_what_it_calls():
    """Log lines have it, in which the address of an object says nothing."""
    table = Router()
    table.add("http", "/", partial(partial(page, "one"), "two"))
    route, _ = table.match("/", "http")
    assert route.name == "page"
