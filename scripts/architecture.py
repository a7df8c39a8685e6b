"""The tables and the picture of docs/architecture.md, read off the code: events, requests, intents, commands, rules.

    python scripts/architecture.py docs

Which facts follow from a request, what a fact puts into the state's queues and which command is taken out of each is
found in the syntax trees of decide.py, reduce.py and plan.py: a call of a class, followed through the functions of the
same file. So an arrow says "may", not "must". What no tree says (when an intent is added, what answers a command, how
an open intent is closed after a restart) stands here in words, and every class and arrow in these words is checked
against what was found.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeGuard, get_args
from xml.sax.saxutils import escape

from tune.engine import decide, events, host_link, plan, reduce, requests, shell, state, tuner_link

KIND_OF: dict[Any, str] = {cls: kind for kind, cls in events.KINDS.items()}
ORDER = list(events.KINDS)
REQUESTS: list[Any] = list(get_args(requests.Request))
COMMANDS: list[Any] = list(get_args(plan.Command))
_ADDS = ("append", "pop")
ASKS, READY, NEWS = "asks", "ready", "news"  # not in `Queues` by these names, or with no command behind them

# -- what no syntax tree says -----------------------------------------------------------------------------------------
# An intent: when it is added, and the facts that close it.
INTENTS = {
    "REQUEST_PARAMETER": (
        "a slot has neither a trial nor an ask, and every limit allows one more trial",
        ["PARAMETER", "EXHAUSTED"],
    ),
    "LAUNCH": ("a trial is ready, a slot is free and a host is connected", ["LAUNCHED", "TRIAL_END"]),
    "KILL": ("the experiment is stopped, for each active trial that has none", ["TRIAL_END"]),
    "TRIAL_END": ("a stop is forced, for each trial on a host that is away: it is LOST", []),
    "STATUS": ("a limit or the end is reached, a brake holds (PAUSED), or all has stopped", []),
}
# A command: the requests that may answer it. Nobody answers an empty one: it may be said again at any time.
ANSWERS = {
    "AskTuner": ["Suggests", "SaysWait", "SaysExhausted", "TunerFailed", "TunerHangs"],
    "StartTrial": ["Started", "NotStarted", "NotFree"],
    "ProbeTrial": ["Started", "NotStarted", "NeverStarted", "Exited"],
    "StopTrial": ["Exited", "NotStarted", "NeverStarted"],
    "AnswerTrial": [],
    "ForgetLaunch": [],
    "EndLost": ["Exited", "NotStarted", "NeverStarted"],
    "ClaimDevices": [],
}


class Rule(NamedTuple):
    """What a new engine does about something that the log left open."""

    found: str  # in the log
    by: str  # the fact that sets it off, or in words what does
    commands: list[str]
    outcomes: list[tuple[str, str, str]]  # request, fact ("" for none), and what it means


RULES = [
    Rule(
        "`REQUEST_PARAMETER` without its answer",
        "a tuner host is ready",
        ["AskTuner"],
        [
            ("Suggests", "PARAMETER", "the same ask, so the same draw, by a tuner that was given all facts again"),
            ("SaysWait", "NOT_YET", "asked again once it can know more"),
            ("SaysExhausted", "EXHAUSTED", "no ask is open any more"),
            ("TunerFailed", "TUNER_ERROR", "asked again; after four in a row the experiment is PAUSED"),
            ("TunerHangs", "STATUS", "the experiment is PAUSED"),
        ],
    ),
    Rule(
        "`PARAMETER` that a waiting trial may not have heard",
        "its process still waits",
        ["AnswerTrial"],
        [],
    ),
    Rule(
        "`LAUNCH` without `LAUNCHED`",
        "HOST",
        ["ProbeTrial"],
        [
            ("NeverStarted", "LAUNCH", "the folder is not there: the same attempt is launched"),
            ("Started", "LAUNCHED", "it runs: it is taken over"),
            ("NotStarted", "TRIAL_END", "FAILED; SYS_CANCELED and another attempt where the keeper died over it"),
            ("Exited", "TRIAL_END", "it was over before anybody looked"),
        ],
    ),
    Rule(
        "`LAUNCHED` without `TRIAL_END`",
        "HOST",
        ["ProbeTrial"],
        [
            ("Started", "", "it runs on: known already"),
            ("Reported", "METRIC", "what its spool holds beyond the log, each number once"),
            ("Reported", "REQUEST_PARAMETER", "a question that it put meanwhile"),
            ("Exited", "TRIAL_END", "it ended meanwhile, after all its reports"),
        ],
    ),
    Rule(
        "`KILL` without `TRIAL_END`",
        "HOST",
        ["ProbeTrial", "StopTrial"],
        [
            ("Exited", "TRIAL_END", "with the status that the kill's reason says"),
            ("NeverStarted", "TRIAL_END", "likewise: it never starts"),
        ],
    ),
    Rule(
        "`TRIAL_END` that the keeper was not told of",
        "the keeper says it again",
        [],
        [("Exited", "", "that attempt is over")],
    ),
    Rule(
        "`TRIAL_END` as LOST, and its host is back",
        "HOST",
        ["EndLost"],
        [
            ("Reported", "METRIC", "kept, and marked `ignored`"),
            ("Exited", "", "that attempt is over"),
        ],
    ),
    Rule(
        "`TRIAL_END` as SYS_CANCELED with a phase still open",
        "ENGINE_STARTED",
        [],
        [],
    ),
]
REMARKS = {  # for the rules without a request that answers them
    "`PARAMETER` that a waiting trial may not have heard": "the keeper says again that the trial waits; nothing is "
    "recorded, nothing is drawn anew",
    "`TRIAL_END` as SYS_CANCELED with a phase still open": "WAITING again with the next attempt: `LAUNCH` follows when "
    "a slot is free",
}


# -- what the code says -----------------------------------------------------------------------------------------------
class Found(NamedTuple):
    """Everything that was read off the code, by name and in the code's order."""

    facts: dict[str, list[str]]  # request -> kinds
    groups: dict[str, list[str]]  # who says it -> requests
    intents: list[str]  # kinds that plan adds
    opening: list[str]  # kinds that the shell adds as it opens a log
    queues: dict[str, list[str]]  # kind -> queues
    commands: dict[str, str]  # command -> queue


class Module:
    """The functions of one file, and what a piece of them reaches."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.tree = ast.parse(inspect.getsource(module))
        self.functions = {node.name: node for node in self.tree.body if isinstance(node, ast.FunctionDef)}

    def reach(self, body: Sequence[ast.AST]) -> Iterator[ast.AST]:
        """Every node of `body`, and of the functions of this file that it calls."""
        seen: set[str] = set()
        todo = list(body)
        while todo:
            for node in ast.walk(todo.pop(0)):
                yield node
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    name = node.func.id
                    if name in self.functions and name not in seen:
                        seen.add(name)
                        todo.extend(self.functions[name].body)

    def made(self, body: Sequence[ast.AST], classes: Sequence[Any]) -> list[Any]:
        """Which of `classes` are made there, whatever name they were imported by; in the order of `classes`."""
        names = {node.func.id for node in self.reach(body) if isinstance(node, ast.Call) and _is_name(node.func)}
        made = [getattr(self.module, name, None) for name in names]
        return [cls for cls in classes if cls in made]

    def cases(self, function: str) -> dict[str, Sequence[ast.stmt]]:
        """The branches of a function's `match` by class, and those of `if type(event) is Class` before it."""
        found: dict[str, Sequence[ast.stmt]] = {}
        for statement in self.functions[function].body:
            if isinstance(statement, ast.If) and isinstance(statement.test, ast.Compare):
                for name in statement.test.comparators:
                    if isinstance(name, ast.Name):
                        found[name.id] = statement.body
            if isinstance(statement, ast.Match):
                for case in statement.cases:
                    for node in ast.walk(case.pattern):
                        if isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name):
                            found.setdefault(node.cls.id, case.body)
        return found


def read() -> Found:
    """Read the code. Raises `LookupError` where the words of this file name something that is not so."""
    deciding, reducing, planning = Module(decide), Module(reduce), Module(plan)
    kinds = list(KIND_OF)
    branches = deciding.cases("decide")
    facts = {cls.__name__: _kinds(deciding.made(branches[cls.__name__], kinds)) for cls in REQUESTS}
    branches = reducing.cases("reduce")
    queues = {kind: _queues(reducing, branches[cls.__name__]) for kind, cls in events.KINDS.items()}
    taken: dict[str, str] = {}
    for statement in planning.functions["drain"].body:
        for cls in planning.made([statement], COMMANDS):
            (queue,) = {node.attr for node in ast.walk(statement) if _of_queues(node)}
            taken[cls.__name__] = ASKS if queue == "asked" else queue
    commands = {cls.__name__: taken[cls.__name__] for cls in COMMANDS}
    persons = [cls.__name__ for cls in get_args(requests.PersonsRequest)]
    groups = {"people": persons}
    for who, module in (("tuner, assessor", tuner_link), ("trials, hosts", host_link), ("clock", shell)):
        code = Module(module)
        made = [cls.__name__ for cls in code.made(code.tree.body, REQUESTS)]
        groups[who] = [name for name in made if name not in persons]  # the shell asks for a config's first trials
    opened = Module(shell)
    found = Found(
        facts,
        groups,
        _kinds(planning.made(planning.functions["intents"].body, kinds)),
        _kinds(opened.made(opened.tree.body, kinds)),
        queues,
        commands,
    )
    _check(found)
    return found


def _queues(module: Module, body: Sequence[ast.stmt]) -> list[str]:
    """The queues that are added to there: `queues.x.append(...)`, `queues.x += ...`; ready trials and open asks.

    Also what is forgotten there (`queues.x.pop(...)`), so that it is said again.
    """
    found: list[str] = []
    for node in module.reach(body):
        if isinstance(node, ast.AugAssign) and _of_queues(node.target):
            found.append(node.target.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _ADDS:
            target = node.func.value
            ready = isinstance(target, ast.Attribute) and target.attr == READY and node.func.attr == "append"
            if isinstance(target, ast.Attribute) and (_of_queues(target) or ready):
                found.append(target.attr)
        elif isinstance(node, ast.Call) and _is_name(node.func) and node.func.id == "OpenAsk":
            found.append(ASKS)
    return sorted(set(found))


def _of_queues(node: ast.AST) -> TypeGuard[ast.Attribute]:
    """Whether this is an attribute of the state's queues."""
    if not isinstance(node, ast.Attribute) or node.attr not in state.Queues.__struct_fields__:
        return False
    owner = node.value
    return (isinstance(owner, ast.Name) and owner.id == "queues") or (
        isinstance(owner, ast.Attribute) and owner.attr == "queues"
    )


def _is_name(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name)


def _kinds(classes: Sequence[Any]) -> list[str]:
    return [KIND_OF[cls] for cls in classes]


def _check(found: Found) -> None:
    """The words of this file against what was found."""
    grouped = [name for names in found.groups.values() for name in names]
    _same("requests by who says them", grouped, found.facts)
    _same("intents", INTENTS, found.intents)
    _same("commands", ANSWERS, found.commands)
    sources = {kind for kinds in found.facts.values() for kind in kinds} | {*found.intents, *found.opening}
    _same("events that something makes", sources, ORDER)
    used = {queue for queues in found.queues.values() for queue in queues}
    _same("queues with a reader", used, [*found.commands.values(), READY, NEWS])
    for command, answers in ANSWERS.items():
        _among(f"the answers of {command}", answers, found.facts)
    for kind, (_, closing) in INTENTS.items():
        _among(f"what closes {kind}", closing, ORDER)
    for rule in RULES:
        _among(rule.found, list(re.findall(r"`(\w+)`", rule.found)), ORDER)
        _among(rule.found, rule.commands, found.commands)
        if rule.by in found.queues:
            _among(rule.found, [found.commands[name] for name in rule.commands] or [READY], found.queues[rule.by])
        for request, fact, _ in rule.outcomes:
            _among(rule.found, [fact] if fact else [], found.facts[request])
        if not rule.outcomes and rule.found not in REMARKS:
            raise LookupError(f"{rule.found}: nothing is said of what happens")


def _same(what: str, told: Any, found: Any) -> None:
    if set(told) != set(found):
        raise LookupError(f"{what}: {sorted(set(told) ^ set(found))} in one place only")


def _among(what: str, told: Sequence[str], found: Any) -> None:
    missing = [name for name in told if name not in found]
    if missing:
        raise LookupError(f"{what}: {missing} is not among {list(found)}")


# -- the tables -------------------------------------------------------------------------------------------------------
def tables(found: Found) -> dict[str, str]:
    """The text between each pair of marks."""
    makers = _turned(found.queues)
    return {
        "picture": "![Requests become facts, facts fill queues, queues give commands](architecture.svg)",
        "events": _table(
            ["event", "version", "what it says", "fields (those in brackets have a default)", "puts something into"],
            [
                [_code(kind), str(cls.VER), _sentence(cls), _fields(cls), _codes(found.queues[kind])]
                for kind, cls in events.KINDS.items()
            ],
        ),
        "requests": _table(
            ["from", "request", "what it says", "facts that may follow"],
            [
                [who, _code(name), _sentence(getattr(requests, name)), _codes(found.facts[name])]
                for who, names in found.groups.items()
                for name in names
            ]
            + [["the engine itself", "as it opens a log", "", _codes(found.opening)]],
        ),
        "intents": _table(
            ["fact that the engine adds", "when", "closed by"],
            [[_code(kind), INTENTS[kind][0], _codes(INTENTS[kind][1])] for kind in found.intents],
        )
        + "\n\n"
        + _table(
            ["command", "what it does", "taken from", "which is filled by", "answered by"],
            [
                [_code(name), _sentence(getattr(plan, name)), _code(queue), _codes(makers[queue]), _answers(name)]
                for name, queue in found.commands.items()
            ],
        ),
        "rules": _table(
            ["the log holds", "set off by", "command", "what follows"],
            [
                [
                    rule.found,
                    _code(rule.by) if rule.by in found.queues else rule.by,
                    _codes(rule.commands) or "none",
                    _follows(rule),
                ]
                for rule in RULES
            ],
        ),
    }


def _turned(arrows: dict[str, list[str]]) -> dict[str, list[str]]:
    """The same arrows from their other end."""
    turned: dict[str, list[str]] = {}
    for source, targets in arrows.items():
        for target in targets:
            turned.setdefault(target, []).append(source)
    return turned


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _sentence(cls: Any) -> str:
    """The first sentence of a class's docstring."""
    text = " ".join(inspect.cleandoc(cls.__doc__).split())
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", text, maxsplit=1)[0]


def _fields(cls: Any) -> str:
    names = cls.__struct_fields__
    needed = len(names) - len(cls.__struct_defaults__)
    optional = ", ".join(_code(name) for name in names[needed:])
    return ", ".join(filter(None, [*(_code(name) for name in names[:needed]), f"[{optional}]" if optional else ""]))


def _answers(command: str) -> str:
    return _codes(ANSWERS[command]) or "nobody: saying it again does no harm"


def _follows(rule: Rule) -> str:
    parts = [f"`{request}` → {_code(fact) if fact else 'no fact'}: {words}" for request, fact, words in rule.outcomes]
    return "; ".join(parts) or REMARKS[rule.found]


def _code(name: str) -> str:
    return f"`{name}`"


def _codes(names: Sequence[str]) -> str:
    return ", ".join(_code(name) for name in names)


# -- the picture ------------------------------------------------------------------------------------------------------
ROW, BOX, TOP = 27, 20, 64
COLUMNS = {"request": (24, 128), "event": (330, 148), "queue": (640, 66), "command": (838, 206)}
WIDTH = 1068
OTHERS = {READY: "LAUNCH, as an intent", NEWS: "tuner host: observe"}
STYLE = """
  text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #24292f }
  .small { font-size: 10px; fill: #57606a }
  .head { font: 600 13px system-ui, "DejaVu Sans", sans-serif }
  .panel { fill: #ffffff; stroke: #d0d7de }
  .box { fill: #f6f8fa; stroke: #afb8c1 }
  .arrow { fill: none; stroke-width: 1.2; opacity: .75 }
  .people { stroke: #8250df } .tuner { stroke: #0a7d4f } .trials { stroke: #0969da } .clock { stroke: #9a6700 }
  .engine { stroke: #cf222e } .state { stroke: #6e7781 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 }
    .panel { fill: #0d1117; stroke: #3d444d } .box { fill: #161b22; stroke: #545d68 }
    .people { stroke: #b083f0 } .tuner { stroke: #3fb27f } .trials { stroke: #539bf5 } .clock { stroke: #c69026 }
    .engine { stroke: #f47067 } .state { stroke: #8b949e }
  }
"""


class Placed(NamedTuple):
    """A box of the picture: a word in a column, `y` of its middle in px."""

    column: str
    name: str
    y: int
    paint: str


def draw(found: Found) -> str:
    """The picture as SVG: requests, facts, queues and commands from left to right, with the arrows that were found."""
    facts = dict(found.facts)
    groups = {**found.groups, "engine": ["intents", "opening a log"]}
    facts["intents"], facts["opening a log"] = found.intents, found.opening
    boxes: dict[tuple[str, str], Placed] = {}
    texts: list[str] = []
    y = TOP
    for who, names in groups.items():
        paint = re.split(r"\W", who)[0]
        texts.append(_text(COLUMNS["request"][0], y + 8, who, "small"))
        y += 26
        for name in names:
            boxes["request", name] = Placed("request", name, y, paint)
            y += ROW
        y += 4
    bottom = y - ROW + BOX
    sources = _turned(facts)
    middle = {kind: _mean([boxes["request", name].y for name in sources[kind]]) for kind in ORDER}
    _spread(boxes, "event", sorted(ORDER, key=lambda kind: (middle[kind], ORDER.index(kind))), bottom)
    makers = _turned(found.queues)
    middle = {queue: _mean([boxes["event", kind].y for kind in kinds]) for queue, kinds in makers.items()}
    queues = sorted(makers, key=lambda queue: (middle[queue], queue))
    _spread(boxes, "queue", queues, bottom)
    takers = {queue: command for command, queue in found.commands.items()} | OTHERS
    for queue in queues:
        boxes["command", takers[queue]] = Placed("command", takers[queue], boxes["queue", queue].y, "state")
    arrows = [
        _arrow(boxes["request", name], boxes["event", kind], boxes["request", name].paint)
        for name, kinds in facts.items()
        for kind in kinds
    ]
    arrows += [
        _arrow(boxes["event", kind], boxes["queue", queue], "state")
        for kind, names in found.queues.items()
        for queue in names
    ]
    arrows += [_arrow(boxes["queue", queue], boxes["command", takers[queue]], "state") for queue in queues]
    for placed in boxes.values():
        left, width = COLUMNS[placed.column]
        texts.append(
            f'<rect class="box" x="{left}" y="{placed.y - BOX // 2}" width="{width}" height="{BOX}" rx="4"/>'
            + _text(left + 8, placed.y + 4, placed.name)
        )
        if placed.column == "command":
            texts += [
                _text(left + 8, placed.y + 23 + 13 * line, words, "small")
                for line, words in enumerate(_pairs(ANSWERS.get(placed.name, [])))
            ]
    heads = {"request": "requests", "event": "facts", "queue": "queues", "command": "commands, answers"}
    texts += [_text(COLUMNS[column][0], 34, words, "head") for column, words in heads.items()]
    for words, before, after in (
        ("decide", "request", "event"),
        ("reduce", "event", "queue"),
        ("plan", "queue", "command"),
    ):
        left = sum(COLUMNS[before])
        texts.append(_text((left + COLUMNS[after][0]) // 2 - 4 * len(words), 34, words, "small"))
    height = bottom + 24
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img">',
            "<title>Requests become facts, facts fill queues, queues give commands</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="panel" x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="8"/>',
            *arrows,
            *texts,
            "</svg>\n",
        ]
    )


def _spread(boxes: dict[tuple[str, str], Placed], column: str, names: Sequence[str], bottom: int) -> None:
    """Spread a column evenly over the height of the picture."""
    first, last = TOP + 26, bottom - BOX
    for index, name in enumerate(names):
        boxes[column, name] = Placed(column, name, first + (last - first) * index // (len(names) - 1), "state")


def _arrow(source: Placed, target: Placed, paint: str) -> str:
    """A curve from the right edge of one box to the left edge of another, with a head of two strokes."""
    left, right = sum(COLUMNS[source.column]), COLUMNS[target.column][0]
    bend = (right - left) // 2
    return (
        f'<path class="arrow {paint}" d="M{left} {source.y} C{left + bend} {source.y} {right - bend} {target.y} '
        f'{right - 1} {target.y} M{right - 6} {target.y - 3} L{right - 1} {target.y} L{right - 6} {target.y + 3}">'
        f"<title>{escape(source.name)} → {escape(target.name)}</title></path>"
    )


def _text(x: int, y: int, words: str, paint: str = "") -> str:
    kind = f' class="{paint}"' if paint else ""
    return f'<text{kind} x="{x}" y="{y}">{escape(words)}</text>'


def _pairs(names: Sequence[str]) -> list[str]:
    """The names, two a line."""
    return [", ".join(names[index : index + 2]) for index in range(0, len(names), 2)]


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


# -- the files --------------------------------------------------------------------------------------------------------
def filled(page: str, texts: dict[str, str]) -> str:
    """The page with each text between its marks `<!-- name -->` and `<!-- /name -->`."""
    for name, text in texts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise LookupError(f"the page has to hold {begin} and {end} once each")
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
    return page


def main(folder: Path) -> None:
    """Write the tables into architecture.md, and architecture.svg beside it."""
    found = read()
    page = folder / "architecture.md"
    page.write_text(filled(page.read_text(encoding="utf-8"), tables(found)), encoding="utf-8")
    (folder / "architecture.svg").write_text(draw(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
