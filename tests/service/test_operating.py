"""The commands of docs/operating.md are run, and do what the page says."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path

from tests.support.instance import new_instance, until
from tests.support.serving import IAIN, deliver

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()


def commands(heading: str) -> list[str]:
    """What stands in the blocks of a section, without comments."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line.partition("  #")[0] for line in re.findall(r"(?m)^ {4}(\S.*)$", section)]


def test_a_backup_of_a_running_server_is_restored(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    with new_instance(tmp_path / "instance") as instance:
        instance.log_directory = tmp_path
        instance.add_mailbox(IAIN)
        instance.start()
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        lines = "\n".join(commands("Backup and restore"))
        here = lines.replace("/srv/mail", str(instance.directory)).replace("/backup", str(backup))
        subprocess.run(["sh", "-ec", here], umask=0o022, check=True)
        made = {each.name: stat.S_IMODE(each.stat().st_mode) for each in backup.iterdir()}
        assert made == {"restante.db": 0o600, "mail.tar": 0o600}
        instance.stop()
        instance.directory.rename(tmp_path / "former")
        instance.directory.mkdir(mode=0o711)
        unpack = ["tar", "--numeric-owner", "-xpf", str(backup / "mail.tar")]
        subprocess.run(unpack, cwd=instance.directory, check=True)
        shutil.copy(backup / "restante.db", instance.directory)
        instance.start()
        until(lambda: "event=server_ready" in instance.log(), "the server is ready")
        assert instance.run("check").returncode == 0
        assert deliver(instance.smtp_port, IAIN).startswith("250 ")
        assert len(instance.messages(IAIN)) == 2
