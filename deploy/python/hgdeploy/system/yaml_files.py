# SPDX-License-Identifier: Apache-2.0
"""Reads YAML files; whatever is wrong with one is an error of one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hgdeploy.errors import ConfigError, HGDeployError


def read_yaml(path: Path, what: str, error: type[HGDeployError] = ConfigError) -> dict[Any, Any]:
    """Read a YAML file of keys and values.

    Args:
        path: a UTF-8 text file.
        what: what the file is called in the error, such as `config file`.
        error: what is raised.

    Raises:
        HGDeployError: `error`, where the file is missing, is no YAML, or holds no keys.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise error(f"{what} {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{what} {path} cannot be read: {reason}") from None
    except RecursionError:
        raise error(f"{what} {path} is not valid YAML: it is nested too deep") from None
    # PyYAML lets through what Python says of a value, such as a date of month 13.
    except (yaml.YAMLError, ValueError, AttributeError) as reason:
        raise error(f"{what} {path} is not valid YAML: {' '.join(str(reason).split())}") from None
    if not isinstance(raw, dict):
        raise error(f"{what} {path} has no keys, expected some with their values")
    return raw
