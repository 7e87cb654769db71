"""A release has one version: in its tag, its source and its changelog."""

from __future__ import annotations

import pytest

from tools.check_release import faults

SOURCE = 'import os\n\n__version__ = "0.2.0"\n'
CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 0.2.0 (2026-12-01)\n\n- This.\n\n## 0.1.0 (2026-11-01)\n"


def test_a_release_with_one_version_passes() -> None:
    assert faults("v0.2.0", SOURCE, CHANGELOG) == []


@pytest.mark.parametrize("tag", ["v0.1.0", "0.2.0", "v0.2.0.dev0", "main"])
def test_another_tag_is_refused(tag: str) -> None:
    assert len(faults(tag, SOURCE, CHANGELOG)) == 1


@pytest.mark.parametrize(
    "changelog",
    [
        CHANGELOG.replace("## 0.2.0 (2026-12-01)\n", ""),
        CHANGELOG.replace(" (2026-12-01)", ""),
        CHANGELOG.replace("## Unreleased\n", ""),
        CHANGELOG.replace("(2026-12-01)", "(not yet released)"),
        "# Changelog\n\n## Unreleased\n",
        "",
    ],
)
def test_a_changelog_without_the_version_is_refused(changelog: str) -> None:
    assert faults("v0.2.0", SOURCE, changelog)
