"""``endwell serve`` finds the Server or the application that its target names."""

import sys
import textwrap

import pytest

import endwell
from endwell.cli import main
from endwell.cli.target import load

APP = """
import endwell
import neighbour
number = 3
server = endwell.Server()

class Application:
    async def __call__(self, scope, receive, send):
        pass

class Container:
    app = Application()

async def function(scope, receive, send):
    pass

def wsgi(environ, start_response):
    pass

def double(scope):
    return None

def create():
    return Application()

def create_server():
    return server

def create_number():
    return 3

def fails():
    raise AttributeError("fails")

def create_for(name):
    return Application()

async def create_later():
    return Application()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with all kinds of targets in app.py; imported modules are removed afterwards."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "neighbour.py").write_text("")
    (tmp_path / "framework.py").write_text(
        textwrap.dedent(APP[APP.index("class") :]) + "\nsite = Application()"
    )
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "deep.py").write_text("async def app(scope, receive, send): pass")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.mark.parametrize("target", ["app.py:server", "./app.py:server", "app:server"])
def test_a_server_is_found_in_a_file_or_a_module(target):
    assert isinstance(load(target), endwell.Server)


def test_a_file_in_another_folder_can_import_its_neighbours(folder, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert isinstance(load(f"{folder}/app.py:server"), endwell.Server)


@pytest.mark.parametrize("name", ["function", "double", "Container.app"])
def test_an_application_is_found(name):
    assert callable(load(f"app:{name}"))


def test_an_application_is_found_in_the_folder_of_app_dir():
    assert callable(load("deep:app", "inside"))


def test_a_factory_makes_the_server_or_the_application():
    assert isinstance(load("app:create_server", factory=True), endwell.Server)
    assert type(load("app:create", factory=True)).__name__ == "Application"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("app.py", "'app.py' is not FILE_OR_MODULE:ATTR, such as app.py:server"),
        ("app.py:", "'app.py:' is not FILE_OR_MODULE:ATTR, such as app.py:server"),
        (":server", "':server' is not FILE_OR_MODULE:ATTR, such as app.py:server"),
        ("missing.py:server", "there is no file 'missing.py'"),
        ("./app:server", "there is no file 'app'"),
        ("missing:server", "there is no module 'missing'"),
        ("missing.app:server", "there is no module 'missing'"),
        ("app:application", "app has no attribute 'application'; its Server is called server"),
        ("app:server.app", "app has no attribute 'server.app'; its Server is called server"),
        ("framework:app", "framework has no attribute 'app'; its application is called site"),
        ("neighbour.py:server", "neighbour.py has no attribute 'server'"),
        ("app.py:number", "'number' of app.py is of type int, and neither a Server nor an ASGI application"),
        ("app:create", "'create' of app takes no arguments; if it returns the application, add --factory"),
        ("deep:app", "there is no module 'deep'"),
        ("app:wsgi", "wsgi is a WSGI application, and a2wsgi is not installed: pip install a2wsgi"),
    ],
)
def test_a_target_that_cannot_be_served_is_named(target, problem, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "a2wsgi", None)
    assert main(["serve", target]) == 2
    assert capsys.readouterr().err == f"endwell serve: {problem}\n"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("create_for", "'create_for' of app is not a function without parameters, which --factory calls"),
        (
            "Container.app",
            "'Container.app' of app is not a function without parameters, which --factory calls",
        ),
        (
            "create_later",
            "'create_later' of app is a coroutine function; --factory calls an ordinary function",
        ),
        ("number", "'number' of app is of type int, which --factory cannot call"),
        ("create_number", "the result of 'create_number' of app is of type int, and neither a Server nor"),
    ],
)
def test_a_factory_that_makes_no_application_is_named(name, problem, capsys):
    assert main(["serve", f"app:{name}", "--factory"]) == 2
    assert problem in capsys.readouterr().err


def test_an_error_of_the_factory_itself_propagates():
    with pytest.raises(AttributeError, match="fails"):
        load("app:fails", factory=True)


@pytest.mark.parametrize("code", ["int('')", "def app(): int('')"], ids=["import", "factory"])
def test_an_error_of_the_application_is_shown_with_its_traceback(code, folder):
    # pydantic's ValidationError of wrong settings is a ValueError, too.
    (folder / "broken.py").write_text(code)
    with pytest.raises(ValueError, match="invalid literal") as raised:
        main(["serve", "broken:app", "--factory", "--port", "0"])
    assert raised.traceback[-1].path == folder / "broken.py"
