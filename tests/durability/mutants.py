"""Registries with a fault on purpose, to show that the tests of durability find it."""


def apply(name: str) -> None:
    """Changes the registry of this process."""
    if name:
        MUTANTS[name]()


MUTANTS = {}
