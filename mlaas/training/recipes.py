"""A Recipe is a complete, typed configuration of one training run. Importing this costs no torch."""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from mlaas.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class DataRecipe(_Section):
    """Which text is learned from, and how it is cut into tokens."""

    path: str = ""
    """Folder or glob of UTF-8 text; a relative one is below the job's working directory. Empty: the standard library of
    the running interpreter, without tests and site-packages."""
    validation_percent: float = Field(default=4.0, gt=0, lt=100)
    """Percent of the files held out, chosen by a hash of each file's relative path, so a new file never moves an old
    one."""
    vocab_size: int = Field(default=4096, ge=260, le=65535)
    """Entries of the byte-level BPE vocabulary. Above 256 bytes and the special tokens; below 65536, so a token is 2
    bytes."""


class ModelRecipe(_Section):
    """Shape of the transformer (Qwen3 architecture: RoPE, QK-norm, SwiGLU)."""

    layers: int = Field(default=4, ge=1)
    """Transformer blocks."""
    width: int = Field(default=256, ge=16)
    """Size of the residual stream."""
    heads: int = Field(default=4, ge=1)
    """Attention heads; their size is `width / heads`, an even number."""
    kv_heads: int = Field(default=4, ge=1)
    """Key and value heads, a divisor of `heads`; fewer make a smaller KV cache."""
    mlp_width: int = Field(default=768, ge=16)
    """Inner size of the SwiGLU block; 8/3 to 3 times the width is usual."""
    context: int = Field(default=256, ge=16)
    """Tokens of one training sequence, and the longest context that the model is served with."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is not a multiple of 2 x heads ({2 * self.heads})")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self


class TrainRecipe(_Section):
    """How the weights are found."""

    steps: int = Field(ge=1)
    """Optimizer steps of a whole run. There is no default: it decides cost and quality."""
    max_minutes: float = Field(default=0.0, ge=0)
    """Budget of training time, over all resumes. A machine too slow for `steps` is given fewer steps with the same
    schedule, so that it still ends with a learning rate of zero. 0: no budget, and the run is a function of recipe
    and data alone."""
    sequences: int = Field(default=16, ge=1)
    """Sequences for each step, over all workers; a multiple of each number of workers that the gang may have."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon is reported to learn matrices from about half the compute of AdamW; embeddings and norms always use AdamW.
    Source: arXiv:2502.16982."""
    learning_rate: float = Field(default=0.02, gt=0)
    """Peak learning rate of the weight matrices. Muon: about 0.02; AdamW: about 0.002."""
    embedding_learning_rate: float = Field(default=0.004, gt=0)
    """Peak learning rate of embeddings and norms (AdamW)."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay of the weight matrices."""
    warmup_percent: float = Field(default=4.0, ge=0, lt=100)
    """Percent of the steps in which the learning rate rises from zero."""
    gradient_clip: float = Field(default=1.0, ge=0)
    """Largest norm of the gradient. 0: no clipping."""
    zero_stage: Literal[1, 2] = 1
    """What ZeRO splits over the workers: 1 optimizer states, 2 gradients as well."""
    seed: int = Field(default=17, ge=0)
    """Seed of the initial weights and of the order of the data."""
    log_every: int = Field(default=10, ge=1)
    """Steps between two reports of progress."""


class CheckpointRecipe(_Section):
    """How much work a failure may cost."""

    every_steps: int = Field(default=200, ge=1)
    """Steps between two checkpoints. The last step always has one."""
    keep: int = Field(default=2, ge=1)
    """Newest checkpoints kept. 2: a torn newest one still leaves one to resume from."""


class GangRecipe(_Section):
    """The workers that train together."""

    workers: int = Field(default=2, ge=1)
    """Processes, each with its own part of the optimizer."""
    min_workers: int = Field(default=0, ge=0)
    """Fewest workers to go on with when the scheduler takes some away; it may give any number from here to `workers`.
    0: as many as `workers`, always."""
    threads: int = Field(default=1, ge=1)
    """CPU cores of each worker."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`gpu`: one GPU for each worker, NCCL. `cpu`: gloo. `auto`: GPUs where the cluster has enough of them."""
    max_restarts: int = Field(default=3, ge=0)
    """Times that a gang with a dead worker is started again, from the last good checkpoint."""


class Recipe(_Section):
    """A complete training run: what is learned, by which model, how long, by how many workers."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")
    """Name of the registered model, as clients of the gateway say it: lower case letters, digits, dots and dashes."""
    data: DataRecipe = DataRecipe()
    """What is learned from."""
    model: ModelRecipe = ModelRecipe()
    """Shape of the model."""
    train: TrainRecipe
    """Optimization."""
    checkpoint: CheckpointRecipe = CheckpointRecipe()
    """What is kept against failures."""
    gang: GangRecipe = GangRecipe()
    """Workers and devices."""

    @model_validator(mode="after")
    def _counts_divide(self) -> Self:
        if self.gang.min_workers > self.gang.workers:
            raise ValueError(f"gang.min_workers {self.gang.min_workers} is above gang.workers {self.gang.workers}")
        for size in range(self.gang.min_workers or self.gang.workers, self.gang.workers + 1):
            if self.train.sequences % size:
                what = "gang.workers" if size == self.gang.workers else "every size from gang.min_workers on:"
                raise ValueError(f"train.sequences {self.train.sequences} is not a multiple of {what} {size}")
        if self.checkpoint.every_steps % self.train.log_every:
            raise ValueError(
                f"checkpoint.every_steps {self.checkpoint.every_steps} is not a multiple of train.log_every "
                f"{self.train.log_every}: a resumed run would report other losses"
            )
        return self


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a TOML file.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or a field is missing, unknown or of a wrong type or value.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return parse_recipe(tomllib.loads(text), origin=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("recipe_unreadable", f"recipe {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("recipe_not_toml", f"recipe {path} is not TOML: {error}") from error


def parse_recipe(document: dict[str, object], *, origin: str) -> Recipe:
    """Check a decoded TOML document and return its recipe.

    Args:
        document: tables and values.
        origin: where the document comes from, for messages.

    Raises:
        ConfigError: one line for each field that is wrong, with its value and, for an unknown one, the nearest name.
    """
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors(include_url=False)]
        raise ConfigError("bad_recipe", "\n".join([f"recipe {origin}:", *(f"  {line}" for line in lines)])) from error


def fingerprint(recipe: Recipe, *, data_hash: str) -> str:
    """Return 8 hex digits that name this recipe on these data."""
    return hashlib.sha256(f"{recipe.model_dump_json()}\n{data_hash}".encode()).hexdigest()[:8]


def _explain(detail: ErrorDetails) -> str:
    field = ".".join(str(part) for part in detail["loc"])
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown field {field}{_suggestion(detail['loc'])}"
        case "missing":
            return f"field {field} is missing"
        case "value_error":
            return f"{field + ': ' if field else ''}{detail['msg'].removeprefix('Value error, ')}"
        case _:
            return f"{field} = {detail['input']!r}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _suggestion(location: tuple[int | str, ...]) -> str:
    section: type[BaseModel] = Recipe
    for part in location[:-1]:
        section = _section_type(section, str(part))
    names = list(section.model_fields)
    near = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    elsewhere = [
        f"{name}.{location[-1]}"
        for name, info in Recipe.model_fields.items()
        if isinstance(info.annotation, type)
        and issubclass(info.annotation, BaseModel)
        and location[-1] in info.annotation.model_fields
    ]
    return f"; it belongs to {elsewhere[0]}" if elsewhere else f"; known here: {', '.join(names)}"


def _section_type(section: type[BaseModel], name: str) -> type[BaseModel]:
    annotation = section.model_fields[name].annotation
    candidates = [annotation, *get_args(annotation)]
    return next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
