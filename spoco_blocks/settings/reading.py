"""Reading a configuration, and saying plainly what is wrong with one."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from spoco_blocks.errors import SettingsError
from spoco_blocks.settings.sections import Settings


def parse_settings(tree: Any) -> Settings:
    """Validate a configuration tree.

    Raises
    ------
    SettingsError
        With one line per mistake: where it is, what was got, what is expected.
    """
    try:
        return Settings.model_validate(_in_folder(tree, tree.get("folder")) if isinstance(tree, dict) else tree)
    except ValidationError as error:
        raise SettingsError(explain(error, Settings)) from None


def _in_folder(tree: Any, folder: Any) -> Any:
    """Put the folder in the place of {folder} in every uri of a configuration tree."""
    if isinstance(tree, dict):
        return {key: _uri(v, folder) if key == "uri" else _in_folder(v, folder) for key, v in tree.items()}
    return tree


def _uri(uri: Any, folder: Any) -> Any:
    if not isinstance(uri, str) or "{folder}" not in uri:
        return uri
    if folder is None:
        raise SettingsError(
            f"{uri} names {{folder}}, which is not given; write `folder: ...` at the top of the configuration, or "
            "--config folder=... on the command line."
        )
    return uri.replace("{folder}", str(folder).rstrip("/"))


def load_settings(path: Path) -> Settings:
    """Read and validate a YAML file.

    Raises
    ------
    SettingsError
        When the file is missing, not YAML or not a valid configuration.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise SettingsError(f"no configuration at {path}; copy one from config/ and edit it.") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from None
    return parse_settings(tree)


def json_schema() -> str:
    """Give the JSON schema of the configuration, as it is kept in the repository."""
    return json.dumps(Settings.model_json_schema(), indent=2, sort_keys=True) + "\n"


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Put pydantic's findings into sentences; an unknown key is answered with the nearest known one."""
    lines = ["the configuration is not valid:"]
    known = _all_keys(model.model_json_schema())
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            key = str(item["loc"][-1])
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else "; it has no such key"
            lines.append(f"  {where}: unknown key '{key}'{hint}")
        else:
            got = "" if item["type"] == "missing" else f" (got {_shown(item['input'])!r})"
            lines.append(f"  {where or 'the file'}: {item['msg'].removeprefix('Value error, ')}{got}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """Shorten a value, without the credentials that a URI may hold."""
    return re.sub(r"(?<=://)[^/]*@", "***@", str(value))[:80]


def _all_keys(schema: dict[str, Any]) -> list[str]:
    definitions = [schema, *schema.get("$defs", {}).values()]
    return sorted({key for definition in definitions for key in definition.get("properties", {})})
