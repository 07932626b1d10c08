# SPDX-License-Identifier: Apache-2.0
"""The models of a server, by name and version: loaded, loaded again, unloaded."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hgdeploy.errors import ConfigError, HGDeployError, nearest, one_line
from hgdeploy.serving.server.model import ServedModel
from hgdeploy.serving.server.refusals import RefusedError, Why

Load = Callable[[], ServedModel]


@dataclass
class _Version:
    """One version of a name.

    Attributes:
        load: loads it.
        model: what serves it; None while it is unloaded.
        reason: why it does not serve, or is not what is on disk; empty where all is well.
    """

    load: Load
    model: ServedModel | None
    reason: str = ""


@dataclass(frozen=True)
class Listed:
    """What the index says of one version.

    Attributes:
        name: the model's name.
        version: which.
        ready: whether it serves.
        reason: why it does not, or why it could not be loaded again.
    """

    name: str
    version: str
    ready: bool
    reason: str


class Models:
    """The models of a server; safe to call from many threads at once.

    Models of one name are its versions 1, 2, ... in their order; the last one that is loaded
    answers where no version is asked for.

    Args:
        drain: seconds that the requests of a model that is replaced or unloaded may still take.
    """

    def __init__(self, drain: float = 30.0) -> None:
        self._versions: dict[str, list[_Version]] = {}
        self._drain = drain
        self._swap = threading.Lock()
        self._control = threading.Lock()
        self._closing: list[threading.Thread] = []
        self.ready = False

    def load(self, loads: Sequence[Load]) -> None:
        """Load all models; the server is ready when they have answered once.

        Raises:
            HGDeployError: one cannot be loaded; those before it are freed.
        """
        if not loads:
            raise ConfigError("there is no model to serve")
        try:
            for load in loads:
                model = load()
                self._versions.setdefault(model.name, []).append(_Version(load, model))
        except BaseException:
            self.close(0.0)
            raise
        self.ready = True

    @property
    def names(self) -> list[str]:
        """The models' names, in their order."""
        return list(self._versions)

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model that are loaded, oldest first."""
        return [version for named, version, _ in self.all() if named == name]

    def all(self) -> list[tuple[str, str, ServedModel]]:
        """Return every model that is loaded with its name and version."""
        return [
            (name, str(i + 1), one.model)
            for name, versions in self._versions.items()
            for i, one in enumerate(versions)
            if one.model is not None
        ]

    def index(self) -> list[Listed]:
        """Return every version, loaded or not."""
        return [
            Listed(name, str(i + 1), one.model is not None, one.reason)
            for name, versions in self._versions.items()
            for i, one in enumerate(versions)
        ]

    def find(self, name: str | None = None, version: str | None = None) -> tuple[str, ServedModel]:
        """Return a model with its version.

        Args:
            name: its name; None where the server has one only.
            version: None for the last that is loaded.

        Raises:
            RefusedError: there is none.
        """
        self._check_ready()
        if name is None:
            if len(self._versions) > 1:
                text = f"name the model, one of: {', '.join(self._versions)}"
                raise RefusedError(Why.WRONG, text)
            name = self.names[0]
        known = self._named(name)
        numbers = [str(i + 1) for i in range(len(known))]
        if version is not None and version not in numbers:
            text = f"model {name!r} has no version {version!r}, {nearest(version, numbers)}"
            raise RefusedError(Why.UNKNOWN, text)
        for number, one in zip(reversed(numbers), reversed(known), strict=True):
            if one.model is not None and version in (None, number):
                return number, one.model
        if version is None:
            raise RefusedError(Why.UNKNOWN, f"model {name!r} is unloaded")
        raise RefusedError(Why.CLOSING, f"model {name!r} version {version} is unloaded")

    @contextlib.contextmanager
    def using(
        self, name: str | None = None, version: str | None = None
    ) -> Iterator[tuple[str, ServedModel]]:
        """Find a model as `find` does, and keep it open until the `with` block ends."""
        with contextlib.ExitStack() as stack:
            with self._swap:  # so that nobody closes it in between
                found = self.find(name, version)
                stack.enter_context(found[1].held())
            yield found

    def load_again(self, name: str) -> None:
        """Load all versions of a model from their folders as these are now, and serve those.

        What served before answers until all are loaded, and then what it has begun.

        Raises:
            RefusedError: there is no such model, another is being loaded, or one version cannot
                be loaded; then all goes on as before.
        """
        with self._controlling():
            known = self._named(name)
            try:
                loaded = _loaded(name, known)
            except HGDeployError as error:
                reason = one_line(error)
                for one in known:
                    one.reason = f"not loaded again: {reason}"
                text = f"model {name!r} is not loaded again: {reason}"
                raise RefusedError(Why.WRONG, text) from error
            if not self._replace(known, loaded, ""):
                for model in loaded:
                    model.close(0.0)
                self._check_ready()

    def unload(self, name: str) -> None:
        """Serve a model no more, until it is loaded again; what has begun is answered.

        Raises:
            RefusedError: there is no such model, or one is being loaded.
        """
        with self._controlling():
            known = self._named(name)
            self._replace(known, [None] * len(known), "unloaded")

    def close(self, seconds: float) -> bool:
        """Take no more requests, answer those that wait, within so many seconds, and free all.

        Returns:
            Whether all were answered.
        """
        with self._swap:
            self.ready = False
        until = time.monotonic() + seconds
        ended = [model.close(max(0.0, until - time.monotonic())) for _, _, model in self.all()]
        for thread in self._closing:
            thread.join(max(0.0, until - time.monotonic()))
        return all(ended) and not any(thread.is_alive() for thread in self._closing)

    @contextlib.contextmanager
    def _controlling(self) -> Iterator[None]:
        self._check_ready()
        if not self._control.acquire(blocking=False):
            raise RefusedError(Why.BUSY, "a model is being loaded or unloaded; try again")
        try:
            yield
        finally:
            self._control.release()

    def _replace(
        self, known: Sequence[_Version], models: Sequence[ServedModel | None], reason: str
    ) -> bool:
        """Serve other models from now on; return whether that was done before the server ends."""
        with self._swap:
            if not self.ready:
                return False
            before = [one.model for one in known if one.model is not None]
            for one, model in zip(known, models, strict=True):
                one.model, one.reason = model, reason
        self._closing = [thread for thread in self._closing if thread.is_alive()]
        for model in before:
            thread = threading.Thread(target=model.close, args=(self._drain,), daemon=True)
            thread.start()
            self._closing.append(thread)
        return True

    def _check_ready(self) -> None:
        if not self.ready:
            raise RefusedError(Why.CLOSING, "the server is not ready yet, or ends")

    def _named(self, name: str) -> list[_Version]:
        if name not in self._versions:
            text = f"there is no model {name!r}, {nearest(name, self._versions)}"
            raise RefusedError(Why.UNKNOWN, text)
        return self._versions[name]


def _loaded(name: str, versions: Sequence[_Version]) -> list[ServedModel]:
    """Load all versions of a name, or none.

    Raises:
        HGDeployError: one cannot be loaded, or its name has changed.
    """
    loaded: list[ServedModel] = []
    try:
        for one in versions:
            loaded.append(one.load())
            if (found := loaded[-1].name) != name:
                text = f"its bundle is now called {found!r}; start the server again for that"
                raise ConfigError(text)
    except BaseException:
        for model in loaded:
            model.close(0.0)
        raise
    return loaded
