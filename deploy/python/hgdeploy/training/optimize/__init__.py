# SPDX-License-Identifier: Apache-2.0
"""What turns answers and labels into new weights: losses, learning rates, optimizers, averages."""
