# SPDX-License-Identifier: Apache-2.0
"""Read weights from files safely, and load them into a network."""
