"""The live-server tests of a Django project with Channels, as a program; its argument is a folder for the database."""

import sys
import types
from pathlib import Path

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

from endwell.sync import connect
from endwell.testing import LiveServerProcess

#: channels.testing imports the class that it uses by default.
daphne = types.ModuleType("daphne.testing")
daphne.DaphneProcess = None
sys.modules.update({"daphne": types.ModuleType("daphne"), "daphne.testing": daphne})

urlpatterns = [path("count", lambda request: HttpResponse(str(User.objects.count())))]

folder = Path(sys.argv[1])
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db", "TEST": {"NAME": folder / "test"}}
settings.configure(
    DATABASES={"default": database},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.staticfiles"],
    STATIC_URL="static/",
    ROOT_URLCONF=__name__,
    ASGI_APPLICATION=f"{__name__}.application",
    USE_TZ=True,
)
django.setup()

from channels.generic.websocket import WebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter  # noqa: E402
from channels.testing import ChannelsLiveServerTestCase  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.test.runner import DiscoverRunner  # noqa: E402


class Echo(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data)

    def disconnect(self, code):
        (folder / "disconnected").write_text(str(code))


application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": Echo.as_asgi()})


class Tests(ChannelsLiveServerTestCase):
    ProtocolServerProcess = LiveServerProcess

    def test_pages_and_websockets(self):
        from urllib.request import urlopen

        User.objects.create_user("alice")
        with urlopen(f"{self.live_server_url}/count") as answer:
            assert answer.read() == b"1"
        Tests.ws = connect(f"{self.live_server_ws_url}/")
        Tests.ws.send("hello")
        assert Tests.ws.recv(timeout=30) == "hello"


runner = DiscoverRunner(verbosity=0)
databases = runner.setup_databases()
suite = runner.test_loader.loadTestsFromTestCase(Tests)
result = runner.run_suite(suite)
runner.teardown_databases(databases)
print("ended with", Tests.ws.ending.received.code)
sys.exit(not result.wasSuccessful())
