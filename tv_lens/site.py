"""Addresses inside a transformer: which tensor, at which layer, head and position.

One table, `COMPONENTS`, holds what every other module needs to know of a tensor: where TransformerLens exposes it,
which axes it has, and the flag it needs. Nothing else in the library guesses axes from a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import SupportsIndex

from tv_lens.coerced import Coerced, default
from tv_lens.errors import EmptySelection, InvalidArgument, PositionError, SiteError, WrongKind, unknown
from tv_lens.kind_words import in_words, shown
from tv_lens.kinds import checks_kinds
from tv_lens.type_hints import whole_numbers


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that an address must fit."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int

    def size(self, axis: str) -> int | None:
        """The length of a named axis, or None for an axis whose length the prompts decide (batch, positions)."""
        sizes = dict(
            layer=self.n_layers,
            head=self.n_heads,
            kv_head=self.n_kv_heads,
            d_model=self.d_model,
            d_head=self.d_head,
            d_mlp=self.d_mlp,
            d_vocab=self.d_vocab,
        )
        return sizes.get(axis)


@dataclass(frozen=True)
class Component:
    """A kind of tensor that a transformer computes, and where TransformerLens exposes it.

    Args:
        name: the field's standard name.
        hook: TransformerLens's hook name; `{layer}` stands for the layer.
        axes: the tensor's axes in order.
        flag: the TransformerLens flag without which the hook does not fire.
        meaning: one line for `print(model.registry)`.
    """

    name: str
    hook: str
    axes: tuple[str, ...]
    meaning: str
    flag: str | None = None

    @property
    def layered(self) -> bool:
        return "{layer}" in self.hook

    @property
    def head_axis(self) -> str | None:
        """`head`, `kv_head`, or None where the tensor is not split by head."""
        return next((axis for axis in self.axes if axis in ("head", "kv_head")), None)

    @property
    def position_axis(self) -> str:
        """The axis that `Site.pos` selects: a pattern is addressed by its query position."""
        return "query_pos" if "query_pos" in self.axes else "pos"

    def hook_name(self, layer: int | None) -> str:
        return self.hook.format(layer=layer)


_STREAM = ("batch", "pos", "d_model")
_HEADS = ("batch", "pos", "head", "d_head")
_KV_HEADS = ("batch", "pos", "kv_head", "d_head")
_ATTENTION = ("batch", "head", "query_pos", "key_pos")

COMPONENTS: dict[str, Component] = {
    component.name: component
    for component in (
        Component("embed", "embed.hook_out", _STREAM, "token embedding"),
        Component("resid_pre", "blocks.{layer}.hook_resid_pre", _STREAM, "residual stream before the layer"),
        Component("q", "blocks.{layer}.attn.hook_q", _HEADS, "queries, before rotation"),
        Component("k", "blocks.{layer}.attn.hook_k", _KV_HEADS, "keys, before rotation; one per key-value head"),
        Component("v", "blocks.{layer}.attn.hook_v", _KV_HEADS, "values; one per key-value head"),
        Component("scores", "blocks.{layer}.attn.hook_attn_scores", _ATTENTION, "attention scores before softmax"),
        Component("pattern", "blocks.{layer}.attn.hook_pattern", _ATTENTION, "attention weights after softmax"),
        Component("z", "blocks.{layer}.attn.hook_z", _HEADS, "head outputs before the output projection"),
        Component(
            "result",
            "blocks.{layer}.attn.hook_result",
            ("batch", "pos", "head", "d_model"),
            "what each head writes to the residual stream",
            flag="use_attn_result",
        ),
        Component("attn_out", "blocks.{layer}.hook_attn_out", _STREAM, "what attention adds to the residual stream"),
        Component("resid_mid", "blocks.{layer}.hook_resid_mid", _STREAM, "residual stream between attention and MLP"),
        Component("mlp_post", "blocks.{layer}.mlp.hook_post", ("batch", "pos", "d_mlp"), "MLP neurons"),
        Component("mlp_out", "blocks.{layer}.hook_mlp_out", _STREAM, "what the MLP adds to the residual stream"),
        Component("resid_post", "blocks.{layer}.hook_resid_post", _STREAM, "residual stream after the layer"),
        Component("final_norm", "ln_final.hook_out", _STREAM, "residual stream after the final norm"),
    )
}


def component(name: str) -> Component:
    """The table's entry for a component name; an unknown name proposes the nearest ones."""
    if not isinstance(name, str) or name not in COMPONENTS:
        raise unknown("component", name, COMPONENTS)
    return COMPONENTS[name]


HeadLike = str | Sequence[SupportsIndex]
_HEAD = re.compile(r"a(\d+)\.(?:h|kv)(\d+)")


def parse_head(head: HeadLike) -> tuple[int, int]:
    """A head as (layer, head): from the pair, or from its name in text, "a3.h1" ("a3.kv1" for a key-value head).

    Raises:
        InvalidArgument: it is neither.

    Example:
        >>> parse_head("a3.h1"), parse_head((3, 1)), parse_head("a3.kv0")
        ((3, 1), (3, 1), (3, 0))
    """
    parts = _HEAD.fullmatch(head).groups() if isinstance(head, str) and _HEAD.fullmatch(head) else head
    if isinstance(parts, str) or len(parts) != 2:
        raise InvalidArgument("A head is named by its layer and number.", got=repr(head), allowed='"a3.h1" or (3, 1)')
    return int(parts[0]), int(parts[1])


_SHORT = re.compile(r"^(?P<component>[a-z_]+)(\[(?P<layer>\d+)\])?(\.h(?P<head>\d+))?(@(?P<pos>-?\d+(,-?\d+)*))?$")


@dataclass(frozen=True)
class Site:
    """An address: component, layer, head, position.

    Without `head` or `pos` the site means all of them. Layers and heads count from 0. A negative position counts back
    from each prompt's last real token, any other from its first.

    Example:
        >>> Site("z", layer=5, head=3, pos=-1)
        z[5].h3@-1
        >>> Site.parse("blocks.5.attn.hook_z")
        z[5]
        >>> Site.parse("z[5].h3@-1").hook_name
        'blocks.5.attn.hook_z'
    """

    component: str
    layer: Coerced[SupportsIndex | None, int | None] = default(None)
    head: Coerced[SupportsIndex | None, int | None] = default(None)
    pos: Coerced[SupportsIndex | Sequence[SupportsIndex] | None, int | tuple[int, ...] | None] = default(None)

    def __post_init__(self) -> None:
        entry = component(self.component)
        # Numbers of numpy and xarray become Python ints, so that equal sites print and are saved in the same way.
        for name in ("layer", "head", "pos"):
            object.__setattr__(self, name, whole_numbers(getattr(self, name), name))
        if entry.layered and self.layer is None:
            raise SiteError(
                f"{self.component} lives in a layer, and none was named.",
                got=f"Site({self.component!r})",
                do=f"Site({self.component!r}, layer=0), or tv.sites({self.component!r}) for every layer.",
            )
        if not entry.layered and self.layer is not None:
            raise SiteError(
                f"{self.component} is not part of a layer.", got=f"layer={self.layer}", do=f"Site({self.component!r})"
            )
        if self.head is not None and entry.head_axis is None:
            with_heads = [name for name, known in COMPONENTS.items() if known.head_axis]
            raise SiteError(
                f"{self.component} is not split by head.",
                got=f"head={self.head}",
                allowed="heads of " + ", ".join(with_heads),
            )
        if self.positions == () and self.pos is not None:
            raise EmptySelection(f"{self.component} at () names no position.", allowed="None for all positions")

    @classmethod
    def parse(cls, text: str | Site) -> Site:
        """The site that a text names, in our notation (`z[5].h3@-1`) or TransformerLens's (`blocks.5.attn.hook_z`)."""
        if isinstance(text, Site):
            return text
        if not isinstance(text, str):
            raise WrongKind("This is not an address.", got=shown(text), allowed=in_words("Site | str"))
        for entry in COMPONENTS.values():
            pattern = re.escape(entry.hook).replace(re.escape("{layer}"), r"(?P<layer>\d+)")
            if match := re.fullmatch(pattern, text):
                layer = match.groupdict().get("layer")
                return cls(entry.name, layer=None if layer is None else int(layer))
        match = _SHORT.match(text)
        if match is None:
            raise InvalidArgument(
                "This is not an address.",
                got=repr(text),
                allowed="component[layer].h<head>@<position>, such as resid_post[20]@-1 or z[5].h3",
                do="or a TransformerLens name, such as blocks.5.attn.hook_z",
            )
        parts = match.groupdict()
        pos = None if parts["pos"] is None else tuple(int(p) for p in parts["pos"].split(","))
        return cls(
            component(parts["component"]).name,
            layer=None if parts["layer"] is None else int(parts["layer"]),
            head=None if parts["head"] is None else int(parts["head"]),
            pos=pos[0] if pos is not None and len(pos) == 1 else pos,
        )

    @property
    def entry(self) -> Component:
        return COMPONENTS[self.component]

    @property
    def hook_name(self) -> str:
        """TransformerLens's name of the hook where this site lives."""
        return self.entry.hook_name(self.layer)

    @property
    def tensor(self) -> Site:
        """The whole tensor that this site is a part of."""
        return self if self.head is None and self.pos is None else replace(self, head=None, pos=None)

    def at(self, pos: int | tuple[int, ...] | None) -> Site:
        """The same site at another position."""
        return replace(self, pos=pos)

    def overlaps(self, other: Site) -> bool:
        """Whether both address some of the same numbers, as far as this follows without the prompt."""
        same = (self.component, self.layer) == (other.component, other.layer)
        heads = self.head is None or other.head is None or self.head == other.head
        if self.pos is None or other.pos is None:
            return same and heads
        return same and heads and bool(set(self.positions) & set(other.positions))

    @property
    def positions(self) -> tuple[int, ...]:
        """The positions that it names; empty where it means all of them."""
        return () if self.pos is None else self.pos if isinstance(self.pos, tuple) else (self.pos,)

    def check(self, shape: ModelShape) -> Site:
        """This site, if the model has its layer and head.

        Raises:
            SiteError: with the range that exists.
        """
        if self.layer is not None and not 0 <= self.layer < shape.n_layers:
            raise SiteError(
                f"The model has no layer {self.layer}.", got=str(self), allowed=f"layers 0 to {shape.n_layers - 1}"
            )
        n_heads = shape.size(self.entry.head_axis) if self.entry.head_axis else None
        if self.head is not None and n_heads is not None and not 0 <= self.head < n_heads:
            kind = "key-value head" if self.entry.head_axis == "kv_head" else "head"
            raise SiteError(
                f"{self.component} has no {kind} {self.head}.", got=str(self), allowed=f"{kind}s 0 to {n_heads - 1}"
            )
        if shape.n_ctx and any(p >= shape.n_ctx or p < -shape.n_ctx for p in self.positions):
            raise PositionError(
                "The position lies beyond the model's context.",
                got=str(self),
                allowed=f"-{shape.n_ctx} to {shape.n_ctx - 1}",
            )
        return self

    def __repr__(self) -> str:
        layer = "" if self.layer is None else f"[{self.layer}]"
        head = "" if self.head is None else f".h{self.head}"
        pos = "" if self.pos is None else "@" + ",".join(str(p) for p in self.positions)
        return f"{self.component}{layer}{head}{pos}"

    __str__ = __repr__


@dataclass(frozen=True)
class Sites:
    """A selection of sites that does not yet know the model: `None` stands for "all there are".

    Example:
        >>> sites("resid_post", layer=(0, 2), pos=-1)
        Sites(components=('resid_post',), layers=(0, 2), heads=None, pos=-1)
    """

    components: tuple[str, ...]
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    pos: int | tuple[int, ...] | None = None

    def expand(self, shape: ModelShape, by_head: bool = False) -> list[Site]:
        """The sites as addresses in a model, layer by layer; one per head with `by_head` or where heads are named.

        Raises:
            SiteError: where a layer or head does not exist.
            EmptySelection: where the selection holds no site.
        """
        addresses = []
        for name in self.components:
            entry = component(name)
            layers: Sequence[int | None] = [None]
            if entry.layered:
                layers = range(shape.n_layers) if self.layers is None else self.layers
            heads: Sequence[int | None] = [None]
            if self.heads is not None:
                heads = self.heads
            elif by_head and entry.head_axis:
                heads = range(shape.size(entry.head_axis) or 0)
            addresses += [Site(name, layer, head, self.pos).check(shape) for layer in layers for head in heads]
        if not addresses:
            raise EmptySelection("The selection holds no site.", got=repr(self))
        return addresses


def _several(value: SupportsIndex | Iterable[SupportsIndex] | None, name: str) -> tuple[int, ...] | None:
    plain = whole_numbers(value, name)
    return (plain,) if isinstance(plain, int) else plain


@checks_kinds
def sites(
    *components: str,
    layer: SupportsIndex | Iterable[SupportsIndex] | None = None,
    head: SupportsIndex | Iterable[SupportsIndex] | None = None,
    pos: SupportsIndex | Iterable[SupportsIndex] | None = None,
) -> Sites:
    """A selection of sites to sweep over: every layer and every head unless some are named.

    Example:
        >>> sites("resid_post", layer=range(10, 12))
        Sites(components=('resid_post',), layers=(10, 11), heads=None, pos=None)
    """
    if not components:
        raise EmptySelection("No component was named.", allowed=", ".join(COMPONENTS), do='tv.sites("resid_post")')
    for name in components:
        component(name)
    return Sites(tuple(components), _several(layer, "layer"), _several(head, "head"), whole_numbers(pos, "pos"))
