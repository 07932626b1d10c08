# SPDX-License-Identifier: Apache-2.0
"""HGDeploy: from a PaddleClas-style classifier to the fastest correct deployment a machine allows.

Two nouns and one verb serve most users:

    from hgdeploy import Classifier
    classifier = Classifier("deploy/models/EfficientNetLite0_infer")
    for prediction in classifier.predict("photos/"):
        print(prediction.path, prediction.labels[0], prediction.scores[0])

Importing this package loads no engine library; each is loaded when it is first used.
"""

from __future__ import annotations

from hgdeploy._version import __version__
from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.settings import ClassifierSettings
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import HGDeployError
from hgdeploy.transforms.prediction import Prediction

__all__ = [
    "Classifier",
    "ClassifierSettings",
    "EngineOptions",
    "HGDeployError",
    "Prediction",
    "__version__",
]
