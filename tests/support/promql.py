"""Alert rules evaluated as Prometheus does it, over series written as `promtool test rules` writes them.

The expressions are parsed by Prometheus' grammar (promql-parser); what is evaluated is the part of the language that
the rules use, and anything else is an error. Instant values look back five minutes, rates are extrapolated, `for`
counts from the first evaluation in a row that gave a value.
"""

import operator
import re
from itertools import pairwise

import promql_parser as promql

LOOKBACK = 300.0
STEP = 60.0
_METRIC = "__name__"
_ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": lambda a, b: a / b if b else float("nan")}
_COMPARISONS = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_AGGREGATES = {"sum": sum, "max": max, "min": min, "count": len, "avg": lambda values: sum(values) / len(values)}


def series_of(notations):
    """[(labels, [(seconds, value)])] of {`name{label="…"}`: `1x5 0+10x3 _`}, one value a minute."""
    found = []
    for text, values in notations.items():
        name, _, labels = text.partition("{")
        known = dict(re.findall(r'(\w+)="([^"]*)"', labels)) | {_METRIC: name}
        found.append((known, [(n * STEP, v) for n, v in enumerate(_values(values)) if v is not None]))
    return found


def _values(text):
    for part in text.split():
        found = re.fullmatch(r"(_|-?[\d.]+)(?:([+-][\d.]+)?x(\d+))?", part)
        start, step, times = found[1], float(found[2] or 0), int(found[3] or 0)
        for n in range(times + 1):
            yield None if start == "_" else float(start) + n * step


def evaluate(text, series, at):
    """[(labels, value)] of an expression at a time in seconds."""
    found = _evaluate(promql.parse(text), series, at)
    return found if isinstance(found, list) else [({}, found)]


def firing(rule, series, at):
    """[(labels, value)] of the alerts of one rule that fire at a time, evaluated every minute until then."""
    wait = promql.parse_duration(rule["for"]).total_seconds() if "for" in rule else 0.0
    since = {}
    now = 0.0
    while now <= at:
        found = evaluate(rule["expr"], series, now)
        active = {_key(labels): value for labels, value in found}
        assert len(active) == len(found), f"two values with the same labels: {found}"
        since = {key: since.get(key, now) for key in active}
        now += STEP
    return [(dict(key) | rule["labels"], active[key]) for key, begun in since.items() if now - STEP - begun >= wait]


def selectors(text):
    """(metric, label names that are matched) of each selector of an expression, and all that it groups or joins by."""
    found, grouped = [], set()
    for node in _walk(promql.parse(text)):
        if isinstance(node, promql.VectorSelector):
            found.append((node.name, [(each.name, each.value, each.op) for each in node.matchers.matchers]))
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            grouped |= set(node.modifier.labels)
        if isinstance(node, promql.BinaryExpr) and node.modifier is not None and node.modifier.matching is not None:
            grouped |= set(node.modifier.matching.labels)
    return found, grouped


def _walk(node):
    yield node
    for child in _children(node):
        yield from _walk(child)


def _children(node):
    if isinstance(node, promql.Call):
        return list(node.args)
    names = ("lhs", "rhs", "expr", "vector_selector")
    return [getattr(node, name) for name in names if isinstance(getattr(node, name, None), promql.Expr)]


def _evaluate(node, series, at):
    if isinstance(node, promql.NumberLiteral):
        return node.val
    if isinstance(node, promql.ParenExpr):
        return _evaluate(node.expr, series, at)
    if isinstance(node, promql.VectorSelector):
        at -= _offset(node)
        recent = (
            (labels, [v for t, v in points if at - LOOKBACK < t <= at]) for labels, points in _chosen(node, series)
        )
        return [(labels, values[-1]) for labels, values in recent if values]
    if isinstance(node, promql.AggregateExpr):
        return _aggregate(node, _evaluate(node.expr, series, at))
    if isinstance(node, promql.Call):
        return _call(node, series, at)
    if isinstance(node, promql.BinaryExpr):
        return _binary(node, _evaluate(node.lhs, series, at), _evaluate(node.rhs, series, at))
    raise AssertionError(f"not evaluated here: {node}")


def _chosen(selector, series):
    tests = {
        "MatchOp.Equal": lambda said, wanted: said == wanted,
        "MatchOp.NotEqual": lambda said, wanted: said != wanted,
        "MatchOp.Re": lambda said, wanted: re.fullmatch(wanted, said),
        "MatchOp.NotRe": lambda said, wanted: not re.fullmatch(wanted, said),
    }
    for labels, points in series:
        matches = (tests[str(each.op)](labels.get(each.name, ""), each.value) for each in selector.matchers.matchers)
        if labels[_METRIC] == selector.name and all(matches):
            yield labels, points


def _offset(selector):
    return selector.offset.total_seconds() if selector.offset else 0.0


def _call(node, series, at):
    name = node.func.name
    if name == "time":
        return at
    if name == "clamp_min":
        vector, least = (_evaluate(each, series, at) for each in node.args)
        return [(dict(_key(labels)), max(value, least)) for labels, value in vector]
    [matrix] = node.args
    at -= _offset(matrix.vector_selector)
    window = matrix.range.total_seconds()
    found = []
    for labels, points in _chosen(matrix.vector_selector, series):
        inside = [(t, v) for t, v in points if at - window <= t <= at]
        bare = {key: value for key, value in labels.items() if key != _METRIC}
        if name == "last_over_time":
            if inside:
                found.append((labels, inside[-1][1]))
        elif name in {"rate", "increase", "delta"}:
            if len(inside) >= 2:
                grown = _extrapolated(inside, at - window, at, counter=name != "delta")
                found.append((bare, grown / window if name == "rate" else grown))
        else:
            raise AssertionError(f"not evaluated here: {name}()")
    return found


def _extrapolated(points, start, end, *, counter):
    """As Prometheus extrapolates: up to the window's ends where the samples are near them, never below zero."""
    (first_t, first), (last_t, last) = points[0], points[-1]
    grown = last - first
    if counter:
        grown += sum(before for (_, before), (_, after) in pairwise(points) if after < before)
    sampled, average = last_t - first_t, (last_t - first_t) / (len(points) - 1)
    to_start, to_end = first_t - start, end - last_t
    if counter and grown > 0 and first >= 0:
        to_start = min(to_start, sampled * first / grown)
    reach = average * 1.1
    stretched = sampled + (to_start if to_start < reach else average / 2) + (to_end if to_end < reach else average / 2)
    return grown * stretched / sampled


def _aggregate(node, vector):
    name = str(node.op)
    kept = set(node.modifier.labels) if node.modifier is not None else set()
    groups = {}
    for labels, value in vector:
        key = frozenset((label, said) for label, said in labels.items() if label in kept)
        groups.setdefault(key, []).append(value)
    return [(dict(key), _AGGREGATES[name](values)) for key, values in groups.items()]


def _binary(node, left, right):
    symbol = str(node.op)
    vectors = isinstance(left, list), isinstance(right, list)
    if symbol in {"and", "or", "unless"}:
        return _combined(symbol, _matched_by(node), left, right)
    assert node.modifier is None or node.modifier.matching is None, f"not evaluated here: {node}"
    if vectors == (True, True):
        others = {_key(labels): value for labels, value in right}
        assert len(others) == len(right), f"many to one: {node}"
        pairs = [(labels, value, others[_key(labels)]) for labels, value in left if _key(labels) in others]
    elif vectors == (True, False):
        pairs = [(labels, value, right) for labels, value in left]
    elif vectors == (False, True):
        pairs = [(labels, left, value) for labels, value in right]
    else:
        return _ARITHMETIC[symbol](left, right)
    if symbol in _COMPARISONS:
        compared = _COMPARISONS[symbol]
        return [(labels, a if vectors[0] else b) for labels, a, b in pairs if compared(a, b)]
    return [(dict(_key(labels)), _ARITHMETIC[symbol](a, b)) for labels, a, b in pairs]


def _combined(symbol, key, left, right):
    mine, others = ({key(labels) for labels, _ in side} for side in (left, right))
    if symbol == "or":
        return left + [(labels, value) for labels, value in right if key(labels) not in mine]
    return [(labels, value) for labels, value in left if (key(labels) in others) == (symbol == "and")]


def _matched_by(node):
    """What of a series' labels decides which of the other side's it belongs to: all of them, or those after `on`."""
    matching = node.modifier.matching if node.modifier is not None else None
    if matching is None:
        return _key
    assert str(matching.type) == "LabelModifierType.Include", f"not evaluated here: {node}"
    return lambda labels: frozenset((name, labels.get(name, "")) for name in matching.labels)


def _key(labels):
    return frozenset((name, said) for name, said in labels.items() if name != _METRIC)
