# SPDX-License-Identifier: Apache-2.0
"""The verbs of `hgdeploy`: each module adds its own to the parser, as a thin shell over the API."""
