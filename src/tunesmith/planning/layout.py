"""The weights of a model as its configuration implies them: groups of equal layers, and the parts of one layer.

One description gives both numbers, the parameters and the linear modules, so the two cannot disagree. Shapes are
transformers' own: a linear weight is [out_features, in_features].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

LINEAR_LIMIT = 1_000_000
"""Linear modules that are listed; a model with more is refused."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear module: y = W x with W of shape [out_features, in_features]."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class Module:
    """What can be trained whole: a linear module, an embedding, a norm or the output head."""

    name: str
    parameters: int
    """Those of the bias among them."""
    bias: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A weight with its bias, or `times` equal ones."""

    name: str
    shape: tuple[int, ...]
    bias: int = 0
    """Elements of the bias."""
    adaptable: bool = False
    """A linear module that can take an adapter."""
    times: int = 1

    @property
    def parameters(self) -> int:
        return self.times * (prod(self.shape) + self.bias)


@dataclass(frozen=True, slots=True)
class Group:
    """Layers with the same parts: `prefix` with the layer's number for `{}`, then the part's name."""

    prefix: str
    layers: Sequence[int]
    parts: tuple[Part, ...]
    sparse: bool = False
    """Its feed-forward networks are experts behind a router."""


@dataclass(frozen=True, slots=True)
class Layout:
    """All weights of a model."""

    layers: tuple[Group, ...]
    rest: tuple[Part, ...]
    """What is there once: embeddings, the last norm, the output head."""

    @property
    def parameters(self) -> int:
        each = (len(group.layers) * sum(part.parameters for part in group.parts) for group in self.layers)
        return sum(each) + sum(part.parameters for part in self.rest)

    @property
    def sparse_layers(self) -> int:
        return sum(len(group.layers) for group in self.layers if group.sparse)

    @property
    def number_of_linears(self) -> int:
        return sum(len(group.layers) * sum(part.adaptable for part in group.parts) for group in self.layers)

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Every part with its full name, layer by layer, then those outside of layers."""
        places = [(number, place) for place, group in enumerate(self.layers) for number in group.layers]
        for number, place in sorted(places):
            prefix = self.layers[place].prefix.format(number)
            yield from ((prefix + part.name, part) for part in self.layers[place].parts)
        yield from ((part.name, part) for part in self.rest)

    def linears(self) -> Iterator[Linear]:
        """Every module that can take an adapter."""
        for name, part in self.parts():
            if part.adaptable:
                yield Linear(name, in_features=part.shape[1], out_features=part.shape[0])


def linear(name: str, in_features: int, out_features: int, bias: bool = False) -> Part:
    """A linear module that can take an adapter."""
    return Part(name, (out_features, in_features), out_features if bias else 0, adaptable=True)


def weight(name: str, *shape: int, bias: int = 0, times: int = 1) -> Part:
    """A weight that takes none: an embedding, a norm, a router, stacked experts."""
    return Part(name, shape, bias, times=times)
