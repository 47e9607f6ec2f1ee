"""YAML that people edit: read strictly, and every mistake is one sentence that names the file and the place."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from distill_lib.engine.messages import line, short


class _Loader(yaml.SafeLoader):
    """Safe, and without a silent winner where a name is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{short(key.value)} twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ValueError: it cannot be read, is no UTF-8, no YAML or no mapping, or gives a name twice.
    """
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = line(error.problem or error.context or "no YAML", 160)
        raise ValueError(f"{path.name}: {where}{reason}; mend this line") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: byte {error.start} is no UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}; make it readable") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # dates that do not exist, say
        raise ValueError(f"{path.name}: {line(error, 160)}; write a value that YAML knows, or quote it") from error
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        kind = "names that are no words" if isinstance(settings, dict) else type(settings).__name__
        raise ValueError(f"{path.name}: should be lines of `name: value`, not {kind}")
    return settings


def sentence(error: ValidationError, file: str) -> str:
    """The first mistake of settings: its file, place and value, and what is allowed."""
    first = error.errors()[0]
    where = ".".join(line(part, 40) for part in first["loc"][:6]) or "settings"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    reasons = {"extra_forbidden": "is unknown; remove it, or mend its name", "missing": "is missing; add it"}
    if first["type"] in reasons:
        return f"{file}: {where} {reasons[first['type']]}"
    if first["loc"]:
        where += f"={short(first['input'])}"
    return f"{file}: {where}: {line(message, 200)}"
