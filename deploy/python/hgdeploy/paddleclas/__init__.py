# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's configs, and the class of its Python package."""

from hgdeploy.paddleclas.face import PaddleClas

__all__ = ["PaddleClas"]
