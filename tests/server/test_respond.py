"""What an HTTP route answers, and which files it serves."""

import asyncio
import math
import os
import re
from email.utils import formatdate
from functools import partial

import pytest

from endwell.errors import UpgradeRequired
from endwell.http import Headers, Request, Response
from endwell.server import respond
from endwell.server.respond import complete, response_from, static

# --- what a handler may return -----------------------------------------------


def index():
    """A handler, for its name."""


@pytest.mark.parametrize(
    ("returned", "content_type", "body"),
    [
        ("<p>grüß", "text/plain; charset=utf-8", "<p>grüß".encode()),
        ("", "text/plain; charset=utf-8", b""),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        ({"a": [1, None, "ß"]}, "application/json", '{"a": [1, null, "ß"]}'.encode()),
        ({}, "application/json", b"{}"),
        ([1, 2], "application/json", b"[1, 2]"),
    ],
)
def test_a_handler_may_return_text_bytes_or_what_json_can_express(returned, content_type, body):
    response = response_from(returned, index)
    assert response.status == 200
    assert response.headers.get_all("Content-Type") == [content_type]
    assert response.body == body


def test_a_response_is_taken_as_it_is():
    response = Response.html("<p>", 404)
    assert response_from(response, index) is response


def test_none_is_no_content():
    assert response_from(None, index) == Response(204)


@pytest.mark.parametrize(
    ("returned", "kind"), [(5, "int"), (True, "bool"), (("a", 200), "tuple"), (object(), "object")]
)
def test_anything_else_is_a_type_error_that_names_the_handler(returned, kind):
    with pytest.raises(TypeError, match=f"^index returned {kind}, not Response"):
        response_from(returned, index)


@pytest.mark.parametrize("value", [{"a": object()}, [math.nan], [math.inf], {(1, 2): 3}])
def test_what_json_cannot_express_is_a_type_error_that_names_the_handler(value):
    with pytest.raises(TypeError, match=r"^index returned what JSON cannot express"):
        response_from(value, index)


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600])
def test_a_status_that_ends_no_request_is_refused(status):
    with pytest.raises(ValueError, match=f"^index answered with status {status}"):
        response_from(Response(status), index)


def test_a_handler_without_a_name_is_named_by_its_repr():
    with pytest.raises(TypeError, match=re.escape("functools.partial(")):
        response_from(5, partial(index))


# --- a complete answer -------------------------------------------------------

NOW = 784111777.0  # the example of RFC 9110 §5.6.7


def request(method="GET", target="/", **headers):
    return Request(method, target, Headers({name.replace("_", "-"): text for name, text in headers.items()}))


def fields(response, method="GET"):
    return dict(complete(response, request(method), NOW).headers)


def test_an_answer_has_a_length_a_date_and_ends_its_connection():
    response = complete(Response.text("grüß"), request(), NOW)
    assert response.serialize() == (
        b"HTTP/1.1 200 OK\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"Connection: close\r\n"
        b"Content-Length: 6\r\n\r\n" + "grüß".encode()
    )


def test_an_answer_to_a_request_that_could_not_be_parsed_is_complete_too():
    response = complete(Response(400, body=b"no"), None, NOW)
    assert response.body == b"no"
    assert response.headers["Content-Length"] == "2"


def test_what_frames_the_answer_is_not_the_handlers_to_say():
    wrong = {"content-length": "99", "Transfer-Encoding": "chunked", "CONNECTION": "keep-alive"}
    headers = fields(Response(200, Headers(wrong), b"x"))
    assert headers == {"Content-Length": "1", "Connection": "close", "Date": formatdate(NOW, usegmt=True)}


def test_a_date_of_the_handler_stays():
    headers = complete(Response(200, Headers({"date": "then"})), request(), NOW).headers
    assert headers.get_all("Date") == ["then"]


def test_repeated_fields_stay_repeated():
    cookies = Headers([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    assert complete(Response(200, cookies), request(), NOW).headers.get_all("Set-Cookie") == ["a=1", "b=2"]


def test_an_answer_that_demands_an_upgrade_says_so_in_connection_too():
    assert fields(UpgradeRequired("version 13 only").response())["Connection"] == "close, Upgrade"


@pytest.mark.parametrize(("status", "length"), [(204, None), (205, "0"), (304, None)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_status_without_content_has_no_body(status, length, method):
    response = complete(Response(status, Headers({"Content-Length": "3"}), b"abc"), request(method), NOW)
    assert response.body == b""
    assert response.headers.get("Content-Length") == length


def test_head_is_answered_like_get_without_the_body():
    get, head = (complete(Response.text("abc"), request(method), NOW) for method in ("GET", "HEAD"))
    assert head.headers == get.headers
    assert head.headers["Content-Length"] == "3"
    assert (get.body, head.body) == (b"abc", b"")


def test_the_response_given_is_not_changed():
    response = Response.text("abc")
    complete(response, request(), NOW)
    assert list(response.headers) == [("Content-Type", "text/plain; charset=utf-8")]


# --- files -------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A folder to serve, and next to it what must never be served."""
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "site-private").mkdir()
    (tmp_path / "site-private" / "secret.txt").write_text("secret")
    site = tmp_path / "site"
    (site / "docs" / "deep").mkdir(parents=True)
    (site / "empty").mkdir()
    (site / "index.html").write_text("<h1>home")
    (site / "docs" / "index.html").write_text("<h1>docs")
    (site / "docs" / "deep" / "a b.txt").write_text("grüß")
    (site / ".env").write_text("secret")
    (site / ".git").mkdir()
    (site / ".git" / "config").write_text("secret")
    return site


def get(folder, path, target="/files/x", **headers):
    return asyncio.run(static(folder)(request(target=target, **headers), path))


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("", "text/html; charset=utf-8", "<h1>home"),
        ("index.html", "text/html; charset=utf-8", "<h1>home"),
        ("docs/", "text/html; charset=utf-8", "<h1>docs"),
        ("docs/deep/a b.txt", "text/plain; charset=utf-8", "grüß"),
    ],
)
def test_a_file_is_served_with_its_type(folder, path, content_type, body):
    response = get(folder, path)
    assert response.status == 200
    assert response.body == body.encode()
    assert response.headers["Content-Type"] == content_type
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.SVG", "image/svg+xml"),
        ("a.json", "application/json"),
        ("a.png", "image/png"),
        ("a.webp", "image/webp"),
        ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"),
        ("a.tar.gz", "application/octet-stream"),
        ("a.unknown", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_a_type_is_the_same_on_every_machine(folder, name, content_type):
    (folder / name).write_bytes(b"x")
    assert get(folder, name).headers["Content-Type"] == content_type


@pytest.mark.parametrize(
    "path",
    [
        "missing.html",
        "index.html/",
        "index.html/x",
        "empty",
        "empty/",
        "docs/deep",
        "docs//index.html",
        "x" * 5000,
        "x/" * 2000,
        "\ud800",
    ],
)
def test_what_is_not_there_is_not_found(folder, path):
    assert get(folder, path).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "../site/index.html",
        "../site-private/secret.txt",
        "docs/../../secret.txt",
        "docs/../index.html",
        "..",
        "../",
        ".",
        "./index.html",
        "docs/./index.html",
        ".../secret.txt",
        "..\\secret.txt",
        "docs\\..\\..\\secret.txt",
        "/etc/passwd",
        "//etc/passwd",
        "/",
        "docs//etc/passwd",
        "C:/secret.txt",
        "index.html\0",
        "\0",
        "index.html\0.txt",
        ".env",
        ".git/config",
        ".git/",
        "docs/.hidden",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
    ],
)
def test_no_path_leads_out_of_the_folder_or_to_what_is_hidden(folder, path):
    (folder / "docs" / ".hidden").write_text("secret")
    response = get(folder, path)
    assert response.status == 404
    assert b"secret" not in response.body


def test_an_absolute_path_of_a_file_in_the_folder_is_not_a_name_in_it(folder):
    assert get(folder, f"{folder}/index.html").status == 404


@pytest.mark.parametrize(
    "target", ["../secret.txt", "/etc/passwd", ".env", ".git/config", "../site-private/secret.txt", "loop"]
)
def test_a_link_that_leads_out_to_what_is_hidden_or_to_itself_is_not_followed(folder, target):
    (folder / "loop").symlink_to(target)
    assert get(folder, "loop").status == 404


def test_a_link_to_a_folder_outside_is_not_followed(folder):
    (folder / "out").symlink_to("../site-private")
    for path in ("out", "out/", "out/secret.txt"):
        assert get(folder, path).status == 404


def test_an_index_that_is_a_link_outside_is_not_followed(folder):
    (folder / "empty" / "index.html").symlink_to("../../secret.txt")
    assert get(folder, "empty/").status == get(folder, "empty").status == 404


def test_a_link_within_the_folder_is_followed(folder):
    (folder / "empty" / "index.html").symlink_to("../docs/index.html")
    assert get(folder, "empty/").body == b"<h1>docs"


def test_the_folder_itself_may_be_a_link_or_hidden(folder):
    hidden = folder.parent / ".well-known"
    hidden.symlink_to(folder)
    assert get(hidden, "docs/").body == b"<h1>docs"
    assert get(folder / ".git", "config").body == b"secret"


def test_what_is_no_regular_file_is_not_opened(folder):
    os.mkfifo(folder / "fifo")
    assert get(folder, "fifo").status == 404


@pytest.mark.parametrize("target", ["/files/docs", "/files/docs?x=1", "/files/d%6Fcs"])
def test_a_directory_without_its_slash_is_redirected_so_that_relative_links_work(folder, target):
    response = get(folder, "docs", target)
    assert response.status == 301
    assert re.fullmatch(r"\./(docs|d%6Fcs)/", response.headers["Location"])


def test_a_redirect_stays_on_this_server(folder):
    (folder / "evil.example").mkdir()
    (folder / "evil.example" / "index.html").write_text("x")
    response = get(folder, "evil.example", "//evil.example")
    assert response.headers["Location"] == "./evil.example/"
    assert get(folder, "/evil.example", "//evil.example").status == 404


def test_a_file_at_the_bound_is_served_and_one_above_is_an_error_that_names_it(folder, monkeypatch):
    monkeypatch.setattr(respond, "MAX_FILE", 10)
    (folder / "big.bin").write_bytes(b"x" * 10)
    assert get(folder, "big.bin").body == b"x" * 10
    (folder / "big.bin").write_bytes(b"x" * 11)
    with pytest.raises(ValueError, match=r"big\.bin' is larger than 10 bytes: let a proxy serve it"):
        get(folder, "big.bin")


@pytest.mark.parametrize(
    ("name", "error"), [("nowhere", FileNotFoundError), ("index.html", NotADirectoryError)]
)
def test_a_folder_that_is_none_is_refused_before_the_first_request(folder, name, error):
    with pytest.raises(error):
        static(folder / name)


# --- a client that has the file already --------------------------------------


def test_a_file_has_an_etag_that_changes_with_it(folder):
    first = get(folder, "")
    assert re.fullmatch(r'"[0-9a-f]+-8"', first.headers["ETag"])
    assert get(folder, "").headers["ETag"] == first.headers["ETag"]
    os.utime(folder / "index.html", ns=(1, 1))
    assert get(folder, "").headers["ETag"] != first.headers["ETag"]


@pytest.mark.parametrize("tags", ["{}", "W/{}", '"x", {}', "*", '"x",W/{} ,"y"'])
def test_a_client_that_has_this_version_is_told_so_without_the_body(folder, tags):
    first = get(folder, "")
    response = get(folder, "", If_None_Match=tags.format(first.headers["ETag"]))
    assert (response.status, response.body) == (304, b"")
    assert response.headers["ETag"] == first.headers["ETag"]
    assert response.headers["Last-Modified"] == first.headers["Last-Modified"]
    assert "Content-Type" not in response.headers


@pytest.mark.parametrize("tags", ['"x"', "", '"*"', '"x", *', "W/"])
def test_a_client_that_has_another_version_gets_the_file(folder, tags):
    response = get(folder, "", If_None_Match=tags)
    assert (response.status, response.body) == (200, b"<h1>home")


def test_the_date_of_a_file_is_that_of_its_change(folder):
    os.utime(folder / "index.html", (NOW, NOW))
    assert get(folder, "").headers["Last-Modified"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert get(folder, "", If_Modified_Since="Sun, 06 Nov 1994 08:49:37 GMT").status == 304


@pytest.mark.parametrize("date", ["Sun, 06 Nov 1994 08:49:36 GMT", "tomorrow", "", "+9" * 999])
def test_another_date_or_none_at_all_gets_the_file(folder, date):
    os.utime(folder / "index.html", (NOW, NOW))
    assert get(folder, "", If_Modified_Since=date).status == 200


def test_a_tag_that_does_not_match_outweighs_a_date_that_does(folder):
    date = get(folder, "").headers["Last-Modified"]
    assert get(folder, "", If_None_Match='"x"', If_Modified_Since=date).status == 200


@pytest.mark.parametrize("seconds", [4e9, 1e12])
def test_a_file_from_the_future_was_changed_now_at_the_latest(folder, seconds):
    os.utime(folder / "index.html", (seconds, seconds))
    assert int(get(folder, "").headers["Last-Modified"].split()[3]) < 2090


def test_head_of_a_file_tells_its_length(folder):
    response = complete(get(folder, ""), request("HEAD"), NOW)
    assert response.headers["Content-Length"] == "8"
    assert response.body == b""
