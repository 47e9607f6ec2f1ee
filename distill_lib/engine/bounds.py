"""Numbers that settings may be: pydantic's types with bounds. YAML's true and false are no numbers here."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


_IS_NUMBER = BeforeValidator(_number)
NonNegative = Annotated[int, _IS_NUMBER, Field(ge=0, le=2**62)]
"""0, 1, 2 .."""
Count = Annotated[int, _IS_NUMBER, Field(ge=1, le=10**9)]
"""1, 2, 3 .."""
Number = Annotated[float, _IS_NUMBER, Field(ge=0, allow_inf_nan=False)]
"""At least 0, finite."""
Positive = Annotated[float, _IS_NUMBER, Field(gt=0, allow_inf_nan=False)]
"""Above 0, finite."""
Unit = Annotated[float, _IS_NUMBER, Field(ge=0, le=1, allow_inf_nan=False)]
"""From 0 to 1."""
Share = Annotated[float, _IS_NUMBER, Field(gt=0, le=1, allow_inf_nan=False)]
"""Above 0, up to 1."""
Decay = Annotated[float, _IS_NUMBER, Field(ge=0, lt=1, allow_inf_nan=False)]
"""From 0 to below 1: with a decay of 1 an average never moves."""
