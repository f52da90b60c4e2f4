"""The embedded archive encrypted on its disk: ClickHouse's own encrypted disk (AES-256-CTR), under every table.

The engine is told by a configuration file beside its folder, which names the key's variable and not the key. An archive
is encrypted from its first table on or never: what was written plainly does not become secret by a setting.
"""

import os
import re
from hashlib import sha256
from pathlib import Path

from ..events.errors import SettingsInvalid

CONFIG_FILE = "encryption.xml"
KEY_VARIABLE = "CLICKHOUSE_DISK_KEY_HEX"
"""Of this process alone: the engine reads its key there."""

_CONFIG = """<!-- key {fingerprint} -->
<clickhouse>
  <storage_configuration>
    <disks>
      <bare><type>local</type><path/></bare>
      <sealed>
        <type>encrypted</type><disk>bare</disk><algorithm>AES_256_CTR</algorithm><key_hex from_env="{variable}"/>
      </sealed>
    </disks>
    <policies><sealed><volumes><only><disk>sealed</disk></only></volumes></sealed></policies>
  </storage_configuration>
  <merge_tree><storage_policy>sealed</storage_policy></merge_tree>
</clickhouse>
"""
_FOLDER = re.compile(r"<path/>|<path>[^<]*</path>")


def encryption_option(directory: Path, key: bytes | None) -> str:
    """What must stand in the engine's address so that it encrypts; nothing where nothing is encrypted.

    Raises:
        SettingsInvalid: what lies there was written with another key, or plainly, or needs one.
    """
    file = directory / CONFIG_FILE
    if key is None:
        if file.exists():
            raise SettingsInvalid(
                f"the archive in {directory} is encrypted: name its key in PILOTHOUSE_ENCRYPTION_KEY_FILE"
            )
        return ""
    fingerprint = sha256(b"archive" + key).hexdigest()[:16]
    if not file.exists():
        if (directory / "clickhouse").exists():
            raise SettingsInvalid(
                f"the archive in {directory} was begun without encryption: export its runs, and import them into a new "
                "data directory with PILOTHOUSE_ENCRYPTION_KEY_FILE set"
            )
        told = _CONFIG.format(fingerprint=fingerprint, variable=KEY_VARIABLE)
    elif f"key {fingerprint} " not in (told := file.read_text()):
        raise SettingsInvalid(f"the archive in {directory} was encrypted with another key than the one that is named")
    _write(file, _FOLDER.sub(lambda _: f"<path>{_escaped(str(directory))}/encrypted/</path>", told))
    os.environ[KEY_VARIABLE] = key.hex()
    return f"&config-file={file}"


def _write(file: Path, text: str) -> None:
    """As a whole. Each time, for it names the folder: a copy would write into the archive that it was copied from."""
    draft = file.with_suffix(".new")
    draft.write_text(text)
    draft.replace(file)


def _escaped(path: str) -> str:
    return path.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
