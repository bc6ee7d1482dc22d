"""Numbers as a person reads them: the filters of the report's page and of whoever writes captions for it."""


def number(value):
    """Return a number as a person reads it: 4 significant digits, thousands apart; other values as text.

    An interval comes with the count of its values: 0.31 (0.29 to 0.33; n = 200).
    """
    if _undefined(value):
        return "\N{EN DASH}"
    if isinstance(value, dict):
        bounds = "" if _undefined(value["low"]) else f"{number(value['low'])} to {number(value['high'])}"
        inside = "; ".join(filter(None, [bounds, f"n = {value['n']:,}" if "n" in value else ""]))
        return number(value["mean"]) + (f" ({inside})" if inside else "")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ", ".join(map(number, value)) if isinstance(value, (list, tuple)) else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def percent(share, digits=1):
    """Return a share, or the mean of an interval of shares, as a person writes it (96.4 %); a dash for None."""
    share = share["mean"] if isinstance(share, dict) else share
    return "\N{EN DASH}" if _undefined(share) else f"{100 * share:.{digits}f} %"


def span(interval, digits=2):
    """Return an interval {"mean", "low", "high"}: 0.31 (0.29 to 0.33); a dash for no mean, nothing for no bounds."""
    return _span(interval, 1, digits)


def span_percent(interval, digits=1):
    """Return an interval of shares: 31.2 % (29.0 to 33.4 %)."""
    return _span(interval, 100, digits, " %", " %")


def bounds_percent(interval, digits=1):
    """Return the bounds of an interval of shares: 29.0 to 33.4 %."""
    return f"{100 * interval['low']:.{digits}f} to {100 * interval['high']:.{digits}f} %"


def span_points(interval, digits=1):
    """Return an interval of a difference of shares, in percentage points: 1.1 (0.1 to 2.1) percentage points."""
    return _span(interval, 100, digits) + " percentage points"


def _span(interval, factor, digits, after_mean="", after_high=""):
    mean, low, high = (
        "\N{EN DASH}" if _undefined(interval[k]) else f"{factor * interval[k]:.{digits}f}"
        for k in ("mean", "low", "high")
    )
    return mean + after_mean + ("" if _undefined(interval["low"]) else f" ({low} to {high}{after_high})")


def _undefined(value):
    """Whether it is no number: None, as JSON has it, or NaN."""
    return value is None or (isinstance(value, float) and value != value)


def words(name):
    """Return an identifier as words: ``activation_maps`` -> ``activation maps``."""
    return str(name).replace("_", " ")


def counted(count, word):
    """Return how many there are of what a word names: "1 network", "3 networks"."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def listing(values):
    """Return values as people list them: "a, b and c"."""
    *most, last = map(str, values or [""])
    return f"{', '.join(most)} and {last}" if most else last


def duration(seconds):
    """Return seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s"


FILTERS = {
    f.__name__: f
    for f in (number, percent, span, span_percent, bounds_percent, span_points, words, counted, listing, duration)
}
