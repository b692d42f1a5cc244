"""Writes the texts of the command ``rft explain``, which explains a field of an RFTJob. The texts come from
the field's description in ``rft_api``, the tuning guide and the advice rules.
"""

from rft_advice import RULES, RUN_RULES
from rft_advice.guide import NINE, Guide, guide_for
from rft_api.fields import Field, find


def explain(path: str) -> str:
    """Return a text of several lines that explains the manifest's field at ``path``: what it does, its
    default and range, and the advice rules about it.

    Raises:
        UnknownField: if no field has this path.
    """
    field = find(path)
    guide = guide_for(field.path)
    lines = [field.path, *(_guided(guide) if guide is not None else _plain(field))]
    if rules := rules_about(field.path):
        lines += ["", "Advice about this field:", *(f"  {name}: {when}" for name, when in rules)]
    return "\n".join(lines)


def overview() -> str:
    """Return a text with two lines for each of the nine main parameters of training and sampling: its path,
    default and range, and what it does.
    """
    lines = [
        "The nine parameters of the tuning guide. rft explain FIELD explains one of them, or any other field."
    ]
    for guide in NINE:
        lines += ["", f"{guide.path}  {_range(guide.field)}", f"  {guide.does}"]
    return "\n".join(lines)


def rules_about(path: str) -> list[tuple[str, str]]:
    """Return the id of each advice rule about the field at ``path``, with the rule's condition in words."""
    on_spec = [(rule.id, rule.when) for rule in RULES if path in rule.paths]
    on_run = [(rule.id, f"in a run: {rule.when}") for rule in RUN_RULES if path in rule.paths]
    return on_spec + on_run


def _guided(guide: Guide) -> list[str]:
    return [
        f"  {guide.does}",
        "",
        f"  Default     {guide.field.default}",
        f"  Range       {guide.field.allowed}",
        f"  Too low     {guide.too_low}",
        f"  Too high    {guide.too_high}",
        f"  Change it   {guide.change}",
    ]


def _plain(field: Field) -> list[str]:
    lines = [f"  {field.description}" if field.description else "", f"  Type: {field.type}."]
    if field.children:
        lines.append(f"  Fields: {', '.join(field.children)}.")
    return [line for line in lines if line]


def _range(field: Field) -> str:
    return f"default {field.default}, {field.allowed}"
