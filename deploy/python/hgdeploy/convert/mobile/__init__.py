# SPDX-License-Identifier: Apache-2.0
"""From ONNX to the formats of MNN and ncnn, which run on phones as on servers."""
