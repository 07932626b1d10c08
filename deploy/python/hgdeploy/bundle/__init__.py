# SPDX-License-Identifier: Apache-2.0
"""A bundle: the folder of a model with the facts needed to feed it."""

from hgdeploy.bundle.model_bundle import ModelBundle, open_bundle
from hgdeploy.bundle.model_files import model_digest

__all__ = ["ModelBundle", "model_digest", "open_bundle"]
