from __future__ import annotations

import ast
import sys

import pytest

from harness.images.guest_image import AGENT
from harness.images.lock import Package, read_lock, write_lock
from harness.images.recipe import (
    RECIPES,
    GuestRecipe,
    PlatformRecipe,
    QemuRecipe,
    load_recipe,
    recipe_names,
    recipe_path,
)
from harness.images.store import ImageStore
from harness.source.diagnostics import InputError


def test_the_shipped_recipes_are_three_kernels_two_qemus_and_a_platform():
    recipes = {name: load_recipe(recipe_path(name)) for name in recipe_names()}
    assert {name: type(recipe) for name, recipe in recipes.items()} == {
        "debian-12": GuestRecipe,
        "debian-13": GuestRecipe,
        "debian-13-backports": GuestRecipe,
        "platform": PlatformRecipe,
        "qemu": QemuRecipe,
        "qemu-11": QemuRecipe,
    }
    assert {name for name, recipe in recipes.items() if getattr(recipe, "on_request", False)} == {"qemu-11"}
    assert ImageStore().usual_names() == ("debian-12", "debian-13", "debian-13-backports", "platform", "qemu")
    stages = (("debian-12", "debian-13", "debian-13-backports", "qemu"), ("platform",))
    assert ImageStore().stages(ImageStore().usual_names()) == stages
    assert recipes["debian-12"].suite == "bookworm"
    assert recipes["debian-13"].suite == "trixie"
    assert recipes["debian-13-backports"].suites == ("trixie", "trixie-backports")


def test_the_backported_kernel_is_all_that_sets_its_guest_apart():
    plain, backported = (load_recipe(recipe_path(name)) for name in ("debian-13", "debian-13-backports"))
    assert backported == plain.model_copy(update={"kernel_suite": "trixie-backports"})


def test_the_two_guests_differ_in_release_and_versions_only():
    old, new = (recipe_path(name).read_text() for name in ("debian-12", "debian-13"))
    translated = (
        old.replace("bookworm", "trixie")
        .replace("3.11", "3.13")
        .replace("Debian 12: kernel 6.1 ", "Debian 13: kernel 6.12 ")
    )
    assert translated.replace("python3-minimal]", "python3-minimal, zstd]") == new


@pytest.mark.parametrize("name", recipe_names())
def test_each_shipped_lock_holds_all_the_recipe_names(name):
    recipe, locked = load_recipe(recipe_path(name)), read_lock(RECIPES / f"{name}.lock")
    assert locked
    names = [package.name for package in locked]
    assert len(names) == len(set(names))
    assert {*recipe.packages, *recipe.unpack_only} <= set(names)
    assert not isinstance(recipe, GuestRecipe) or [kernel for kernel in names if kernel.startswith("linux-image-")]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("suite: trixie", "suit: trixie", 3, "'suit' is not a field of a recipe"),
        ("suite: trixie", "suite: stable release", 3, "suite: String should match pattern"),
        ("packages: [qemu-system-x86]", "packages: qemu-system-x86", 4, "packages: Input should be a valid tuple"),
        ("program: usr/bin/", "program: /usr/bin/", 5, "program: String should match pattern"),
        ("program: usr/bin/", "program: usr/../bin/", 5, "program: String should match pattern"),
        ("kind: qemu", "kind: floppy", 2, "'floppy'"),
        ("suite: trixie", "suite: trixie\nsuite: sid", 4, "suite"),
    ],
)
def test_a_mistake_is_shown_at_its_line(recipes, old, new, line, message):
    path = recipes / "qemu.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert (line, True) in {(problem.line, message in problem.message) for problem in caught.value.diagnostics}, str(
        caught.value
    )


def test_an_unknown_image_gets_a_suggestion():
    with pytest.raises(InputError, match=r"debian12.*did you mean 'debian-12'"):
        recipe_path("debian12")


def test_a_lock_is_read_as_it_was_written(tmp_path):
    packages = (Package("zlib1g", "1:1.3.1-1+b1", "b" * 64), Package("busybox", "1:1.37.0-6", "a" * 64))
    write_lock(tmp_path / "x.lock", packages)
    assert read_lock(tmp_path / "x.lock") == tuple(sorted(packages))
    assert read_lock(tmp_path / "y.lock") is None


def test_a_damaged_lock_line_is_named(tmp_path):
    lock = tmp_path / "x.lock"
    lock.write_text("# packages\nbusybox 1.37 123\n")
    with pytest.raises(InputError, match=r"x\.lock:2:1"):
        read_lock(lock)


@pytest.mark.parametrize("name", ["debian-12", "debian-13"])
def test_the_guest_has_all_that_the_agent_imports(name):
    modules = {path.stem: ast.parse(path.read_text()) for path in AGENT.glob("*.py")}
    imported = set()
    for tree in modules.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
    assert "ctypes" in imported
    builtin = set(sys.builtin_module_names)
    assert imported - modules.keys() - builtin <= set(load_recipe(recipe_path(name)).python.imports)
