# SPDX-License-Identifier: Apache-2.0
"""The server over gRPC."""

import os

LIBRARIES = ("grpc", "grpc_health", "tritonclient.grpc")
"""What it is made of."""

# gRPC reads this as it is imported. Its own lines tell what is told already, or a client's fault,
# such as a handshake that fails.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
