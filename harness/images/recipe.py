"""Recipes: which packages of which Debian suite an image is made of, and what is kept of them.

A recipe is `images/NAME.yaml`; beside it `images/NAME.lock` holds the exact packages (see `harness.images.lock`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from harness.errors import InfraError
from harness.source.diagnostics import Diagnostic, InputError, did_you_mean
from harness.source.document import Document

#: The recipes shipped with the project.
RECIPES = Path(__file__).resolve().parents[2] / "images"

Suite = Annotated[str, StringConstraints(pattern=r"^[a-z]+(-backports)?$")]
PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
#: A path inside an image, without the leading slash; may be a glob where the field says so.
InnerPath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+*-]*(/[A-Za-z0-9_*][A-Za-z0-9_.+*-]*)*$")
]
LinkTarget = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./+-]+$")]
ModuleName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
PythonModule = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.]+$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KernelModules(_Section):
    """Kernel modules by name: those loaded at boot, in this order, and those only kept in the image."""

    load: tuple[ModuleName, ...]
    keep: tuple[ModuleName, ...] = ()


class Python(_Section):
    """The guest's Python: its version (`3.11`) and the standard modules that must be importable."""

    version: Annotated[str, StringConstraints(pattern=r"^3\.[0-9]+$")]
    imports: tuple[PythonModule, ...]


class _Recipe(_Section):
    #: Debian suite by code name, so that it never changes its meaning.
    suite: Suite
    #: Taken with all they depend on, without what they recommend.
    packages: tuple[PackageName, ...] = Field(min_length=1)
    #: Taken without what they depend on.
    unpack_only: tuple[PackageName, ...] = ()
    #: Files or globs to keep. Libraries that programs are linked with come along.
    files: tuple[InnerPath, ...] = Field(min_length=1)
    #: Symbolic links to make: path to target.
    links: dict[InnerPath, LinkTarget] = Field(default_factory=dict)

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites its packages come from."""
        return (self.suite,)


class GuestRecipe(_Recipe):
    """A guest image: a Debian kernel and an initramfs.

    `kernel` is a metapackage such as `linux-image-amd64`, `modules` names kernel modules, `python` what the guest's
    programs import.
    """

    kind: Literal["guest"]
    kernel: PackageName
    #: The suite that the kernel comes from, if it is not the userland's own.
    kernel_suite: Suite | None = None
    modules: KernelModules
    python: Python

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites its packages come from, the kernel's last."""
        return (self.suite,) if self.kernel_suite is None else (self.suite, self.kernel_suite)


class QemuRecipe(_Recipe):
    """A QEMU that runs beside the host's own: `program` is its binary, `data` its directories of firmware.

    One `on_request` is only built when it is named.
    """

    kind: Literal["qemu"]
    program: InnerPath
    data: tuple[InnerPath, ...]
    on_request: bool = False


class PlatformRecipe(_Recipe):
    """The disk of a guest that runs guests of its own: the builds `qemu` and `guests`, by the names of their recipes.

    Its packages are what the disk is made with, the first of its `files` is the program.
    """

    kind: Literal["platform"]
    qemu: str
    guests: tuple[str, ...] = Field(min_length=1)


Recipe = GuestRecipe | QemuRecipe | PlatformRecipe
_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])


def load_recipe(path: Path) -> Recipe:
    """The recipe in the file at `path`. Raises InputError with every mistake in it, each at its line."""
    document = Document.read(path)
    if document.problems:
        raise InputError(document.problems)
    try:
        return _RECIPE.validate_python(document.data())
    except ValidationError as error:
        raise InputError([_diagnostic(document, problem["loc"], problem) for problem in error.errors()]) from None


def recipe_path(name: str, recipes: Path = RECIPES) -> Path:
    """The recipe file of the image `name`; raises InputError if there is none."""
    path = recipes / f"{name}.yaml"
    known = recipe_names(recipes)
    if name in known:
        return path
    if not known:
        raise InfraError(
            f"no recipe in {recipes}", hint="run from a checkout of the project, installed with `make setup`"
        )
    hint = did_you_mean(name, known)
    raise InputError([Diagnostic(str(path), 0, 0, 0, f"no recipe for an image '{name}'", hint)])


def recipe_names(recipes: Path = RECIPES) -> tuple[str, ...]:
    """The names of all recipes, sorted."""
    return tuple(sorted(path.stem for path in recipes.glob("*.yaml")))


def _diagnostic(document: Document, place: tuple[int | str, ...], problem: object) -> Diagnostic:
    assert isinstance(problem, dict)  # noqa: S101  # pydantic's ErrorDetails
    path = tuple(step for step in place if step not in ("guest", "qemu", "platform"))
    unknown = problem["type"] == "extra_forbidden"
    message = f"'{path[-1]}' is not a field of a recipe" if unknown else f"{'.'.join(map(str, path))}: {problem['msg']}"
    return document.diagnostic(path, message, on_key=unknown)
