"""What has gone wrong between OpenStack's services and their Keystone, each test is named by its advisory."""

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from api_cell.errors import Unauthorized
from api_cell.glance import GlanceImages
from api_cell.settings import Keystone
from cells.certificates import Authority
from cells.errors import CelltreeError, Temporary
from cells.house import system_clock

# keystonemiddleware stands on WebOb, which imports cgi until Python has it no more; hence it is imported late, too.
pytestmark = pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")


class Impostor:
    """Answers HTTPS on a loopback port with a certificate of an authority of its own; keeps what it was asked."""

    def __init__(self, folder: Path) -> None:
        authority = Authority.create("theirs", system_clock())
        self.authorities = folder / "theirs.pem"
        self.authorities.write_bytes(authority.certificate)
        certificate, key = authority.issue("impostor", system_clock(), hosts=("127.0.0.1",))
        pair = folder / "pair.pem"
        pair.write_bytes(certificate + key)
        asked = self.asked = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(401)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        # A handshake that fails ends its own connection, in its own thread.
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[Impostor]:
    impostor = Impostor(tmp_path)
    impostor.server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=impostor.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield impostor
    impostor.server.shutdown()
    thread.join()
    impostor.server.server_close()


def _token(url: str, authorities: str) -> object:
    from api_cell.http.keystone import TokenDesk

    environment = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_X_AUTH_TOKEN": "a-token"}
    return TokenDesk(Keystone(url=url, authorities=authorities), "a-password").caller(environment)


def _login(url: str, authorities: str) -> object:
    from api_cell.http.service_user import ServiceUser

    return ServiceUser(Keystone(url=url, authorities=authorities), "a-password").headers()


def _image(url: str, authorities: str) -> object:
    return GlanceImages(url, headers=lambda: {"X-Auth-Token": "a-token"}, authorities=authorities).find("n")


@pytest.mark.parametrize("ask", [_token, _login, _image])
@pytest.mark.parametrize("trusted", ["the system's", "another one's"])
def test_ossa_2014_030_who_has_no_certificate_of_our_authority_is_told_nothing(
    impostor: Impostor, tmp_path: Path, ask: Callable[[str, str], object], trusted: str
) -> None:
    """There is no setting that leaves certificates unchecked."""
    authorities = ""
    if trusted == "another one's":
        path = tmp_path / "ours.pem"
        path.write_bytes(Authority.create("ours", system_clock()).certificate)
        authorities = str(path)
    with pytest.raises(Temporary):
        ask(impostor.url, authorities)
    assert impostor.asked == []
    with pytest.raises((CelltreeError, Unauthorized)):
        ask(impostor.url, str(impostor.authorities))
    assert impostor.asked, "with the right authority it would have been asked"
