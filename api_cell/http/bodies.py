"""JSON bodies: read with every limit, checked against a route's schema. What passes is plain data of that shape."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
from jsonschema.exceptions import ValidationError, best_match

from api_cell.errors import Invalid
from api_cell.http.call import Schema

MOST_LEVELS = 32


def parse(data: bytes) -> Any:
    """The JSON value; Invalid for broken UTF-8, repeated keys, NaN, numbers beyond reason, too many levels."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid("Malformed request body: it is not UTF-8") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_whole)
    except RecursionError:
        raise Invalid(f"Malformed request body: more than {MOST_LEVELS} levels") from None
    except json.JSONDecodeError as error:
        raise Invalid(f"Malformed request body: not JSON: {error.msg} at character {error.pos}") from None
    _refuse_odd(value, MOST_LEVELS)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Invalid(f"Malformed request body: the key {key[:80]!r} is there twice; give it once")
        found[key] = value
    return found


def _constant(name: str) -> Any:
    raise Invalid(f"Malformed request body: {name} is not a JSON number")


def _whole(digits: str) -> int:
    if len(digits) > 19:
        raise Invalid(f"Malformed request body: the number {digits[:24]}... is too large")
    return int(digits)


def _refuse_odd(value: Any, levels: int) -> None:
    if levels == 0:
        raise Invalid(f"Malformed request body: more than {MOST_LEVELS} levels")
    if isinstance(value, str):
        _refuse_lone_surrogate(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_lone_surrogate(key)
            _refuse_odd(item, levels - 1)
    elif isinstance(value, list):
        for item in value:
            _refuse_odd(item, levels - 1)


def _refuse_lone_surrogate(text: str) -> None:
    """JSON can spell half a character, which no database and no UTF-8 can hold."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise Invalid("Malformed request body: a string holds half a surrogate pair") from None


def _is_whole(_: Any, value: Any) -> bool:
    """JSON Schema takes 1.0 for an integer; a row that wants an int does not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _matches(_: Any, pattern: str, value: Any, __: Schema) -> Iterator[ValidationError]:
    """JSON Schema's $ is the end of the text; Python's lets a line end follow."""
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


_Validator: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    {"pattern": _matches},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole),
)

# A validator is made once per schema; the schema is kept beside it, so that its identity stays its own.
_validators: dict[int, tuple[Schema, Any]] = {}


def check(value: Any, schema: Schema) -> None:
    """Invalid, naming the field and what it must be, unless the value is of the schema."""
    kept = _validators.get(id(schema))
    if kept is None:
        kept = _validators[id(schema)] = (schema, _Validator(schema))
    error = best_match(kept[1].iter_errors(value))
    if error is None:
        return
    raise Invalid(f"Invalid input for field/attribute {_place(error)}: {_reason(error)}")


# Fields whose values are nobody's business but the guest's; what is wrong with them is told without them.
_SECRET = frozenset({"adminPass", "changePassword", "personality", "rescue", "user_data"})


def _place(error: Any) -> str:
    return ".".join(str(step) for step in error.absolute_path) or "body"


def _reason(error: Any) -> str:
    text = str(error.message)
    if isinstance(error.instance, dict | list) or _SECRET.intersection(error.absolute_path):
        text = text.replace(repr(error.instance), "what is given")
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-80:]}"
