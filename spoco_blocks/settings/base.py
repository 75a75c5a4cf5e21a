"""What every section of the configuration is made of."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
LengthsNm = tuple[Positive, Positive, Positive]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


def _without_credentials(uri: str) -> str:
    if re.match(r"\w+://[^/]*@", uri):
        raise ValueError(
            "credentials do not belong into a configuration; they come from AWS_PROFILE or AWS_… variables"
        )
    return uri


def _writable(uri: str) -> str:
    if "://" in uri and not re.match(r"s3://[^/]", uri):
        raise ValueError("arrays can be written to a folder or to s3://BUCKET/PREFIX")
    return uri


Uri = Annotated[str, AfterValidator(_without_credentials)]
WritableUri = Annotated[Uri, AfterValidator(_writable)]


class Section(BaseModel):
    """Base of all sections: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )
