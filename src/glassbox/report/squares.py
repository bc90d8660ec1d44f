"""Charts of a classifier's quality: curves of one share against another, and confusions."""

from collections.abc import Callable, Sequence

from markupsafe import Markup

from glassbox.report.charts import Line, thinned
from glassbox.report.format import excerpt, number, percent
from glassbox.report.svg import curve, picture, rule, short, words

SIDE = 210
"""Width and height of the plot."""
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 10, 40
FLOORS = (0.0, 0.5, 0.8, 0.9, 0.96)
"""Where a scale of shares may begin."""
CELL = 26
NAME_CHARACTERS = 18


def share_chart(lines: Sequence[Line], *, title: str, across: str, diagonal: bool = False) -> Markup:
    """Values of 0 to 1 over values of 0 to 1, which are called `across`; with a diagonal each point is a dot as well.

    Without one the scale begins higher up if all values are high. Points outside are drawn on the edge.
    """
    tall = SIDE if diagonal else 0.72 * SIDE
    least = min(y for line in lines for _, y in line.points)
    floor = 0.0 if diagonal else max([start for start in FLOORS if start <= least], default=0.0)

    def at(x: float, y: float) -> tuple[float, float]:
        share = (min(max(y, floor), 1.0) - floor) / (1 - floor)
        return LEFT + min(max(x, 0.0), 1.0) * SIDE, TOP + (1 - share) * tall

    parts = []
    for step in range(5):
        value = floor + step / 4 * (1 - floor)
        x, y = at(step / 4, value)
        parts += [rule(LEFT, y, LEFT + SIDE, y, "grid"), words(LEFT - 7, y + 4, f"{value:g}", "end")]
        parts.append(words(x, TOP + tall + 16, f"{step / 4:g}", "middle"))
    parts.append(words(LEFT + SIDE / 2, TOP + tall + 33, across, "middle"))
    if diagonal:
        parts.append(rule(*at(0, 0), *at(1, 1), "mark"))
    for line in lines:
        parts.append(curve([at(*point) for point in thinned(line.points)], f"tone{line.tone}"))
        if diagonal or len(line.points) == 1:
            parts += [_dot(line, point, at) for point in thinned(line.points)]
    ends = "; ".join(
        f"{line.name} from {number(line.points[0][1])} at {number(line.points[0][0])} "
        f"to {number(line.points[-1][1])} at {number(line.points[-1][0])}"
        for line in lines
    )
    return picture(LEFT + SIDE + RIGHT, TOP + tall + BOTTOM, f"{title}: {ends}", parts)


def _dot(line: Line, point: tuple[float, float], at: Callable[[float, float], tuple[float, float]]) -> Markup:
    x, y = at(*point)
    return Markup('<circle class="fill{}" cx="{}" cy="{}" r="3.5"><title>{}: {} at {}</title></circle>').format(
        line.tone, short(x), short(y), line.name, number(point[1]), number(point[0])
    )


def confusion_map(counts_KK: Sequence[Sequence[float]], names: Sequence[str], *, title: str) -> Markup:
    """Held-out texts by true class (down) and by what the classifier said (across).

    Full colour is all of a class's texts; what is right is in one tone, what is not in another.
    """
    shown = [excerpt(name, NAME_CHARACTERS) for name in names]
    left = 16 + 6.4 * max(len(name) for name in shown)
    # Names across are written upwards, so they need as much room as those at the left.
    top = left
    parts = [Markup("")]
    for row, counts in enumerate(counts_KK):
        total = sum(counts)
        y = top + row * CELL
        parts.append(words(left - 7, y + CELL / 2 + 4, shown[row], "end"))
        for column, count in enumerate(counts):
            share = count / total if total > 0 else 0.0
            parts.append(
                Markup(
                    '<rect class="fill{}" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}">'
                    "<title>{} texts of {} taken for {} ({})</title></rect>"
                ).format(
                    2 if row == column else 3, short(left + column * CELL), short(y), CELL - 1, CELL - 1,
                    short(0.05 + 0.95 * min(max(share, 0.0), 1.0)),
                    number(count), shown[row], shown[column], percent(share),
                )
            )  # fmt: skip
    for column, name in enumerate(shown):
        place = short(left + column * CELL + CELL / 2 + 4), short(top - 7)
        parts.append(
            Markup('<text class="tick" transform="translate({} {}) rotate(-90)">{}</text>').format(*place, name)
        )
    size = CELL * len(names)
    right = sum(counts_KK[k][k] for k in range(len(names)))
    total = sum(sum(counts) for counts in counts_KK)
    spoken = f"{title}: {len(names)} classes; {number(right)} of {number(total)} texts right"
    return picture(max(left + size + 8, 260), top + size + 8, spoken, parts)
