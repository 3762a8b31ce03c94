"""What a role's process may have and keeps."""

from __future__ import annotations

import resource

import pytest

from pillarbox.roles.process import affordable


@pytest.mark.parametrize(
    ("limit", "each", "expected"),
    [(65536, 3, 4000), (1064, 1, 1000), (1064, 3, 333), (64, 1, 1), (10, 5, 1), (resource.RLIM_INFINITY, 9, 4000)],
)
def test_no_more_is_opened_than_there_are_descriptors_for(
    monkeypatch: pytest.MonkeyPatch, limit: int, each: int, expected: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (limit, limit))
    assert affordable(4000, each) == expected
