# SPDX-License-Identifier: Apache-2.0
"""Who may ask a server for what: the same for every protocol."""

from __future__ import annotations

import hmac
import json
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.errors import ConfigError
from hgdeploy.serving.server.refusals import RefusedError, Why
from hgdeploy.system.progress import OnLine


@dataclass(frozen=True)
class Tls:
    """The files of a certificate, in PEM.

    Attributes:
        certificate: the server's, and those of its issuers behind it.
        key: its private key, not encrypted.
    """

    certificate: Path
    key: Path

    def check(self) -> None:
        """Check that the files can be used.

        Raises:
            ConfigError: they cannot.
        """
        try:
            # The callback keeps OpenSSL from asking for a password at the terminal.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key, lambda: "")
        except OSError as error:  # of which ssl's errors are
            where = f"certificate {self.certificate} with key {self.key}"
            reason = "expected PEM files that belong together, and a key that is not encrypted"
            if not isinstance(error, ssl.SSLError):
                reason = error.strerror or type(error).__name__
            raise ConfigError(f"{where} cannot be used: {reason}") from None


@dataclass(frozen=True)
class DoorOptions:
    """What a server asks of requests, and which of them it answers at all.

    Attributes:
        key: what every request but those for health has to bring; None for no key.
        control: models may be loaded again and unloaded by requests.
        paddle_serving: the address of PaddleClas's old service is answered too.
        tls: requests come over TLS.
        on_access: called with a line of JSON for each request.

    Raises:
        ConfigError: no header can hold the key.
    """

    key: str | None = None
    control: bool = False
    paddle_serving: bool = False
    tls: Tls | None = None
    on_access: OnLine | None = None

    def __post_init__(self) -> None:
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise ConfigError(
                "the API key has characters that a header cannot hold; take one of ASCII letters, "
                "digits and punctuation"
            )

    def check_key(self, given: str) -> None:
        """Refuse a request without the key.

        Args:
            given: what it has in its header `Authorization`.

        Raises:
            RefusedError: the key is missing or wrong.
        """
        if self.key is None:
            return
        if not hmac.compare_digest(given.encode(), f"Bearer {self.key}".encode()):
            text = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
            raise RefusedError(Why.UNAUTHORIZED, text)

    def check_control(self) -> None:
        """Refuse a request to load or unload a model, where that is not allowed.

        Raises:
            RefusedError: it is not.
        """
        if not self.control:
            text = "this server loads and unloads no models; start it with --model-control explicit"
            raise RefusedError(Why.UNSUPPORTED, text)

    def tell(self, client: str | None, asked: str, status: int | str, seconds: float) -> None:
        """Log a request that has ended.

        Args:
            client: its sender's address.
            asked: the method and what it asked for, such as `GET /v2`.
            status: how it ended, in the protocol's own terms.
            seconds: how long it took.
        """
        if self.on_access is None:
            return
        method, _, path = asked.partition(" ")
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "client": client,
            "method": method,
            "path": path,
            "status": status,
            "ms": round(1000 * seconds, 2),
        }
        self.on_access(json.dumps(line))
