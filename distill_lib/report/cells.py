"""What cells of a notebook say: a check in one line, and the source of the function that does the work."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_SECTION = re.compile(r"\n\s*\n\s*(Args|Attributes|Raises|Returns):.*", re.DOTALL)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def check(sentence: str, value: Any, expected: Any = None, atol: float = 0.0) -> None:
    """Print `sentence: True`, the line that nbval compares; where it is wrong, `sentence: False` and by how much.

    Args:
        sentence: what holds, at every profile.
        value: a truth value or any other value, printed as it is; or what is compared with `expected`.
        expected: a tensor, or any value with an equality; without one, `value` itself is printed.
        atol: largest allowed difference of two numbers, or of the entries of two tensors as in `torch.allclose`; 0 asks
            for equality.
    """
    value, expected = _plain(value), _plain(expected)
    if expected is None:
        print(f"{sentence}: {value}")
        return
    if isinstance(value, Tensor) and isinstance(expected, Tensor):
        value, expected = value.detach().cpu().double(), expected.detach().cpu().double()
        same = value.shape == expected.shape
        off = (value - expected).abs().max().item() if same else float("inf")
        right = same and torch.allclose(value, expected, rtol=1e-5 if atol else 0.0, atol=atol)
        by = f"they differ by {off:.2g}, allowed is {atol:g}"
    else:
        right = abs(value - expected) <= atol if atol else value == expected
        by = f"{value} is not {expected}" + f" within {atol:g}" * bool(atol)
    print(f"{sentence}: True" if right else f"{sentence}: False, {by}")


class Markdown(str):
    """Markdown that a notebook shows as such where it is the last line of a cell; elsewhere it is its plain text."""

    def _repr_markdown_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


class Html(str):
    """HTML that a notebook shows as such where it is the last line of a cell."""

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"HTML, {len(self)} characters"


class _Code(Markdown):
    """Python source, shown in its colours."""

    def _repr_markdown_(self) -> str:
        return f"```python\n{self}\n```"


def source(*functions: Callable[..., Any] | type) -> Markdown:
    """The source of functions as the last line of a cell: the very code that runs, with its formulas.

    What a docstring says of arguments and errors is left out.
    """
    return _Code("\n\n".join(_without_sections(inspect.unwrap(function)) for function in functions))


def _without_sections(function: Callable[..., Any] | type) -> str:
    text = textwrap.dedent(inspect.getsource(function)).rstrip()
    documented = next(ast.walk(ast.parse(text).body[0]))
    if (doc := ast.get_docstring(documented, clean=False)) is None:
        return text
    kept = _SECTION.sub("", doc).rstrip()
    return text.replace(doc, kept if "\n" not in kept else f"{kept}\n    ", 1)
