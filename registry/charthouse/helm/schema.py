"""JSON schemas: the one door to jsonschema. Nothing is ever fetched: a reference that leads elsewhere is not followed.

Patterns and self-references of a schema can cost any amount of time, so this runs in the helper process only.
Source: helm.sh/helm/v4 v4.3.1, pkg/chart/common/util/jsonschema.go: draft 2020-12 unless `$schema` names another.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 10  # faults, of however many


class SchemaInvalid(ValueError):
    """The schema itself cannot be used."""


class SchemaElsewhere(ValueError):
    """The schema needs another one, from somewhere else."""


def faults(schema: bytes, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where the values break the schema, as `a.b[0]`, and how. Raises SchemaInvalid, SchemaElsewhere."""
    # Only here: importing costs a tenth of a second, and charts without a schema need none of it.
    import jsonschema
    import referencing.exceptions

    document = _parse(schema)
    validator = jsonschema.validators.validator_for(document, default=jsonschema.Draft202012Validator)
    try:
        validator.check_schema(document)
        checker = validator(document, registry=referencing.Registry())
        for count, error in enumerate(checker.iter_errors(values)):
            if count == SHOWN:
                return
            yield _place(error.absolute_path), error.message[:300]
    except jsonschema.SchemaError as error:
        raise SchemaInvalid(f"{_place(error.absolute_path) or 'it'}: {error.message[:300]}") from None
    except referencing.exceptions.Unresolvable as error:
        raise SchemaElsewhere(str(error)[:300]) from None
    except RecursionError:
        raise SchemaInvalid("it refers to itself without end") from None
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
        raise SchemaInvalid(f"it cannot be used: {str(error)[:300]}") from None  # a pattern Python has no word for, …


def _parse(schema: bytes) -> Any:
    try:
        document = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise SchemaInvalid(f"it is not valid JSON: {error}") from None
    if not isinstance(document, (dict, bool)):
        raise SchemaInvalid("it is no JSON object")
    return document


def _place(path: Any) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")
