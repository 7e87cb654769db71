"""Makes failing asserts of the shared modules show the compared values."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.hostile.honest")
