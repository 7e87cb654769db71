"""Headers, requests and responses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.http import (
    TOKEN,
    Headers,
    Request,
    Response,
    challenge_of,
    headers_of_lines,
    pack,
    set_challenge,
)

# --- headers -----------------------------------------------------------------


def test_header_names_are_case_insensitive_and_keep_their_case():
    headers = Headers({"Sec-WebSocket-Key": "x"})
    assert headers["sec-websocket-key"] == headers.get("SEC-WEBSOCKET-KEY") == "x"
    assert "Sec-Websocket-Key" in headers
    assert list(headers) == [("Sec-WebSocket-Key", "x")]


def test_repeated_fields_are_kept_in_order_and_the_first_one_counts():
    headers = Headers([("Cookie", "a"), ("Host", "h"), ("cookie", "b")])
    assert headers["Cookie"] == "a"
    assert headers.get_all("COOKIE") == ["a", "b"]
    assert headers.get_all("Via") == []
    assert len(headers) == 3


def test_a_missing_field_is_a_key_error_or_the_default():
    headers = Headers()
    with pytest.raises(KeyError, match="Host"):
        headers["Host"]
    assert headers.get("Host") is None
    assert headers.get("Host", "fallback") == "fallback"
    assert "Host" not in headers
    assert 5 not in headers


@pytest.mark.parametrize("char", ["\r", "\n", "\0"])
@pytest.mark.parametrize("value", ["{}", "a{}", "{}b", "a{}b"])
def test_a_header_value_with_a_line_break_is_refused(value, char):
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        Headers({"X": value.format(char)})


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", "a\r\nb", "ä", "a\0", "(", '"'])
def test_a_header_name_that_is_not_a_token_is_refused(name):
    with pytest.raises(ValueError, match="not a token"):
        Headers([(name, "x")])


def test_header_values_are_latin_1_only():
    assert Response(200, Headers({"X": "\xff\x80"})).serialize().endswith(b"X: \xff\x80\r\n\r\n")
    with pytest.raises(ValueError, match="latin-1"):
        Headers({"X": "€"})


@given(
    st.lists(
        st.tuples(
            st.text(sorted(TOKEN), min_size=1),
            st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")),
        )
    )
)
def test_every_accepted_header_serializes_to_one_line(fields):
    head = Response(200, Headers(fields)).serialize()
    status, *lines, blank, body = head.decode("latin-1").split("\r\n")
    assert status == "HTTP/1.1 200 OK"
    assert [tuple(line.split(": ", 1)) for line in lines] == fields
    assert (blank, body) == ("", "")


def test_a_comma_separated_field_is_joined_over_its_lines():
    headers = Headers([("Connection", "keep-alive, Upgrade"), ("connection", " ,\tx ,")])
    assert headers.list_of("Connection") == ["keep-alive", "Upgrade", "x"]
    assert headers.list_of("Via") == []


def test_headers_compare_by_their_fields_and_show_them():
    assert Headers({"A": "b"}) == Headers([("A", "b")]) != Headers()
    assert Headers({"A": "b"}) != [("A", "b")]
    assert repr(Headers({"A": "b"})) == "Headers([('A', 'b')])"


def test_a_head_is_parsed_lazily_and_serializes_again():
    fields = [("Host", "a:80"), ("X", "b:\t c"), ("x", "")]
    headers = headers_of_lines("Host: a:80\r\nX:  b:\t c\t \r\nx:")
    for _ in range(2):
        assert list(headers) == fields
        assert headers.get_all("X") == ["b:\t c", ""]
        pack(headers)
    assert headers == Headers(fields)
    headers.add("Y", "d")
    pack(headers)
    assert list(headers) == [*fields, ("Y", "d")]
    assert not list(headers_of_lines(""))
    with pytest.raises(ValueError, match="no colon"):
        len(headers_of_lines("Host: a\r\nX"))


def test_setting_a_field_replaces_the_first_of_its_name():
    headers = Headers([("A", "1"), ("X", "2"), ("B", "3"), ("x", "4")])
    headers.set("x", "5")
    assert list(headers) == [("A", "1"), ("x", "5"), ("B", "3")]
    headers["C"] = "6"
    headers["a"] = "7"
    assert list(headers) == [("a", "7"), ("x", "5"), ("B", "3"), ("C", "6")]


def test_deleting_a_name_removes_all_its_fields():
    headers = Headers([("A", "1"), ("X", "2"), ("x", "3")])
    headers.remove("x")
    headers.remove("y")
    assert list(headers) == [("A", "1")]
    with pytest.raises(KeyError, match="x"):
        del headers["x"]
    del headers["a"]
    assert not list(headers)


def test_changes_of_headers_show_in_the_serialized_head():
    headers = headers_of_lines("A: 1\r\nX: 2\r\nx: 3")
    headers.set("X", "4")
    assert Response(200, headers).serialize() == b"HTTP/1.1 200 OK\r\nA: 1\r\nX: 4\r\n\r\n"
    headers = headers_of_lines("A: 1\r\nX: 2\r\nx: 3")
    headers.remove("x")
    pack(headers)
    assert Response(200, headers).serialize() == b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "value"), [("", "x"), ("a b", "x"), ("X", "a\r\nY: b"), ("X", "\0"), ("X", "€")]
)
def test_setting_a_value_with_a_line_break_is_refused(name, value):
    headers = Headers({"X": "1"})
    with pytest.raises(ValueError, match=r"."):
        headers.set(name, value)
    assert list(headers) == [("X", "1")]


@pytest.mark.parametrize(
    ("field", "problem"), [((1, "x"), "name must be a str"), (("X", b"secret"), "X must be a str")]
)
def test_a_field_of_another_type_is_refused_without_its_value(field, problem):
    with pytest.raises(TypeError, match=problem) as refused:
        Headers().set(*field)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "COOKIE"])
def test_no_repr_shows_credentials(name):
    headers = Headers([("Host", "a"), (name, "secret"), (name, "secret too")])
    shown = f"[('Host', 'a'), ({name!r}, '[redacted]'), ({name!r}, '[redacted]')]"
    assert repr(headers) == f"Headers({shown})"
    assert repr(Request("GET", "/", headers)) == f"<Request GET '/' Headers({shown})>"
    assert repr(Response(200, headers)) == f"<Response 200 Headers({shown}), 0 bytes>"
    assert headers[name] == "secret"


# --- requests ----------------------------------------------------------------


def request(target):
    return Request("GET", target, Headers())


@pytest.mark.parametrize(
    ("target", "raw_path", "path", "query"),
    [
        ("/", "/", "/", {}),
        (
            "/chat/a%20b?token=x%26y&empty=&n=1&n=2",
            "/chat/a%20b",
            "/chat/a b",
            {"token": "x&y", "empty": "", "n": "2"},
        ),
        ("/a%2Fb", "/a%2Fb", "/a/b", {}),
        ("/x?a=/b?c", "/x", "/x", {"a": "/b?c"}),
        # Neither the path "/b" on the host "a" nor a malformed IPv6 address.
        ("//a/b", "//a/b", "//a/b", {}),
        ("//[", "//[", "//[", {}),
        ("/%ff", "/%ff", "/\N{REPLACEMENT CHARACTER}", {}),
    ],
)
def test_a_target_has_a_path_and_a_query(target, raw_path, path, query):
    assert request(target).raw_path == raw_path
    assert request(target).path == path
    assert request(target).query == query


def test_no_repr_shows_a_query():
    assert repr(request("/chat?token=secret")) == "<Request GET '/chat?...' Headers([])>"
    assert repr(request("/chat")) == "<Request GET '/chat' Headers([])>"


def test_a_query_is_a_dict_that_keeps_repeated_values():
    query = request("/?n=1&m=%C3%BC&n=2&n=").query
    assert isinstance(query, dict)
    assert query == {"n": "", "m": "ü"}
    assert query.get_all("n") == ["1", "2", ""]
    assert query.get_all("x") == []
    assert query.pairs == [("n", "1"), ("m", "ü"), ("n", "2"), ("n", "")]


@pytest.mark.parametrize(
    ("target", "query_string"),
    [("/", ""), ("/?", ""), ("/x?a=%20b&a", "a=%20b&a"), ("/?a?b=/c", "a?b=/c")],
)
def test_the_raw_query_is_available(target, query_string):
    assert request(target).query_string == query_string


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (request("/"), ["method", "target", "headers", "version", "remote_address", "secure", "new"]),
        (Response(200), ["status", "headers", "body", "new"]),
    ],
    ids=["Request", "Response"],
)
def test_attributes_cannot_be_set_in_either_build(value, names):
    for name in names:
        before = getattr(value, name, None)
        with pytest.raises(AttributeError, match=name):
            setattr(value, name, Headers({"X": "1"}))
        assert getattr(value, name, None) == before


def test_route_parameters_and_request_body_can_be_set():
    made = request("/")
    made.params = {"room": "a"}
    set_challenge(made, b"octets")
    assert (made.params, challenge_of(made)) == ({"room": "a"}, b"octets")


def test_a_request_serializes_to_request_line_and_fields():
    head = Request("GET", "/chat?x=1", Headers([("Host", "example.org"), ("X", "1")])).serialize()
    assert head == b"GET /chat?x=1 HTTP/1.1\r\nHost: example.org\r\nX: 1\r\n\r\n"


@pytest.mark.parametrize("target", ["", "/a b", "/a\r\nX: y", "/\0", "/\x7f", "/ä", "/\u2028"])
def test_a_target_that_breaks_the_request_line_is_refused(target):
    with pytest.raises(ValueError, match="not printable ASCII"):
        request(target).serialize()


# --- responses ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "status", "content_type", "body"),
    [
        (Response.text("grüß"), 200, "text/plain; charset=utf-8", "grüß".encode()),
        (Response.html("<p>", 404), 404, "text/html; charset=utf-8", b"<p>"),
        (Response.text("a,b", headers=Headers({"content-type": "text/csv"})), 200, "text/csv", b"a,b"),
        (Response.redirect("/x"), 302, "text/plain; charset=utf-8", b"/x\n"),
        (Response.redirect("/x", 308), 308, "text/plain; charset=utf-8", b"/x\n"),
    ],
)
def test_a_response_of_text_has_one_content_type(response, status, content_type, body):
    assert response.status == status
    assert response.headers.get_all("Content-Type") == [content_type]
    assert response.body == body


def test_a_response_of_text_refuses_a_lone_surrogate():
    with pytest.raises(ValueError, match=r"^body contains a lone surrogate"):
        Response.text("x\ud800")


def test_a_redirect_refuses_line_breaks_in_its_location():
    assert Response.redirect("/x").headers["Location"] == "/x"
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        Response.redirect("/x\r\nSet-Cookie: y")


def test_a_response_does_not_change_the_given_headers():
    headers = Headers({"X": "1"})
    Response.text("x", headers=headers)
    assert list(headers) == [("X", "1")]


@pytest.mark.parametrize(
    ("status", "line"),
    [(200, b"HTTP/1.1 200 OK"), (426, b"HTTP/1.1 426 Upgrade Required"), (599, b"HTTP/1.1 599 ")],
)
def test_a_response_serializes_with_the_standard_reason_phrase(status, line):
    response = Response(status, Headers({"X": "1"}), b"\x00body")
    assert response.serialize() == line + b"\r\nX: 1\r\n\r\n\x00body"


@pytest.mark.parametrize("headers", [{"X": "1"}, [("X", "1")], Headers({"X": "1"})])
@pytest.mark.parametrize("body", [b"a", bytearray(b"a"), memoryview(b"a")])
def test_a_response_accepts_each_type_of_headers_and_body(headers, body):
    assert Response(401, headers, body).serialize() == b"HTTP/1.1 401 Unauthorized\r\nX: 1\r\n\r\na"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("200",), "status"),
        ((200, {"X": 1}), "header X"),
        ((200, None, "text"), "body must be bytes-like, not str"),
        ((200, None, None), "body"),
    ],
)
def test_a_response_refuses_arguments_of_the_wrong_type(arguments, named):
    with pytest.raises(TypeError, match=named):
        Response(*arguments)
