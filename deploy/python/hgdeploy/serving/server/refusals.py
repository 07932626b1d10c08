# SPDX-License-Identifier: Apache-2.0
"""Why a request gets no answer, in the terms that every protocol has a code for."""

from __future__ import annotations

import enum

from hgdeploy.errors import HGDeployError


class Why(enum.Enum):
    """The kinds of refusal."""

    WRONG = "the request is wrong"
    UNAUTHORIZED = "the API key is missing or wrong"
    UNKNOWN = "there is no such model or address"
    TOO_LARGE = "the request is too large"
    TOO_SLOW = "the client is too slow"
    UNSUPPORTED = "this server does not do that"
    BUSY = "there is no room; try again"
    LATE = "the deadline has passed"
    CLOSING = "the server is not ready, or ends"


class RefusedError(HGDeployError):
    """A request that gets no answer.

    Attributes:
        why: its kind.
    """

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why = why


class WrongError(RefusedError):
    """A request that its sender has to correct."""

    def __init__(self, message: str) -> None:
        super().__init__(Why.WRONG, message)
