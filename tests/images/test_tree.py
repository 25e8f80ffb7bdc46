from __future__ import annotations

import os

import pytest

from harness.errors import ImageError
from harness.images.sysroot import Sysroot
from harness.images.tree import Tree


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/bin").mkdir()
    (root / "lib").symlink_to("usr/lib")
    (root / "usr/lib/libx.so.1.2").write_text("x")
    (root / "usr/lib/libx.so.1").symlink_to("libx.so.1.2")
    (root / "usr/bin/link").symlink_to("/lib/libx.so.1")
    return Sysroot(root)


def test_links_are_followed_inside_the_root_also_when_they_are_absolute(root):
    assert root.link_chain("usr/bin/link") == {
        "usr/bin/link": "/lib/libx.so.1",
        "usr/lib/libx.so.1": "libx.so.1.2",
        "usr/lib/libx.so.1.2": None,
    }
    assert root.resolve("usr/bin/link") == "usr/lib/libx.so.1.2"


def test_a_link_to_nowhere_and_a_link_to_itself_are_errors(root):
    (root.root / "usr/bin/nowhere").symlink_to("/usr/share/nowhere")
    (root.root / "usr/bin/loop").symlink_to("loop")
    with pytest.raises(ImageError, match="usr/share/nowhere is in no package"):
        root.link_chain("usr/bin/nowhere")
    with pytest.raises(ImageError, match="leads to itself"):
        root.resolve("usr/bin/loop")


def test_a_pattern_that_matches_nothing_is_an_error(root):
    assert root.matching("usr/lib/libx*") == ("usr/lib/libx.so.1", "usr/lib/libx.so.1.2")
    with pytest.raises(ImageError, match=r"no package has usr/lib/liby\*"):
        root.matching("usr/lib/liby*")


def test_a_listing_says_nothing_of_the_host_but_where_the_contents_are(tmp_path):
    plain, program = tmp_path / "a b", tmp_path / "program"
    plain.write_text("1")
    program.write_text("2")
    plain.chmod(0o600)
    program.chmod(0o700)
    os.utime(plain, (1, 1))
    tree = Tree()
    tree.add_file("usr/bin/[", program)
    tree.add_file("etc/p\N{LATIN SMALL LETTER A WITH DIAERESIS}th", plain)
    tree.add_link("bin", "usr/bin")
    tree.add_directory("root", 0o700)
    contents = str(tmp_path)
    assert tree.listing().splitlines() == [
        "#mtree",
        "/set uid=0 gid=0 time=0.0 nlink=1",
        "./bin type=link mode=0777 link=usr/bin",
        "./etc type=dir mode=0755",
        f"./etc/p\\303\\244th type=file mode=0644 contents={contents}/a\\040b",
        "./root type=dir mode=0700",
        "./usr type=dir mode=0755",
        "./usr/bin type=dir mode=0755",
        f"./usr/bin/[ type=file mode=0755 contents={contents}/program",
    ]


def test_a_tree_becomes_a_directory(tmp_path):
    source = tmp_path / "source"
    source.write_text("x")
    tree = Tree()
    tree.add_file("a/b", source)
    tree.add_link("a/c", "b")
    tree.copy_to(tmp_path / "out")
    assert (tmp_path / "out/a/c").read_text() == "x"
    assert (tmp_path / "out/a/b").stat().st_mode & 0o777 == 0o644
