"""Asserts of the shared parts show what they compared; both roles, both transports."""

from __future__ import annotations

import pytest

from tests.closing.conftest import role, transport

__all__ = ["role", "transport"]

pytest.register_assert_rewrite("tests.pair", "tests.hostile.honest")
