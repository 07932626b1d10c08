# SPDX-License-Identifier: Apache-2.0
"""fp16 and bf16 variants."""
