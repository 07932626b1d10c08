# SPDX-License-Identifier: Apache-2.0
"""The results of the checks of `make gpu-check`, in a file that is complete after every check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpu_checks import Task

from hgdeploy.errors import ConfigError
from hgdeploy.system.files import write_text


class CheckRecord:
    """The results of the checks: printed, saved beside the timings, and kept for the next start."""

    def __init__(self, path: Path, environment: str) -> None:
        self._path = path
        self._head = {"environment": environment}
        self.results: list[dict[str, Any]] = []
        self._kept: list[dict[str, Any]] = []
        if path.is_file():
            old = json.loads(path.read_text(encoding="utf-8"))
            if old["environment"] != environment:
                raise ConfigError(
                    f"{path} was made in another environment; name another file with --output"
                )
            self._kept = [result for result in old["checks"] if result["status"] == "passed"]

    def reuse(self, task: Task) -> bool:
        """Keep the result of a task that passed at an earlier start; return whether it did."""
        found = [result for result in self._kept if result["job"] == task.key()]
        if found:
            self.results += found
        return bool(found)

    def add(self, task: Task, status: str, detail: str, seconds: float = 0.0) -> None:
        """Print a result and save it."""
        words = (task.target, task.model, task.precision, task.check)
        batch = "/".join(map(str, task.profile)) if task.check == "build" else ""
        print(f"{status:8}{' '.join(filter(None, (*words, batch)))}: {detail}", flush=True)
        result = {
            "job": task.key(),
            "status": status,
            "detail": detail,
            "seconds": round(seconds, 1),
        }
        self.results.append(result)
        done = [result["job"] for result in self.results]
        later = [result for result in self._kept if result["job"] not in done]
        document = {**self._head, "checks": [*self.results, *later]}
        write_text(self._path, json.dumps(document, indent=1) + "\n")
