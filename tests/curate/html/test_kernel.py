"""Pages as lines and nodes: the tree that HTML leaves unsaid, and what is told of lines."""

from glassbox.curate.html import markup as m
from glassbox.curate.html.kernel import parse
from glassbox.curate.html.layout import BREAK, CELLS, CHARS, FLAGS, HEADING, ITEM, KIND, LEVEL, LINKED, NODE, PARENT


def texts(page: str) -> list[str]:
    found = parse(page.encode())
    return [found.text[line[0] : line[1]].tobytes().decode() for line in found.lines]


def test_elements_that_are_left_open_are_closed() -> None:
    assert texts("<p>a<p>b<div>c</p>d</div>e") == ["a", "b", "c", "d", "e"]
    assert texts("<ul><li>a<li>b<ul><li>c</ul>d</ul>e") == ["a", "b", "c", "d", "e"]
    assert texts("<dl><dt>a<dd>b<dt>c<dd>d</dl>") == ["a", "b", "c", "d"]
    assert texts("<table><tr><td>a<td>b<tr><td>c<td>d</table>") == ["a | b", "c | d"]
    assert texts("<b>a<div>b</b>c</div>") == ["a", "bc"]


def test_lines_know_their_kind_links_and_breaks() -> None:
    lines = parse(b"<h2>a</h2><ol><li>b<li><a href=x>cd</a> e</ol><p>f<br>g<br><br>h").lines
    assert lines[:, KIND].tolist() == [HEADING, ITEM, ITEM, 0, 0, 0]
    assert lines[:, LEVEL].tolist() == [2, 101, 201, 1, 1, 1]
    assert lines[:, LINKED].tolist() == [0, 0, 2, 0, 0, 0]
    assert lines[:, CHARS].tolist() == [1, 1, 3, 1, 1, 1]
    assert lines[:, BREAK].tolist() == [0, 0, 0, 0, 1, 2]


def test_names_of_classes_are_read_word_by_word_and_whole() -> None:
    def flags(attributes: str) -> int:
        page = parse(f"<div {attributes}>x</div>".encode())
        return int(page.nodes[page.lines[0, NODE], FLAGS])

    assert flags("class=NavBar") == m.NAV
    assert flags("id=main_nav") == m.NAV | m.CONTENT
    assert flags("class='entry_content wide'") & m.BODY
    assert flags("class='overflow-hidden'") == 0
    assert flags("class='hidden'") == flags("hidden") == flags("style='a:b;display: none'") == m.HIDDEN
    assert flags("role=navigation") == m.NAV
    assert flags("itemprop=articleBody") == m.BODY
    assert flags("data-class=nav title='a > b'") == 0


def test_nodes_stand_after_their_parents() -> None:
    page = parse(b"<body><div><section><p>a</section><ul><li>b</ul></div><table><tr><td>c<td>d")
    assert all(page.nodes[k, PARENT] < k for k in range(len(page.nodes)))
    assert page.lines[-1, KIND] == CELLS
