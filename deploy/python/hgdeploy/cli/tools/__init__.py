# SPDX-License-Identifier: Apache-2.0
"""The verbs that read PaddleClas's training config, as the scripts in its folder `tools` do."""
