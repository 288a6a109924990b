"""The packages as a stranger gets them: built, installed from the wheel, and tested at the ends of what is promised.

``make matrix`` runs all of it, ``nox --list`` says what there is. docs/VERSIONS.md says what is promised.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import nox
from packaging.metadata import Metadata
from packaging.requirements import Requirement

nox.options.default_venv_backend = "venv"  # pip, so that the settings of whoever runs it are those that hold
nox.options.error_on_missing_interpreters = False  # a Python that is not here is said, and skipped
nox.options.sessions = ["wheel", "types", "matrix", "footprint"]

ROOT = Path(__file__).resolve().parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")["project"]
LOCK = ROOT / "requirements" / "dev.txt"

#: What a cell of the matrix runs: what a stage and a pipeline are, and the contract with the original.
TESTS = ["test_stage_life.py", "test_stage_logging.py", "test_contract_api.py", "test_pipeline.py", "test_delivery.py"]
#: It compares with the stock encoder of the same release. The oldest one leaves out empty values; ours writes them.
#: With the lock's releases it is a part of ``make test``.
NEWEST_TESTS = ["test_otlp.py"]
TOOLS = ["pytest", "hypothesis"]
NOT_CODE = ("py.typed", "report/report.html.j2", "report/vendor/uplot/uPlot.iife.min.js", "report/vendor/uplot/LICENSE")


# -- what the sessions share ------------------------------------------------------------------------------------------


def interpreter(version: str) -> str:
    """Where this Python is; its name alone if it is not here, which nox then says."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in (f"python{version}", *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))):
        found = shutil.which(candidate)
        # One of pyenv's shims is there for a Python that is not switched on, and fails.
        if found and subprocess.run([found, "-c", ""], check=False, capture_output=True).returncode == 0:
            return found
    return version


def tmp(session: nox.Session) -> Path:
    """Before ``away_from_the_tree``: nox has it relative to where the session is."""
    return Path(session.create_tmp()).resolve()


def build(session: nox.Session, *kinds: str) -> Path:
    """The sdist, and the wheel that is built from it, or only those kinds, with the tools that nox itself runs with."""
    place = tmp(session) / "-".join(["dist", *(kind.strip("-") for kind in kinds)])
    shutil.rmtree(place, ignore_errors=True)
    arguments = ("--no-isolation", "--outdir", str(place), *kinds, str(ROOT))
    session.run(sys.executable, "-m", "build", *arguments, external=True, silent=True)
    return place


def only(place: Path, pattern: str) -> Path:
    (found,) = place.glob(pattern)
    return found


def requirements(*extras: str) -> list[Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def oldest(requirement: Requirement) -> str:
    (bound,) = [one.version for one in requirement.specifier if one.operator == ">="]
    return f"{requirement.name}=={bound}"


def locked(names: Iterable[str] | None = None) -> list[str]:
    """The lock's pins, of these packages or of all, with their markers and without their hashes."""
    pins = re.findall(r"^([a-z0-9._-]+)(==[^\\\n]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return [name + pin.strip() for name, pin in pins if names is None or name in names]


def constraints(session: nox.Session, lines: list[str]) -> str:
    path = tmp(session) / "constraints.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def away_from_the_tree(session: nox.Session) -> None:
    """Where the package can only come from the wheel; nothing of the caller's telemetry with it."""
    place = tmp(session) / "elsewhere"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    session.chdir(place)
    for name in list(session.env):
        if name.startswith(("OTEL_", "TRACE", "BAGGAGE", "PYTHONPATH")):
            session.env[name] = None


def said(session: nox.Session, *command: str) -> str:
    return str(session.run(*command, silent=True, log=False) or "").strip()


# -- the packages -----------------------------------------------------------------------------------------------------


@nox.session
def wheel(session: nox.Session) -> None:
    """Build both packages, look into them, and use the wheel in an environment with nothing else in it."""
    dist = build(session)
    wheel, sdist = only(dist, "*.whl"), only(dist, "*.tar.gz")
    session.run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist), external=True)
    check_sdist(session, sdist)
    check_wheel(session, wheel, only(build(session, "--wheel"), "*.whl"))

    pins = constraints(session, locked())
    away_from_the_tree(session)
    session.install("-c", pins, str(wheel))
    code = "import sys, otel_stageio as o; assert o.__file__.startswith(sys.prefix), o.__file__; print(o.__file__)"
    session.run("python", "-c", code)
    session.run("python", "-c", "from otel_stageio import StageIO\nwith StageIO('asr', 'job') as io: io.progress(1, 1)")
    session.install("-c", pins, f"{wheel}[cli]")
    if "usage" not in said(session, "otel-stageio", "--help").lower():
        session.error("otel-stageio --help says nothing of its usage")
    session.run("otel-stageio", "run", "job", "--stage", "mux", "--", "true")
    session.run("otel-stageio", "validate", "job")
    session.run("otel-stageio", "status", "job")
    session.run("python", "-m", "pip", "check")


def check_sdist(session: nox.Session, sdist: Path) -> None:
    """It holds all that is in the repository, so that its tests run from it."""
    if not (ROOT / ".git").exists():
        session.log("not a repository: what belongs into the sdist is not known here")
        return
    listed = session.run("git", "-C", str(ROOT), "ls-files", "-z", external=True, silent=True, log=False)
    tracked = set(str(listed).strip("\0").split("\0")) - {".editorconfig"}
    with tarfile.open(sdist) as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()} - {"PKG-INFO"}
    if missing := tracked - packed:
        session.error(f"not in the sdist: {sorted(missing)}")
    if more := packed - tracked:
        session.warn(f"in the sdist, and not in the repository: {sorted(more)}")


def check_wheel(session: nox.Session, wheel: Path, direct: Path) -> None:
    """It holds the package and nothing else, and is the same whether built from the sdist or from the tree."""
    with zipfile.ZipFile(wheel) as file, zipfile.ZipFile(direct) as other:
        contents = {info.filename: info.CRC for info in file.infolist()}
        directly = {info.filename: info.CRC for info in other.infolist()}
        text = file.read(next(name for name in contents if name.endswith(".dist-info/METADATA")))
    metadata = Metadata.from_email(text, validate=True)
    if missing := [name for name in NOT_CODE if f"otel_stageio/{name}" not in contents]:
        session.error(f"not in the wheel: {missing}")
    places = {name.split("/")[0] for name in contents}
    if strays := places - {"otel_stageio", f"otel_stageio-{metadata.version}.dist-info"}:
        session.error(f"the wheel carries more than the package: {sorted(strays)}")
    if contents != directly:
        differ = sorted({name for name, _ in contents.items() ^ directly.items()})
        session.error(f"the wheel from the sdist is not the wheel from the tree: {differ}")
    session.log(f"{metadata.name} {metadata.version}: {len(contents)} files, the same from the sdist and from the tree")


@nox.session
def types(session: nox.Session) -> None:
    """What a type checker of somebody else's sees of the installed wheel."""
    wheel = only(build(session, "--wheel"), "*.whl")
    program = str(shutil.copy(ROOT / "tests" / "typed_user.py", tmp(session)))
    pins = constraints(session, locked())
    away_from_the_tree(session)
    session.install("-c", pins, str(wheel), "mypy")
    session.run("mypy", "--strict", "--no-incremental", program)
    session.run("python", program)


# -- the ends of what is promised -------------------------------------------------------------------------------------

OLD, NEW = interpreter("3.10"), interpreter("3.13")


@nox.session
@nox.parametrize(
    ("python", "versions"),
    [
        nox.param(OLD, "oldest", id="3.10-oldest"),
        nox.param(NEW, "locked", id="3.13-locked"),
        nox.param(NEW, "newest", id="3.13-newest"),
        nox.param(OLD, "newest", id="3.10-newest"),
        nox.param(NEW, "oldest", id="3.13-oldest"),
    ],
)
def matrix(session: nox.Session, versions: str) -> None:
    """The oldest and the newest Python, with the oldest and the newest releases that are promised.

    ``oldest`` is each lower bound in pyproject.toml: to the letter on the oldest Python, on a newer one where there is
    a wheel. ``newest`` is what the index has today, ``locked`` what requirements/dev.txt has.
    The tests are those in the sdist, without the package beside them: what they import is the wheel.
    """
    dist = build(session)
    tree = unpacked(session, only(dist, "*.tar.gz"))
    shutil.rmtree(tree / "otel_stageio")

    pins = locked(TOOLS)
    tests, tools = TESTS, TOOLS
    if versions == "oldest":
        bounds = [oldest(requirement) for requirement in requirements("cli")]
        pins += bounds if session.python == OLD else having_wheels(session, bounds)
    elif versions == "locked":
        pins = locked()
    else:
        tests, tools = TESTS + NEWEST_TESTS, [*TOOLS, "opentelemetry-exporter-otlp-proto-common"]
    pinned = constraints(session, pins)
    away_from_the_tree(session)
    session.install("-c", pinned, f"{only(dist, '*.whl')}[cli]", *tools)
    show(session)

    session.chdir(tree)
    # What a dependency will one day no longer offer to another one is not ours to mend.
    quiet = ("-W", "ignore::DeprecationWarning") if versions == "oldest" else ()
    arguments = ("-q", "-p", "no:cacheprovider", *quiet, *session.posargs)
    session.run("python", "-m", "pytest", *arguments, *(f"tests/{name}" for name in tests))


def unpacked(session: nox.Session, sdist: Path) -> Path:
    place = tmp(session) / "sdist"
    shutil.rmtree(place, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(place)
    return only(place, "*")


def having_wheels(session: nox.Session, bounds: list[str]) -> list[str]:
    """Old releases have no wheels for Pythons that came after them: those packages are taken as new as need be."""
    kept = []
    for bound in bounds:
        try:
            said(session, "python", "-m", "pip", "install", "--quiet", "--dry-run", "--only-binary=:all:", bound)
            kept.append(bound)
        except nox.command.CommandFailed:
            session.log(f"{bound} has no wheel for this Python: not pinned")
    return kept


def show(session: nox.Session) -> None:
    session.log(said(session, "python", "--version"))
    names = {requirement.name for requirement in requirements("cli")} | {"protobuf", "click"}
    freeze = said(session, "python", "-m", "pip", "list", "--format=freeze")
    session.log(" ".join(line for line in freeze.splitlines() if line.partition("==")[0].lower() in names))
    code = "import sys, otel_stageio as o; assert o.__file__.startswith(sys.prefix), o.__file__"
    session.run("python", "-c", code, log=False)


# -- what it brings with it -------------------------------------------------------------------------------------------


@nox.session
def footprint(session: nox.Session) -> None:
    """What an installation takes, beside what else one might install."""
    wheel = only(build(session, "--wheel"), "*.whl")
    pins = constraints(session, locked())
    rows = []
    for name, wanted in {
        "otel-stageio": [str(wheel)],
        "otel-stageio[cli]": [f"{wheel}[cli]"],
        "opentelemetry-sdk, OTLP over HTTP": ["opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"],
        "logfire": ["logfire"],
    }.items():
        place = tmp(session) / "footprint"
        shutil.rmtree(place, ignore_errors=True)
        # Without bytecode, which Python writes as it needs it.
        options = ("--quiet", "--no-compile", "--target", str(place), "-c", pins)
        session.run("python", "-m", "pip", "install", *options, *wanted, log=False, silent=True)
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        rows.append(f"| {name} | {len(list(place.glob('*.dist-info')))} | {size / 2**20:.1f} |")
        shutil.rmtree(place)
    session.log("\n".join(["", "| Installed | Packages | MiB |", "|---|--:|--:|", *rows]))
