# SPDX-License-Identifier: Apache-2.0
"""The server over HTTP: addresses, bodies within limits, and the connections."""
