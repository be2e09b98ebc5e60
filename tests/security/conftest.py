from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "provider"))

from in_process import _impatient, one_try, sandbox  # noqa: F401
