"""Which repository a command works on."""

import pytest

from tests.cli.calling import Place


def test_the_nearest_repository_upward_is_found(place: Place) -> None:
    below = place.folder / "source/d"
    assert place.ok("head", cwd=below).stdout == place.ok("head").stdout


def test_repo_names_the_folder_itself(shared: Place, empty: Place) -> None:
    head = shared.ok("head").stdout
    assert empty.ok("head", "--repo", str(shared.repository)).stdout == head
    assert empty.ok("--repo", str(shared.repository), "head").stdout == head


@pytest.mark.parametrize("variable", ["FUSECAS_DIR", "STATEKIT_DIR", "E3_REPO"])
def test_a_variable_names_the_folder_itself(shared: Place, empty: Place, variable: str) -> None:
    assert empty.ok("head", env={variable: str(shared.repository)}).stdout == shared.ok("head").stdout


def test_fusecas_dir_wins_over_its_aliases(shared: Place, empty: Place) -> None:
    variables = {"FUSECAS_DIR": str(shared.repository), "STATEKIT_DIR": "/none", "E3_REPO": "/none"}
    assert empty.ok("head", env=variables).stdout == shared.ok("head").stdout


def test_repo_wins_over_the_environment(shared: Place) -> None:
    answer = shared.run("head", "--repo", "/none", env={"FUSECAS_DIR": str(shared.repository)})
    assert (answer.code, "--repo: /none" in answer.stderr) == (3, True)


def test_an_empty_variable_is_none(shared: Place) -> None:
    shared.ok("head", env={"FUSECAS_DIR": ""})


def test_a_wrong_variable_is_named(shared: Place) -> None:
    answer = shared.run("head", env={"E3_REPO": "/none"})
    assert (answer.code, "E3_REPO: /none" in answer.stderr) == (3, True)


def test_the_folder_above_is_not_the_repository_but_hinted_at(shared: Place) -> None:
    answer = shared.run("head", "--repo", str(shared.folder))
    assert (answer.code, str(shared.repository) in answer.stderr) == (3, True)


def test_outside_of_any_repository(empty: Place) -> None:
    answer = empty.run("head", cwd="/")
    assert (answer.code, "fusecas init" in answer.stderr) == (3, True)


def test_init_makes_the_folder_that_the_environment_names(empty: Place) -> None:
    empty.ok("init", env={"FUSECAS_DIR": str(empty.folder / "elsewhere")})
    assert (empty.folder / "elsewhere/store").is_dir()
    assert not empty.repository.exists()
