"""Which files a served folder contains, and how they are sent."""

import asyncio
import os
import re
import shutil

import pytest

from endwell.errors import RequestRefused
from endwell.http import Headers, Request
from endwell.protocol.responding import complete
from endwell.server import files
from endwell.server.files import static

NOW = 784111777.0  # the example of RFC 9110 §5.6.7


def request(method="GET", target="/", **headers):
    return Request(method, target, Headers({name.replace("_", "-"): text for name, text in headers.items()}))


@pytest.fixture
def folder(tmp_path):
    """A folder to serve, beside files that must never be served."""
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


async def run(function, *args):
    return function(*args)


def ask(serve, request, path):
    """The answer of the handler, or the refusal that it raises."""
    try:
        return asyncio.run(serve(request, path))
    except RequestRefused as refusal:
        return refusal.response()


def get(folder, path, target="/files/x", *, method="GET", follow_links=False, **headers):
    serve = static(folder, run, follow_links=follow_links)
    return ask(serve, request(method, target, **headers), path)


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
def test_content_types_do_not_depend_on_the_machine(folder, name, content_type):
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
def test_a_missing_file_is_not_found(folder, path):
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
def test_no_path_escapes_the_folder_or_reaches_hidden_files(folder, path):
    (folder / "docs" / ".hidden").write_text("secret")
    response = get(folder, path)
    assert response.status == 404
    assert b"secret" not in response.body


def test_an_absolute_file_path_is_not_found(folder):
    assert get(folder, f"{folder}/index.html").status == 404


@pytest.mark.parametrize("target", ["../secret.txt", "/etc/passwd", "../site-private/secret.txt", "loop"])
def test_a_link_outside_or_to_itself_is_not_followed(folder, target):
    (folder / "loop").symlink_to(target)
    assert get(folder, "loop").status == 404


def test_a_name_is_hidden_by_the_request_path_not_the_link_target(folder):
    (folder / "config").symlink_to(".git/config")
    (folder / ".link").symlink_to("index.html")
    assert get(folder, "config").body == b"secret"
    assert get(folder, ".link").status == 404


def publish(volume, version, text):
    """Update like the kubelet updates a ConfigMap: a new folder, and an atomically replaced link."""
    (volume / f"..{version}").mkdir(parents=True)
    (volume / f"..{version}" / "index.html").write_text(text)
    (volume / "..data_tmp").symlink_to(f"..{version}")
    (volume / "..data_tmp").rename(volume / "..data")
    if not (volume / "index.html").exists():
        (volume / "index.html").symlink_to("..data/index.html")


def test_a_mounted_config_map_is_served_and_updates_are_followed(tmp_path):
    publish(tmp_path, "2026_1", "old")
    serve = static(tmp_path, run)
    assert ask(serve, request(), "index.html").body == b"old"
    publish(tmp_path, "2026_2", "new")
    shutil.rmtree(tmp_path / "..2026_1")
    assert ask(serve, request(), "").body == b"new"
    for hidden in ("..data/index.html", "..2026_2/index.html"):
        assert ask(serve, request(), hidden).status == 404


def test_a_config_map_that_changes_between_stat_and_open_is_followed(tmp_path, monkeypatch):
    publish(tmp_path, "2026_1", "old")
    find = files._find

    def slow(*args):
        found = find(*args)
        if not (tmp_path / "..2026_2").exists():
            publish(tmp_path, "2026_2", "new")
            shutil.rmtree(tmp_path / "..2026_1")
        return found

    monkeypatch.setattr(files, "_find", slow)
    assert get(tmp_path, "index.html").body == b"new"


def test_a_config_map_that_changes_while_its_links_are_read_is_followed(tmp_path, monkeypatch):
    publish(tmp_path, "2026_1", "old")
    readlink = os.readlink

    def slow(path, *args, **how):
        leads = readlink(path, *args, **how)
        if "2026_1" in os.fspath(leads) and not (tmp_path / "..2026_2").exists():
            publish(tmp_path, "2026_2", "new")
            shutil.rmtree(tmp_path / "..2026_1")
        return leads

    monkeypatch.setattr(os, "readlink", slow)
    assert get(tmp_path, "index.html").body == b"new"


def test_a_root_that_is_a_link_is_followed_on_every_request(tmp_path):
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.txt").write_text(version)
    (tmp_path / "current").symlink_to("v1")
    serve = static(tmp_path / "current", run)
    assert ask(serve, request(), "a.txt").body == b"v1"
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(tmp_path / "current")
    assert ask(serve, request(), "a.txt").body == b"v2"
    (tmp_path / "current").unlink()
    assert ask(serve, request(), "a.txt").status == 404


def test_links_outside_are_followed_with_follow_links(folder):
    (folder / "out").symlink_to("../site-private")
    assert get(folder, "out/secret.txt", follow_links=True).body == b"secret"
    assert get(folder, "../secret.txt", follow_links=True).status == 404
    assert get(folder, ".env", follow_links=True).status == 404


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


def test_a_special_file_is_not_opened(folder):
    os.mkfifo(folder / "fifo")
    assert get(folder, "fifo").status == 404


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/files/docs", "./docs/"),
        ("/files/docs?x=1&y=/a?", "./docs/?x=1&y=/a?"),
        ("/files/docs?", "./docs/?"),
        ("/files/d%6Fcs", "./d%6Fcs/"),
    ],
)
def test_a_directory_without_its_slash_is_redirected_with_the_query(folder, target, location):
    response = get(folder, "docs", target)
    assert (response.status, response.headers["Location"]) == (301, location)


def test_a_redirect_stays_on_this_server(folder):
    (folder / "evil.example").mkdir()
    (folder / "evil.example" / "index.html").write_text("x")
    response = get(folder, "evil.example", "//evil.example")
    assert response.headers["Location"] == "./evil.example/"
    assert get(folder, "/evil.example", "//evil.example").status == 404


def test_a_file_above_the_size_limit_is_an_error_that_names_it(folder, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILE", 10)
    (folder / "big.bin").write_bytes(b"x" * 10)
    assert get(folder, "big.bin").body == b"x" * 10
    (folder / "big.bin").write_bytes(b"x" * 11)
    with pytest.raises(ValueError, match=r"big\.bin' is larger than 10 bytes: use a proxy to serve it"):
        get(folder, "big.bin")


@pytest.mark.parametrize(
    ("name", "error"), [("nowhere", FileNotFoundError), ("index.html", NotADirectoryError)]
)
def test_a_missing_folder_is_refused_when_the_route_is_added(folder, name, error):
    with pytest.raises(error):
        static(folder / name, run)


# --- conditional requests -----------------------------------------------------


def test_a_file_has_an_etag_that_changes_with_it(folder):
    first = get(folder, "")
    assert re.fullmatch(r'"[0-9a-f]+-8"', first.headers["ETag"])
    assert get(folder, "").headers["ETag"] == first.headers["ETag"]
    os.utime(folder / "index.html", ns=(1, 1))
    assert get(folder, "").headers["ETag"] != first.headers["ETag"]


@pytest.mark.parametrize("tags", ["{}", "W/{}", '"x", {}', "*", '"x",W/{} ,"y"'])
def test_a_client_with_the_current_version_receives_304(folder, tags):
    first = get(folder, "")
    response = get(folder, "", If_None_Match=tags.format(first.headers["ETag"]))
    assert (response.status, response.body) == (304, b"")
    assert response.headers["ETag"] == first.headers["ETag"]
    assert response.headers["Last-Modified"] == first.headers["Last-Modified"]
    assert "Content-Type" not in response.headers


@pytest.mark.parametrize("tags", ['"x"', "", '"*"', '"x", *', "W/"])
def test_a_client_with_another_version_receives_the_file(folder, tags):
    response = get(folder, "", If_None_Match=tags)
    assert (response.status, response.body) == (200, b"<h1>home")


def test_last_modified_is_the_modification_time(folder):
    os.utime(folder / "index.html", (NOW, NOW))
    assert get(folder, "").headers["Last-Modified"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert get(folder, "", If_Modified_Since="Sun, 06 Nov 1994 08:49:37 GMT").status == 304


@pytest.mark.parametrize("date", ["Sun, 06 Nov 1994 08:49:36 GMT", "tomorrow", "", "+9" * 999])
def test_another_or_an_invalid_date_receives_the_file(folder, date):
    os.utime(folder / "index.html", (NOW, NOW))
    assert get(folder, "", If_Modified_Since=date).status == 200


def test_a_different_etag_outweighs_a_matching_date(folder):
    date = get(folder, "").headers["Last-Modified"]
    assert get(folder, "", If_None_Match='"x"', If_Modified_Since=date).status == 200


@pytest.mark.parametrize("seconds", [4e9, 1e12])
def test_last_modified_is_never_in_the_future(folder, seconds):
    os.utime(folder / "index.html", (seconds, seconds))
    assert int(get(folder, "").headers["Last-Modified"].split()[3]) < 2090


def test_head_of_a_file_has_its_length(folder):
    response = complete(get(folder, ""), request("HEAD"), NOW)
    assert response.headers["Content-Length"] == "8"
    assert response.body == b""


def test_files_are_served_for_revalidation(folder):
    first = get(folder, "")
    assert first.headers.get_all("Cache-Control") == ["no-cache"]
    again = get(folder, "", If_None_Match=first.headers["ETag"])
    assert (again.status, again.headers.get_all("Cache-Control")) == (304, ["no-cache"])


# --- range requests -------------------------------------------------------------


@pytest.fixture
def digits(folder):
    (folder / "digits").write_bytes(b"0123456789")
    return folder


@pytest.mark.parametrize(
    ("asked", "body", "part"),
    [
        ("bytes=0-3", b"0123", "0-3"),
        ("bytes=4-4", b"4", "4-4"),
        ("bytes=7-", b"789", "7-9"),
        ("BYTES=8-99", b"89", "8-9"),
        ("bytes=-3", b"789", "7-9"),
        ("bytes=-99", b"0123456789", "0-9"),
    ],
)
def test_a_range_request_returns_only_the_range(digits, asked, body, part):
    response = get(digits, "digits", Range=asked)
    assert (response.status, response.body) == (206, body)
    assert response.headers["Content-Range"] == f"bytes {part}/10"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["ETag"] == get(digits, "digits").headers["ETag"]


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=99-100", "bytes=-0", f"bytes={'9' * 18}-"])
def test_an_unsatisfiable_range_is_refused_with_the_length(digits, asked):
    response = get(digits, "digits", Range=asked)
    assert response.status == 416
    assert response.headers["Content-Range"] == "bytes */10"
    assert b"0123" not in response.body


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,4-5",
        "bytes=3-2",
        "bytes=-",
        "bytes=a-b",
        "bytes= 0-1",
        "bytes=+1-2",
        "lines=0-1",
        "0-1",
        "",
        f"bytes={'9' * 5000}-",
    ],
)
def test_a_range_header_without_a_single_byte_range_is_ignored(digits, asked):
    response = get(digits, "digits", Range=asked)
    assert (response.status, response.body) == (200, b"0123456789")
    assert response.headers["Accept-Ranges"] == "bytes"
    assert "Content-Range" not in response.headers


def test_head_has_no_ranges(digits):
    assert get(digits, "digits", method="HEAD", Range="bytes=0-3").status == 200


def test_if_range_returns_a_range_of_the_same_version_only(digits):
    whole = get(digits, "digits").headers
    for same in (whole["ETag"], whole["Last-Modified"]):
        assert get(digits, "digits", Range="bytes=0-3", If_Range=same).status == 206
    for other in ('"x"', f"W/{whole['ETag']}", "Sun, 06 Nov 1994 08:49:37 GMT", ""):
        response = get(digits, "digits", Range="bytes=0-3", If_Range=other)
        assert (response.status, response.body) == (200, b"0123456789")
    assert get(digits, "digits", Range="bytes=0-3", If_None_Match=whole["ETag"]).status == 304


def test_the_size_limit_applies_to_the_range_not_the_file(digits, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILE", 5)
    assert get(digits, "digits", Range="bytes=5-9").body == b"56789"
    with pytest.raises(ValueError, match="is larger than 5 bytes"):
        get(digits, "digits", Range="bytes=4-9")
