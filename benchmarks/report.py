"""What becomes of the times: ratios, the table on the screen, results.json, results.png and RESULTS.md."""

import json
import statistics

import numpy as np


def summary(times, per=1, flops=0):
    """Sum up the rounds of one work.

    Parameters
    ----------
    times : dict of list of float
        By side, milliseconds per round; "ours" among them. A side that sat out has fewer rounds.
    per : int
        How often one timed call did what is counted (iterations).
    flops : float
        Floating-point operations of a dense implementation.

    Returns
    -------
    dict
        "sides": by side median_ms, min_ms, rounds, gflops, and, but for ours, ratio (the median of the ratios
        ours / side of each round), ratio_min, ratio_max. "fastest": the peer with the smallest median, or None;
        "ratio", "ratio_min" and "ratio_max" to it.
    """
    sides, ours = {}, times["ours"]
    for name, ms in times.items():
        median = statistics.median(ms) / per
        row = {"median_ms": median, "min_ms": min(ms) / per, "rounds": len(ms)}
        row["gflops"] = flops / median / 1e6
        if name != "ours":
            row |= spread([a / b for a, b in zip(ours, ms)])
        sides[name] = row
    peers = [name for name in sides if name != "ours"]
    fastest = min(peers, key=lambda name: sides[name]["median_ms"]) if peers else None
    result = {"sides": sides, "fastest": fastest}
    if fastest:
        result |= {key: sides[fastest][key] for key in ("ratio", "ratio_min", "ratio_max")}
    return result


def spread(ratios):
    """Median and range of ratios."""
    return {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}


COLUMNS = ("work", "side", "median ms", "min ms", "ours/side", "range", "GFLOP/s", "of peak", "memory", "formulation")
WIDTHS = (20, 14, 10, 10, 10, 15, 9, 8, 8, 0)


def cells(work, peak):
    """The rows of COLUMNS for one work, as strings; the fastest peer's ratio is marked."""
    for name, side in work["sides"].items():
        ratio = span = ""
        if "ratio" in side:
            ratio = f"{side['ratio']:.2f}" + (" *" if name == work["fastest"] else "")
            span = f"{side['ratio_min']:.2f} to {side['ratio_max']:.2f}"
        rates = (f"{side['gflops']:,.0f}", f"{side['gflops'] / peak:.0%}")
        size = f"{side['memory'] / 1e6:,.0f} MB" if side.get("memory") else ""
        times = (f"{side['median_ms']:,.1f}", f"{side['min_ms']:,.1f}")
        how = side.get("formulation", "")
        yield (work["work"], name, *times, ratio, span, *rates, size, how)


def line(row):
    """A row as text."""
    left = ("work", "side", "formulation")
    return "  ".join(f"{c:<{w}}" if k in left else f"{c:>{w}}" for c, w, k in zip(row, WIDTHS, COLUMNS)).rstrip()


def write_json(path, results):
    """All that was measured."""
    path.write_text(json.dumps(results, indent=1) + "\n")


def plot(path, results):
    """Time of ours over each peer's, one line per work; left of 1 ours is faster."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    works = [work for work in results["works"] if work["fastest"]]
    if not works:
        return
    peers = list(dict.fromkeys(name for work in works for name in work["sides"] if name != "ours"))
    fig, ax = plt.subplots(figsize=(8, 1.4 + 0.34 * len(works)), layout="constrained")
    rows = np.arange(len(works))[::-1]
    for i, peer in enumerate(peers):
        has = [(y, work["sides"][peer]) for y, work in zip(rows, works) if peer in work["sides"]]
        offset = 0.22 * ((len(peers) - 1) / 2 - i)
        x = np.array([side["ratio"] for _, side in has])
        low, high = (np.array([side[key] for _, side in has]) for key in ("ratio_min", "ratio_max"))
        y = np.array([y for y, _ in has]) + offset
        ax.errorbar(x, y, xerr=(x - low, high - x), fmt="o", ms=5, lw=1.2, label=peer)
    ax.axvline(1, color="black", lw=1)
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if low <= t <= high or t == 1]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set_yticks(rows, [work["work"] for work in works])
    ax.set_ylim(-0.6, len(works) - 0.4)
    ax.grid(axis="x", lw=0.5, alpha=0.5)
    ax.set_xlabel("time of ours / time of the peer (median and range of the rounds); left of 1 ours is faster")
    ax.set_title(f"{results['machine']}, {results['threads']} threads, float32", fontsize=10)
    fig.legend(ncols=len(peers), loc="outside lower center", frameon=False)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def header(results):
    """Lines that say where and how this was measured."""
    yield f"{results['machine']}, {results['threads']} threads, batch {results['batch']}, float32"
    yield "; ".join(results["versions"].values())
    yield f"a large matrix product runs at {results['peak']:,.0f} GFLOP/s here (of peak: of this)"


def markdown(results):
    """The page RESULTS.md."""

    def table(head, rows):
        return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]

    out = ["# Results", "", f"Generated by `{results['command']}`; do not edit.", ""]
    out += [f"- {text}" for text in header(results)]
    out += [f"- {text}" for text in results["notes"]]
    if results["works"]:
        out += ["", "`*` marks the fastest peer. Quote the ratios: absolute times drift with the machine.", ""]
        out += table(COLUMNS, (row for work in results["works"] for row in cells(work, results["peak"])))
    for extra in results["tables"]:
        out += ["", f"## {extra['title']}", "", *table(extra["head"], extra["rows"])]
    return "\n".join(out) + "\n"
