"""One factor at a time: the base with one field of its recipe changed, and our recipe with one put back."""

from viz.study import judges, ways
from viz.study.stages.maximization import about, gains, grid
from viz.study.subject import Study


def run(s: Study):
    """Return (pictures, facts)."""
    pictures, found, differences = [], {}, {}
    for name, recipes, how in (
        ("factors", ways.one_factor(s), "with one factor changed"),
        ("left-out", ways.left_out(s), "with one part of ours left out"),
    ):
        made = ways.go(s, recipes)
        verdicts = {way.name: judges.judge(s, way) for way in made}
        first = made[0].name
        others = {way: v for way, v in verdicts.items() if way != first}
        pictures.append(grid(s, made, verdicts, name, how))
        pictures += gains(s, others, verdicts[first], f"{name}-gains", first)
        found |= {way: judges.means(v) for way, v in verdicts.items()}
        differences[first] = {way: vars(judges.gain(v, verdicts[first], len(others))) for way, v in others.items()}
    photographs = judges.means(judges.judge(s, ways.controls(s)[0]))
    own = ways.ours(s)
    return pictures, about(s) | {
        "ways": found,
        "photographs": photographs,
        "log_odds_less": differences,
        "iterations": {"base": ways.steps(s, ways.BASE.steps), "ours": ways.steps(s, own.steps)},
        "rate": {"base": ways.BASE.optimizer.rate, "ours": own.optimizer.rate},
        "tuned": ways.TUNED,
    }
