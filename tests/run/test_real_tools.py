"""Build tools as people use them: what a hit or a checkout leaves is up to date, or is built again, as they see it."""

import shutil
from pathlib import Path

import pytest

from tests.run.conftest import Runner


class Make:
    """Two objects and a program."""

    build = "make"
    says_where = False
    source = "main.c"
    runs = "./program"

    @staticmethod
    def lay_out(place: Path) -> None:
        (place / "Makefile").write_text(
            "program: main.o part.o\n\tcc -o $@ $^\nmain.o part.o: part.h\n%.o: %.c\n\tcc -c -o $@ $<\n"
        )
        (place / "part.h").write_text("int part(void);\n")
        (place / "part.c").write_text('#include "part.h"\nint part(void) { return 7; }\n')
        Make.write(place, 1)

    @staticmethod
    def write(place: Path, version: int) -> None:
        (place / "main.c").write_text(
            '#include <stdio.h>\n#include "part.h"\n'
            f'int main(void) {{ printf("{version} %d\\n", part()); return 0; }}\n'
        )

    @staticmethod
    def says(version: int) -> str:
        return f"{version} 7\n"

    @staticmethod
    def has_built(said: str) -> bool:
        return "cc " in said


class Cargo:
    says_where = True
    build = "cargo build --offline --target-dir target 2>&1"
    source = "src/main.rs"
    runs = "target/debug/built"

    @staticmethod
    def lay_out(place: Path) -> None:
        (place / "Cargo.toml").write_text('[package]\nname = "built"\nversion = "0.1.0"\nedition = "2021"\n')
        (place / "src").mkdir()
        (place / "src" / "part.rs").write_text("pub fn part() -> u8 { 7 }\n")
        Cargo.write(place, 1)

    @staticmethod
    def write(place: Path, version: int) -> None:
        (place / "src" / "main.rs").write_text(
            f'mod part;\nfn main() {{ println!("{version} {{}}", part::part()); }}\n'
        )

    @staticmethod
    def says(version: int) -> str:
        return f"{version} 7\n"

    @staticmethod
    def has_built(said: str) -> bool:
        return "Compiling" in said


Builder = type[Make] | type[Cargo]
BUILDERS: list[Builder] = [each for each, program in ((Make, "make"), (Cargo, "cargo")) if shutil.which(program)]


@pytest.fixture(params=BUILDERS, ids=lambda each: each.__name__.lower())
def builder(request: pytest.FixtureRequest) -> Builder:
    found: Builder = request.param
    return found


@pytest.fixture
def built(runner: Runner, builder: Builder) -> Runner:
    runner.json("true")
    builder.lay_out(runner.work)
    assert builder.has_built(str(runner.json(builder.build)["stdout"]))
    return runner


def said(runner: Runner, builder: Builder) -> str:
    return runner.shell(builder.runs)


def test_after_a_hit_there_is_nothing_to_build_and_after_an_edit_there_is(built: Runner, builder: Builder) -> None:
    built.ok("undo")
    again = built.json(builder.build)
    assert again["cached"] is True and said(built, builder) == builder.says(1)
    assert not builder.has_built(built.shell(builder.build))
    builder.write(built.work, 2)
    second = built.json(builder.build)
    assert (
        second["cached"] is False
        and builder.has_built(str(second["stdout"]))
        and said(built, builder) == builder.says(2)
    )
    built.ok("undo")
    assert built.json(builder.build)["cached"] is True and said(built, builder) == builder.says(2)
    assert not builder.has_built(built.shell(builder.build))


def test_going_back_and_forth_needs_no_building(built: Runner, builder: Builder) -> None:
    builder.write(built.work, 2)
    built.json(builder.build)
    for ref, version in (("@~2", 1), ("@{1}", 2), ("@~2", 1)):
        built.ok("checkout", ref)
        assert said(built, builder) == builder.says(version)
        assert not builder.has_built(built.shell(builder.build))


def test_a_source_that_comes_back_alone_is_built(built: Runner, builder: Builder) -> None:
    """Its old time would be older than what was built of the newer one."""
    builder.write(built.work, 2)
    built.json(builder.build)
    built.ok("checkout", "@~2", "--", builder.source)
    assert builder.has_built(built.shell(builder.build)) and said(built, builder) == builder.says(1)


def test_what_another_fork_has_built_serves_an_edit_here(built: Runner, builder: Builder) -> None:
    """The delta of a hit comes among sources with times of their own. What says where it was built is built here."""
    built.ok("fork", "other")
    other = built.work / ".fusecas" / "ws" / "other"
    cached = []
    for place, ws in ((other, "other"), (built.work, "main")):
        builder.write(place, 2)
        cached.append(built.json("--ws", ws, builder.build)["cached"])
    assert cached == [False, not builder.says_where]
    assert said(built, builder) == builder.says(2)
    assert not builder.has_built(built.shell(builder.build))


def test_a_failed_build_that_is_taken_back_or_tried_again(built: Runner, builder: Builder) -> None:
    right = (built.work / builder.source).read_text()
    (built.work / builder.source).write_text("no program\n")
    assert built.run("run", "--on-failure", "rollback", builder.build).code not in (0, 125)
    (built.work / builder.source).write_text(right)
    assert built.json(builder.build)["exit_code"] == 0 and said(built, builder) == builder.says(1)
    (built.work / builder.source).write_text("no program\n")
    assert built.run("run", builder.build).code not in (0, 125)
    builder.write(built.work, 3)
    assert built.json(builder.build)["exit_code"] == 0 and said(built, builder) == builder.says(3)


NPM = [shutil.which("npm")] if shutil.which("npm") else []


@pytest.mark.parametrize("npm", NPM)
def test_a_script_of_npm_runs_once_for_each_mode(runner: Runner, npm: str) -> None:
    runner.json("true")
    counter = runner.counter
    (runner.work / "package.json").write_text(
        '{"name": "x", "version": "1.0.0", "scripts": {"build": "node build.js"}}'
    )
    (runner.work / "build.js").write_text(
        "const fs = require('fs');\n"
        f"fs.appendFileSync({str(counter)!r}, 'x\\n');\n"
        "fs.mkdirSync('dist', {recursive: true});\n"
        "fs.writeFileSync('dist/mode', process.env.NODE_ENV || 'none');\n"
    )
    env = {"HOME": str(runner.folder), "npm_config_update_notifier": "false"}
    text = f"{npm} run build"
    for mode, cached in (("development", False), ("production", False), ("development", True), ("production", True)):
        came = runner.json(text, env={**env, "NODE_ENV": mode})
        assert came["cached"] is cached and (runner.work / "dist" / "mode").read_text() == mode
        if not cached and mode == "production":
            assert came["missed"]["env"] == ["NODE_ENV"]  # type: ignore[index]
        runner.ok("undo")
    assert runner.executions == 2


@pytest.mark.parametrize("npm", NPM)
def test_an_install_of_npm_is_served(runner: Runner, npm: str) -> None:
    runner.json("true")
    (runner.work / "package.json").write_text('{"name": "x", "version": "1.0.0"}')
    (runner.work / "dep").mkdir()
    (runner.work / "dep" / "package.json").write_text('{"name": "dep", "version": "1.0.0", "main": "main.js"}')
    (runner.work / "dep" / "main.js").write_text("module.exports = 7;\n")
    env = {"HOME": str(runner.folder), "npm_config_offline": "true", "npm_config_audit": "false"}
    text = runner.counted(f"{npm} install --no-fund ./dep")
    assert runner.json(text, env=env)["exit_code"] == 0
    runner.ok("undo")
    assert not (runner.work / "node_modules").exists()
    assert runner.json(text, env=env)["cached"] is True and runner.executions == 1
    assert runner.shell("node -p 'require(\"dep\")'") == "7\n"
