"""The stage graph as SVG: layers from left to right by dependency, an edge from each stage to those that use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

NODE_WIDTH, NODE_HEIGHT = 108, 80
GAP_X, GAP_Y = 26, 18
LANE = 14
"""Height kept for edges that pass a layer on their way to a later one; those of one stage run together."""
PAD = 4
SMALLEST = 0.86
"""The graph shrinks to this share of its size before it scrolls."""
SWEEPS = 8


@dataclass(frozen=True)
class Node:
    """What is written in a stage's box."""

    name: str
    kind: str
    state: str
    took: str
    fingerprint: str
    inputs: tuple[str, ...]


Slot = tuple[str, ...]
"""A place in a layer: (stage,) for a box, (stage, layer) where edges from that stage pass by."""


def layers_of(inputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Stage -> the length of the longest way to it. `inputs` lists each stage after those it takes from."""
    depth: dict[str, int] = {}
    for name, sources in inputs.items():
        depth[name] = max((depth[source] + 1 for source in sources), default=0)
    consumers = {name: [n for n, sources in inputs.items() if name in sources] for name in inputs}
    for name in reversed(list(inputs)):  # a source stands just before the first stage that takes from it
        if not inputs[name] and consumers[name]:
            depth[name] = min(depth[consumer] for consumer in consumers[name]) - 1
    return depth


def draw_graph(nodes: Sequence[Node]) -> Markup:
    """The whole graph; where the page is much narrower it scrolls sideways."""
    inputs = {node.name: node.inputs for node in nodes}
    depth = layers_of(inputs)
    columns, chains = _columns(inputs, depth)
    _untangle(columns, chains)
    middle = _place(columns)
    height = 2 * PAD + max(_column_height(column) for column in columns)
    width = 2 * PAD + len(columns) * NODE_WIDTH + (len(columns) - 1) * GAP_X
    edges = [_edge(chain, depth, middle) for chain in chains]
    boxes = [_box(node, _left(depth[node.name]), middle[(node.name,)] - NODE_HEIGHT / 2) for node in nodes]
    spoken = "; ".join(
        f"{n.name} ({n.kind}, {n.state})" + (f" from {', '.join(n.inputs)}" if n.inputs else "") for n in nodes
    )
    return Markup(
        '<svg class="graph" role="img" viewBox="0 0 {w} {h}" style="max-width:{w}px;min-width:{least}px" '
        'aria-label="Stage graph: {label}">{body}</svg>'
    ).format(w=width, h=round(height), least=round(width * SMALLEST), label=spoken, body=Markup("").join(edges + boxes))


def _columns(
    inputs: Mapping[str, Sequence[str]], depth: Mapping[str, int]
) -> tuple[list[list[Slot]], list[list[Slot]]]:
    """The slots of each layer, and for each edge the slots it goes through, both ends included."""
    columns: list[list[Slot]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in inputs:
        columns[depth[name]].append((name,))
    chains = []
    for name, sources in inputs.items():
        for source in sources:
            lanes: list[Slot] = [(source, str(layer)) for layer in range(depth[source] + 1, depth[name])]
            for layer, lane in enumerate(lanes, depth[source] + 1):
                if lane not in columns[layer]:
                    columns[layer].append(lane)
            chains.append([(source,), *lanes, (name,)])
    return columns, chains


def _untangle(columns: list[list[Slot]], chains: list[list[Slot]]) -> None:
    """Order each layer by the mean place of its neighbours, forth and back (Sugiyama's barycentre heuristic)."""
    near: dict[Slot, tuple[list[Slot], list[Slot]]] = {slot: ([], []) for column in columns for slot in column}
    for chain in chains:
        for before, after in pairwise(chain):
            near[after][0].append(before)
            near[before][1].append(after)
    for sweep in range(SWEEPS):
        side = sweep % 2
        for column in columns if side == 0 else reversed(columns):
            middle = _place(columns)

            def pull(slot: Slot, side: int = side, middle: dict[Slot, float] = middle) -> float:
                others = near[slot][side]
                return sum(middle[other] for other in others) / len(others) if others else middle[slot]

            column.sort(key=lambda slot: (pull(slot), slot))


def _place(columns: list[list[Slot]]) -> dict[Slot, float]:
    """The middle of every slot, each layer centred."""
    full = max(_column_height(column) for column in columns)
    middle = {}
    for column in columns:
        y = PAD + (full - _column_height(column)) / 2
        for slot in column:
            middle[slot] = y + _slot_height(slot) / 2
            y += _slot_height(slot) + GAP_Y
    return middle


def _slot_height(slot: Slot) -> int:
    return NODE_HEIGHT if len(slot) == 1 else LANE


def _column_height(column: list[Slot]) -> float:
    return sum(_slot_height(slot) + GAP_Y for slot in column) - GAP_Y


def _left(layer: int) -> float:
    return PAD + layer * (NODE_WIDTH + GAP_X)


def _edge(chain: list[Slot], depth: Mapping[str, int], middle: Mapping[Slot, float]) -> Markup:
    first = depth[chain[0][0]]
    x, y = _left(first) + NODE_WIDTH, middle[chain[0]]
    path = f"M{x:.0f} {y:.1f}"
    for layer, slot in enumerate(chain[1:], first + 1):
        left, y2 = _left(layer), middle[slot]
        bend = (left - x) / 2
        path += f"C{x + bend:.0f} {y:.1f} {left - bend:.0f} {y2:.1f} {left:.0f} {y2:.1f}"
        x, y = left, y2
        if len(slot) > 1:
            x = left + NODE_WIDTH
            path += f"H{x:.0f}"
    style = "edge far" if len(chain) > 2 else "edge"
    return Markup('<path class="{}" d="{}"><title>{} → {}</title></path>').format(
        style, path, chain[0][0], chain[-1][0]
    )


def _box(node: Node, x: float, y: float) -> Markup:
    return Markup(
        '<g class="node {state}" transform="translate({x:.0f} {y:.1f})"><title>{name}: {kind}, {state}</title>'
        '<rect width="{w}" height="{h}" rx="7"/><circle class="dot" cx="{dot}" cy="{low}" r="4"/>'
        '<text class="name" x="12" y="21">{short}</text><text class="kind" x="12" y="38">{kind}</text>'
        '<text class="took" x="12" y="53">{took}</text><text class="print" x="12" y="69">{print}</text></g>'
    ).format(
        state=node.state, x=x, y=y, name=node.name, kind=node.kind,
        w=NODE_WIDTH, h=NODE_HEIGHT, dot=NODE_WIDTH - 14, low=NODE_HEIGHT - 14,
        short=node.name if len(node.name) <= 12 else node.name[:11] + "…",
        took=node.took, print=node.fingerprint[:8],
    )  # fmt: skip
