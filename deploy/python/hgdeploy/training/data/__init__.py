# SPDX-License-Identifier: Apache-2.0
"""Labelled images in batches, as PaddleClas's `DataLoader` section describes them.

`TrainingData.from_config` reads one of its sections, and `epoch` yields batches. What is random is
drawn from numbers of its own for each image of each epoch, so that a batch depends on the seed, the
epoch and its place alone: not on how many workers read it, nor on where a run was resumed.
"""

from hgdeploy.training.data.batch import Batch
from hgdeploy.training.data.loader import TrainingData
from hgdeploy.training.data.options import DataOptions

__all__ = ["Batch", "DataOptions", "TrainingData"]
