"""What each verb does, in the words that people see."""

import os
import stat
import subprocess

from fusecas._native import cbor_decode
from tests.cli.calling import NOT_UTF8, Place


def test_init_makes_a_repository_here(empty: Place) -> None:
    assert empty.ok("init").text == f"made {empty.repository}\n"
    assert empty.ok("head").text == "nothing yet\n"


def test_init_makes_a_repository_there(empty: Place) -> None:
    (empty.folder / "there").mkdir()
    empty.ok("init", "there")
    assert (empty.folder / "there/.fusecas/store").is_dir()


def test_a_second_init_changes_nothing(place: Place) -> None:
    before = place.ok("op", "log").stdout
    assert place.run("init").code == 4
    assert place.ok("op", "log").stdout == before


def test_log_of_an_empty_repository_says_what_to_do(empty: Place) -> None:
    empty.ok("init")
    answer = empty.ok("log")
    assert (answer.stdout, "fusecas import" in answer.stderr) == (b"", True)


def test_import_moves_the_head(place: Place) -> None:
    (place.folder / "source" / "new").write_text("new\n")
    before = place.ok("head").stdout
    answer = place.ok("import", "source", "-m", "third")
    assert answer.lines[0].split()[1] in place.ok("head").text
    assert place.ok("head").stdout != before


def test_import_of_the_same_changes_nothing(place: Place) -> None:
    assert place.ok("import", "source").text == "nothing changed\n"


def test_import_without_head_prints_only_the_layer(place: Place) -> None:
    before = place.ok("head").stdout
    layer = place.ok("import", "source/d", "--no-head").text.strip()
    assert (len(layer), place.ok("head").stdout) == (64, before)
    assert place.ok("ls", layer).lines == ["x"]


def test_import_leaves_the_repository_itself_out(place: Place) -> None:
    place.ok("import", ".")
    assert place.ok("ls").lines == ["source/"]


def test_import_records_what_differs_from_the_owner(place: Place) -> None:
    place.ok("import", "source", "--owner", "12345:12345", "-m", "of another")
    assert "owner" in place.ok("diff", "@~1", "@", "--only", "meta").text


def test_export_gives_back_what_was_imported(place: Place) -> None:
    place.ok("export", "@", "out")
    out = place.folder / "out"
    assert (out / "b.txt").read_text() == "one\ntwo\nthree\n"
    assert os.readlink(out / "link") == "a.txt"
    assert stat.S_IMODE((out / "d/x").stat().st_mode) == 0o755
    assert NOT_UTF8 in os.listdir(os.fsencode(out))
    assert place.ok("import", "out").text == "nothing changed\n"


def test_export_overwrites_only_when_told(place: Place) -> None:
    place.ok("export", "old", "out")
    assert place.run("export", "@", "out").code == 4
    place.ok("export", "@", "out", "--overwrite")
    assert (place.folder / "out/b.txt").read_text() == "one\ntwo\nthree\n"


def test_log_is_newest_first(shared: Place) -> None:
    assert [each.split("  ")[3] for each in shared.ok("log").lines] == ["second drop", "first drop"]


def test_history_is_oldest_first(shared: Place) -> None:
    assert shared.ok("history").lines == shared.ok("log").lines[::-1]


def test_log_shows_tags(shared: Place) -> None:
    assert shared.ok("log").lines[1].endswith("(old)")


def test_log_of_a_ref_begins_there(shared: Place) -> None:
    assert shared.ok("log", "old").lines == shared.ok("log").lines[1:]


def test_log_shows_the_first_line_of_a_message(place: Place) -> None:
    (place.folder / "source/new").touch()
    place.ok("import", "source", "-m", "subject\n\nbody")
    assert place.ok("log").lines[0].endswith("subject …")
    assert place.ok("head").text.endswith("subject …\n")


def test_inspect_shows_a_message_whole(place: Place) -> None:
    (place.folder / "source/new").touch()
    place.ok("import", "source", "-m", "subject\n\nbody")
    assert "message  subject\n\n         body\n" in place.ok("inspect").text


def test_lists_take_limit_and_offset(shared: Place) -> None:
    everything = shared.ok("ls", "-R").lines
    assert shared.ok("ls", "-R", "--limit", "2", "--offset", "3").lines == everything[3:5]


def test_lists_can_be_turned_round(shared: Place) -> None:
    assert shared.ok("ls", "--desc").lines == shared.ok("ls").lines[::-1]


def test_lists_are_sorted_by_a_field(shared: Place) -> None:
    sizes = [each["size"] for each in shared.ok("ls", "--sort", "size", "--desc", "--json").result]
    assert sizes == sorted(sizes, reverse=True)


def test_ls_shows_a_directory(shared: Place) -> None:
    assert shared.ok("ls").lines == ["b.txt", "bin", "c.txt", "caf\\xe9", "d/", "empty", "link"]


def test_ls_shows_everything_below(shared: Place) -> None:
    assert "d/x" in shared.ok("ls", "-R").lines


def test_ls_of_a_path_in_another_layer(shared: Place) -> None:
    assert shared.ok("ls", "old:d").lines == ["x"]


def test_ls_long_shows_modes_sizes_times_and_targets(shared: Place) -> None:
    lines = shared.ok("ls", "-lR").lines
    when = (shared.folder / "source/d/x").stat().st_mtime_ns // 1_000_000
    executable = next(each for each in lines if each.endswith("d/x")).split()
    assert executable[:2] == ["-rwxr-xr-x", "2"]
    assert shared.ok("ls", "@:d", "--json").result[0]["mtime"] == when
    assert next(each for each in lines if "->" in each).endswith("link -> a.txt")


def test_ls_long_shows_the_id_of_an_empty_file(shared: Place) -> None:
    assert "af1349b9f5f9  empty" in shared.ok("ls", "-l").text


def test_cat_gives_the_bytes_of_a_layer(shared: Place) -> None:
    assert shared.ok("cat", "old:b.txt").text == "one\ntwo\n"
    assert shared.ok("cat", "@:bin").stdout == bytes(range(256))
    assert shared.ok("cat", b"@:" + NOT_UTF8).text == "strange\n"


def test_cat_of_an_empty_file_is_empty(shared: Place) -> None:
    assert shared.ok("cat", "@:empty").stdout == b""


def test_diff_names_every_change_once(shared: Place) -> None:
    assert shared.ok("diff", "old", "@").lines == ["M b.txt", "A bin", "R a.txt -> c.txt", "m d/x  (mode)"]


def test_diff_without_renames(shared: Place) -> None:
    assert {"D a.txt", "A c.txt"} <= set(shared.ok("diff", "old", "@", "--no-renames").lines)


def test_diff_of_paths_only(shared: Place) -> None:
    assert shared.ok("diff", "old", "@", "--", "d").lines == ["m d/x  (mode)"]
    assert shared.ok("diff", "old", "@", "d").lines == ["m d/x  (mode)"]


def test_diff_of_one_ref_goes_to_what_is_there_now(place: Place) -> None:
    assert place.ok("diff", "old", "--", "b.txt", "d/x").lines == ["M b.txt", "m d/x  (mode)"]


def test_diff_only_meta_and_only_files(shared: Place) -> None:
    assert shared.ok("diff", "old", "@", "--only", "meta").lines == ["m d/x  (mode)"]
    assert "m d/x  (mode)" not in shared.ok("diff", "old", "@", "--only", "files").lines


def test_diff_says_by_its_exit_code_whether_there_is_one(shared: Place) -> None:
    assert shared.run("diff", "old", "@", "--exit-code").code == 1
    assert shared.run("diff", "@", "@", "--exit-code").code == 0
    assert shared.run("diff", "old", "@").code == 0


def test_diff_stat_counts_lines(shared: Place) -> None:
    lines = shared.ok("diff", "old", "@", "--stat").lines
    assert lines[0].split() == ["b.txt", "|", "1", "+"]
    assert lines[-1] == "4 paths changed, 1 line added, 0 removed"


def test_diff_as_a_patch_is_what_git_applies(place: Place) -> None:
    (place.folder / "source/bin").unlink()
    place.ok("import", "source")
    place.ok("export", "old", "out")
    patch = place.ok("diff", "old", "@", "-p").stdout
    subprocess.run(["git", "apply", "-"], cwd=place.folder / "out", input=patch, check=True)
    assert place.ok("import", "out").text == "nothing changed\n"


def test_diff_without_refs_is_what_is_uncommitted(place: Place) -> None:
    assert place.ok("diff").stdout == b""


def test_tag_names_the_head(place: Place) -> None:
    short = place.ok("head").text.split()[0]
    assert place.ok("tag", "v1").text == f"v1 is {short}\n"
    assert f"v1   {short}" in place.ok("tags").lines


def test_a_tag_is_moved_only_by_force(place: Place) -> None:
    before = place.ok("tags").stdout
    assert place.run("tag", "old", "@").code == 4
    assert place.ok("tags").stdout == before
    assert "(was " in place.ok("tag", "old", "@", "-f").text
    assert place.ok("tags").stdout != before


def test_a_tag_that_is_there_already_is_no_operation(place: Place) -> None:
    before = place.ok("op", "log").stdout
    place.ok("tag", "old", "@~1")
    assert place.ok("op", "log").stdout == before


def test_a_tag_is_removed(place: Place) -> None:
    place.ok("tag", "-d", "old")
    assert place.ok("tags").stdout == b""


def test_a_tag_wins_over_a_prefix_with_a_warning(place: Place) -> None:
    short = place.ok("log").lines[0].split()[0][:6]
    place.ok("tag", short, "old")
    answer = place.ok("log", short)
    assert answer.lines[0].split("  ")[3] == "first drop"
    assert f"hash:{short}" in answer.stderr
    assert place.ok("log", f"hash:{short}").lines[0].split("  ")[3] == "second drop"


def test_an_object_of_a_tag_that_looks_like_a_hash(place: Place) -> None:
    place.ok("tag", "abcd", "old")
    old = place.ok("inspect", "old", "--json").result["hash"]
    assert place.ok("closure", "abcd").lines[0].split()[0] == old


def test_put_and_get_are_inverse(place: Place) -> None:
    data = os.urandom(300_000)
    content = place.ok("put", "-", input=data).text.strip()
    assert place.ok("get", content).stdout == data
    assert place.ok("get", content[:16]).stdout == data


def test_put_outlives_a_gc(place: Place) -> None:
    content = place.ok("put", "-", input=b"kept").text.strip()
    place.ok("gc")
    assert place.ok("get", content).stdout == b"kept"


def test_what_was_put_goes_when_nothing_needs_it(place: Place) -> None:
    content = place.ok("put", "-", input=b"not kept").text.strip()
    place.ok("gc", "--min-age", "0")
    assert place.run("has", content).code == 1


def test_a_dry_run_of_gc_removes_nothing(place: Place) -> None:
    place.ok("gc", "--min-age", "0")
    content = place.ok("put", "-", input=b"still there").text.strip()
    assert place.ok("gc", "--min-age", "0", "--dry-run").text.startswith("would remove 1 object")
    assert place.ok("has", content).text == "yes\n"


def test_hash_is_what_put_prints_and_needs_no_repository(empty: Place, place: Place) -> None:
    data = os.urandom(100_000)
    assert empty.ok("hash", "-", input=data).stdout == place.ok("put", "-", input=data).stdout


def test_get_writes_a_file_whole_or_not_at_all(place: Place) -> None:
    content = place.ok("put", "-", input=b"whole").text.strip()
    target = place.folder / "target"
    target.write_text("before")
    assert place.run("get", "0" * 64, "-o", "target").code == 3
    assert target.read_text() == "before"
    place.ok("get", content, "-o", "target")
    assert target.read_bytes() == b"whole"
    assert [each.name for each in place.folder.iterdir() if "target" in each.name] == ["target"]


def test_get_raw_gives_the_bytes_of_a_node(shared: Place) -> None:
    assert set(cbor_decode(shared.ok("get", "@", "--raw").stdout)) >= {"v", "parents", "state", "message"}


def test_has_answers_by_its_exit_code(shared: Place) -> None:
    assert shared.run("has", "@").code == 0
    assert shared.run("has", "0" * 64).code == 1
    assert shared.run("has", "no-hash").code == 1


def test_the_empty_content_is_always_there(empty: Place) -> None:
    empty.ok("init")
    content = empty.ok("hash", "-", input=b"").text.strip()
    assert empty.ok("has", content).text == "yes\n"
    assert empty.ok("get", content).stdout == b""


def test_abbrev_names_one_object(shared: Place) -> None:
    full = shared.ok("inspect", "--json").result["hash"]
    short = shared.ok("abbrev", full).text.strip()
    assert len(short) >= 4 and full.startswith(short)
    assert shared.ok("abbrev", "--min", "20", full).text.strip() == full[:20]


def test_closure_holds_everything_once(shared: Place) -> None:
    ids = [each.split()[0] for each in shared.ok("closure", "@", "old").lines]
    assert len(ids) == len(set(ids))
    assert set(ids) == {each.split()[0] for each in shared.ok("closure", "@").lines}


def test_refs_are_what_an_object_names_itself(shared: Place) -> None:
    assert sorted(each.split()[1] for each in shared.ok("refs", "@").lines) == ["layer", "state"]


def test_verify_is_content_with_a_whole_store(shared: Place) -> None:
    assert "as they should be" in shared.ok("verify").text
    assert shared.ok("verify", "old", "--json").result["ok"] < shared.ok("verify", "--json").result["ok"]


def test_stats_add_up(shared: Place) -> None:
    found = shared.ok("stats", "--json").result
    assert found["layers"] == 2
    assert found["objects"] == sum(each["objects"] for each in found["kinds"].values())
    assert f"all{found['objects']}" in shared.ok("stats").text.replace(" ", "")


def test_op_log_says_what_was_typed(shared: Place) -> None:
    typed = ["tag old '@~1'", "import source -m 'second drop'", "import source -m 'first drop'", "init"]
    lines = shared.ok("op", "log").lines
    assert all(line.endswith(" " + each) for line, each in zip(lines, typed, strict=True)), lines


def test_op_log_of_one_ref(place: Place) -> None:
    place.ok("tag", "-d", "old")
    assert [each["argv"] for each in place.ok("op", "log", "old", "--json").result] == [
        ["tag", "-d", "old"],
        ["tag", "old", "@~1"],
    ]
    assert [each["verb"] for each in place.ok("op", "log", "@", "--json").result] == ["import", "import", "init"]
