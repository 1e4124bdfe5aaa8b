"""Users in each test of a file, whose passwords cost nothing to hash."""

import pytest

from charthouse.auth import passwords


@pytest.fixture
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """argon2 all the same, with its smallest numbers; ours are test_a_password_is_kept_as_argon2id's matter."""
    context = passwords.Passwords()._context
    cheap = context.copy(argon2__memory_cost=8, argon2__time_cost=1)
    monkeypatch.setattr(type(context), "hash", lambda _, secret: cheap._get_record("argon2", None).hash(secret))
