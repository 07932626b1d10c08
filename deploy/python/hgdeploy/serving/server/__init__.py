# SPDX-License-Identifier: Apache-2.0
"""The server of `hgdeploy serve`: models, a queue for each, and the protocols in front of them."""
