"""Types of fields that documents have in common: each reads what people write, and refuses the rest."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from mlaas.scheduler.requests import quantities

Duration = Annotated[float, BeforeValidator(quantities.parse_duration)]
"""In seconds."""
Number = Annotated[float, BeforeValidator(quantities.parse_number)]
Count = Annotated[int, BeforeValidator(quantities.parse_count)]
Size = Annotated[int, BeforeValidator(quantities.parse_size)]
"""In bytes."""
Name = Annotated[str, BeforeValidator(quantities.parse_name)]
Names = Annotated[tuple[str, ...], BeforeValidator(quantities.parse_names)]
Texts = Annotated[dict[str, str], BeforeValidator(quantities.parse_texts)]
Switch = Annotated[bool, BeforeValidator(quantities.parse_switch)]


class Section(BaseModel):
    """A part of a document: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
