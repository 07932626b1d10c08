# SPDX-License-Identifier: Apache-2.0
"""From weights to weights: training, fine-tuning and distillation."""
