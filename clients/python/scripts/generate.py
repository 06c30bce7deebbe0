"""Writes the types of the messages, src/wheelhouse_client/generated, from the schemas. With --check it writes nothing and
fails if a committed file is not what the schemas give. It needs the packages of requirements-generate.txt."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

CLIENT = Path(__file__).resolve().parent.parent
SCHEMAS = CLIENT.parent.parent / "schema"
GENERATED = CLIENT / "src" / "wheelhouse_client" / "generated"
HEADER = '"""Generated from schema/{name}.schema.json by scripts/generate.py. Do not edit."""'
# The standard library has NotRequired from 3.11 on. In 3.10 only a type checker needs it, which knows it without the package.
FROM_EXTENSIONS = "\nfrom typing_extensions import NotRequired\n"
FROM_EITHER = """
if sys.version_info >= (3, 11):
    from typing import NotRequired
elif TYPE_CHECKING:
    from typing_extensions import NotRequired
"""


def types(name: str) -> str:
    """The module for one schema."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "types.py"
        options = ["--input-file-type", "jsonschema", "--output-model-type", "typing.TypedDict"]
        options += ["--target-python-version", "3.10", "--use-schema-description", "--enum-field-as-literal", "all"]
        options += ["--no-use-closed-typed-dict", "--formatters", "builtin", "--class-name", "AnyMessage"]
        options += ["--custom-file-header", HEADER.format(name=name)]
        schema = SCHEMAS / f"{name}.schema.json"
        command = [sys.executable, "-m", "datamodel_code_generator", "--input", str(schema), "--output", str(target)]
        subprocess.run([*command, *options], check=True)
        text = target.read_text()
    if FROM_EXTENSIONS not in text:
        raise SystemExit(f"{name}: the generator does not write its imports as it did")
    text = text.replace(FROM_EXTENSIONS, FROM_EITHER)
    return text.replace("from typing import", "import sys\nfrom typing import TYPE_CHECKING,", 1)


def main() -> int:
    is_check = sys.argv[1:] == ["--check"]
    wrong = 0
    for name in ("messages", "worker"):
        target = GENERATED / f"{name}.py"
        text = types(name)
        if not is_check:
            target.write_text(text)
        elif not target.exists() or target.read_text() != text:
            print(f"{target.relative_to(CLIENT)} is not what the schemas give: run scripts/generate.py.", file=sys.stderr)
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
