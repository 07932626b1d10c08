# SPDX-License-Identifier: Apache-2.0
"""What is fetched from the network."""
