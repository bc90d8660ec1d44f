"""The layout of the stage graph: dependencies go right, boxes do not overlap."""

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from glassbox.report.graph import NODE_HEIGHT, NODE_WIDTH, Node, draw_graph, layers_of


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    names = [f"s{n}" for n in range(draw(st.integers(1, 9)))]
    return {
        name: tuple(draw(st.lists(st.sampled_from(names[:n]), unique=True, max_size=4))) if n else ()
        for n, name in enumerate(names)
    }


@given(graphs())
def test_every_stage_stands_right_of_its_inputs(graph: dict[str, tuple[str, ...]]) -> None:
    depth = layers_of(graph)
    assert all(depth[source] < depth[name] for name, sources in graph.items() for source in sources)
    assert min(depth.values()) >= 0


@given(graphs())
def test_boxes_do_not_overlap_and_every_edge_is_drawn(graph: dict[str, tuple[str, ...]]) -> None:
    nodes = [Node(name, "k<ind", "finished", "1 s", "ab" * 32, sources) for name, sources in graph.items()]
    svg = str(draw_graph(nodes))
    root = ElementTree.fromstring(svg)
    corners = [
        tuple(map(float, re.findall(r"[\d.]+", group.attrib["transform"])))
        for group in root.iter("g")
        if group.attrib.get("class", "").startswith("node")
    ]
    assert len(corners) == len(graph)
    for n, (x, y) in enumerate(corners):
        for x2, y2 in corners[:n]:
            assert abs(x - x2) >= NODE_WIDTH or abs(y - y2) >= NODE_HEIGHT
    assert len(list(root.iter("path"))) == sum(len(sources) for sources in graph.values())
    assert svg == str(draw_graph(nodes))
