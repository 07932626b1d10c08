# SPDX-License-Identifier: Apache-2.0
"""The engine `auto`: what was measured to be the fastest here, and saved in the bundle.

`hgdeploy tune` and `hgdeploy recommend --save` write it (`saved`) with what tells this machine
from others (`machine`); `choose` reads it wherever an engine may be named.
"""
