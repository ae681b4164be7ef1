"""The image: linted by hadolint, built from locked wheels, run by a user that is not root.

No image is built here (that needs a daemon and a base image); what the build stage installs is: the wheel, from exactly
the files that .dockerignore lets through.
"""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HADOLINT = Path(sys.executable).parent / "hadolint"


def instructions():
    """(instruction, arguments) of the Dockerfile, continued lines joined, comments left out."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def stages():
    """Instructions by stage."""
    found = []
    for instruction, arguments in instructions():
        if instruction == "FROM":
            found.append([])
        found[-1].append((instruction, arguments))
    return found


def test_hadolint_has_nothing_to_say():
    done = subprocess.run(
        [HADOLINT, "--config", ROOT / ".hadolint.yaml", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_say_something(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /tmp\n")
    done = subprocess.run(
        [HADOLINT, "--config", ROOT / ".hadolint.yaml", tmp_path / "Dockerfile"], capture_output=True, check=False
    )
    assert done.returncode != 0


def test_it_runs_as_a_number_that_is_not_root_and_from_a_stage_that_installs_nothing():
    *_, final = stages()
    users = [arguments for instruction, arguments in final if instruction == "USER"]
    assert len(users) == 1
    assert all(int(number) > 0 for number in users[0].split(":"))
    assert not [arguments for instruction, arguments in final if instruction == "RUN" and "pip" in arguments]
    assert ("ENTRYPOINT", '["sidecar"]') in final
    assert ("CMD", '["run"]') in final


def test_base_images_are_tagged_the_last_one_slim_and_dependencies_locked_by_hash():
    build, final = [arguments.split()[0] for instruction, arguments in instructions() if instruction == "FROM"]
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", final)
    assert build == final.replace("-slim", "")  # the same system, with a compiler
    installs = [part for instruction, run in instructions() if instruction == "RUN" for part in run.split("&&")]
    [*locked, project] = [part for part in installs if "pip install" in part]
    assert len(locked) == 2
    assert all("--require-hashes" in part and "--only-binary :all:" in part for part in locked)
    assert "SIDECAR_COMPILE=1" in project
    assert "--no-deps" in project
    assert "--no-build-isolation" in project


def pinned(name):
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


def test_the_image_has_what_the_demo_has_in_the_same_versions_and_opentelemetry():
    demo, image = pinned("requirements.txt"), pinned("requirements-image.txt")
    assert image | demo == image
    assert "opentelemetry-sdk" not in demo
    assert {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"} <= image.keys()
    assert not [name for name in image if name.startswith("pytest")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that the build stage installs, built from the build context."""
    context, out = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("wheel")
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line.startswith("!"):
            continue
        source = ROOT / line[1:]
        if source.is_dir():
            shutil.copytree(source, context / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(source, context)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run([*pip, "-w", out, context], check=True, capture_output=True, timeout=100)
    [built] = out.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_the_package_its_data_and_the_examples(wheel):
    names = set(wheel.namelist())
    for name in ("agent.py", "fake_llm.py", "fake_llm_words.py", "plans/demo.yaml", "plans/fin.yaml"):
        assert f"sidecar/_examples/{name}" in names
    tracked = subprocess.run(["git", "ls-files", "sidecar"], cwd=ROOT, capture_output=True, text=True, check=True)
    present = {name for name in tracked.stdout.split() if (ROOT / name).exists()}
    assert present <= names
    assert not [name for name in names if "__pycache__" in name]


def test_the_demo_finds_its_examples_in_an_installed_wheel(wheel, tmp_path):
    wheel.extractall(tmp_path)
    code = "from sidecar.demo.examples import examples_dir, load_agent; f = examples_dir(); load_agent(f); print(f)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == str(tmp_path / "sidecar" / "_examples")


def test_what_the_chart_runs_stands_where_the_image_puts_it():
    values = (ROOT / "helm" / "outcome-sidecar" / "values.yaml").read_text()
    fake_llm = (ROOT / "helm" / "outcome-sidecar" / "templates" / "fake-llm.yaml").read_text()
    [link] = re.findall(
        r"ln -s lib/python3\.\d+/site-packages/sidecar/_examples (\S+)", (ROOT / "Dockerfile").read_text()
    )
    for text in (values, fake_llm):
        for folder, name in re.findall(r"(/opt/\S+)/(\w+\.py)", text):
            assert folder == link
            assert (ROOT / "examples" / name).is_file()
    assert f"{link}/agent.py" in values
