"""LIBERO's tasks as their BDDL files define them: instruction, scene, and what has to end up where.

Held-out tasks are held out by these facts: two tasks may have different names and ask for the same thing. The files are
read as text; no simulator is needed, and `import libero` is never run (without a configuration it prompts on
standard input).
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

FACTS = ("text", "scene", "motion", "composition")  # what tasks of two splits can be required not to share


class Relation(NamedTuple):
    """Something about things, which are named by their kind: two bowls are both `akita_black_bowl`."""

    predicate: str  # "on", "in", "open", "turnon", ...
    what: str  # "milk", or a part of a fixture, "wooden_cabinet top_region"
    where: str  # "basket contain_region"; empty if the predicate is about a single thing

    def __str__(self) -> str:
        return " ".join(filter(None, (self.what, self.predicate, self.where)))


class LiberoTask(NamedTuple):
    """One task."""

    suite: str  # "libero_object", ...
    name: str  # of its BDDL file and of its demonstrations; no two suites share one
    language: str  # as in the BDDL file, in lower case; the benchmark derives the instruction from the name instead
    scene: str  # LIBERO's own name of it, such as "KITCHEN_SCENE3", or the room and its fixtures
    goal: tuple[Relation, ...]
    start: tuple[str, ...]  # where the thing that each goal is about is at first; "" if it does not move

    @property
    def instruction(self) -> str:
        """As the benchmark gives it: the name without its scene."""
        return re.sub(r"^[A-Z_]+_SCENE\d+_", "", self.name).replace("_", " ")

    @property
    def facts(self) -> dict[str, tuple[str, ...]]:
        """Each of `FACTS`.

        - text: the instruction in both wordings.
        - scene: the scene.
        - motion: what is moved from where to where; tasks of libero_spatial differ in nothing else.
        - composition: what has to end up where, wherever it came from: object x place.
        """
        moves = zip(self.goal, self.start, strict=True)
        motions = (f"{goal} from {start}" if start else str(goal) for goal, start in moves)
        values = ((self.instruction, self.language), (self.scene,), tuple(motions), tuple(map(str, self.goal)))
        return dict(zip(FACTS, values, strict=True))


def parse(suite: str, name: str, text: str) -> LiberoTask:
    """The facts of one BDDL file.

    Raises:
      ValueError: if the text is not BDDL, lacks a section, or names an undeclared object.
    """
    try:
        head, *sections = _expression(text)
        assert head == "define"
        found = {section[0]: section[1:] for section in sections}
        kinds = _declared(found[":fixtures"]) | _declared(found[":objects"])
        goal = found[":goal"][0]
        wanted = goal[1:] if goal[0] == "And" else [goal]
        places = {fact[1]: fact[2] for fact in found[":init"] if len(fact) == 3}
        fixtures = sorted(set(_declared(found[":fixtures"]).values()))
        tag = re.match(r"[A-Z_]+_SCENE\d+", name)
        return LiberoTask(
            suite,
            name,
            " ".join(found[":language"]).lower(),
            tag[0] if tag else f"{found['problem'][0]} with {', '.join(fixtures)}",
            tuple(Relation(p.lower(), *(_kind(x, kinds) for x in [*things, ""][:2])) for p, *things in wanted),
            tuple(_kind(places[things[0]], kinds) if things[1:] else "" for _, *things in wanted),
        )
    except (AssertionError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{suite}/{name}.bddl is not a LIBERO task: {error!r}; install hf-libero again") from error


def read(folder: Path) -> dict[str, LiberoTask]:
    """The tasks of every suite below `folder`, by name.

    Raises:
      ValueError: if there is no BDDL file, a file is damaged, or two share a name.
    """
    tasks: dict[str, LiberoTask] = {}
    for file in sorted(folder.glob("*/*.bddl")):
        task = parse(file.parent.name, file.stem, file.read_text(encoding="utf-8"))
        if task.name in tasks:
            raise ValueError(f"{file} has the same name as a task of {tasks[task.name].suite}; names must differ")
        tasks[task.name] = task
    if not tasks:
        raise ValueError(f"{folder} holds no BDDL files; it should contain one folder per suite")
    return tasks


def compositions(tasks: Mapping[str, LiberoTask]) -> dict[tuple[str, str], tuple[str, ...]]:
    """The table of object x place, such as ("milk", "in basket contain_region"), with the tasks that ask for it."""
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for task in tasks.values():
        for goal in task.goal:
            if goal.where:
                found[goal.what, f"{goal.predicate} {goal.where}"].append(task.name)
    return {pair: tuple(names) for pair, names in sorted(found.items())}


def _expression(text: str) -> list:
    """Nested lists of words."""
    stack: list[list] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text)):
        if token == "(":
            stack.append([])
        elif token == ")":
            stack[-2].append(stack.pop())
        else:
            stack[-1].append(token)
    [[whole]] = stack
    return whole


def _declared(section: list[str]) -> dict[str, str]:
    """Name -> kind, of a list such as `plate_1 plate_2 - plate`."""
    kinds: dict[str, str] = {}
    waiting: list[str] = []
    words = iter(section)
    for word in words:
        if word == "-":
            kind = next(words, "")
            kinds |= {name: kind for name in waiting}
            waiting = []
        else:
            waiting.append(word)
    return kinds


def _kind(name: str, kinds: Mapping[str, str]) -> str:
    """A thing by its kind, a region of it by its kind and the region's name."""
    owner = max((thing for thing in kinds if name == thing or name.startswith(f"{thing}_")), key=len, default=None)
    if owner is None:
        if name:
            raise ValueError(f"{name} is not declared")
        return ""
    return " ".join(filter(None, (kinds[owner], name[len(owner) + 1 :])))
