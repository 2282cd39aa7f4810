"""Generated code that reads like the symbol: one line a node, parameters where they are used.

torch.fx fetches each parameter on a line of its own and lists it again among the names to drop:

    conv0_weight = self.conv0_weight
    conv0_fwd = torch.conv2d(data, conv0_weight, None, (2, 2));  data = conv0_weight = None

Rewritten, that is `conv0_fwd = torch.conv2d(data, self.conv0_weight, None, (2, 2));  data = None`.
"""

from __future__ import annotations

import re

from torch import fx

Body = list[str]
_FETCH = re.compile(r'(\w+) = ((?:getattr\()*self(?:\.\w+|, "\w+"\))+)')
# a string as it stands, in which an einsum has letters, or a name
_NAME = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?<![\w.])[A-Za-z_]\w*""")
_DROP = re.compile(r";  ((?:\w+ = )+None)$")


def make_readable(graph: fx.Graph) -> None:
    """Have `graph`, and copies of it, generate code in the short form."""
    # a plain function, so that modules stay picklable
    graph.on_generate_code(lambda current: inline_parameters)


def inline_parameters(body: Body) -> Body:
    """Put `self.…` in the place of the local names that only hold it."""
    fetched: dict[str, str] = {}
    lines: Body = []
    for line in "".join(body).split("\n"):
        match = _FETCH.fullmatch(line)
        if match:
            fetched[match[1]] = match[2]
            continue
        dropped = _DROP.search(line)
        statement = line[: dropped.start()] if dropped else line
        if fetched and "=" in statement:
            target, value = statement.split("=", 1)
            statement = target + "=" + _inline(value, fetched)
        elif fetched and statement.startswith("return "):
            statement = _inline(statement, fetched)
        names = [each for each in dropped[1].split(" = ") if each not in fetched] if dropped else []
        keep = names if len(names) > 1 else []  # "None" alone: nothing left to drop
        lines.append(";  ".join([statement, " = ".join(keep)] if keep else [statement]))
    return ["\n".join(lines)]


def _inline(text: str, fetched: dict[str, str]) -> str:
    return _NAME.sub(lambda match: fetched.get(match[0], match[0]), text)
