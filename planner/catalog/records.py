"""The typed, immutable records of the catalogue: model cards, GPUs, offers, prices and where each fact comes from.

Loaders in this folder turn files into these records; every other part of the planner sees only records.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from planner import limits
from planner.catalog.files import VISIBLE

Precision = Literal["bf16", "fp8", "int8", "nvfp4", "mxfp4", "int4"]
Variant = Literal["instruct", "thinking", "hybrid", "base"]
Mode = Literal["instruct", "thinking"]
Engine = Literal["vllm", "sglang", "trtllm"]
Kind = Literal["hyperscaler", "neocloud", "reseller", "marketplace", "serverless", "contract", "owned"]
Basis = Literal["instance", "gpu"]
Purchase = Literal["on_demand", "spot", "reserved_1y", "reserved_3y"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

_PLAIN = WithJsonSchema({"type": "string", "maxLength": limits.NAME_CHARACTERS})  # no two languages write the pattern alike
Name = Annotated[str, StringConstraints(strip_whitespace=True, max_length=limits.NAME_CHARACTERS, pattern=VISIBLE), _PLAIN]

GIB = 2**30
REFERENCE = "o200k"  # tokenizer to whose tokens tokenizers.csv relates all others


class Record(BaseModel):
    """A frozen record; an unknown key is an error, so a misspelt one cannot be lost."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Architecture(Record):
    """What decides memory and step time: the shape of one LLM, shared by all its checkpoints.

    Layers are counted by kind: ``full_attention_layers`` keep the whole context, ``sliding_layers`` the last
    ``sliding_window`` tokens, ``linear_layers`` a state of ``linear_state_bytes`` bytes in all per sequence.
    The kinds need not add up to ``layers`` (some layers of a hybrid have neither attention nor state).
    """

    attention: Literal["gqa", "mla"]
    layers: PositiveCount
    hidden_size: PositiveCount
    vocabulary: PositiveCount
    max_context: PositiveCount
    parameters: Positive  # all weights, counted once
    attention_heads: PositiveCount
    kv_heads: PositiveCount  # 1 for MLA, whose latent is not split by heads
    head_dim: PositiveCount  # of queries and keys; for MLA qk_nope_head_dim + qk_rope_head_dim
    full_attention_layers: Count
    sliding_layers: Count = 0
    sliding_window: Count = 0
    sliding_kv_heads: PositiveCount | None = None  # where they differ from kv_heads
    sliding_head_dim: PositiveCount | None = None  # where it differs from head_dim
    linear_layers: Count = 0
    linear_state_bytes: Count = 0  # per sequence, all linear layers, as engines keep it
    kv_lora_rank: Count = 0  # MLA
    qk_rope_head_dim: Count = 0  # MLA
    v_head_dim: PositiveCount | None = None  # where it differs from head_dim
    sparse_context: Count = 0  # tokens attended when attention is sparse (DSA top-k); 0 = dense
    intermediate_size: Count = 0  # of dense layers; decides whether FP8 blocks divide by TP
    experts: Count = 0
    experts_per_token: Count = 0
    shared_experts: Count = 0
    moe_layers: Count = 0
    expert_intermediate_size: Count = 0
    expert_matrices: Literal[2, 3] = 3  # 3 for gated experts, 2 for plain ones (Nemotron-H)
    source: str
    as_of: date
    note: str = ""

    @property
    def is_indexed(self) -> bool:
        """Whether an indexer selects the tokens that latent attention reads (DeepSeek's sparse attention)."""
        return self.attention == "mla" and self.sparse_context > 0

    @property
    def expert_parameters(self) -> float:
        """Weights of all routed experts: E · matrices · H · I · layers."""
        return float(self.experts * self.expert_matrices * self.hidden_size * self.expert_intermediate_size * self.moe_layers)

    @property
    def active_parameters(self) -> float:
        """Weights that one token passes through (embedding table included)."""
        share = self.experts_per_token / self.experts if self.experts else 0.0
        return self.parameters - self.expert_parameters * (1 - share)


class Checkpoint(Record):
    """One published set of weights; only what somebody publishes can be deployed."""

    id: Name  # the publisher's repository name
    variant: Variant  # hybrid answers in either mode, as asked per request
    precision: Precision
    quantised_from: str = ""  # the checkpoint whose scores it takes, times the recovery of `scheme`
    scheme: str = ""  # row of catalogs/recovery.csv; needed where quantised_from is given
    fp8_block: Count = 0  # block size of block-quantised weights; shards must be multiples of it
    max_context: PositiveCount | None = None  # tokens, where it differs from the architecture's
    source: str
    as_of: date
    note: str = ""


class Score(Record):
    """One benchmark score of one checkpoint in one mode, scaled to 0–1."""

    checkpoint: str
    mode: Mode
    benchmark: str
    score: Share
    self_reported: bool
    source: str
    as_of: date
    note: str = ""


class OutputFactor(Record):
    """How many tokens a reasoning checkpoint writes per token of its answer (reasoning included)."""

    checkpoint: str
    mode: Mode
    factor: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    source: str
    as_of: date
    note: str = ""


class CardTokenizer(Record):
    """How one LLM cuts text into tokens: a name of ``tokenizers.csv``, and how it is known."""

    name: Name
    source: str
    as_of: date
    note: str = ""


class TokenCount(Record):
    """Tokens that one tokenizer makes of text in one language per token of the catalogue's reference tokenizer of the same text.

    ``low`` and ``high`` are the quotient's 10th and 90th percentile over documents; ``tokens`` how many were counted.
    """

    tokenizer: Name
    language: Name
    factor: Positive
    low: Positive
    high: Positive
    tokens: PositiveCount
    source: str
    as_of: date


class Card(Record):
    """One LLM: its architecture, published checkpoints and measured quality."""

    name: Name
    family: Name
    publisher: Name
    licence: Name
    released: date
    note: str = ""
    architecture: Architecture
    tokenizer: CardTokenizer | None = None  # None: not known, and taken as equal to the one that lengths are stated in
    checkpoint: tuple[Checkpoint, ...]
    quality: tuple[Score, ...] = ()
    output_factor: tuple[OutputFactor, ...] = ()


class Gpu(Record):
    """One accelerator: peaks without sparsity, memory as the device offers it.

    ``link_gb_s`` is one direction of the fastest path between GPUs of one node; ``node_link_gb_s`` between nodes.
    """

    name: Name
    vendor: Literal["NVIDIA", "AMD", "Intel", "Google"]
    generation: Name
    form_factor: Name
    memory_gib: Positive
    bandwidth_gb_s: Positive
    bf16_tflops: Positive
    fp8_tflops: Positive | None
    fp4_tflops: Positive | None
    int8_tops: Positive | None
    link_gb_s: Positive
    node_link_gb_s: Positive
    tdp_w: Positive | None
    released: int | None
    precisions: tuple[Precision, ...]
    engines: tuple[Engine, ...]
    source: str
    as_of: date
    note: str = ""


class Offer(Record):
    """Something that can be bought: an instance type, or single GPUs of a node, at one location."""

    provider: Name
    kind: Kind
    region: Name
    geography: Name
    instance_type: Name
    basis: Basis
    gpu: Name
    gpus_per_instance: PositiveCount  # 1 where basis = gpu
    gpus_per_node: PositiveCount
    max_tp: PositiveCount
    purchase: Purchase | Literal["owned"]
    usd_per_hour: Positive  # of one instance (basis = instance) or one GPU (basis = gpu)
    as_of: date
    dated_by: Literal["row", "snapshot", "scenario"]  # snapshot: the row itself is undated; scenario: as current as the question
    source: str
    licence: str
    note: str = ""
    available: PositiveCount | None = None  # instances there are; None = as many as one likes
    minimum: PositiveCount = 1  # instances, if any are held
    zone: Annotated[str, StringConstraints(strip_whitespace=True, max_length=limits.NAME_CHARACTERS, pattern=VISIBLE)] = ""  # inside the region
    id: Annotated[str, StringConstraints(max_length=4 * limits.NAME_CHARACTERS, pattern=VISIBLE)] = ""  # of the user's own offers; "" in the catalogue
    carbon_usd_per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0  # of usd_per_hour, what a scenario charges for carbon: nobody is paid it

    now: Annotated[int, Field(ge=0)] = 0  # instances that the user holds today
    until: date | None = None  # of what is held today: contracted to that day, so paid whether used or not

    @property
    def least(self) -> int:
        """Instances that are held whatever is chosen."""
        return self.now if self.until else 0

    @property
    def is_owned(self) -> bool:
        """Whether it is the user's own, which no rule on rented supply concerns."""
        return self.kind == "owned"

    @property
    def paid_usd_per_hour(self) -> float:
        """What its provider is paid."""
        return self.usd_per_hour - self.carbon_usd_per_hour

    @property
    def stated_as_of(self) -> str:
        """Its date in words; "" for what the scenario itself states."""
        return "" if self.dated_by == "scenario" else self.as_of.isoformat()


class SpotRate(Record):
    """Share of an instance type's spot instances at a place that were taken back within a month, as its provider publishes it: a range."""

    provider: Name
    region: Name
    instance_type: Name
    low: Annotated[float, Field(ge=0, le=1)]
    high: Annotated[float, Field(ge=0, le=1)] | None = None  # None: no upper end is published
    as_of: date
    source: str
    licence: str


class PowerGrid(Record):
    """What electricity is at one region of one provider: carbon of a kWh, and power of the data centre over that of its computers.

    ``place``: whose grid it is, a state or a country. What no source says is None.
    """

    provider: Name
    region: Name
    place: Name
    g_co2e_per_kwh: Annotated[float, Field(ge=0, le=5000, allow_inf_nan=False)] | None
    pue: Annotated[float, Field(ge=1, le=5)] | None
    as_of: str = ""  # the year that the intensity is of; "": its source is undated
    source: str
    licence: str
    pue_source: str = ""
    note: str = ""


class ApiPrice(Record):
    """A hosted API's price of exactly one model."""

    provider: Name
    model: Name  # name of the card
    checkpoint: Name  # the checkpoint it serves, as far as the provider says
    api_name: Name
    usd_per_million_input: Positive
    usd_per_million_output: Positive
    usd_per_million_cached_input: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None  # prompt tokens its cache holds; None: not known
    max_context: PositiveCount | None = None  # tokens of prompt and answer together, where it differs from the model's
    as_of: date
    source: str
    licence: str


class Recovery(Record):
    """Share of a benchmark score that a quantisation scheme keeps, over published pairs."""

    scheme: str
    factor: Annotated[float, Field(gt=0, le=1.05)]
    lowest: float
    highest: float
    pairs: PositiveCount
    source: str
    as_of: date
    note: str = ""


class TunedEngine(Record):
    """How long steps of an engine take that is started otherwise than in the curves ("recipe"): measured over predicted, one run of each setup counting
    the same. default: as it starts; record: tuned for a published maximum. ``q05`` to ``q95``: quantiles, the model's own error among them."""

    tuning: Literal["default", "record"]
    engine: Engine
    q05: Positive
    q20: Positive
    q50: Positive
    q80: Positive
    q90: Positive
    q95: Positive
    runs: PositiveCount
    setups: PositiveCount  # models x GPUs
    source: str
    as_of: date
    licence: str


class Calibration(Record):
    """What a user's own measurements say of an engine on a GPU: factors on what is predicted, those of all levels that fit a replica multiplied.

    Without an architecture: of any model; without tp: at any. ``sd``: standard deviations of log(measured/predicted) where this is the finest level.
    """

    gpu: str
    engine: Engine
    architecture: str = ""  # name of the card
    tp: PositiveCount | None = None
    step: Positive = 1.0
    prompt: Positive = 1.0
    overhead: Positive = 1.0  # of a request, besides its prompt
    step_sd: Positive
    points: PositiveCount
    source: str
    as_of: date


class MeasuredConfiguration(Record):
    """One measured serving configuration: what evidence tiers are keyed on."""

    architecture: str  # name of the card
    precision: str
    gpu: str
    engine: str
    tp: PositiveCount  # GPUs of the replica
    dp: PositiveCount = 1  # groups of attention data parallel
    active_parameters: Positive | None = None  # weights that one token passes through; the card's where there is one
    points: PositiveCount
    source: str
    as_of: str
    licence: str
