"""Numbers as text, and rows as Markdown tables."""

def percent(
    value: float | None,  # in percent
    digits: int = 1,      # after the point
) -> str | None:          # with sign; None stays None
    """A percentage as tables show it."""
    return None if value is None else f"{value:+.{digits}f} %".replace("-", "−")

def shown(
    value,                      # number, truth value, text or None
    unit: str = "",             # of a number; "%" is a change, "share" a fraction to be shown in percent
    digits: int | None = None,  # decimals; default: one in percent, else three significant digits
) -> str:
    """A value as tables show it."""
    if value is None: return "–"
    if isinstance(value, bool): return "yes" if value else "no"
    if isinstance(value, str): return value
    sign = "+" if unit == "%" else ""
    if unit == "share": value, unit = 100 * value, "%"
    if isinstance(value, int): text = f"{value:,}"
    elif digits is not None: text = f"{value:{sign}.{digits}f}"
    else: text = f"{value:{sign}.1f}" if unit.startswith("%") else f"{value:.3g}"
    return f"{text} {unit}".strip().replace("-", "−")

def lines(
    rows: list,       # mappings
    digits: int = 4,  # significant ones of a float
) -> list:            # lists of text, the header first
    """Rows as text: their columns in order of appearance, without those that are empty in every row."""
    text = lambda v: "" if v is None else f"{v:.{digits}g}" if isinstance(v, float) else str(v)
    cells = {k: [text(r.get(k)) for r in rows] for k in dict.fromkeys(k for r in rows for k in r)}
    shown = {k: v for k, v in cells.items() if any(v)}
    return [list(shown), *map(list, zip(*shown.values()))]

def markdown(
    rows: list,       # mappings
    digits: int = 4,  # significant ones of a float
) -> str:
    """Rows as a Markdown table; an empty list says so."""
    if not rows: return "*nothing to show*"
    head, *body = lines(rows, digits)
    return "\n".join("| " + " | ".join(v.replace("|", "\\|") for v in line) + " |" for line in [head, ["---"] * len(head), *body])

def table(
    rows: list,       # mappings
    digits: int = 4,  # significant ones of a float
):                    # IPython Markdown, to be shown
    """Rows as a Markdown table in a notebook."""
    from IPython.display import Markdown
    return Markdown(markdown(rows, digits))
