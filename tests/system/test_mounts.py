"""Which file system a path is on."""

from __future__ import annotations

from pathlib import Path

from jupyter_aistack.system.mounts import Mount, mount_of

MOUNTINFO = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:25 / /mnt/home rw - nfs4 server:/home rw,vers=4.2
31 21 0:26 / /mnt/two\040words rw - cifs //server/share rw
32 21 0:27 / /mnt/over rw - ext4 /dev/sdb1 rw
33 32 0:28 / /mnt/over rw - tmpfs tmpfs rw
34 21 0:29 / /mnt/homely rw - fuse.sshfs host: rw
not a line of it
"""


def kind(tmp_path: Path, path: str) -> tuple[str, str, bool]:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTINFO)
    mount = mount_of(Path(path), file)
    assert mount is not None
    return (mount.kind, mount.folder, mount.is_network)


def test_the_nearest_mount_counts(tmp_path: Path) -> None:
    assert kind(tmp_path, "/mnt/elsewhere/file") == ("ext4", "/", False)
    assert kind(tmp_path, "/mnt/home/ann/file") == ("nfs4", "/mnt/home", True)
    assert kind(tmp_path, "/mnt/homely") == ("fuse.sshfs", "/mnt/homely", True)
    assert kind(tmp_path, "/mnt/two words/x") == ("cifs", "/mnt/two words", True)
    assert kind(tmp_path, "/mnt/over/x") == ("tmpfs", "/mnt/over", False)


def test_links_are_followed(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/mnt/home")
    assert kind(tmp_path, f"{link}/x")[0] == "nfs4"


def test_without_a_list_nothing_is_told(tmp_path: Path) -> None:
    assert mount_of(tmp_path, tmp_path / "missing") is None
    assert str(Mount(folder="/mnt", kind="ext4")) == "ext4 at /mnt"
