"""A listener behind a web configuration file, with certificates that were made for it, and clients that know them."""

import asyncio
import base64
import contextlib
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import bcrypt
import trustme
from starlette.types import ASGIApp

from exporter.config.web_file import load_web_config
from exporter.web.app import Hooks, build
from exporter.web.errors import ErrorAnswers
from exporter.web.gate import Gate
from exporter.web.listener import listen
from exporter.web.passwords import Passwords
from exporter.web.protocol import Limits
from tests.web.support import LOOPBACK, Client, Site, one_gauge

NAME: Final = "exporter.test"
PASSWORD: Final = "correct horse"
HASH: Final = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
ALICE: Final = {"basic_auth_users": {"alice": HASH}}


def basic(user: str, password: str | bytes) -> str:
    """The field that carries them."""
    password = password.encode() if isinstance(password, str) else password
    return "Authorization: Basic " + base64.b64encode(user.encode() + b":" + password).decode()


class Comparisons:
    """bcrypt, and what it was asked."""

    def __init__(self) -> None:
        self.made: list[tuple[bytes, bytes]] = []

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.made.append((password, hashed))
        return bcrypt.checkpw(password, hashed)


class Files:
    """A folder with a web configuration file and whatever it names; JSON is YAML."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "web.yml"
        self.authority = trustme.CA(key_type=trustme.KeyType.ECDSA)

    def write(self, config: dict[str, Any]) -> Path:
        """Put the file in its place, whole: its inode is another one then."""
        new = self.folder / "web.yml.new"
        new.write_text(json.dumps(config))
        new.replace(self.path)
        return self.path

    def gate(self, config: dict[str, Any], passwords: Passwords | None = None) -> Gate:
        return Gate(load_web_config(self.write(config)), passwords)

    def certify(self, folder: str = ".") -> None:
        """A new certificate and key for the server."""
        leaf = self.authority.issue_cert(NAME, key_type=trustme.KeyType.ECDSA)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        (self.folder / folder / "server.pem").write_bytes(chain)
        (self.folder / folder / "server.key").write_bytes(leaf.private_key_pem.bytes())

    def tls(self, **settings: object) -> dict[str, Any]:
        """A web configuration with TLS; a certificate is made for it if there is none."""
        if not (self.folder / "server.pem").exists():
            self.certify()
        self.authority.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        return {"tls_server_config": {"cert_file": "server.pem", "key_file": "server.key", **settings}}

    def client(
        self, certificate: trustme.LeafCert | None = None, authority: trustme.CA | None = None
    ) -> ssl.SSLContext:
        """What a client needs who trusts the server's authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        (authority or self.authority).configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        return context


@contextlib.asynccontextmanager
async def guarding(gate: Gate, app: ASGIApp | None = None, limits: Limits | None = None) -> AsyncIterator[Site]:
    """The exporter's pages, or `app`, behind `gate`."""
    errors: Counter[str] = Counter()
    scrapes: list[tuple[str, float]] = []
    answers = ErrorAnswers(lambda token: errors.update([token]))
    hooks = Hooks(
        one_gauge, lambda client, at: scrapes.append((client, at)), asyncio.get_running_loop().time, lambda: True
    )
    listener = await listen(app or build(hooks, answers), LOOPBACK, answers, limits, gate)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.run())
        try:
            yield Site(listener, errors, scrapes)
        finally:
            listener.stop()


@contextlib.asynccontextmanager
async def connected_by_tls(site: Site, context: ssl.SSLContext, name: str = NAME) -> AsyncIterator[Client]:
    address = site.address
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context, server_hostname=name)
    client = Client(reader, writer)
    try:
        yield client
    finally:
        await client.close()
