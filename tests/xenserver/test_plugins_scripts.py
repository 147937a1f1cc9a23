"""The scripts of the plugin folder: what dom0's Python can run, and how a call that is none of ours is answered."""

import ast
import os
import sys
from pathlib import Path

import pytest

from tests.xenserver.dom0 import Dom0, PluginFailure
from xenapi_host.plugins import FOLDER, PLUGINS, SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_python_3_6_and_import_the_standard_library_only(script: Path) -> None:
    tree = ast.parse(script.read_text(), feature_version=(3, 6))
    own = {path.stem for path in SCRIPTS}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top in own or name.startswith("xenapi_host.plugins.celltree_")


def test_plugins_are_executable() -> None:
    for name in PLUGINS:
        assert os.access(FOLDER / name, os.X_OK)
        assert (FOLDER / name).read_text().startswith("#!/usr/bin/env python3\n")


def test_version_names_the_functions(dom0: Dom0) -> None:
    assert dom0.call("version") == {"version": "1.2", "functions": ["download", "sweep", "upload", "version"]}


def test_an_unknown_function_is_refused_in_xens_words(dom0: Dom0) -> None:
    with pytest.raises(PluginFailure) as caught:
        dom0.call("format_disk")
    assert caught.value.args == ("UNKNOWN_XENAPI_PLUGIN_FUNCTION", "format_disk")
