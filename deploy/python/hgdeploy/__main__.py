# SPDX-License-Identifier: Apache-2.0
"""`python -m hgdeploy` is `hgdeploy`, for where scripts are not on PATH."""

import sys

from hgdeploy.cli import main

sys.exit(main())
