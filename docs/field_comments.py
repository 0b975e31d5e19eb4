"""A griffe extension: the comments beside a class's fields become the "Attributes" section of its docstring."""

from typing import Any

import griffe


class FieldComments(griffe.Extension):
    """Fields are documented by a comment on their line, or by comment lines right above; neither is a docstring."""

    def on_class_members(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Called by griffe once the fields of a class are known."""
        fields = [
            field for field in cls.members.values() if field.is_attribute and field.annotation and field.name[0] != "_"
        ]
        if not fields or cls.docstring is None or "Attributes:" in cls.docstring.value:
            return
        lines = [*cls.docstring.value.splitlines(), "", "Attributes:"]
        for field in fields:
            said = _comment(field) or (field.docstring.value if field.docstring else "")
            lines.append(f"    {field.name} ({field.annotation}): {' '.join(said.split())}")
        cls.docstring.value = "\n".join(lines)


def _comment(field: griffe.Attribute) -> str:
    source, first, last = field.lines_collection[field.filepath], field.lineno - 1, field.endlineno - 1
    beside = source[last].partition("  # ")[2]
    if beside:
        return beside
    above = []
    while source[first - 1].strip().startswith("#"):
        first -= 1
        above.insert(0, source[first].strip("# "))
    return " ".join(above)
